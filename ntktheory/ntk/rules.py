"""Layer rules: from a layer's input and output cotangent to its rows of the Jacobian.

==============  ========================================  ============================================
kind            rows of the weight, one output            calls
==============  ========================================  ============================================
"matrix"        ``G_n A_nᵀ``, A as it is                  linear (on vectors or sequences)
"convolution"   ``G_n A_nᵀ``, A the patches, by group     conv1d, conv2d, conv3d
"transposed"    ``A_n G_nᵀ``, G the patches, by group     conv_transpose1d, 2d, 3d
"scale"         ``Σ_s G_n[:, s] x̂_n[:, s]``               batch (eval), layer, group, instance, PReLU
"embedding"     rows of G added up by index               embedding
==============  ========================================  ============================================

``A_n [D, S]`` is the input with S positions (S = 1 for a Linear on vectors), ``G_n [O, S]`` the
cotangent of one output, and x̂ the output without scale and shift. The bias gets ``Σ_s G_n[:, s]``.
The two convolution rules make no patches: for all samples at once they are the weight gradient of one
convolution whose groups are the samples.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
import torch.nn.grad as kernel_gradients
from torch import Tensor

Kind = Literal["matrix", "convolution", "transposed", "scale", "embedding"]


@dataclass(frozen=True)
class Window:
    """How a convolution moves its kernel; one entry per spatial axis."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int


@dataclass(frozen=True)
class LayerCall:
    """One call of a function that has a layer rule.

    Attributes:
        kind: Which rule.
        weight: Name of the weight, or None if it is not itself a parameter.
        bias: Name of the bias, or None.
        output: Shape of the output without the sample axis.
        batched: Whether the input has the sample axis first.
        window: The moving window of a convolution.
        axes: For "scale", the axes of ``output`` that the weight has.
        weight_shape: Shape of the weight.
        padding_idx: For "embedding", the row that is not trained.
    """

    kind: Kind
    weight: str | None
    bias: str | None
    output: tuple[int, ...]
    batched: bool
    window: Window | None = None
    axes: tuple[int, ...] = ()
    weight_shape: tuple[int, ...] = ()
    padding_idx: int | None = None

    @property
    def is_vector(self) -> bool:
        """Whether it is a Linear with one position per sample."""
        return self.kind == "matrix" and len(self.output) == 1

    def names(self) -> tuple[str, ...]:
        """Return the names of this call's parameters."""
        return tuple(name for name in (self.weight, self.bias) if name is not None)


@dataclass(frozen=True)
class Factors:
    """A layer call with its input ``a`` [N, ...] and cotangents ``g`` [C, N, *output].

    For "scale" the input is x̂, for "embedding" the indices.
    """

    call: LayerCall
    a: Tensor
    g: Tensor

    def by_units(self, step: int) -> Iterator["Factors"]:
        """Yield the factors of some output units at a time, where rows of a weight split by unit."""
        convolution = self.call.kind == "convolution" and _window(self.call).groups == 1
        if self.call.kind != "matrix" and not convolution:
            yield self
            return
        axis = 2 if convolution else self.g.ndim - 1
        for g in self.g.split(step, axis):
            yield replace(self, g=g)

    def input_columns(self) -> Tensor:
        """Return A as [N, groups, D, S], unfolded for convolutions."""
        window = self.call.window
        if self.call.kind == "convolution" and window is not None:
            return unfold(self.a, window).unflatten(1, (window.groups, -1))
        n, d = self.a.shape[0], self.a.shape[-1]
        return self.a.reshape(n, 1, -1, d).transpose(2, 3)

    def cotangent_columns(self) -> Tensor:
        """Return G as [N, C, groups, O, S]."""
        g = self.g.transpose(0, 1)
        if self.call.kind == "convolution" and self.call.window is not None:
            return g.flatten(3).unflatten(2, (self.call.window.groups, -1))
        n, c, o = g.shape[0], g.shape[1], g.shape[-1]
        return g.reshape(n, c, 1, -1, o).transpose(3, 4)


def read_call(
    func: Any,
    short: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    names: Mapping[int, str],
    n: int,
    result: Any,
) -> tuple[LayerCall, Tensor] | None:
    """Read a call of a torch function as a layer.

    Args:
        func: The function.
        short: Its short name.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        names: Name of a parameter by the id of its tensor.
        n: Number of samples.
        result: What the call returned.

    Returns:
        The layer and the input that its block needs, or None if no rule covers the call.
    """
    reader = READERS.get(short)
    if reader is None or not isinstance(result, Tensor):
        return None
    given = DEFAULTS | dict(zip(ARGUMENTS[short], args, strict=False)) | dict(kwargs)
    weight, bias = names.get(id(given["weight"])), names.get(id(given["bias"]))
    if weight is None and bias is None:
        return None
    details = reader(given, func, args, kwargs, result)
    if details is None:
        return None
    kind, a, extra = details
    batched = a.ndim >= 1 and a.shape[0] == n and result.ndim >= 2 and result.shape[0] == n
    shape = tuple(given["weight"].shape) if isinstance(given["weight"], Tensor) else ()
    call = LayerCall(
        kind, weight, bias, tuple(result.shape[1:]), batched, weight_shape=shape, **extra
    )
    return call, a


