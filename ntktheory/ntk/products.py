"""Matrix products in float32 on a CPU: the same sums, from the faster of torch's two libraries.

torch hands them to MKL, which reaches half of oneDNN's rate on processors of other makers. oneDNN is
reached through the operation that ``torch.compile`` uses for linear layers; a build of torch without
it, another type or another device takes the plain product.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_onednn: Callable[..., Tensor] | None = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def times_transpose(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a bᵀ`` for matrices [R, p] and [Q, p]."""
    followed = any(
        t.requires_grad or torch._C._functorch.is_functorch_wrapped_tensor(t) for t in (a, b)
    )
    if followed or not _suits_onednn(a, b):
        return a @ b.T
    return _linear(a, b, None)


@contextmanager
def products_by_onednn() -> Iterator[None]:
    """Hand over every suitable product inside, also those of backward passes and under ``vmap``.

    Each operation inside takes some microseconds more: for networks whose time goes into large
    matrix products.
    """
    if _onednn is None:
        yield
        return
    with _Products():
        yield


class _Products(TorchDispatchMode):
    """Sees the operations below autograd and ``vmap``, on plain tensors."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten.mm.default and _suits_onednn(*args):
            return _linear(args[0], args[1].T, None)
        if func is torch.ops.aten.addmm.default and not kwargs and _suits_onednn(*args[1:]):
            bias, a, b = args
            if bias.ndim == 1 and bias.shape[0] == b.shape[1]:
                return _linear(a, b.T, bias)
        return func(*args, **(kwargs or {}))


def _suits_onednn(a: Tensor, b: Tensor) -> bool:
    plain = all(t.dtype is torch.float32 and t.device.type == "cpu" for t in (a, b))
    return _onednn is not None and plain and a.numel() > 0 and b.numel() > 0


def _linear(a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    """Return ``a bᵀ + bias`` by oneDNN."""
    if _onednn is None:
        raise RuntimeError("this build of torch has no oneDNN")
    return _onednn(a.contiguous(), b.contiguous(), bias, "none", [], "")
