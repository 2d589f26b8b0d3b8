"""A pruning run on disk, so that it can be continued: masks, rounds and the generator's state.

One safetensors file: a bool tensor per layer, the state of the generator, and as metadata what run it
is, the history and the batches. A run is known by its settings, by digests of the model's tensors and of
the batch, and by the names of functions that it is given: two losses of one name look the same. Objects
that could not be compared are refused. Where the batch depends on the round, those of the first and of
the last complete round are compared.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ntktheory.checks import complaint
from ntktheory.functional import FunctionalModel
from ntktheory.pruning.mask_files import read_tensors, versions, write_tensors
from ntktheory.pruning.rounds import Round

FORMAT = "ntktheory pruning run 2"
MASK, GENERATOR = "mask/", "generator"

Run = dict[str, Any]
Digests = tuple[Any, ...]


def describe_run(settings: Mapping[str, Any], net: FunctionalModel) -> Run:
    """Return what identifies a run, made of what JSON knows.

    Args:
        settings: Scorer, density and so on; tensors in it become digests.
        net: The model.

    Returns:
        The settings, and the shapes and a digest of the model's tensors.

    Raises:
        TypeError: If a setting is an object that could not be compared.
    """
    shapes = {name: list(net.params[name].shape) for name in net.prunable}
    tensors = {**net.params, **net.buffers}
    run = {**settings, "model shapes": shapes, "model tensors": tensors}
    return {key: described(value, key) for key, value in run.items()}


def save_run(
    path: Path,
    run: Run,
    masks: Mapping[str, Tensor],
    history: tuple[Round, ...],
    batches: Digests,
    generator: torch.Generator | None,
) -> None:
    """Write a run after a round; the file appears whole or not at all.

    Args:
        path: Its file.
        run: What it is, of ``describe_run``.
        masks: Those after the round.
        history: The rounds.
        batches: The batch of each round, ``described``; none if it is one for all.
        generator: Its generator.
    """
    tensors = {MASK + name: mask for name, mask in masks.items()}
    if generator is not None:
        tensors[GENERATOR] = generator.get_state()
    said = {
        "format": FORMAT,
        "run": json.dumps(run),
        "history": json.dumps([asdict(entry) for entry in history]),
        "batches": json.dumps(batches),
        "versions": json.dumps(versions()),
    }
    write_tensors(path, tensors, said)


def load_run(
    path: Path,
    run: Run,
    batch_of: Callable[[int], Any] | None,
    generator: torch.Generator | None,
) -> tuple[dict[str, Tensor], tuple[Round, ...], Digests]:
    """Read a run, and set the generator to where it was.

    Args:
        path: Its file.
        run: What it must be, of ``describe_run``.
        batch_of: From the number of a round to its batch; None if that is one for all, and in ``run``.
        generator: Its generator.

    Returns:
        Masks, on the CPU, history, and the batches of the rounds as ``save_run`` was told.

    Raises:
        ValueError: If the file cannot be read, is no run, or that of another run; the message says
            what differs.
    """
    tensors, said = read_tensors(path, "resume")
    if said.get("format") != FORMAT:
        raise ValueError(
            complaint(
                "resume",
                "a file that prune wrote",
                f"{path}, {said.get('format', 'of another kind')}",
                "Name another file; this one was left alone.",
            )
        )
    stored, history = json.loads(said["run"]), json.loads(said["history"])
    batches = tuple(json.loads(said["batches"]))
    if batch_of is not None and batches:
        last = len(batches) - 1
        looked_at = [0, last] if last else [0]
        stored |= {f"batch of round {k}": batches[k] for k in looked_at}
        run = run | {f"batch of round {k}": described(batch_of(k), "batch") for k in looked_at}
    differing = [key for key in {**stored, **run} if stored.get(key) != run.get(key)]
    if differing:
        texts = [f"{key} {_short(stored.get(key))} for {_short(run.get(key))}" for key in differing]
        raise ValueError(
            complaint(
                "resume",
                "a file of this run",
                f"{path} with {'; '.join(texts)}",
                "Name another file, or use the settings of this one.",
            )
        )
    if generator is not None:
        generator.set_state(tensors[GENERATOR])
    masks = {
        name.removeprefix(MASK): t.bool() for name, t in tensors.items() if name.startswith(MASK)
    }
    return masks, tuple(Round(**entry) for entry in history), batches


def described(value: Any, argument: str = "value") -> Any:
    """Return a value as JSON knows it: tensors and arrays as digests, functions by name.

    Args:
        value: Anything made of tensors, numpy arrays, numbers, texts, paths, torch's types and devices,
            functions and modules, in tuples, lists and dictionaries.
        argument: What error messages call it.

    Returns:
        What tells it from others. Functions of one name look the same; modules are known by their type
        and their tensors, and partial functions by their arguments too.

    Raises:
        TypeError: If it is made of other objects: they could not be compared.

    Example:
        >>> described((torch.zeros(2), 0.5, Path.exists))
        [['torch.float32', [2], 'af5570f5a1810b7a'], 0.5, 'Path.exists']
    """
    if isinstance(value, Tensor):
        plain = value.detach().cpu().contiguous()
        return _digest(str(value.dtype), plain.reshape(-1).view(torch.uint8).numpy(), value.shape)
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return _digest(str(value.dtype), np.frombuffer(value.tobytes(), np.uint8), value.shape)
    if isinstance(value, Mapping):
        return {str(key): described(v, f"{argument}[{key!r}]") for key, v in value.items()}
    if isinstance(value, tuple | list):
        return [described(v, f"{argument}[{place}]") for place, v in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return described(value.item(), argument)
    if isinstance(value, torch.dtype | torch.device | Path):
        return str(value)
    name = getattr(value, "__qualname__", type(value).__qualname__)
    if isinstance(value, functools.partial):
        return [name, described([value.func, value.args, value.keywords], argument)]
    if isinstance(value, nn.Module) and value.state_dict():
        return [name, described(value.state_dict(), argument)]
    if callable(value):
        return name
    raise TypeError(
        complaint(
            argument,
            "made of tensors, arrays, numbers, texts and functions, to be compared on resuming",
            type(value).__name__,
            "Convert it, or keep no file to resume from.",
        )
    )


def _digest(kind: str, data: np.ndarray, shape: Sequence[int]) -> list[Any]:
    digest = hashlib.sha256(np.ascontiguousarray(data).data).hexdigest()
    return [kind, list(shape), digest[:16]]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 80 else f"{text[:60]} …"
