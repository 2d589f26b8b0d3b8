"""The empirical neural tangent kernel, exactly, by the fastest engine that applies."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ntktheory.checks import (
    UnsupportedModule,
    check_batch,
    check_choice,
    check_count,
    check_finite,
    check_masks,
    complaint,
)
from ntktheory.functional import (
    FunctionalModel,
    Masks,
    Select,
    batch_size,
    check_network,
    functional,
    masked,
    selected,
    take,
)
from ntktheory.ntk.attention import exact_attention
from ntktheory.ntk.contractions import (
    OUTPUTS,
    Contraction,
    Output,
    choose,
    finish,
    ghost_tile,
    gram,
    linear_tile,
    masked_linear_tile,
    mirror,
)
from ntktheory.ntk.jacobian import jacobian_rows
from ntktheory.ntk.layerwise import Plan, RulesDisagree, block, factors, plan
from ntktheory.ntk.rules import Factors, LayerCall

Engine = Literal["auto", "layerwise", "jacobian", "ntk_vp"]
ENGINES: tuple[Engine, ...] = ("auto", "layerwise", "jacobian", "ntk_vp")
CHUNK_BYTES = 1 << 30


@dataclass(frozen=True)
class Problem:
    """One kernel to compute: the network, its masks, and which engine differentiates what.

    Attributes:
        model: The network.
        masks: Its masks.
        layers: Its layer calls.
        layerwise: Parameters differentiated by layer rules.
        jacobian: Parameters differentiated row by row.
        by_products: Whether the engine is "ntk_vp".
        names: All selected parameters.
        output: What to keep of each pair of samples.
        c: Number of outputs C.
        chunk: Samples per tile.
    """

    model: FunctionalModel
    masks: Masks
    layers: Plan
    layerwise: tuple[str, ...]
    jacobian: tuple[str, ...]
    by_products: bool = False
    names: tuple[str, ...] = ()
    output: Output = "full"
    c: int = 1
    chunk: int = 1

    def contraction(self, call: LayerCall) -> Contraction | None:
        """Choose how the weight of a call is contracted; None if it is not wanted."""
        name = call.weight
        if name is None or name not in self.layerwise:
            return None
        shared = name not in self.layers.single_use()
        return choose(call, self.c, self.output, masked=name in self.masks, shared=shared)

    def shape(self, x1: Tensor, x2: Tensor) -> tuple[int, ...]:
        """Return the kernel's shape."""
        pairs, c = (x1.shape[0], x2.shape[0]), self.c
        return {"full": (*pairs, c, c), "trace": pairs, "diagonal": (*pairs, c)}[self.output]


@dataclass(frozen=True)
class _Rows:
    """What a chunk of samples contributes: layer factors, and Jacobian rows of other parameters.

    The engine "ntk_vp" keeps the samples themselves.
    """

    made: list[Factors]
    rows: dict[str, Tensor]
    samples: Any


