"""The ladder of bounds on the trace of the NTK, by network passes; no path is enumerated."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

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
    take,
    to_dtype,
)
from ntktheory.ntk.trace import ntk_trace, sample_traces
from ntktheory.paths.gates import Recording, check_replay, record, replay
from ntktheory.paths.networks import PathNet, gated_squared_net, ones_net, squared_net

UPPER = ("px", "px_per_output", "edge", "edge_per_output", "abs")
LOWER = ("last_layer", "euler")
NAMES = (*UPPER, *LOWER, "t_sq")


@dataclass(frozen=True)
class PathBounds:
    """Bounds on ``Tr Θ`` over all kept parameters; Python floats computed in float64.

    Attributes:
        upper: Upper bounds by name; see ``path_bounds``.
        lower: Lower bounds by name.
        t_sq: The path surrogate; not a bound. None where it is not defined or not asked for.
        seconds: Wall time of each, by name (the recording under "record"), in seconds.
    """

    upper: Mapping[str, float]
    lower: Mapping[str, float]
    t_sq: float | None
    seconds: Mapping[str, float]
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

    With ``A_jc = Σ_x Σ_{p∋j→c} a_p² x_p²``, ``B_jc = Σ_{p∋j→c} w_pj²``, and sums over c written
    A_j, B_j (sums over the batch; never means; biases are parameters j too):

    =================  ===========================================================
    ``px``             ``(Σ_{x,c,p} a_p² x_p²)(Σ_j B_j)``, the bound of PX
    ``px_per_output``  the same product for each output, summed
    ``edge``           ``Σ_j A_j B_j``
    ``edge_per_output``  ``Σ_{j,c} A_jc B_jc``
    ``abs``            ``Σ_{x,c,j} (Σ_{p∋j→c} a_p |x_p| |w_pj|)²``
    ``last_layer``     the head's own block, ``C Σ_x ‖h(x)‖²`` (kept weights only)
    ``euler``          ``Σ_l Σ_{x,c} f_c² / ‖W_l‖_F²`` over layers that carry all of f
    ``t_sq``           ``Σ_{x,j} Σ_{p∋j} a_p² x_p² w_pj²``, a surrogate and **not** a bound
    =================  ===========================================================

    The ladder: ``Tr ≤ abs ≤ edge_per_output ≤ edge ≤ px`` and
    ``edge_per_output ≤ px_per_output ≤ px``; both lower bounds are at most Tr.

    Args:
        model: A ReLU network in eval mode of Linear, convolutions, average pooling, sums, reshaping.
        x: N samples, sample axis first.
        names: Which of the above; None means all that are defined for this network.
        masks: Parameter name -> mask. Paths run through kept parameters only, and only kept
            parameters count.

    Returns:
        The bounds. Undefined ones are absent: ``px`` where a parameter is used twice, ``t_sq`` with
        average pooling, ``last_layer`` without a Linear head, ``euler`` where biases or shortcuts
        bypass every layer.

    Raises:
        ValueError: If a name is unknown, a batch or mask does not fit, or the model is in train mode.
        UnsupportedModule: If the network calls a function without a path rule, or a named bound is
            undefined for it.
        NumericalError: If the gates do not replay f(x) to 1e-10, or a bound overflows float64.

    Cost:
        One recording forward; ``px`` and ``edge`` one forward and backward of the ones net on the
        batch and of the squared net on one sample; per-output versions C of each; ``abs`` and the
        trace one forward and C backwards; ``euler`` one forward per layer.

    Source:
        ``px``: PX, Eq. 6. The others are this project's. Tested against ``paths/reference.py``.

    Example:
        >>> net = nn.Linear(2, 1, bias=False).requires_grad_(False)
        >>> _ = net.weight.fill_(3.0)
        >>> bounds = path_bounds(net, torch.tensor([[1.0, 2.0]]))
        >>> bounds.trace, bounds.upper["edge"], bounds.upper["px"]
        (5.0, 5.0, 10.0)
    """
    wanted = _wanted(names)
    model = to_dtype(functional(model), torch.float64)
    check_batch("x", x)
    check_masks(masks, model.params, binary=True)
    x = x.double()
    effective = masked(model.params, masks)
    check_network(model, effective, x)
    start = time.perf_counter()
    run = record(model.model_fn, effective, x)
    check_replay(model.model_fn, effective, x, run)
    seconds = {"record": time.perf_counter() - start}
    nets = _Nets(model.model_fn, model.params, masks, x, run)
    values: dict[str, float] = {}
    for name in NAMES if wanted is None else wanted:
        missing = undefined(name, nets)
        if missing is not None and wanted is not None:
            raise UnsupportedModule(
                complaint(
                    "names",
                    "bounds that are defined for this network",
                    f"{name!r}: {missing}",
                    "Leave names out to get those that are defined.",
                )
            )
        if missing is None:
            start = time.perf_counter()
            values[name] = _finite(name, float(RULES[name](nets)))
            seconds[name] = time.perf_counter() - start
    return PathBounds(
        {name: values[name] for name in UPPER if name in values},
        {name: values[name] for name in LOWER if name in values},
        values.get("t_sq"),
        seconds,
        lambda: float(ntk_trace(model, x, masks=masks)),
    )


