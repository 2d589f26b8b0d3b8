"""What ``empirical_ntk`` is going to do: checked, chosen and planned before it allocates much."""

from dataclasses import dataclass, replace
from math import prod
from typing import Literal

from torch import Tensor, nn

from ntktheory.checks import (
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
    functional,
    masked,
    selected,
)
from ntktheory.ntk.contractions import OUTPUTS, Contraction, Output, choose
from ntktheory.ntk.layerwise import Plan, checked_plan
from ntktheory.ntk.rules import LayerCall

Engine = Literal["auto", "layerwise", "jacobian", "ntk_vp"]
ENGINES: tuple[Engine, ...] = ("auto", "layerwise", "jacobian", "ntk_vp")
CHUNK_BYTES = 1 << 30  # what chunks of samples may hold
PASS_BYTES = 1 << 27  # activations and cotangents of the samples that are differentiated at a time
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
        activations: Numbers that a pass holds per sample, about four per output of a layer.
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
    activations: int = 0

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
        numbers = self.c * self.chunk * _first(weight)
        units = max(1, PIECE_BYTES // (numbers * weight.element_size()))
        return units - units % 16 if units > 16 else units

    def shape(self, x1: Tensor, x2: Tensor) -> tuple[int, ...]:
        """Return the kernel's shape."""
        pairs, c = (x1.shape[0], x2.shape[0]), self.c
        return {"full": (*pairs, c, c), "trace": pairs, "diagonal": (*pairs, c)}[self.output]


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
    effective = masked(model.params, masks)
    check_batch("x1", x1)
    outputs, layers = checked_plan(model, effective, x1, "x1")
    if x2 is not None:
        check_batch("x2", x2)
        outputs2, others = checked_plan(model, effective, x2, "x2")
        if outputs2.shape[1] != outputs.shape[1]:
            raise ValueError(
                complaint(
                    "x2",
                    f"samples with {outputs.shape[1]} outputs, like x1",
                    f"{outputs2.shape[1]} outputs",
                    "Compare samples of one kind.",
                )
            )
        layers = _common(layers, others, x1.shape[0], frozenset(model.params))
    c = outputs.shape[1]
    problem = _problem(model, masks or {}, layers, names, engine)
    held = 4 * sum(prod(call.output) for call in layers.calls)
    problem = replace(problem, names=names, output=output, c=c, activations=held)
    samples = x1.shape[0] + (0 if x2 is None else x2.shape[0])
    chunk = chunk_size or _planned_chunk(problem, samples, budget_bytes)
    problem = replace(problem, chunk=min(chunk, max(samples, 1)))
    return replace(problem, samples_per_pass=_planned_pass(problem))


def _common(layers: Plan, others: Plan, n: int, params: frozenset[str]) -> Plan:
    """Return the plan of both batches; samples of other sizes have none, and go to the rows."""
    if [call.output for call in layers.calls] != [call.output for call in others.calls]:
        return Plan((), params)
    return layers if n > 1 else others


def _problem(
    model: FunctionalModel, masks: Masks, layers: Plan, names: tuple[str, ...], engine: Engine
) -> Problem:
    if engine in ("jacobian", "ntk_vp"):
        nothing = Plan((), frozenset())
        return Problem(model, masks, nothing, (), names, by_products=engine == "ntk_vp")
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
    unit = max((_first(params[name]) for name in in_factors), default=0)
    others = 3 * sum(params[name].numel() for name in problem.jacobian)
    passes = c if problem.jacobian else 1  # rows are differentiated for all outputs at once
    numbers = problem.activations * passes + c * (kept + unit + others)
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


def _first(weight: Tensor) -> int:
    """Count the entries of a weight's first output unit, the least rows made at a time."""
    return weight[0].numel() if weight.ndim else 1


def _planned_pass(problem: Problem) -> int:
    """Plan the samples per pass, as even as they go into a chunk."""
    size = max(1, PASS_BYTES // max(1, problem.activations * _itemsize(problem)))
    passes = -(-problem.chunk // size)
    return -(-problem.chunk // passes)


def _itemsize(problem: Problem) -> int:
    return next(iter(problem.model.params.values())).element_size()