def empirical_ntk(
    model: nn.Module | FunctionalModel,
    x1: Tensor,
    x2: Tensor | None = None,
    *,
    output: Output = "full",
    select: Select = None,
    masks: Masks | None = None,
    engine: Engine = "auto",
    chunk_size: int | None = None,
    budget_bytes: int | None = None,
    progress: bool = False,
) -> Tensor:
    """Compute the exact empirical NTK ``Θ = J(x1) J(x2)ᵀ``; sums, never means.

    ``Theta[n, m, c, c'] = Σ_j ∂f_c(x1_n)/∂θ_j · ∂f_c'(x2_m)/∂θ_j`` over the selected parameters.
    With masks the network is f(θ⊙m, x), so J is ``J(θ⊙m) diag(m)``.

    Args:
        model: A module in eval mode, or a FunctionalModel, with outputs [N, C].
        x1: N samples, sample axis first.
        x2: M samples; None means x1, and each pair is then computed once.
        output: "full" Θ as [N, M, C, C]; "trace" its sum over c = c' as [N, M]; "diagonal" its
            entries c = c' as [N, M, C].
        select: None for all parameters, "prunable", names, or ``predicate(name, tensor)``.
        masks: Parameter name -> bool tensor, True = kept; missing names are unmasked.
        engine: "layerwise" (from layer inputs and cotangents; see ``rules.py``), "jacobian" (any
            module, explicit rows), "ntk_vp" (any module, one pair of samples at a time: slow, and
            never more than C·P numbers), or "auto": layerwise wherever its rules hold, else
            jacobian, per parameter.
        chunk_size: Samples per tile; None plans it from the budget.
        budget_bytes: What two chunks of samples may hold at a time, planned before anything is
            allocated; None means 1 GiB. The kernel itself comes on top: ``ntk_to_file`` keeps it on
            disk.
        progress: Show a progress bar over the tiles.

    Returns:
        The kernel in the model's dtype and device.

    Raises:
        ValueError: If an option is unknown, a batch or mask does not fit, the model is in train mode,
            or the budget is too small for one sample.
        UnsupportedModule: If ``engine="layerwise"`` and a selected parameter has no layer rule.
        RulesDisagree: If ``engine="layerwise"`` and the network reorders its batch inside.
        NumericalError: If the kernel is not finite.

    Cost:
        Layerwise: one forward and C backward passes per chunk (a chunk of columns is passed again
        for every chunk of rows) and a few forward passes of at most two samples, then per layer
        N·M·(D + C²·O) for a Linear D→O and (N·C + M·C)·S·O·D + N·M·C²·O·D for a convolution with S
        positions.

    Source:
        NTK-SAP §4; Novak et al. 2022 for the choice of contraction. Tested against
        ``ntk/reference.py``.

    Example:
        >>> net = nn.Linear(3, 2, bias=False)
        >>> empirical_ntk(net, torch.ones(1, 3))[0, 0]
        tensor([[3., 0.],
                [0., 3.]])
    """
    problem = prepare(model, x1, x2, output, select, masks, engine, chunk_size, budget_bytes)
    try:
        theta = _filled(problem, x1, x2, progress)
    except RulesDisagree:
        if engine == "layerwise":
            raise
        problem = prepare(
            model, x1, x2, output, select, masks, "jacobian", chunk_size, budget_bytes
        )
        theta = _filled(problem, x1, x2, progress)
    check_kernel_finite(theta)
    return theta


def _filled(problem: Problem, x1: Tensor, x2: Tensor | None, progress: bool) -> Tensor:
    columns = x1 if x2 is None else x2
    theta = next(iter(problem.model.params.values())).new_zeros(problem.shape(x1, columns))
    for i, j, tile in tiles(problem, x1, x2, progress=progress):
        theta[i : i + tile.shape[0], j : j + tile.shape[1]] = tile
    return mirror(theta, problem.chunk, problem.output) if x2 is None else theta


def prepare(
    model: nn.Module | FunctionalModel,
    x1: Tensor,
    x2: Tensor | None,
    output: Output,
    select: Select,
    masks: Masks | None,
    engine: Engine,
    chunk_size: int | None,
    budget_bytes: int | None,
) -> Problem:
    """Check the arguments of ``empirical_ntk`` and plan the work; nothing large is allocated."""
    model = functional(model)
    check_choice("output", output, OUTPUTS)
    check_choice("engine", engine, ENGINES)
    check_count("chunk_size", chunk_size)
    check_count("budget_bytes", budget_bytes)
    check_masks(masks, model.params)
    names = selected(model, select)
    c = 0
    for argument, x in (("x1", x1), ("x2", x2)):
        if x is not None:
            check_batch(argument, x)
            c = check_network(model, masked(model.params, masks), x, argument).shape[1]
    sample = x1 if x2 is None or x1.shape[0] > 1 else x2
    problem = _problem(model, masks or {}, sample, names, engine)
    chunk = chunk_size or _planned_chunk(problem, c, x1, budget_bytes)
    return replace(problem, names=names, output=output, c=c, chunk=chunk)


