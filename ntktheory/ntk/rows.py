"""What a chunk of samples contributes to the kernel: rows of the Jacobian, or what they are made of."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from torch import Tensor

from ntktheory.functional import batch_size, masked, take
from ntktheory.ntk.jacobian import jacobian_rows
from ntktheory.ntk.layerwise import Sweep, block, sweep
from ntktheory.ntk.problem import Problem
from ntktheory.ntk.rules import Factors


@dataclass
class Rows:
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


def rows_of(problem: Problem, x: Any) -> Rows:
    """Differentiate a chunk of samples, in passes, and return what its tiles need."""
    kept = Rows(x, {}, {})
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


def _collect(problem: Problem, run: Sweep, kept: Rows, start: int) -> None:
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
