"""The ladder of bounds on the trace of the NTK, by network passes; no path is enumerated."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from ntktheory.checks import (
    NumericalError,
    UnsupportedModule,
    check_batch,
    check_choice,
    check_masks,
    complaint,
)
from ntktheory.functional import (
    FunctionalModel,
    Masks,
    ModelFn,
    Params,
    check_network,
    functional,
    masked,
    to_dtype,
)
from ntktheory.ntk.trace import ntk_trace
from ntktheory.paths.gates import check_replay, record
from ntktheory.paths.ladder import LOWER, NAMES, RULES, UPPER, affordable, undefined
from ntktheory.paths.scales import Scaled
from ntktheory.paths.survey import Survey, survey

__all__ = ["LOWER", "NAMES", "UPPER", "PathBounds", "bound_values", "path_bounds"]


@dataclass(frozen=True)
class PathBounds:
    """Bounds on ``Tr Θ`` over all kept parameters; Python floats computed in float64.

    Attributes:
        upper: Upper bounds by name; see ``path_bounds``.
        lower: Lower bounds by name.
        t_sq: The path surrogate; not a bound. None where it is not defined or not asked for.
        seconds: Wall time of each, by name (the recording under "record"), in seconds. What several
            bounds share is counted where it is needed first.
        kinks: How many gates an exact zero or a tie decided. There f has a kink, and trace and bounds
            speak of the derivative that PyTorch takes.
    """

    upper: Mapping[str, float]
    lower: Mapping[str, float]
    t_sq: float | None
    seconds: Mapping[str, float]
    kinks: int
    _trace: Callable[[], float] = field(repr=False, compare=False)

    @cached_property
    def trace(self) -> float:
        """The exact trace, computed when first asked for: C backward passes."""
        return self._trace()


def path_bounds(
    model: nn.Module | FunctionalModel,
    x: Tensor,
    *,
    names: Iterable[str] | None = None,
    masks: Masks | None = None,
) -> PathBounds:
    """Bound the trace of the NTK through sums over paths.

    With ``A_jc = Σ_x Σ_{p∋j→c} |c_p| a_p² x_p²``, ``B_jc = Σ_{p∋j→c} |c_p| w_pj²``, and sums over c
    written A_j, B_j (c_p: the product of a path's fixed edges, such as 1/k of an average; sums over the
    batch, never means; biases, γ and β of batch norm are parameters j too):

    =====================  =======================================================================
    ``px``                 ``(Σ_{x,c,p} |c_p| a_p² x_p²)(Σ_j B_j)``, the bound of PX
    ``px_per_output``      the same product for each output, summed
    ``edge``               ``Σ_j A_j B_j``
    ``edge_per_output``    ``Σ_{j,c} A_jc B_jc``
    ``half``               ``Σ_j A^half_j B_j``: exact activations before j (``half.py``)
    ``half_per_output``    ``Σ_{j,c} A^half_jc B_jc``; the trace itself with one hidden layer
    ``op``                 exact activations before, norms of operators after a layer (``operator.py``)
    ``abs``                ``Σ_{x,c,j} (Σ_{p∋j→c} a_p |x_p| |c_p w_pj|)²``
    ``last_layer``         the head's own block, ``C Σ_x ‖h(x)‖²`` (kept weights only)
    ``euler``              ``Σ_l Σ_{x,c} f_c² / ‖W_l‖_F²`` over layers that carry all of f
    ``t_sq``               ``Σ_{x,j} Σ_{p∋j} c_p² a_p² x_p² w_pj²``, a surrogate and **not** a bound
    =====================  =======================================================================

    The ladder: ``Tr ≤ abs ≤ edge_per_output ≤ edge ≤ px``, ``edge_per_output ≤ px_per_output ≤ px``,
    ``Tr ≤ half ≤ edge``, ``half_per_output ≤ half``, ``Tr ≤ half_per_output ≤ edge_per_output``,
    ``Tr ≤ op``; both lower bounds are at most Tr. In B, gates are open and a maximum sums its window.

    Args:
        model: A network in eval mode of the functions in ``rules.py``: Linear and convolution layers,
            ReLU and leaky ReLU, max and average pooling, batch norm, sums, fixed factors, reshaping.
        x: N samples, sample axis first.
        names: Which of the above; None means all that are defined for this network and affordable: those
            that take C backward passes up to 10¹¹ multiply-adds, ``op`` up to as many for its norms.
        masks: Parameter name -> mask. Paths run through kept parameters only, and only kept
            parameters count.

    Returns:
        The bounds. Undefined ones are absent: ``px``, ``t_sq`` where a parameter is used twice, ``op``
        where the network is no chain of Linear or convolution layers, (leaky) ReLU, average or
        non-overlapping max pooling and reshaping, ``last_layer`` without a Linear head, ``euler`` where
        biases or shortcuts bypass every layer.

    Raises:
        ValueError: If a name is unknown, a batch or mask does not fit, or the model is in train mode.
        UnsupportedModule: If the network calls a function without a path rule, or a named bound is
            undefined for it.
        NumericalError: If the gates do not replay f(x) to 1e-10, or a bound does not fit float64; its
            decimal logarithm is in the message.

    Cost:
        In forward passes of the batch: two to record and check; then ``px`` one and ``edge`` three, or,
        without masks, little and little more than one, as layers of ones are plain sums; ``half`` two to
        three; ``t_sq`` three; per-output versions C times as many; ``abs`` and the trace one and C
        backwards; ``op`` one and its norms; ``euler`` one per layer that carries all of f.

    Source:
        ``px``: PX, Eq. 6. The others are this project's. Tested against ``paths/reference.py``.

    Example:
        >>> net = nn.Linear(2, 1, bias=False).requires_grad_(False)
        >>> _ = net.weight.fill_(3.0)
        >>> bounds = path_bounds(net, torch.tensor([[1.0, 2.0]]))
        >>> bounds.trace, bounds.upper["edge"], bounds.upper["px"]
        (5.0, 5.0, 10.0)
    """
    return bounds_of(model, x, masks, names, NAMES)


@dataclass(frozen=True)
class Recorded:
    """A recorded and replayed network in float64.

    Attributes:
        model: The network.
        survey: Its recording.
        kinks: How many gates an exact zero or a tie decided.
        seconds: Wall time of recording and replay.
    """

    model: FunctionalModel
    survey: Survey
    kinks: int
    seconds: float


def recorded(
    model: nn.Module | FunctionalModel, x: Tensor, masks: Masks | None, *, smooth: bool = False
) -> Recorded:
    """Check, record and replay a network in float64; arguments and errors as in ``path_bounds``."""
    model = to_dtype(functional(model), torch.float64)
    check_batch("x", x)
    check_masks(masks, model.params, binary=True)
    x = x.double()
    effective = masked(model.params, masks)
    check_network(model, effective, x)
    start = time.perf_counter()
    run = record(model.model_fn, effective, x, smooth=smooth)
    kinks = check_replay(model.model_fn, effective, x, run)
    seconds = time.perf_counter() - start
    return Recorded(
        model, Survey(model.model_fn, model.params, masks, x, run, smooth), kinks, seconds
    )


def bounds_of(
    model: nn.Module | FunctionalModel,
    x: Tensor,
    masks: Masks | None,
    names: Iterable[str] | None,
    choices: tuple[str, ...],
    *,
    smooth: bool = False,
) -> PathBounds:
    """Compute bounds by name, or all of ``choices`` that are defined and affordable."""
    wanted = _wanted(names, choices)
    ready = recorded(model, x, masks, smooth=smooth)
    values: dict[str, float] = {}
    seconds = {"record": ready.seconds}
    remaining = list(choices if wanted is None else wanted)
    while remaining:
        name, start = remaining.pop(0), time.perf_counter()
        if _computed(name, ready.survey, named=wanted is not None):
            values[name] = _finite(name, RULES[name](ready.survey))
            seconds[name] = time.perf_counter() - start
        ready.survey.forget(remaining)
    return PathBounds(
        {name: values[name] for name in UPPER if name in values},
        {name: values[name] for name in LOWER if name in values},
        values.get("t_sq"),
        seconds,
        ready.kinks,
        lambda: float(ntk_trace(ready.model, ready.survey.x, masks=masks)),
    )


def bound_values(
    model_fn: ModelFn, params: Params, masks: Masks | None, x: Tensor, names: Iterable[str]
) -> dict[str, Tensor]:
    """Return the named bounds as 0-dim tensors: the rules of ``path_bounds`` as a pure function.

    vmap-able over ``params`` and ``masks``. Nothing is checked but the functions the network calls; a
    bound that does not fit the dtype is infinite.
    """
    net = survey(model_fn, params, masks, x)
    return {name: RULES[name](net).value() for name in names}


def _computed(name: str, net: Survey, *, named: bool) -> bool:
    """Say whether a bound is computed; if it was named, it is, or an error says why not."""
    missing = undefined(name, net) if named or affordable(name, net) else "too much work"
    if missing is not None and named:
        raise UnsupportedModule(
            complaint(
                "names",
                "bounds that are defined for this network",
                f"{name!r}: {missing}",
                "Leave names out to get those that are defined.",
            )
        )
    return missing is None


def _wanted(names: Iterable[str] | None, choices: tuple[str, ...]) -> tuple[str, ...] | None:
    if names is None:
        return None
    wanted = (names,) if isinstance(names, str) else tuple(names)
    for name in wanted:
        check_choice("names", name, choices)
    return wanted


def _finite(name: str, value: Scaled) -> float:
    """Return a bound as a Python float.

    Raises:
        NumericalError: If it is not finite in float64.
    """
    number = float(value.value())
    if not math.isfinite(number):
        size = value.log10()
        known = f" Its decimal logarithm is {size:.1f}." if math.isfinite(size) else ""
        raise NumericalError(
            complaint(
                f"bound {name!r}",
                "finite in float64",
                number,
                f"The input was finite: rescale the parameters or the data.{known}",
            )
        )
    return number
