"""The rules of the ladder: which bounds there are, where they are defined, and how each is computed."""

from collections.abc import Callable

import torch
from torch import Tensor

from ntktheory.functional import masked, take
from ntktheory.ntk.trace import sample_traces
from ntktheory.paths import operator
from ntktheory.paths.gates import replay
from ntktheory.paths.lower import euler_terms, last_layer, likely_carriers
from ntktheory.paths.passes import Inputs, absolute
from ntktheory.paths.scales import Scaled, total, unscaled
from ntktheory.paths.survey import Survey, at_output, sum_of

PER_OUTPUT = ("px_per_output", "edge_per_output", "half_per_output")
UPPER = (
    "px", "px_per_output", "edge", "edge_per_output", "half", "half_per_output", "op", "abs",
)  # fmt: skip
LOWER = ("last_layer", "euler")
NAMES = (*UPPER, *LOWER, "t_sq")
AFFORDABLE = 10**11  # multiply-adds, about ten seconds of one core

# --- which bounds are defined, and affordable ------------------------------------------------------


def undefined(name: str, survey: Survey) -> str | None:
    """Say why a bound is undefined for a recorded network, or return None."""
    run = survey.run
    repeated = [key for key, count in run.uses.items() if count > 1]
    if name in ("px", "px_per_output", "t_sq") and repeated:
        return f"{repeated[0]!r} is used twice, and a weight twice on a path breaks it"
    if name == "abs" and not _samples_first(survey):
        return "its ReLUs do not have the sample axis first"
    if name == "op":
        return operator.no_chain(run)
    if name == "last_layer" and (run.head is None or run.uses[run.head[0]] != 1):
        return "the outputs are not those of a Linear layer with a weight of its own"
    if name == "euler" and not any(bool(carries) for carries, _ in _carriers(survey)):
        return "biases or shortcuts bypass every layer"
    return None


def affordable(name: str, survey: Survey) -> bool:
    """Say whether a bound that nobody named is computed.

    Those that take C backward passes are, up to ``AFFORDABLE`` multiply-adds for all C, a backward pass
    counted as two forward passes; and ``op``, up to as many for its norms.

    Returns:
        Whether it is.
    """
    if name in (*PER_OUTPUT, "abs"):
        return 3 * survey.outputs * survey.run.multiply_adds <= AFFORDABLE
    return name != "op" or operator.cost(survey) <= AFFORDABLE


def _samples_first(survey: Survey) -> bool:
    """Say whether the gates of the first sample alone replay the first sample's outputs."""
    if any(gate.shape[:1] != survey.x.shape[:1] for gate in survey.run.gates):
        return False
    first = take((survey.x, survey.run.gates), 0, 1)
    try:
        alone = replay(survey.model_fn)(masked(survey.params, survey.masks), first)
    except RuntimeError:
        return False
    expected = survey.run.outputs[:1]
    return alone.shape == expected.shape and torch.allclose(alone, expected, rtol=1e-10, atol=0)


# --- the bounds ------------------------------------------------------------------------------------


def _px(survey: Survey) -> Scaled:
    return survey.z1.sum().times(sum_of(survey.b.values()))


def _px_per_output(survey: Survey) -> Scaled:
    def term(c: int) -> Scaled:
        b = survey.squared.scaled_by_output(c)
        return at_output(survey.z1, c).times(sum_of(b.values()))

    return total(term(c) for c in range(survey.outputs))


def _edge(survey: Survey) -> Scaled:
    return survey.along(survey.b, survey.data[1]).sum()


def _half(survey: Survey) -> Scaled:
    return survey.along(survey.b, survey.ratios).sum()


def _edge_per_output(survey: Survey) -> Scaled:
    return _per_output(survey, survey.data[1])


def _half_per_output(survey: Survey) -> Scaled:
    return _per_output(survey, survey.ratios)


def _per_output(survey: Survey, inputs: Inputs) -> Scaled:
    def term(c: int) -> Scaled:
        return at_output(survey.along(survey.squared.scaled_by_output(c), inputs), c)

    return total(term(c) for c in range(survey.outputs))


def _abs(survey: Survey) -> Scaled:
    """The trace of the gated network at |θ| on |x|."""
    magnitudes = {name: p.abs() for name, p in survey.params.items()}
    batch = (survey.x.abs(), survey.run.gates)
    terms = sample_traces(
        absolute(survey.model_fn), magnitudes, survey.masks, batch, tuple(magnitudes)
    )
    return sum_of(unscaled(term) for term in terms.values())


def _euler(survey: Survey) -> Scaled:
    terms = survey.memo.get("euler") or euler_terms(survey)
    return unscaled(torch.stack([term for _, term in terms]).sum())


def _carriers(survey: Survey) -> list[tuple[Tensor, Tensor]]:
    """Return the Euler terms, kept for later; layers that cannot carry all of f are not tried."""
    if "euler" not in survey.memo:
        names = likely_carriers(survey, _samples_first(survey))
        survey.memo["euler"] = list(euler_terms(survey, names))
    return survey.memo["euler"]


RULES: dict[str, Callable[[Survey], Scaled]] = {
    "px": _px,
    "px_per_output": _px_per_output,
    "edge": _edge,
    "edge_per_output": _edge_per_output,
    "half": _half,
    "half_per_output": _half_per_output,
    "op": operator.operator_bound,
    "abs": _abs,
    "last_layer": lambda survey: unscaled(last_layer(survey)),
    "euler": _euler,
    "t_sq": lambda survey: survey.gated_squared(),
}
