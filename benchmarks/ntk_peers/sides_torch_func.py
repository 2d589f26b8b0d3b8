"""This library, and torch.func as its tutorial on neural tangent kernels uses it."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.func import functional_call, jacrev, jvp, vjp, vmap

from benchmarks.ntk_peers.workloads import load
from ntktheory import empirical_ntk, ntk_trace

Call = Callable[[], Tensor]


def ntktheory(work: str, quantity: str, folder: Path) -> Call:
    """Return this library's call."""
    model, x = load(work)
    if quantity == "full":
        return lambda: empirical_ntk(model, x)
    return lambda: ntk_trace(model, x)


def vmap_jacrev(work: str, quantity: str, folder: Path, dtype: torch.dtype | None = None) -> Call:
    """Contract per-sample Jacobians."""
    params, outputs, x = _by_sample(work, dtype or torch.float32)
    rows = vmap(jacrev(outputs), (None, 0))

    def blocks() -> list[Tensor]:
        return [j.flatten(2) for j in rows(params, x).values()]

    def full() -> Tensor:
        return torch.stack([torch.einsum("naf,mbf->nmab", j, j) for j in blocks()]).sum(0)

    def trace() -> Tensor:
        return torch.stack([j.square().sum() for j in blocks()]).sum()

    return full if quantity == "full" else trace


def ntk_vp(work: str, quantity: str, folder: Path) -> Call:
    """Multiply by Jacobians and their transposes, pair by pair; one row of samples at a time.

    The rows of samples are a loop: over both samples at once, N²·C·P numbers do not fit in memory.
    """
    params, outputs, x = _by_sample(work, torch.float32)

    def pair(a: Tensor, b: Tensor) -> Tensor:
        values, pullback = vjp(lambda p: outputs(p, b), params)  # type: ignore[misc]

        def column(e: Tensor) -> Tensor:
            return jvp(lambda p: outputs(p, a), (params,), pullback(e))[1]

        return vmap(column, out_dims=1)(torch.eye(len(values), dtype=x.dtype))

    if quantity == "full":
        return lambda: torch.stack([vmap(pair, (None, 0))(a, x) for a in x])
    return lambda: torch.stack([pair(a, a).trace() for a in x]).sum()


def reference(work: str, quantity: str, folder: Path) -> Call:
    """Return the numbers in float64, what every side's rounding is measured against."""
    return vmap_jacrev(work, quantity, folder, torch.float64)


def _by_sample(
    work: str, dtype: torch.dtype
) -> tuple[dict[str, Tensor], Callable[[dict[str, Tensor], Tensor], Tensor], Tensor]:
    model, x = load(work)
    model, x = model.to(dtype), x.to(dtype)
    params = {name: p.detach() for name, p in model.named_parameters()}

    def outputs(params: dict[str, Tensor], sample: Tensor) -> Tensor:
        return functional_call(model, params, (sample.unsqueeze(0),)).squeeze(0)

    return params, outputs, x


SIDES = {
    "ntktheory": ntktheory,
    "torch.func vmap(jacrev)": vmap_jacrev,
    "torch.func ntk_vp": ntk_vp,
    "float64": reference,
}