def unfold(x: Tensor, window: Window) -> Tensor:
    """Return the patches of ``x`` [N, D, *spatial] that a convolution sees, [N, D·kernel, S].

    Row ``d·|kernel| + k`` meets entry ``weight[:, d].flatten(1)[:, k]``. Any number of axes.
    """
    rank = len(window.kernel)
    pads = [p for pair in reversed(window.padding) for p in pair]
    x = F.pad(x, pads) if any(pads) else x
    for axis, dilation in enumerate(window.dilation):
        extent = dilation * (window.kernel[axis] - 1) + 1
        x = x.unfold(2 + axis, extent, window.stride[axis])[..., ::dilation]
    taps, spatial = range(2 + rank, 2 + 2 * rank), range(2, 2 + rank)
    return x.permute(0, 1, *taps, *spatial).flatten(1, 1 + rank).flatten(2)


def weight_rows(call: LayerCall, a: Tensor, g: Tensor) -> Tensor:
    """Return ``∂f(x_n)/∂W`` of one output as [N, p], from input ``a`` and cotangent ``g``, [N, …]."""
    return ROWS[call.kind](call, a, g)


def bias_rows(call: LayerCall, g: Tensor) -> Tensor:
    """Return ``∂f(x_n)/∂b = Σ_s G_n[:, s]`` of one output as [N, p]."""
    if call.kind == "scale":
        return _keep_axes(g, call.axes)
    return _keep_axes(g, (g.ndim - 2,) if call.kind == "matrix" else (0,))


def _matrix_rows(call: LayerCall, a: Tensor, g: Tensor) -> Tensor:
    a, g = (t.reshape(t.shape[0], -1, t.shape[-1]) for t in (a, g))
    return (g.transpose(1, 2) @ a).flatten(1)


def _convolution_rows(call: LayerCall, a: Tensor, g: Tensor) -> Tensor:
    window = _window(call)
    padding = tuple(left for left, _ in window.padding)
    if any(left != right for left, right in window.padding):
        a = F.pad(a, [p for pair in reversed(window.padding) for p in pair])
        padding = (0,) * len(window.kernel)
    return _weight_gradient(call, a, g, padding)


def _transposed_rows(call: LayerCall, a: Tensor, g: Tensor) -> Tensor:
    """Take a transposed convolution as the input gradient of a convolution from its output, padded."""
    window, pads = _window(call), []
    for axis in reversed(range(len(window.kernel))):
        extent = window.dilation[axis] * (window.kernel[axis] - 1) + 1
        reached = (a.shape[2 + axis] - 1) * window.stride[axis] + extent
        left = window.padding[axis][0]
        pads += [left, reached - left - g.shape[2 + axis]]  # no weight reaches the output padding
    return _weight_gradient(call, F.pad(g, pads), a, (0,) * len(window.kernel))


