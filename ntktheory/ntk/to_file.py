"""Kernels larger than memory: written tile by tile to a ``.npy`` file that a killed run resumes."""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ntktheory.checks import complaint
from ntktheory.functional import FunctionalModel, Masks, Select, masked
from ntktheory.ntk.contractions import Output, swapped
from ntktheory.ntk.kernel import check_kernel_finite, tiles
from ntktheory.ntk.layerwise import RulesDisagree
from ntktheory.ntk.problem import Engine, Problem, prepare


def ntk_to_file(
    model: nn.Module | FunctionalModel,
    x1: Tensor,
    x2: Tensor | None = None,
    *,
    path: str | os.PathLike[str],
    output: Output = "full",
    select: Select = None,
    masks: Masks | None = None,
    engine: Engine = "auto",
    chunk_size: int | None = None,
    budget_bytes: int | None = None,
    progress: bool = False,
) -> np.memmap:
    """Compute ``empirical_ntk`` into a ``.npy`` file, one tile at a time.

    The tiles go to ``<path>.partial``, and ``<path>.tiles`` lists those that are done; when all are,
    the file gets its name. After a crash or a kill the same call goes on where the last one stopped,
    and ends with the same bytes. While it runs, memory holds two chunks of samples.

    Args:
        model: As for ``empirical_ntk``, which has the definitions.
        x1: N samples, sample axis first.
        x2: M samples, or None.
        path: The file to write; its folder must exist.
        output: "full" [N, M, C, C], "trace" [N, M] or "diagonal" [N, M, C].
        select: Which parameters.
        masks: Parameter name -> mask.
        engine: Which engine.
        chunk_size: Samples per tile; None plans it from the budget.
        budget_bytes: What two chunks may hold; None means 1 GiB.
        progress: Show a progress bar over the rows of tiles.

    Returns:
        The finished kernel, memory-mapped for reading.

    Raises:
        ValueError: As for ``empirical_ntk``; or if the folder does not exist, ``path`` does, or what
            stands there was begun with other parameters, data or options.
        UnsupportedModule: If ``engine="layerwise"`` and a selected parameter has no layer rule.
        RulesDisagree: If ``engine="layerwise"`` and the network reorders its batch inside, or chooses
            layers by its data; under "auto" all tiles are then made anew from rows, and a killed run
            goes on with ``engine="jacobian"``.
        NumericalError: If a tile is not finite; the tiles before it stay.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     theta = ntk_to_file(nn.Linear(3, 2), torch.ones(4, 3), path=f"{folder}/ntk.npy")
        >>> theta.shape
        (4, 4, 2, 2)
    """
    target = Path(path)
    _check_target(target)
    plan = (model, x1, x2, output, select, masks)
    problem = prepare(*plan, engine, chunk_size, budget_bytes)
    try:
        return _written(target, problem, x1, x2, progress)
    except RulesDisagree:
        if engine != "auto":
            raise
    for unfinished in _unfinished(target):  # begin anew, by rows
        unfinished.unlink()
    problem = prepare(*plan, "jacobian", chunk_size, budget_bytes)
    return _written(target, problem, x1, x2, progress)


def _written(
    target: Path, problem: Problem, x1: Tensor, x2: Tensor | None, progress: bool
) -> np.memmap:
    partial, ledger = _unfinished(target)
    output = problem.output
    run = _fingerprint(problem, x1, x2)
    done = _read(ledger, run) if partial.exists() else set()
    kernel = _open(partial, problem, x1, x1 if x2 is None else x2, fresh=not ledger.exists())
    _write(ledger, run, done)
    for i, j, tile in tiles(problem, x1, x2, done=done, progress=progress):
        check_kernel_finite(tile)
        values = tile.detach().cpu().numpy()
        kernel[i : i + values.shape[0], j : j + values.shape[1]] = values
        if x2 is None and i != j:
            flipped = swapped(tile, output).detach().cpu().numpy()
            kernel[j : j + flipped.shape[0], i : i + flipped.shape[1]] = flipped
        kernel.flush()
        done.add((i, j))
        _write(ledger, run, done)
    del kernel
    partial.replace(target)
    ledger.unlink()
    return np.load(target, mmap_mode="r", allow_pickle=False)


def _unfinished(target: Path) -> tuple[Path, Path]:
    """Return the files of tiles, and of which tiles are done, while a kernel is being written."""
    return target.with_name(target.name + ".partial"), target.with_name(target.name + ".tiles")


def _check_target(target: Path) -> None:
    if not target.parent.is_dir():
        raise ValueError(
            complaint("path", "in a folder that exists", str(target), "Create the folder first.")
        )
    if target.exists():
        raise ValueError(
            complaint("path", "a new file", str(target), "Remove that file or choose another name.")
        )


def _fingerprint(problem: Problem, x1: Tensor, x2: Tensor | None) -> str:
    """Hash everything that the bytes of the result depend on."""
    parts: list[tuple[str, Tensor | None]] = [("x1", x1), ("x2", x2)]
    parts += [*problem.model.params.items(), *problem.model.buffers.items()]
    parts += [(f"mask {name}", mask) for name, mask in sorted(problem.masks.items())]
    effective = masked(problem.model.params, problem.masks)
    for x in (x1, x2):
        if x is not None:  # what the layers do in between shows in the outputs only
            parts.append(("f", problem.model.model_fn(effective, x[[0, -1]])))
    digest = hashlib.sha256()
    for name, tensor in parts:
        digest.update(name.encode())
        if tensor is not None:
            digest.update(f"{tensor.dtype}{list(tensor.shape)}".encode())
            digest.update(
                tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes()
            )
    options = [
        problem.layerwise,
        problem.jacobian,
        problem.by_products,
        problem.output,
        problem.chunk,
    ]
    digest.update(json.dumps(options).encode())
    return digest.hexdigest()


def _open(partial: Path, problem: Problem, x1: Tensor, x2: Tensor, *, fresh: bool) -> np.memmap:
    if partial.exists() and not fresh:
        return np.lib.format.open_memmap(partial, mode="r+")
    dtype = torch.empty(0, dtype=next(iter(problem.model.params.values())).dtype).numpy().dtype
    return np.lib.format.open_memmap(partial, mode="w+", dtype=dtype, shape=problem.shape(x1, x2))


def _read(ledger: Path, run: str) -> set[tuple[int, int]]:
    if not ledger.exists():
        return set()
    record = json.loads(ledger.read_text())
    if record["run"] != run:
        raise ValueError(
            complaint(
                "path",
                "free, or begun with the same parameters, data and options",
                f"tiles of another run in {ledger.name}",
                "Remove the .partial and .tiles files, or choose another name.",
            )
        )
    return {(i, j) for i, j in record["done"]}


def _write(ledger: Path, run: str, done: Iterable[tuple[int, int]]) -> None:
    """Replace the list of finished tiles in one step."""
    temporary = ledger.with_name(ledger.name + ".new")
    temporary.write_text(json.dumps({"run": run, "done": sorted(done)}))
    temporary.replace(ledger)
