"""What a network does, seen at its calls of torch functions.

Every module, ``F.relu`` or ``Tensor.relu_`` alike ends in calls that a ``TorchFunctionMode`` sees,
also inside ``vmap``, ``vjp`` and ``jvp``. The layerwise kernel and the gates both rest on this one
view, so that neither needs to know or to edit the module.
"""

import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

Handler = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]

CONVOLUTIONS = {"conv1d": 1, "conv2d": 2, "conv3d": 3}
# Reading these of a tensor uses none of its values.
METADATA = frozenset(
    ("shape", "dtype", "device", "ndim", "requires_grad", "layout", "is_cuda", "is_leaf", "size",
     "dim", "stride", "numel", "is_floating_point", "is_contiguous", "__len__")
)  # fmt: skip


class Watch(TorchFunctionMode):
    """Hands every call of a torch function to ``handle(func, args, kwargs)``."""

    def __init__(self, handle: Handler) -> None:
        super().__init__()
        self._handle = handle

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return self._handle(func, args, dict(kwargs or {}))


def call_name(func: Callable[..., Any]) -> str:
    """Return a torch function's short name: ``relu`` for F.relu, torch.relu and Tensor.relu."""
    if func.__name__ in ("__get__", "__set__"):
        return str(func.__self__.__name__)  # type: ignore[attr-defined]
    return str(func.__name__)


def writes_in_place(
    short: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any
) -> bool:
    """Say whether a call may have written into its argument: it returns it, or is known to.

    Args:
        short: The function's short name.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        result: What it returned.

    Returns:
        False only if no argument was written to.
    """
    returned = any(result is t for t in tensors_in(args, kwargs))
    return returned or short == "__setitem__" or kwargs.get("out") is not None


def sound(func: Callable[..., Any], short: str) -> Callable[..., Any]:
    """Return a function, or the same function made of others where torch's derivative is another.

    Under ``vmap`` that of PReLU confuses the axes of samples and channels of equal length. That of an
    embedding leaves out the padding row backwards but not forwards, and may be divided by frequencies.
    """
    return {"prelu": _prelu, "embedding": _embedding}.get(short, func)


def soundly(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return a network whose every function has a sound derivative; see ``sound``."""

    def run(*args: Any, **kwargs: Any) -> Any:
        with Watch(lambda func, a, k: sound(func, call_name(func))(*a, **k)):
            return fn(*args, **kwargs)

    return run


def _prelu(input: Tensor, weight: Tensor) -> Tensor:
    slope = weight.reshape(-1, *(1,) * max(0, input.ndim - 2)) if input.ndim > 1 else weight
    return torch.where(input > 0, input, slope * input)


def _embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    if padding_idx is not None:
        rows = torch.arange(weight.shape[0], device=weight.device) != padding_idx % weight.shape[0]
        weight = torch.where(rows.unsqueeze(1), weight, weight.detach())
    return torch.nn.functional.embedding(input, weight, None, max_norm, norm_type)


def tensors_in(*values: Any) -> Iterator[Tensor]:
    """Yield every tensor in nested tuples, lists and dictionaries."""
    for leaf in torch.utils._pytree.tree_leaves(values):
        if isinstance(leaf, Tensor):
            yield leaf


def bind_linear(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call of ``F.linear`` by name."""
    given = zip(("input", "weight", "bias"), args, strict=False)
    return {"bias": None} | dict(given) | dict(kwargs)


def bind_convolution(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call of ``conv1d``, ``conv2d`` or ``conv3d`` by name."""
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    defaults = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    return defaults | dict(zip(names, args, strict=False)) | dict(kwargs)


def caller() -> str:
    """Return where the network made the current call, as ``file:line (function)``."""
    ours = (Path(torch.__file__).parent, Path(__file__).parent)
    for frame in reversed(traceback.extract_stack()):
        if not any(home in Path(frame.filename).parents for home in ours):
            return f"{Path(frame.filename).name}:{frame.lineno} ({frame.name})"
    return "an unknown place"
