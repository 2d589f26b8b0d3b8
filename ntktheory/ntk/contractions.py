"""From Jacobian rows and layer factors to tiles of the kernel."""

from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from torch import Tensor

from ntktheory.ntk.products import times_transpose
from ntktheory.ntk.rules import Factors, LayerCall

Output = Literal["full", "trace", "diagonal"]
Contraction = Literal["factored", "ghost", "direct"]
OUTPUTS: tuple[Output, ...] = ("full", "trace", "diagonal")
SLICE_BYTES = 1 << 27
BANDS = 4


@dataclass(frozen=True)
class Tile:
    """A tile of the kernel while its parameters are added up, one after the other.

    Attributes:
        values: ``[C, N, C, M]`` ("full"), ``[N, M]`` ("trace") or ``[C, N, M]`` ("diagonal").
        output: What is kept of each pair.
        symmetric: Whether rows and columns are the same samples: of "full", only the blocks of
            classes on and above the diagonal are then computed.
    """

    values: Tensor
    output: Output
    symmetric: bool

    @classmethod
    def zeros(cls, like: Tensor, c: int, n: int, m: int, output: Output, symmetric: bool) -> "Tile":
        """Return an empty tile for N and M samples."""
        shape = {"full": (c, n, c, m), "trace": (n, m), "diagonal": (c, n, m)}[output]
        return cls(like.new_zeros(shape), output, symmetric)

    def add(self, left: Tensor, right: Tensor, factor: Tensor | None = None) -> None:
        """Add ``factor[n, m] · left[c, n] · right[c', m]`` for rows [C, N, p] and [C, M, p].

        The factor is 1 if None; "trace" adds up c = c'.
        """
        if self.output != "full":
            for c, (a, b) in enumerate(zip(left, right, strict=True)):
                target = self.values if self.output == "trace" else self.values[c]
                product = times_transpose(a, b)
                target.add_(product if factor is None else product * factor)
            return
        for first, last in self._bands():
            a, b = left[first:last], right[first if self.symmetric else 0 :]
            product = times_transpose(a.flatten(0, 1), b.flatten(0, 1))
            product = product.view(*a.shape[:2], *b.shape[:2])
            target = self.values[first:last, :, -b.shape[0] :]
            if factor is None:
                target.add_(product)
            else:
                target.addcmul_(product, factor[:, None, :])

    def add_values(self, values: Tensor) -> None:
        """Add a whole tile [N, C, M, C], [N, M] or [N, M, C]."""
        if self.output == "full":
            values = values.transpose(0, 1).transpose(2, 3)
        elif self.output == "diagonal":
            values = values.permute(2, 0, 1)
        self.values.add_(values)

    def finish(self) -> Tensor:
        """Return the tile in its public axes: [N, M, C, C], [N, M] or [N, M, C]."""
        if self.output == "trace":
            return self.values
        if self.output == "diagonal":
            return self.values.permute(1, 2, 0)
        if self.symmetric:
            for first, last in self._bands():
                above = self.values[first:last, :, last:]
                self.values[last:, :, first:last] = above.permute(2, 3, 0, 1)
        return self.values.permute(1, 3, 0, 2)

    def _bands(self) -> list[tuple[int, int]]:
        """Return the classes of each band of rows; a triangle is made of several."""
        c = self.values.shape[0]
        size = -(-c // BANDS) if self.symmetric else c
        return [(first, min(c, first + size)) for first in range(0, c, size)]


def sizes(call: LayerCall) -> tuple[int, int, int]:
    """Return (O, D, S) of a Linear or a convolution: rows, columns and positions per sample."""
    if call.kind == "matrix":
        return call.output[-1], call.weight_shape[1], prod(call.output[:-1])
    return call.output[0], prod(call.weight_shape[1:]), prod(call.output[1:])


def flops(call: LayerCall, contraction: Contraction, c: int, output: Output) -> int:
    """Count multiplications per pair of samples for one weight: O·D numbers, S positions, C outputs.

    Args:
        call: The layer.
        contraction: "factored" ``(a·a')(g·g')``; "ghost" ``⟨A_nᵀA_m, G_ncᵀG_mc'⟩``; "direct" the
            product of explicit rows, which are made once per sample and not counted here.
        c: Number of outputs C.
        output: What is kept of each pair.

    Returns:
        The count.
    """
    pairs = c * c if output == "full" else c
    if call.kind not in ("matrix", "convolution"):
        return pairs * prod(call.weight_shape)
    o, d, s = sizes(call)
    if contraction == "factored":
        return d + pairs * o
    return s * s * (d + pairs * o) if contraction == "ghost" else pairs * o * d


def choose(call: LayerCall, c: int, output: Output, *, masked: bool, shared: bool) -> Contraction:
    """Choose the cheapest contraction that is right for a weight.

    Args:
        call: The (only) call that uses it.
        c: Number of outputs C.
        output: What is kept of each pair.
        masked: Whether the weight has a mask: then the ghost contraction is wrong.
        shared: Whether the weight is used more than once: blocks must be summed first.

    Returns:
        The contraction.
    """
    if shared or call.kind not in ("matrix", "convolution"):
        return "direct"
    if call.is_vector:
        return "factored"
    grouped = call.window is not None and call.window.groups > 1
    if masked or grouped:
        return "direct"
    cheaper = flops(call, "ghost", c, output) < flops(call, "direct", c, output)
    return "ghost" if cheaper else "direct"


def ghost_tile(f1: Factors, f2: Factors, output: Output) -> Tensor:
    """Return ``⟨A_nᵀA_m, G_ncᵀG_mc'⟩`` without any block; one row of samples at a time."""
    a1, g1 = f1.input_columns()[:, 0], f1.cotangent_columns()[:, :, 0]
    a2, g2 = f2.input_columns()[:, 0], f2.cotangent_columns()[:, :, 0]
    rows = []
    for a, g in zip(a1, g1, strict=True):
        inputs = torch.einsum("ds,mdt->mst", a, a2)
        if output == "full":
            moved = torch.einsum("mst,cos->mcto", inputs, g)
            rows.append(torch.einsum("mcto,meot->cme", moved, g2))
        elif output == "trace":
            rows.append(torch.einsum("mst,mst->m", inputs, torch.einsum("cos,mcot->mst", g, g2)))
        else:
            rows.append(torch.einsum("mst,mcst->mc", inputs, torch.einsum("cos,mcot->mcst", g, g2)))
    return torch.stack(rows)


def masked_linear_tile(f1: Factors, f2: Factors, mask: Tensor, output: Output) -> Tensor:
    """Return ``Σ_o g_nco g_mc'o K_o[n, m]`` with ``K_o = Σ_d m_od² a_nd a_md``.

    The mask couples inputs and cotangents, so the kernel no longer factors; this costs
    N·M·O·(D + C²) instead of the N·M·C²·O·D of explicit blocks.
    """
    n, m, c = f1.a.shape[0], f2.a.shape[0], f1.g.shape[0]
    step = max(1, SLICE_BYTES // (n * m * (c if output == "full" else 1) * f1.a.element_size()))
    tile: Tensor | None = None
    squared = mask.to(f1.a.dtype).square()
    for o in range(0, mask.shape[0], step):
        kernel = (f1.a * squared[o : o + step, None, :]) @ f2.a.T
        g1, g2 = f1.g[..., o : o + step], f2.g[..., o : o + step]
        if output == "full":
            weighted = torch.einsum("cno,onm->ncmo", g1, kernel)
            part = torch.einsum("ncmo,dmo->ncmd", weighted, g2)
        elif output == "trace":
            part = torch.einsum("onm,onm->nm", torch.einsum("cno,cmo->onm", g1, g2), kernel)
        else:
            part = torch.einsum("cno,cmo,onm->nmc", g1, g2, kernel)
        tile = part if tile is None else tile + part
    return tile if tile is not None else f1.a.new_zeros(())


def swapped(tile: Tensor, output: Output) -> Tensor:
    """Return the tile of the swapped pair of chunks, ``Θ[m, n, c', c] = Θ[n, m, c, c']``."""
    flipped = tile.transpose(0, 1)
    return flipped.transpose(2, 3) if output == "full" else flipped


def mirror(theta: Tensor, size: int, output: Output) -> Tensor:
    """Fill the tiles below the diagonal in place, and return the kernel.

    Args:
        theta: A finished kernel whose tiles of ``size`` samples stand on and above the diagonal.
        size: Samples per tile.
        output: What the kernel keeps of each pair.

    Returns:
        The same tensor.
    """
    n = theta.shape[0]
    for i in range(0, n, size):
        theta[i + size :, i : i + size] = swapped(theta[i : i + size, i + size :], output)
    return theta
