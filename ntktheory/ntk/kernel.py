"""The empirical neural tangent kernel, exactly, by the fastest engine that applies."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ntktheory.checks import (
    NumericalError,
    UnsupportedModule,
    check_batch,
    check_choice,
    check_count,
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
from ntktheory.ntk.contractions import (
    OUTPUTS,
    Output,
    finish,
    gram,
    linear_tile,
    masked_linear_tile,
    mirror,
)
from ntktheory.ntk.jacobian import jacobian_rows
from ntktheory.ntk.layerwise import Plan, block, factors, plan
from ntktheory.ntk.rules import Factors

Engine = Literal["auto", "layerwise", "jacobian", "ntk_vp"]
ENGINES: tuple[Engine, ...] = ("auto", "layerwise", "jacobian", "ntk_vp")
CHUNK_BYTES = 1 << 30


@dataclass(frozen=True)
class _Problem:
    """One kernel to compute: the network, its masks, and which engine differentiates what."""

    model: FunctionalModel
    masks: Masks
    layers: Plan
    layerwise: tuple[str, ...]
    jacobian: tuple[str, ...]
    by_products: bool = False


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
        engine: "layerwise" (from layer inputs and cotangents; the rules are in ``rules.py``), "jacobian"
            (any module, explicit rows), "ntk_vp" (any module, one pair of samples at a time: slow,
            and never more than C·P numbers), or "auto": layerwise wherever its rules hold, else
            jacobian, per parameter.
        chunk_size: Samples per tile; None plans it from a budget of 1 GiB.
        progress: Show a progress bar over the tiles.

    Returns:
        The kernel in the model's dtype and device.

    Raises:
        ValueError: If an option is unknown, a batch or mask does not fit, or the model is in train
            mode.
        UnsupportedModule: If ``engine="layerwise"`` and a selected parameter has no layer rule.
        NumericalError: If the kernel is not finite.

    Cost:
        Layerwise: two forward and C backward passes per chunk, then per layer N·M·(D + C²·O)
        for a Linear D→O and (N·C + M·C)·S·O·D + N·M·C²·O·D for a convolution with S positions.

    Source:
        NTK-SAP §4; Novak et al. 2022 for the choice of contraction. Tested against
        ``ntk/reference.py``.

    Example:
        >>> net = nn.Linear(3, 2, bias=False)
        >>> empirical_ntk(net, torch.ones(1, 3))[0, 0]
        tensor([[3., 0.],
                [0., 3.]])
    """
    model = functional(model)
    check_choice("output", output, OUTPUTS)
    check_choice("engine", engine, ENGINES)
    check_count("chunk_size", chunk_size)
    check_masks(masks, model.params)
    names = selected(model, select)
    for argument, x in (("x1", x1), ("x2", x2)):
        if x is not None:
            check_batch(argument, x)
            check_network(model, masked(model.params, masks), x, argument)
    sample = x1 if x2 is None or x1.shape[0] > 1 else x2
    problem = _problem(model, masks or {}, sample, names, engine)
    theta = _assemble(problem, x1, x2, output, chunk_size, progress)
    if not bool(torch.isfinite(theta).all()):
        raise NumericalError(
            complaint(
                "Theta",
                "finite",
                f"{int((~torch.isfinite(theta)).sum())} entries NaN or Inf",
                "The inputs were finite: rescale the parameters or use float64.",
            )
        )
    return theta


def _problem(
    model: FunctionalModel, masks: Masks, x: Tensor, names: tuple[str, ...], engine: Engine
) -> _Problem:
    if engine in ("jacobian", "ntk_vp"):
        nothing = Plan((), frozenset())
        return _Problem(model, masks, nothing, (), names, by_products=engine == "ntk_vp")
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
    return _Problem(model, masks, layers, tuple(n for n in names if n in covered), rest)


