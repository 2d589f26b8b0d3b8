"""Layer rules: from a layer's input and output cotangent to its block of the Jacobian.

==============  =======================================  =============================================
kind            block of the weight                      calls
==============  =======================================  =============================================
"matrix"        ``G_nc A_nᵀ``, A as it is                linear (on vectors or sequences)
"convolution"   ``G_nc A_nᵀ``, A unfolded, by group      conv1d, conv2d, conv3d
"transposed"    ``A_n G_ncᵀ``, G unfolded, by group      conv_transpose1d, 2d, 3d
"scale"         ``Σ_s G_nc[:, s] x̂_n[:, s]``             batch (eval), layer, group, instance norm, PReLU
"embedding"     rows of G added up by index              embedding
==============  =======================================  =============================================

``A_n [D, S]`` is the input with S positions (S = 1 for a Linear on vectors), ``G_nc [O, S]`` the
cotangent of output c, and x̂ the output without scale and shift. The bias gets ``Σ_s G_nc[:, s]``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
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
    output_padding: tuple[int, ...] = ()


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

    @property
    def is_vector(self) -> bool:
        """Whether the call is a Linear with one position per sample."""
        return self.call.kind == "matrix" and self.a.ndim == 2

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


def weight_block(f: Factors) -> Tensor:
    """Return ``∂f_c(x_n)/∂W`` as [N, C, p]."""
    return BLOCKS[f.call.kind](f)


def bias_block(f: Factors) -> Tensor:
    """Return ``∂f_c(x_n)/∂b = Σ_s G_nc[:, s]`` as [N, C, p]."""
    g = f.g.transpose(0, 1)
    if f.call.kind == "scale":
        return _keep_axes(g, f.call.axes)
    return _keep_axes(g, (g.ndim - 3,) if f.call.kind == "matrix" else (0,))


def _matrix_block(f: Factors) -> Tensor:
    a, g = f.input_columns(), f.cotangent_columns()
    n, c, groups, o, s = g.shape
    blocks = g.transpose(1, 2).reshape(n, groups, c * o, s) @ a.transpose(2, 3)
    return blocks.unflatten(2, (c, o)).transpose(1, 2).flatten(2)


def _transposed_block(f: Factors) -> Tensor:
    window = f.call.window
    if window is None:
        raise TypeError("a transposed convolution must have a window")
    g = f.g.flatten(0, 1)
    for axis, (extra, pair) in enumerate(zip(window.output_padding, window.padding, strict=True)):
        # No weight reaches the output padding: the windows on G end where the input does.
        length = g.shape[2 + axis] - max(0, extra - pair[1])
        g = g.narrow(2 + axis, 0, length)
    padding = tuple(
        (left, max(0, right - extra))
        for (left, right), extra in zip(window.padding, window.output_padding, strict=True)
    )
    moved = Window(window.kernel, window.stride, padding, window.dilation, 1)
    c, n = f.g.shape[:2]
    columns = unfold(g, moved).view(c, n, window.groups, -1, f.a[0, 0].numel()).transpose(0, 1)
    a = f.a.flatten(2).unflatten(1, (window.groups, -1)).unsqueeze(1)
    return (a @ columns.transpose(3, 4)).flatten(2)


def _scale_block(f: Factors) -> Tensor:
    return _keep_axes(f.g.transpose(0, 1) * f.a.unsqueeze(1), f.call.axes)


def _embedding_block(f: Factors) -> Tensor:
    rows = f.call.weight_shape[0]
    hot = f.a.flatten(1).unsqueeze(-1) == torch.arange(rows, device=f.a.device)
    if f.call.padding_idx is not None:
        hot = hot & (torch.arange(rows, device=f.a.device) != f.call.padding_idx % rows)
    g = f.g.transpose(0, 1).flatten(2, -2)
    return (hot.to(g.dtype).transpose(1, 2).unsqueeze(1) @ g).flatten(2)


def _keep_axes(g: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Sum [N, C, *output] over all axes of the output but ``axes``, and flatten those."""
    others = tuple(2 + axis for axis in range(g.ndim - 2) if axis not in axes)
    total = g.sum(others) if others else g
    return total.reshape(*total.shape[:2], -1)


BLOCKS: dict[Kind, Callable[[Factors], Tensor]] = {
    "matrix": _matrix_block,
    "convolution": _matrix_block,
    "transposed": _transposed_block,
    "scale": _scale_block,
    "embedding": _embedding_block,
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
    "weight": None, "bias": None, "stride": 1, "padding": 0, "output_padding": 0, "dilation": 1,
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
        _tuple(given["output_padding"], rank),
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