def bound_values(
    model_fn: ModelFn, params: Params, masks: Masks | None, x: Tensor, names: Iterable[str]
) -> dict[str, Tensor]:
    """Return the named bounds as 0-dim tensors: the rules of ``path_bounds`` as a pure function.

    vmap-able over ``params`` and ``masks``. Nothing is checked but the functions the network calls.
    """
    run = record(model_fn, masked(params, masks), x)
    nets = _Nets(model_fn, params, masks, x, run)
    return {name: RULES[name](nets) for name in names}


@dataclass(frozen=True)
class _Nets:
    """A recorded network and, made when first needed, the two networks of its paths."""

    model_fn: ModelFn
    params: Params
    masks: Masks | None
    x: Tensor
    run: Recording

    @cached_property
    def ones(self) -> PathNet:
        return ones_net(self.model_fn, self.params, self.masks, self.x, self.run.gates)

    @cached_property
    def squared(self) -> PathNet:
        return squared_net(self.model_fn, self.params, self.masks, self.x)

    @cached_property
    def a(self) -> Params:
        return self.ones.by_parameter()

    @cached_property
    def b(self) -> Params:
        return self.squared.by_parameter()

    @property
    def outputs(self) -> int:
        return self.run.outputs.shape[1]


def undefined(name: str, nets: Any) -> str | None:
    """Say why a bound is undefined for a recorded network, or return None."""
    repeated = [key for key, count in nets.run.uses.items() if count > 1]
    if name in ("px", "px_per_output", "t_sq") and repeated:
        return f"{repeated[0]!r} is used twice, and a weight twice on a path breaks it"
    if name == "t_sq" and nets.run.averages:
        return "average pooling has fixed edges, which one net would count once"
    if name == "abs" and not _samples_first(nets):
        return "its ReLUs do not have the sample axis first"
    if name == "last_layer" and (nets.run.head is None or nets.run.uses[nets.run.head[0]] != 1):
        return "the outputs are not those of a Linear layer with a weight of its own"
    if name == "euler" and not any(bool(carries) for carries, _ in _euler_terms(nets)):
        return "biases or shortcuts bypass every layer"
    return None


def _samples_first(nets: _Nets) -> bool:
    """Say whether the gates of the first sample alone replay the first sample's outputs."""
    if any(gate.shape[0] != nets.x.shape[0] for gate in nets.run.gates):
        return False
    first = take((nets.x, nets.run.gates), 0, 1)
    try:
        alone = replay(nets.model_fn)(masked(nets.params, nets.masks), first)
    except RuntimeError:
        return False
    expected = nets.run.outputs[:1]
    return alone.shape == expected.shape and torch.allclose(alone, expected, rtol=1e-10, atol=0)