def _assemble(
    problem: _Problem,
    x1: Tensor,
    x2: Tensor | None,
    output: Output,
    chunk_size: int | None,
    progress: bool,
) -> Tensor:
    """Fill the kernel tile by tile; a symmetric one from the tiles on and above the diagonal.

    Args:
        problem: What to compute.
        x1: The samples of the rows.
        x2: The samples of the columns; None means those of the rows.
        output: What to keep of each pair.
        chunk_size: Samples per tile, or None to plan it.
        progress: Whether to show a bar over the rows of tiles.

    Returns:
        The kernel.
    """
    effective = masked(problem.model.params, problem.masks)
    c = problem.model.model_fn(effective, x1[:1]).shape[1]
    columns = x1 if x2 is None else x2
    n, m = x1.shape[0], columns.shape[0]
    shape = {"full": (n, m, c, c), "trace": (n, m), "diagonal": (n, m, c)}[output]
    theta = next(iter(effective.values())).new_zeros(shape)
    size = chunk_size or _planned_chunk(problem, c, x1)
    for i in _track(range(0, n, size), progress):
        left = _rows(problem, take(x1, i, i + size))
        for j in range(i if x2 is None else 0, m, size):
            same = x2 is None and i == j
            right = left if same else _rows(problem, take(columns, j, j + size))
            tile = _tile(problem, left, right, output)
            if tile is not None:
                theta[i : i + size, j : j + size] = finish(tile, output)
    return theta if x2 is not None else mirror(theta, size, output)


def _rows(problem: _Problem, x: Any) -> _Rows:
    model, names = problem.model, frozenset(problem.layerwise)
    if problem.by_products:
        return _Rows([], {}, x)
    effective = masked(model.params, problem.masks)
    made = factors(model.model_fn, effective, x, problem.layers, names) if names else []
    rest = problem.jacobian
    rows = jacobian_rows(model.model_fn, model.params, problem.masks, x, rest) if rest else {}
    return _Rows(made, rows, None)


def _tile(problem: _Problem, left: _Rows, right: _Rows, output: Output) -> Tensor | None:
    """Sum the tile over parameters, ``Θ = Σ_layers Θ_l``; None if the network uses none of them."""
    if problem.by_products:
        return _tile_by_products(problem, left.samples, right.samples, output)
    parts: list[Tensor] = []
    blocks = set(problem.layerwise)
    for f1, f2 in zip(left.made, right.made, strict=True):
        names = _factored(problem, f1)
        blocks -= names
        parts += _linear_tiles(f1, f2, names, problem.masks, output)
    for name in sorted(blocks):
        j1, j2 = block(name, left.made), block(name, right.made)
        if name in problem.masks:
            j1 = j1 * problem.masks[name].to(j1.dtype).square().flatten()
        parts.append(gram(j1, j2, output))
    parts += [gram(rows, right.rows[name], output) for name, rows in left.rows.items()]
    return sum(parts[1:], parts[0]) if parts else None


def _factored(problem: _Problem, f: Factors) -> set[str]:
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


def _tile_by_products(problem: _Problem, x1: Tensor, x2: Tensor, output: Output) -> Tensor:
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
    return {"full": unfinished, "diagonal": diagonal, "trace": diagonal.sum(-1)}[output]


def _planned_chunk(problem: _Problem, c: int, x: Any) -> int:
    """Plan the samples per tile so that what a chunk holds stays within the budget."""
    params = problem.model.params
    per_sample = sum(c * _numel(call.output) * 3 for call in problem.layers.calls)
    blocks = [params[name].numel() * c for name in problem.layerwise]
    rows = 3 * sum(params[name].numel() * c for name in problem.jacobian)
    bytes_per_sample = (per_sample + 2 * max(blocks, default=0) + rows) * x.element_size()
    return max(1, min(batch_size(x), CHUNK_BYTES // max(1, bytes_per_sample)))


def _numel(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()


def _track(steps: range, progress: bool) -> Iterable[int]:
    if not progress:
        return steps
    from rich.progress import track

    return track(steps, description="NTK rows")
