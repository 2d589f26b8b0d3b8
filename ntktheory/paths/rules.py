"""The allow-list: which functions have a path rule, and of which kind.

A network with fixed gates is a sum over paths if every function in it is one of these kinds:

==========  ==========================================================================================
kind        what it is to paths
==========  ==========================================================================================
structure   every entry of the result is an entry of the argument, or zero padding: edges of weight 1
join        the same of several arguments: concatenation, stacking
sum         a sum over axes: edges of weight 1
average     a mean or average pooling: fixed edges of weight 1/k
add         edges of weight 1 (−1) side by side; a constant is a bias path with a fixed edge
multiply    by a parameter: an edge; by a constant c: a fixed edge c
layer       linear, convolutions, matrix products: an edge for every entry of the weight
batch_norm  eval mode: fixed edges 1/σ and −μ/σ, edges γ and β
relu        a gate per unit: 1, or the slope of the negative side
maximum     a gate per window: 1 at the largest entry (max pooling, ``max`` along an axis, ``amax``)
smooth      φ(z) of one variable: its gate φ(z)/z is not its derivative (``mixed.py`` only)
==========  ==========================================================================================

What is in no kind is refused: without a rule every bound below it would be wrong without a sign.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ntktheory.calls import CONVOLUTIONS, bind_convolution, bind_linear, call_name, tensors_in
from ntktheory.paths.windows import (
    ADAPTIVE_AVERAGE_POOLS,
    ADAPTIVE_MAX_POOLS,
    AVERAGE_POOLS,
    MAX_POOLS,
    bind_pool,
)

TRANSPOSED = {f"conv_transpose{d}d": d for d in (1, 2, 3)}
MATRIX_PRODUCTS = ("matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "mv")
SMOOTH = (
    "gelu", "silu", "silu_", "tanh", "tanh_", "sigmoid", "sigmoid_", "softplus", "elu", "elu_",
    "celu", "celu_", "selu", "selu_", "mish", "mish_", "softsign", "hardswish", "hardswish_",
)  # fmt: skip
# Where a function takes "inplace" by position.
INPLACE_AT = {
    "relu": 1, "leaky_relu": 2, "rrelu": 4, "elu": 2, "celu": 2, "selu": 1, "silu": 1, "mish": 1,
    "hardswish": 1,
}  # fmt: skip
_KINDS: dict[str, tuple[str, ...]] = {
    "structure": (
        "flatten", "view", "reshape", "permute", "transpose", "squeeze", "unsqueeze", "unflatten",
        "movedim", "moveaxis", "swapaxes", "swapdims", "contiguous", "clone", "T", "mT", "t", "flip",
        "roll", "__getitem__", "index_select", "select", "chunk", "split", "tensor_split", "unbind",
        "narrow", "expand", "broadcast_to", "repeat", "tile", "repeat_interleave", "view_as",
        "reshape_as", "expand_as", "pad", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle",
        "dropout", "dropout_", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout",
        "feature_alpha_dropout", "feature_dropout",
    ),
    "join": ("cat", "concat", "concatenate", "stack", "hstack", "vstack"),
    "sum": ("sum",),
    "average": ("mean", *AVERAGE_POOLS, *ADAPTIVE_AVERAGE_POOLS),
    "add": (
        "add", "add_", "__add__", "__radd__", "__iadd__", "sub", "sub_", "subtract", "__sub__",
        "__rsub__", "__isub__", "rsub",
    ),
    "multiply": (
        "mul", "mul_", "multiply", "__mul__", "__rmul__", "__imul__", "div", "div_", "divide",
        "true_divide", "__div__", "__truediv__", "__itruediv__", "__idiv__", "neg", "neg_",
        "negative", "__neg__",
    ),
    "layer": ("linear", *CONVOLUTIONS, *TRANSPOSED, *MATRIX_PRODUCTS),
    "batch_norm": ("batch_norm",),
    "relu": ("relu", "relu_", "leaky_relu", "leaky_relu_", "rrelu", "rrelu_"),
    "maximum": (*MAX_POOLS, *ADAPTIVE_MAX_POOLS, "amax", "max"),
    "smooth": SMOOTH,
}  # fmt: skip
KIND = {name: kind for kind, names in _KINDS.items() for name in names}

WHY = {
    "smooth": "It is smooth: its gate φ(z)/z is not its derivative; mixed_gate_bounds covers it",
    "clamp": "It is flat above a level that no path sees",
    "hardtanh": "It is flat above a level that no path sees",
    "prelu": "The slope of its negative side is a parameter and would be an edge and a gate",
    "where": "What it chooses by is not known to be constant",
    "maximum": "It gates two tensors by each other",
    "softmax": "It divides data by data",
    "scaled_dot_product_attention": "It multiplies data by data",
    "layer_norm": "It divides data by data",
    "group_norm": "It divides data by data",
    "instance_norm": "It divides data by data",
    "embedding": "Its input is no number that a path could carry",
    "detach": "It hides paths from the derivative",
    "__setitem__": "It writes into a tensor that other paths may use",
}


@dataclass(frozen=True)
class Call:
    """One call of a torch function.

    Attributes:
        func: The function.
        args: Positional arguments.
        kwargs: Keyword arguments.
    """

    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def short(self) -> str:
        """The function's short name."""
        return call_name(self.func)

    @property
    def kind(self) -> str | None:
        """Which rule covers it, or None."""
        return KIND.get(self.short)

    def run(self) -> Any:
        """Make the call."""
        return self.func(*self.args, **self.kwargs)

    def tensors(self) -> Iterator[Tensor]:
        """Yield every tensor among the arguments."""
        return tensors_in(self.args, dict(self.kwargs))

    def given(self, names: Sequence[str], **defaults: Any) -> dict[str, Any]:
        """Return the arguments by name."""
        return defaults | dict(zip(names, self.args, strict=False)) | dict(self.kwargs)

    @property
    def in_place(self) -> bool:
        """Whether the result is written into the first argument."""
        if self.short in ("__iadd__", "__isub__", "__imul__", "__itruediv__", "__idiv__"):
            return True
        at = INPLACE_AT.get(self.short)
        by_position = at is not None and self.args[at : at + 1] == (True,)
        ends = self.short.endswith("_") and not self.short.startswith("__")
        return ends or by_position or bool(self.kwargs.get("inplace", False))