def _weight_gradient(
    call: LayerCall, inputs: Tensor, outputs: Tensor, padding: tuple[int, ...]
) -> Tensor:
    """Return every sample's gradient of a kernel, [N, p]: one convolution with a group per sample."""
    window, (n, d) = _window(call), inputs.shape[:2]
    o = outputs.shape[1]
    gradient = WEIGHT_GRADIENTS[len(window.kernel)](
        inputs.reshape(1, n * d, *inputs.shape[2:]),
        (n * o, d // window.groups, *window.kernel),
        outputs.reshape(1, n * o, *outputs.shape[2:]),
        stride=window.stride,
        padding=padding,
        dilation=window.dilation,
        groups=n * window.groups,
    )
    return gradient.reshape(n, -1)


def _window(call: LayerCall) -> Window:
    if call.window is None:
        raise TypeError("a convolution must have a window")
    return call.window


def _scale_rows(call: LayerCall, a: Tensor, g: Tensor) -> Tensor:
    if call.axes == (0,) and g.ndim > 2:
        return torch.linalg.vecdot(g.flatten(2), a.flatten(2))
    return _keep_axes(g * a, call.axes)


def _embedding_rows(call: LayerCall, a: Tensor, g: Tensor) -> Tensor:
    rows = torch.arange(call.weight_shape[0], device=a.device)
    hot = a.reshape(a.shape[0], -1, 1) == rows
    if call.padding_idx is not None:
        hot = hot & (rows != call.padding_idx % call.weight_shape[0])
    return (hot.to(g.dtype).transpose(1, 2) @ g.reshape(g.shape[0], -1, g.shape[-1])).flatten(1)


def _keep_axes(g: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Sum [N, *output] over all axes of the output but ``axes``, and flatten those."""
    others = tuple(1 + axis for axis in range(g.ndim - 1) if axis not in axes)
    total = g.sum(others) if others else g
    return total.reshape(total.shape[0], -1)


WEIGHT_GRADIENTS: dict[int, Callable[..., Tensor]] = {
    1: kernel_gradients.conv1d_weight,
    2: kernel_gradients.conv2d_weight,
    3: kernel_gradients.conv3d_weight,
}
ROWS: dict[Kind, Callable[[LayerCall, Tensor, Tensor], Tensor]] = {
    "matrix": _matrix_rows,
    "convolution": _convolution_rows,
    "transposed": _transposed_rows,
    "scale": _scale_rows,
    "embedding": _embedding_rows,
}


# --- reading calls -------------------------------------------------------------------------------

Details = tuple[Kind, Tensor, dict[str, Any]]
CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
TRANSPOSED = (
    "input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"
)  # fmt: skip
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "linear": ("input", "weight", "bias"),
    **{f"conv{rank}d": CONVOLUTION for rank in (1, 2, 3)},
    **{f"conv_transpose{rank}d": TRANSPOSED for rank in (1, 2, 3)},
    "batch_norm": ("input", "running_mean", "running_var", "weight", "bias", "training"),
    "layer_norm": ("input", "normalized_shape", "weight", "bias"),
    "group_norm": ("input", "num_groups", "weight", "bias"),
    "instance_norm": ("input", "running_mean", "running_var", "weight", "bias"),
    "prelu": ("input", "weight"),
    "embedding": ("input", "weight", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq"),
}
DEFAULTS: dict[str, Any] = {
    "weight": None, "bias": None, "stride": 1, "padding": 0, "dilation": 1,
    "groups": 1, "training": False, "padding_idx": None, "max_norm": None,
    "scale_grad_by_freq": False,
}  # fmt: skip


def _read_linear(given: dict[str, Any], *rest: Any) -> Details | None:
    a = given["input"]
    return ("matrix", a, {}) if given["weight"].ndim == 2 and a.ndim >= 2 else None


def _read_convolution(given: dict[str, Any], *rest: Any) -> Details | None:
    a, weight = given["input"], given["weight"]
    rank = weight.ndim - 2
    if a.ndim != rank + 2:
        return None
    kernel, dilation = tuple(weight.shape[2:]), _tuple(given["dilation"], rank)
    padding = _padding(given["padding"], kernel, dilation)
    window = Window(kernel, _tuple(given["stride"], rank), padding, dilation, given["groups"])
    return "convolution", a, {"window": window}


def _read_transposed(given: dict[str, Any], *rest: Any) -> Details | None:
    a, weight = given["input"], given["weight"]
    rank = weight.ndim - 2
    if a.ndim != rank + 2:
        return None
    window = Window(
        tuple(weight.shape[2:]),
        _tuple(given["stride"], rank),
        tuple((p, p) for p in _tuple(given["padding"], rank)),
        _tuple(given["dilation"], rank),
        given["groups"],
    )
    return "transposed", a, {"window": window}


def _read_norm(
    given: dict[str, Any],
    func: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    result: Tensor,
) -> Details | None:
    """Run the call again without scale and shift: that is x̂."""
    if given["training"]:
        return None
    affine = [given["weight"], given["bias"]]
    plain = [None if any(a is t for t in affine if t is not None) else a for a in args]
    named = {key: value for key, value in kwargs.items() if key not in ("weight", "bias")}
    axes: tuple[int, ...] = (0,)
    if "normalized_shape" in given:
        last = len(given["normalized_shape"])
        axes = tuple(range(result.ndim - 1 - last, result.ndim - 1))
    return "scale", func(*plain, **named), {"axes": axes}


def _read_prelu(given: dict[str, Any], *rest: Any) -> Details | None:
    axes = (0,) if given["weight"].numel() > 1 else ()
    return "scale", given["input"].clamp(max=0), {"axes": axes}


def _read_embedding(given: dict[str, Any], *rest: Any) -> Details | None:
    if given["max_norm"] is not None or given["scale_grad_by_freq"]:
        return None
    return "embedding", given["input"], {"padding_idx": given["padding_idx"]}


READERS: dict[str, Callable[..., Details | None]] = {
    "linear": _read_linear,
    **{f"conv{rank}d": _read_convolution for rank in (1, 2, 3)},
    **{f"conv_transpose{rank}d": _read_transposed for rank in (1, 2, 3)},
    "batch_norm": _read_norm,
    "layer_norm": _read_norm,
    "group_norm": _read_norm,
    "instance_norm": _read_norm,
    "prelu": _read_prelu,
    "embedding": _read_embedding,
}


def _tuple(value: Any, rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value) * (rank // len(value))


def _padding(
    padding: Any, kernel: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    if padding == "valid":
        return ((0, 0),) * len(kernel)
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return tuple((t // 2, t - t // 2) for t in totals)
    return tuple((p, p) for p in _tuple(padding, len(kernel)))
