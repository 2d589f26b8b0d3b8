"""Path bounds for smooth activations: secant gates before an edge, derivative gates after it.

With ``s = (φ(z) − φ(0))/z`` (φ'(0) at z = 0) an activation is ``φ(z) = s·z + φ(0)``: the exact
activation before an edge is a sum over paths gated by s, with bias paths from φ(0) where that is not 0.
The derivative after the edge is gated by φ'(z). So

    ∂f_c/∂θ_j = Σ_{p∋j} (s on p before j) · w_pj · (φ' on p after j) · x_p

is exact, and the ladder holds with these mixed gates in A. With secant gates alone it fails: s is no
derivative.
"""

from collections.abc import Iterable

from torch import Tensor, nn

from ntktheory.functional import FunctionalModel, Masks
from ntktheory.paths.bounds import PathBounds, bounds_of, recorded

MIXED = ("edge", "edge_per_output", "half", "half_per_output")


def mixed_gate_bounds(
    model: nn.Module | FunctionalModel,
    x: Tensor,
    *,
    names: Iterable[str] | None = None,
    masks: Masks | None = None,
) -> PathBounds:
    """Bound the trace of the NTK of a network with smooth activations, by mixed gates.

    With ``A_jc = Σ_x Σ_{p∋j→c} (s before j)² (φ' after j)² x_p²`` and B_jc as in ``path_bounds`` the
    bounds are ``edge`` = ``Σ_j A_j B_j``, ``half`` (exact activations before the edge), and both per
    output. For ReLU, s = φ', and they are those of ``path_bounds``. R_PX has no such form: its first
    factor knows of no edge.

    Args:
        model: A network in eval mode of the functions that ``path_bounds`` takes and of GELU, SiLU,
            tanh, sigmoid, softplus, ELU, CELU, SELU, Mish, softsign, hardswish.
        x: N samples, sample axis first.
        names: Which of ``edge``, ``edge_per_output``, ``half``, ``half_per_output``; None means all that
            are affordable.
        masks: Parameter name -> mask, as in ``path_bounds``.

    Returns:
        The bounds in ``upper``; ``lower`` is empty.

    Raises:
        ValueError: If a name is unknown, a batch or mask does not fit, or the model is in train mode.
        UnsupportedModule: If the network calls a function without a path rule.
        NumericalError: If the gates do not replay f(x) to 1e-10, or a bound does not fit float64.

    Cost:
        As in ``path_bounds``.

    Source:
        This project's.

    Example:
        >>> net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Tanh(), nn.Linear(1, 1, bias=False))
        >>> bounds = mixed_gate_bounds(net, torch.ones(1, 1), names=["edge"])
        >>> bounds.upper["edge"] >= bounds.trace * (1 - 1e-6)  # one path: they are equal
        True
    """
    return bounds_of(model, x, masks, names, MIXED, smooth=True)


def secant_gate_sum(
    model: nn.Module | FunctionalModel, x: Tensor, *, masks: Masks | None = None
) -> float:
    """Return ``Σ_j A_j B_j`` with secant gates before *and* after an edge: **not a bound**.

    It is what the rule for ReLU gives with the gates φ(z)/z, by which f(x) is still a sum over paths.

    Args:
        model: As in ``mixed_gate_bounds``.
        x: The batch.
        masks: As in ``path_bounds``.

    Returns:
        The sum, a Python float.

    Raises:
        ValueError: If a batch or mask does not fit, or the model is in train mode.
        UnsupportedModule: If the network calls a function without a path rule.
        NumericalError: If the gates do not replay f(x) to 1e-10.
    """
    survey = recorded(model, x, masks, smooth=True).survey
    return float(survey.along(survey.b, survey.data[1], gates=survey.run.gates).sum().value())