@dataclass(frozen=True)
class Layer:
    """A call that is linear in ``input`` and in ``weight``, with a bias or without.

    Attributes:
        input: The tensor multiplied by the weight.
        weight: The weight.
        bias: The bias, or None.
        apply: ``apply(input, weight, bias)`` makes the call with other tensors.
        short: The function's short name.
        options: Arguments of a convolution other than the tensors.
    """

    input: Tensor
    weight: Tensor
    bias: Tensor | None
    apply: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    short: str
    options: Mapping[str, Any]


def bind_layer(call: Call) -> Layer:
    """Read a call of kind "layer"."""
    if call.short in MATRIX_PRODUCTS:
        left, right = call.args[0], call.args[1] if len(call.args) > 1 else call.kwargs["other"]
        return Layer(left, right, None, lambda x, w, b: call.func(x, w), call.short, {})
    if call.short in TRANSPOSED:
        names = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups",
                 "dilation")  # fmt: skip
        given = call.given(names, bias=None)
    elif call.short == "linear":
        given = bind_linear(call.args, call.kwargs)
    else:
        given = bind_convolution(call.args, call.kwargs)
    options = {k: v for k, v in given.items() if k not in ("input", "weight", "bias")}
    return Layer(
        given["input"],
        given["weight"],
        given["bias"],
        lambda x, w, b: call.func(x, w, b, **options),
        call.short,
        options,
    )


@dataclass(frozen=True)
class Norm:
    """A call of eval-mode batch norm, ``γ·(x/σ − μ/σ) + β`` per channel."""

    input: Tensor
    mean: Tensor
    variance: Tensor
    weight: Tensor | None
    bias: Tensor | None
    eps: float

    def per_channel(self, t: Tensor) -> Tensor:
        """Return a tensor [channels] shaped to meet the input, [N, channels, …]."""
        return t.view(-1, *[1] * (self.input.ndim - 2))

    def inverse_deviation(self) -> Tensor:
        """Return 1/σ, [channels]."""
        return (self.variance + self.eps).rsqrt()


def bind_norm(call: Call) -> Norm | None:
    """Read a call of ``F.batch_norm``; None if it takes its statistics from the batch."""
    names = (
        "input",
        "running_mean",
        "running_var",
        "weight",
        "bias",
        "training",
        "momentum",
        "eps",
    )
    given = call.given(names, weight=None, bias=None, training=False, eps=1e-5)
    if call.func is not F.batch_norm or given["training"] or given["running_mean"] is None:
        return None
    return Norm(*(given[name] for name in (*names[:5], "eps")))


def negative_slope(call: Call) -> float:
    """Return the slope of a ReLU's negative side (eval mode of the random one)."""
    if call.short.startswith("leaky"):
        return float(call.given(("input", "negative_slope"), negative_slope=0.01)["negative_slope"])
    if call.short.startswith("rrelu"):
        given = call.given(("input", "lower", "upper"), lower=1 / 8, upper=1 / 3)
        return float(given["lower"] + given["upper"]) / 2
    return 0.0


def trains(call: Call) -> bool:
    """Say whether a dropout or random ReLU draws random numbers."""
    if call.short.startswith("rrelu"):
        names = ("input", "lower", "upper", "training")
        return bool(call.given(names, training=False)["training"])
    defaults = {"dropout": True, "dropout_": True, "dropout1d": True, "dropout2d": True,
                "dropout3d": True}  # fmt: skip
    default = defaults.get(call.short, False)
    return bool(call.given(("input", "p", "training"), training=default)["training"])


def axes_of_maximum(call: Call) -> tuple[tuple[int, ...], bool] | None:
    """Return (axes, keepdim) of a call of ``amax`` or ``max``; None without axes."""
    given = call.given(("input", "dim", "keepdim"), keepdim=False)
    dim = given.get("dim")
    if (
        dim is None
        or isinstance(dim, Tensor)
        or dim == ()
        or isinstance(given.get("other"), Tensor)
    ):
        return None
    ndim = given["input"].ndim
    axes = tuple(d % ndim for d in ((dim,) if isinstance(dim, int) else dim))
    return axes, bool(given["keepdim"])


def averaged(call: Call) -> int:
    """Return how many entries a call of ``mean`` averages."""
    given = call.given(("input", "dim"), dim=None)
    x, dim = given["input"], given["dim"]
    if dim is None or dim == ():
        return int(x.numel())
    n = 1
    for d in (dim,) if isinstance(dim, int) else dim:
        n *= int(x.shape[d])
    return n


def pool_arguments(call: Call) -> dict[str, Any]:
    """Return the arguments of a pooling call by name."""
    return bind_pool(call.short, call.args, call.kwargs)