def _px(nets: _Nets) -> Tensor:
    return nets.ones.z.sum() * _total(nets.b)


def _px_per_output(nets: _Nets) -> Tensor:
    data = nets.ones.z.sum(0)
    return sum_(data[c] * _total(nets.squared.by_output(c)) for c in range(nets.outputs))


def _edge(nets: _Nets) -> Tensor:
    return _dot(nets.a, nets.b)


def _edge_per_output(nets: _Nets) -> Tensor:
    return sum_(
        _dot(nets.ones.by_output(c), nets.squared.by_output(c)) for c in range(nets.outputs)
    )


def _abs(nets: _Nets) -> Tensor:
    """The trace of the gated network at |θ| on |x|."""
    size = {name: p.abs() for name, p in nets.params.items()}
    batch = (nets.x.abs(), nets.run.gates)
    return _total(sample_traces(replay(nets.model_fn), size, nets.masks, batch, tuple(size)))


def _last_layer(nets: _Nets) -> Tensor:
    name, h = nets.run.head  # type: ignore[misc]
    kept = masked({name: torch.ones_like(nets.params[name])}, nets.masks)[name]
    return (h.square() @ kept.T).sum()


def _euler(nets: _Nets) -> Tensor:
    return sum_(term for _, term in _euler_terms(nets))


def _euler_terms(nets: _Nets) -> Iterable[tuple[Tensor, Tensor]]:
    """Yield (layer carries all of f, its term). f is affine in W_l, so it does iff f = 0 at W_l = 0.

    Then ``f_c = ⟨∂f_c/∂W_l, W_l⟩``, and Cauchy–Schwarz gives the term.
    """
    effective = masked(nets.params, nets.masks)
    fixed = replay(nets.model_fn)
    squares = nets.run.outputs.square().sum()
    weights = {name: n for name, n in nets.run.uses.items() if nets.params[name].ndim > 1}
    for name, count in weights.items():
        norm = effective[name].square().sum()
        without = effective | {name: torch.zeros_like(effective[name])}
        rest = fixed(without, (nets.x, nets.run.gates))
        carries = (rest == 0).all() & (norm > 0) & (count == 1)
        yield carries, torch.where(carries, squares / torch.where(norm > 0, norm, 1.0), 0.0)


def _t_sq(nets: _Nets) -> Tensor:
    net = gated_squared_net(nets.model_fn, nets.params, nets.masks, nets.x, nets.run.gates)
    return _total(net.by_parameter())


RULES: dict[str, Callable[[_Nets], Tensor]] = {
    "px": _px,
    "px_per_output": _px_per_output,
    "edge": _edge,
    "edge_per_output": _edge_per_output,
    "abs": _abs,
    "last_layer": _last_layer,
    "euler": _euler,
    "t_sq": _t_sq,
}


def _wanted(names: Iterable[str] | None) -> tuple[str, ...] | None:
    if names is None:
        return None
    wanted = (names,) if isinstance(names, str) else tuple(names)
    for name in wanted:
        check_choice("names", name, NAMES)
    return wanted


def sum_(terms: Iterable[Tensor]) -> Tensor:
    """Sum 0-dim tensors."""
    return torch.stack(list(terms)).sum()


def _total(values: Params) -> Tensor:
    return sum_(v.sum() for v in values.values())


def _dot(a: Params, b: Params) -> Tensor:
    return sum_((a[name] * b[name]).sum() for name in a)


def _finite(name: str, value: float) -> float:
    if not torch.isfinite(torch.tensor(value)):
        raise NumericalError(
            complaint(
                f"bound {name!r}",
                "finite in float64",
                value,
                "The input was finite: rescale the parameters or the data.",
            )
        )
    return value
