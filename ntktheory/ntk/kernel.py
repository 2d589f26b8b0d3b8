"""The empirical neural tangent kernel, exactly, by the fastest engine that applies."""

from collections.abc import Collection, Iterable, Iterator

import torch
from torch import Tensor, nn

from ntktheory.calls import soundly
from ntktheory.checks import check_finite
from ntktheory.functional import FunctionalModel, Masks, Select, batch_size, masked, take
from ntktheory.ntk.attention import exact_attention
from ntktheory.ntk.contractions import Output, Tile, ghost_tile, masked_linear_tile, mirror
from ntktheory.ntk.layerwise import RulesDisagree
from ntktheory.ntk.problem import Engine, Problem, prepare
from ntktheory.ntk.products import times_transpose
from ntktheory.ntk.rows import Rows, rows_of
from ntktheory.ntk.rules import Factors


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
        budget_bytes: What chunks of samples may hold at a time, planned before anything is
            allocated; None means 1 GiB. What fits is differentiated once. The kernel itself comes on
            top: ``ntk_to_file`` keeps it on disk.
        progress: Show a progress bar over the tiles.

    Returns:
        The kernel in the model's dtype and device.

    Raises:
        ValueError: If an option is unknown, a batch or mask does not fit, the model is in train mode,
            or the budget is too small for one sample.
        UnsupportedModule: If ``engine="layerwise"`` and a selected parameter has no layer rule.
        RulesDisagree: If ``engine="layerwise"`` and the network reorders its batch inside, or chooses
            layers by its data.
        NumericalError: If the kernel is not finite.

    Cost:
        Layerwise: one forward and C backward passes per chunk (a chunk of columns is passed again
        for every chunk of rows) and a few forward passes of at most two samples, then per layer
        N·M·(D + C²·O) for a Linear D→O and (N·C + M·C)·S·O·D + N·M·C²·O·D for a convolution with S
        positions; N·M·C² counts about half if x2 is None. Memory: per sample and output, the smaller
        of a layer's cotangent and its parameters, and the activations of one pass.

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
    shape = problem.shape(x1, x1 if x2 is None else x2)
    theta: Tensor | None = None
    for i, j, tile in tiles(problem, x1, x2, progress=progress):
        if tile.shape == shape:
            return tile
        theta = tile.new_empty(shape) if theta is None else theta
        theta[i : i + tile.shape[0], j : j + tile.shape[1]] = tile
    if theta is None:
        return next(iter(problem.model.params.values())).new_zeros(shape)
    return mirror(theta, problem.chunk, problem.output) if x2 is None else theta


def check_kernel_finite(theta: Tensor) -> None:
    """Check that a kernel, or a tile of one, is finite.

    Raises:
        NumericalError: If it is not.
    """
    check_finite("Theta", theta, "The inputs were finite: rescale the parameters or use float64.")


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
        left: Rows | None = None
        for j in starts:
            with exact_attention():
                left = left or rows_of(problem, take(x1, i, i + size))
                same = x2 is None and i == j
                right = left if same else rows_of(problem, take(columns, j, j + size))
                tile = _tile(problem, left, right)
            if tile is not None:
                yield i, j, tile


def _tile(problem: Problem, left: Rows, right: Rows) -> Tensor | None:
    """Sum the tile over parameters, ``Θ = Σ_layers Θ_l``; None if the network uses none of them."""
    output = problem.output
    if problem.by_products:
        return _tile_by_products(problem, left.samples, right.samples)
    if not left.factors and not left.blocks:
        return None
    like = next(iter(problem.model.params.values()))
    n, m = batch_size(left.samples), batch_size(right.samples)
    tile = Tile.zeros(like, problem.c, n, m, output, symmetric=left is right)
    blocks = {name for name in problem.layerwise if name in left.blocks}
    for i, f1 in left.factors.items():
        blocks |= set(f1.call.names()) & set(problem.layerwise)
        blocks -= _contract_factors(problem, tile, f1, right.factors[i])
    for name in sorted(blocks | set(problem.jacobian)):
        mask = problem.masks.get(name) if name in problem.layerwise else None
        units, first = problem.units(name), 0
        others = right.pieces(name, units) if left is not right else None
        for j in left.pieces(name, units):
            squares = None if mask is None else mask.to(j.dtype).square().flatten()
            last = first + j.shape[2]
            kept = j if squares is None else j * squares[first:last]
            tile.add(kept, next(others) if others is not None else j)
            first = last
    return tile.finish()


def _contract_factors(problem: Problem, tile: Tile, f1: Factors, f2: Factors) -> set[str]:
    """Add what needs no rows to the tile, and return the parameters that this was."""
    call, single = f1.call, problem.layers.single_use()
    weight, bias = (
        name if name in problem.layerwise and name in single else None
        for name in (call.weight, call.bias)
    )
    contraction = problem.contraction(call)
    if contraction == "ghost" and weight is not None:
        tile.add_values(ghost_tile(f1, f2, problem.output))
        return {weight}
    if not call.is_vector:
        return set()
    if bias in problem.masks:
        bias = None
    factor = None
    if weight is not None and weight in problem.masks:
        mask = problem.masks[weight]
        tile.add_values(masked_linear_tile(f1, f2, mask, problem.output))
    elif weight is not None:
        factor = times_transpose(f1.a, f2.a)
        factor = factor if bias is None else factor + 1
    if factor is not None or bias is not None:
        tile.add(f1.g, f2.g, factor)
    return {name for name in (weight, bias) if name is not None}


def _tile_by_products(problem: Problem, x1: Tensor, x2: Tensor) -> Tensor:
    """Compute ``J1 (J2ᵀ e_c)`` for every class, one pair of samples at a time: C·P numbers."""
    model = problem.model
    varied = {name: model.params[name] for name in problem.jacobian}

    def outputs(varied: dict[str, Tensor], sample: Tensor) -> Tensor:
        effective = masked(model.params | varied, problem.masks)
        return soundly(model.model_fn)(effective, sample.unsqueeze(0)).squeeze(0)

    def pair(a: Tensor, b: Tensor) -> Tensor:
        out, pullback = torch.func.vjp(lambda p: outputs(p, b), varied)  # type: ignore[misc]

        def column(e: Tensor) -> Tensor:
            (direction,) = pullback(e)
            return torch.func.jvp(lambda p: outputs(p, a), (varied,), (direction,))[1]

        basis = torch.eye(out.shape[0], dtype=out.dtype, device=out.device)
        return torch.func.vmap(column, out_dims=1)(basis)

    tile = torch.stack([torch.stack([pair(a, b) for b in x2]) for a in x1])
    diagonal = tile.diagonal(dim1=2, dim2=3)
    return {"full": tile, "diagonal": diagonal, "trace": diagonal.sum(-1)}[problem.output]


def _track(steps: range, progress: bool) -> Iterable[int]:
    if not progress:
        return steps
    from rich.progress import track

    return track(steps, description="NTK rows")