def check_kernel_finite(theta: Tensor) -> None:
    """Check that a kernel, or a tile of one, is finite.

    Raises:
        NumericalError: If it is not.
    """
    check_finite("Theta", theta, "The inputs were finite: rescale the parameters or use float64.")


def _problem(
    model: FunctionalModel, masks: Masks, x: Tensor, names: tuple[str, ...], engine: Engine
) -> Problem:
    if engine in ("jacobian", "ntk_vp"):
        nothing = Plan((), frozenset())
        return Problem(model, masks, nothing, (), names, by_products=engine == "ntk_vp")
    layers = plan(model.model_fn, masked(model.params, masks), x)
    covered = layers.covered()
    rest = tuple(name for name in names if name not in covered and name in layers.used())
    if engine == "layerwise" and rest:
        raise UnsupportedModule(
            complaint(
                "model",
                "made of layers that have a rule",
                f"other uses of {rest[0]!r}",
                'Use engine="auto" or "jacobian", or select other parameters.',
            )
        )
    return Problem(model, masks, layers, tuple(n for n in names if n in covered), rest)


def tiles(
    problem: Problem,
    x1: Tensor,
    x2: Tensor | None,
    *,
    done: Collection[tuple[int, int]] = (),
    progress: bool = False,
) -> Iterator[tuple[int, int, Tensor]]:
    """Compute the kernel tile by tile; a symmetric one on and above the diagonal only.

    Args:
        problem: What to compute.
        x1: The samples of the rows.
        x2: The samples of the columns; None means those of the rows.
        done: Tiles to leave out.
        progress: Whether to show a bar over the rows of tiles.

    Yields:
        First row, first column and the tile in its public axes.
    """
    columns, size = x1 if x2 is None else x2, problem.chunk
    n, m = x1.shape[0], columns.shape[0]
    for i in _track(range(0, n, size), progress):
        starts = [j for j in range(i if x2 is None else 0, m, size) if (i, j) not in done]
        left: _Rows | None = None
        for j in starts:
            with exact_attention():
                left = left or _rows(problem, take(x1, i, i + size))
                same = x2 is None and i == j
                right = left if same else _rows(problem, take(columns, j, j + size))
                tile = _tile(problem, left, right)
            if tile is not None:
                yield i, j, finish(tile, problem.output)


def _rows(problem: Problem, x: Any) -> _Rows:
    model, names = problem.model, frozenset(problem.layerwise)
    if problem.by_products:
        return _Rows([], {}, x)
    effective = masked(model.params, problem.masks)
    made = factors(model.model_fn, effective, x, problem.layers, names) if names else []
    rest = problem.jacobian
    rows = jacobian_rows(model.model_fn, model.params, problem.masks, x, rest) if rest else {}
    return _Rows(made, rows, None)


def _tile(problem: Problem, left: _Rows, right: _Rows) -> Tensor | None:
    """Sum the tile over parameters, ``Θ = Σ_layers Θ_l``; None if the network uses none of them."""
    if problem.by_products:
        return _tile_by_products(problem, left.samples, right.samples)
    output = problem.output
    parts: list[Tensor] = []
    blocks = set(problem.layerwise)
    for f1, f2 in zip(left.made, right.made, strict=True):
        names = _factored(problem, f1)
        parts += _linear_tiles(f1, f2, names, problem.masks, output)
        if problem.contraction(f1.call) == "ghost":
            parts.append(ghost_tile(f1, f2, output))
            names = names | {f1.call.weight or ""}
        blocks -= names
    for name in sorted(blocks):
        j1, j2 = block(name, left.made), block(name, right.made)
        if name in problem.masks:
            j1 = j1 * problem.masks[name].to(j1.dtype).square().flatten()
        parts.append(gram(j1, j2, output))
    parts += [gram(rows, right.rows[name], output) for name, rows in left.rows.items()]
    return sum(parts[1:], parts[0]) if parts else None


