"""The empirical neural tangent kernel, exactly, by the fastest engine that applies."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from math import prod
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
    Tile,
    choose,
    ghost_tile,
    masked_linear_tile,
    mirror,
)
from ntktheory.ntk.jacobian import jacobian_rows
from ntktheory.ntk.layerwise import Plan, RulesDisagree, Sweep, block, plan, sweep
from ntktheory.ntk.products import times_transpose
from ntktheory.ntk.rules import Factors, LayerCall

Engine = Literal["auto", "layerwise", "jacobian", "ntk_vp"]
ENGINES: tuple[Engine, ...] = ("auto", "layerwise", "jacobian", "ntk_vp")
CHUNK_BYTES = 1 << 30
PASS_BYTES = 1 << 27
PIECE_BYTES = 1 << 24  # rows that are made from factors, contracted and dropped


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
        samples_per_pass: Samples that are differentiated at a time.
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
    samples_per_pass: int = 1

    def contraction(self, call: LayerCall) -> Contraction | None:
        """Choose how the weight of a call is contracted; None if it is not wanted."""
        name = call.weight
        if name is None or name not in self.layerwise:
            return None
        shared = name not in self.layers.single_use()
        return choose(call, self.c, self.output, masked=name in self.masks, shared=shared)

    def keeps_factors(self, call: LayerCall) -> bool:
        """Say whether to keep a call's cotangents, and not the rows of its parameters.

        Args:
            call: The call.

        Returns:
            True where a contraction needs them, and where they are smaller than the rows of
            parameters that are used once; the rows are then made for one parameter at a time.
        """
        names = [name for name in call.names() if name in self.layerwise]
        if any(name not in self.layers.single_use() for name in names):
            return False
        numbers = sum(self.model.params[name].numel() for name in names)
        return self.contraction(call) in ("factored", "ghost") or prod(call.output) < numbers

    def units(self, name: str) -> int:
        """Return how many output units' rows of a weight are made at a time: a round number."""
        weight = self.model.params[name]
        numbers = self.c * self.chunk * weight[0].numel() if weight.ndim else 1
        units = max(1, PIECE_BYTES // (numbers * weight.element_size()))
        return units - units % 16 if units > 16 else units

    def shape(self, x1: Tensor, x2: Tensor) -> tuple[int, ...]:
        """Return the kernel's shape."""
        pairs, c = (x1.shape[0], x2.shape[0]), self.c
        return {"full": (*pairs, c, c), "trace": pairs, "diagonal": (*pairs, c)}[self.output]


@dataclass
class _Rows:
    """What a chunk of samples contributes to its tiles.

    Attributes:
        samples: The samples themselves, all that the engine "ntk_vp" needs.
        factors: Input and cotangents of calls whose weight, or bias, is contracted from them.
        blocks: Rows [C, N, p] of every other parameter.
        scratch: Where rows are made that are contracted at once.
    """

    samples: Any
    factors: dict[int, Factors]
    blocks: dict[str, Tensor]
    scratch: Tensor | None = None

    def pieces(self, name: str, units: int) -> Iterator[Tensor]:
        """Yield the rows [C, N, p] of a parameter, some output units at a time if they are made here.

        Each is overwritten by the next.
        """
        if name in self.blocks:
            yield self.blocks[name]
            return
        (f,) = (f for f in self.factors.values() if name in f.call.names())
        for part in f.by_units(units) if name == f.call.weight else (f,):
            yield self._made(name, part)

    def _made(self, name: str, part: Factors) -> Tensor:
        """Make rows, one output at a time, where the last ones were: fresh memory is slow."""
        rows: Tensor | None = None
        for c in range(part.g.shape[0]):
            one = block(name, [replace(part, g=part.g[c : c + 1])])
            if rows is None:
                shape = (part.g.shape[0], *one.shape[1:])
                if self.scratch is None or self.scratch.numel() < prod(shape):
                    self.scratch = one.new_empty(prod(shape))
                rows = self.scratch[: prod(shape)].view(shape)
            rows[c] = one[0]
        if rows is None:
            raise ValueError("factors must hold at least one output")
        return rows


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
        RulesDisagree: If ``engine="layerwise"`` and the network reorders its batch inside.
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
    problem = replace(problem, names=names, output=output, c=c)
    samples = x1.shape[0] + (0 if x2 is None else x2.shape[0])
    chunk = chunk_size or _planned_chunk(problem, samples, budget_bytes)
    problem = replace(problem, chunk=min(chunk, max(samples, 1)))
    return replace(problem, samples_per_pass=_planned_pass(problem))


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
                yield i, j, tile


def _rows(problem: Problem, x: Any) -> _Rows:
    kept = _Rows(x, {}, {})
    if problem.by_products:
        return kept
    model = problem.model
    if problem.layerwise:
        effective = masked(model.params, problem.masks)
        for start in range(0, batch_size(x), problem.samples_per_pass):
            samples = take(x, start, start + problem.samples_per_pass)
            _collect(
                problem,
                sweep(model.model_fn, effective, samples, problem.layers, problem.layerwise),
                kept,
                start,
            )
    if problem.jacobian:
        rest = jacobian_rows(model.model_fn, model.params, problem.masks, x, problem.jacobian)
        kept.blocks |= {name: j.transpose(0, 1) for name, j in rest.items()}
    return kept


def _collect(problem: Problem, run: Sweep, kept: _Rows, start: int) -> None:
    """Keep of one pass what each parameter needs: rows, or cotangents where those are smaller.

    Args:
        problem: What to compute.
        run: The pass.
        kept: What is kept of all samples; filled in.
        start: The first sample of this pass.
    """
    factored = [problem.keeps_factors(call) for call in run.calls.values()]
    in_rows = {name for call, f in zip(run.calls.values(), factored, strict=True) if not f
               for name in call.names()} & set(problem.layerwise)  # fmt: skip
    c, n, first = problem.c, batch_size(kept.samples), 0
    for made in run.factors():
        for i, (f, keep) in enumerate(zip(made, factored, strict=True)):
            if keep:
                old = kept.factors.get(i)
                g = _placed(old.g if old else None, f.g, first, start, (c, n))
                if old is None or first == 0:
                    a = _placed(old.a[None] if old else None, f.a[None], 0, start, (1, n))[0]
                else:
                    a = old.a
                kept.factors[i] = replace(f, a=a, g=g)
        for name in in_rows:
            j = block(name, made)
            kept.blocks[name] = _placed(kept.blocks.get(name), j, first, start, (c, n))
        first += made[0].g.shape[0]
        del made, f  # before the next group is made


def _placed(whole: Tensor | None, part: Tensor, c: int, n: int, shape: tuple[int, int]) -> Tensor:
    """Put [group, samples, …] from output c and sample n on into [C, N, …]; all of it as it is."""
    if part.shape[:2] == shape:
        return part
    whole = part.new_empty(*shape, *part.shape[2:]) if whole is None else whole
    whole[c : c + part.shape[0], n : n + part.shape[1]] = part
    return whole


def _tile(problem: Problem, left: _Rows, right: _Rows) -> Tensor | None:
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
    return {"full": tile, "diagonal": diagonal, "trace": diagonal.sum(-1)}[problem.output]


def _planned_chunk(problem: Problem, samples: int, budget_bytes: int | None) -> int:
    """Plan the samples per tile so that what is held at a time stays within the budget.

    Args:
        problem: What to compute.
        samples: The samples of rows and columns; they are one chunk, or one each, if all fit.
        budget_bytes: The budget; None means 1 GiB, and then at least one sample.

    Returns:
        The number of samples.

    Raises:
        ValueError: If a budget is given and too small for one sample of rows and one of columns.
    """
    params, c = problem.model.params, problem.c
    in_factors: set[str] = set()
    kept = 0
    for call in problem.layers.calls:
        wanted = set(call.names()) & set(problem.layerwise)
        if wanted and problem.keeps_factors(call):
            kept += prod(call.output)
            in_factors |= wanted
    kept += sum(params[name].numel() for name in set(problem.layerwise) - in_factors)
    largest = max((params[name].numel() for name in problem.layerwise), default=0)
    others = 3 * sum(params[name].numel() for name in problem.jacobian)
    numbers = _activations(problem) + c * (kept + largest + others)
    needed = numbers * _itemsize(problem)
    if budget_bytes is not None and min(samples, 2) * needed > budget_bytes:
        raise ValueError(
            complaint(
                "budget_bytes",
                f"at least {min(samples, 2) * needed} for one row of this kernel",
                budget_bytes,
                'Raise it, select fewer parameters, or use engine="ntk_vp".',
            )
        )
    budget = budget_bytes or CHUNK_BYTES
    if samples * needed <= budget:
        return samples
    return max(1, budget // (2 * max(1, needed)))


def _planned_pass(problem: Problem) -> int:
    """Plan the samples per pass, as even as they go into a chunk."""
    size = max(1, PASS_BYTES // max(1, _activations(problem) * _itemsize(problem)))
    passes = -(-problem.chunk // size)
    return -(-problem.chunk // passes)


def _activations(problem: Problem) -> int:
    """Count what a pass holds per sample: about four numbers per output of a layer."""
    return 4 * sum(prod(call.output) for call in problem.layers.calls)


def _itemsize(problem: Problem) -> int:
    return next(iter(problem.model.params.values())).element_size()


def _track(steps: range, progress: bool) -> Iterable[int]:
    if not progress:
        return steps
    from rich.progress import track

    return track(steps, description="NTK rows")