def _factored(problem: Problem, f: Factors) -> set[str]:
    """Return the parameters of a call whose kernel needs no explicit block: a Linear on vectors."""
    if not f.is_vector:
        return set()
    names = problem.layers.single_use() & set(problem.layerwise) & set(f.call.names())
    return names - ({f.call.bias} & set(problem.masks))


def _linear_tiles(
    f1: Factors, f2: Factors, names: set[str], masks: Masks, output: Output
) -> list[Tensor]:
    weight, bias = f1.call.weight in names, f1.call.bias in names
    mask = masks.get(f1.call.weight or "")
    if weight and mask is not None:
        rest = [linear_tile(f1, f2, False, True, output)] if bias else []
        return [masked_linear_tile(f1, f2, mask, output), *rest]
    return [linear_tile(f1, f2, weight, bias, output)] if names else []


def _tile_by_products(problem: Problem, x1: Tensor, x2: Tensor) -> Tensor:
    """Compute ``J1 (J2ᵀ e_c)`` for every class, one pair of samples at a time: C·P numbers."""
    model = problem.model
    varied = {name: model.params[name] for name in problem.jacobian}

    def outputs(varied: dict[str, Tensor], sample: Tensor) -> Tensor:
        effective = masked(model.params | varied, problem.masks)
        return model.model_fn(effective, sample.unsqueeze(0)).squeeze(0)

    def pair(a: Tensor, b: Tensor) -> Tensor:
        out, pullback = torch.func.vjp(lambda p: outputs(p, b), varied)  # type: ignore[misc]

        def column(e: Tensor) -> Tensor:
            (direction,) = pullback(e)
            return torch.func.jvp(lambda p: outputs(p, a), (varied,), (direction,))[1]

        basis = torch.eye(out.shape[0], dtype=out.dtype, device=out.device)
        return torch.func.vmap(column, out_dims=1)(basis)

    tile = torch.stack([torch.stack([pair(a, b) for b in x2]) for a in x1])
    diagonal = tile.diagonal(dim1=2, dim2=3)
    unfinished = tile.permute(0, 2, 1, 3)
    return {"full": unfinished, "diagonal": diagonal, "trace": diagonal.sum(-1)}[problem.output]


def _planned_chunk(problem: Problem, c: int, x: Any, budget_bytes: int | None) -> int:
    """Plan the samples per tile so that what two chunks hold stays within the budget.

    Args:
        problem: What to compute.
        c: Number of outputs.
        x: The samples.
        budget_bytes: The budget; None means 1 GiB, and then at least one sample.

    Returns:
        The number of samples.

    Raises:
        ValueError: If a budget is given and too small for one sample.
    """
    params = problem.model.params
    per_sample = sum(c * _numel(call.output) * 3 for call in problem.layers.calls)
    blocks = [params[name].numel() * c for name in problem.layerwise]
    rows = 3 * sum(params[name].numel() * c for name in problem.jacobian)
    width = next(iter(params.values())).element_size()
    needed = 2 * (per_sample + max(blocks, default=0) + rows) * width
    if budget_bytes is not None and needed > budget_bytes:
        raise ValueError(
            complaint(
                "budget_bytes",
                f"at least {needed} for one sample of this network",
                budget_bytes,
                'Raise it, select fewer parameters, or use engine="ntk_vp".',
            )
        )
    return max(1, min(batch_size(x), (budget_bytes or CHUNK_BYTES) // max(1, needed)))


def _numel(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()


def _track(steps: range, progress: bool) -> Iterable[int]:
    if not progress:
        return steps
    from rich.progress import track

    return track(steps, description="NTK rows")
