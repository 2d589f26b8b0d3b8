"""Errors planted in the layer rules and contractions: the comparison with the reference sees each.

An error is one expression of one function, replaced. Every entry of ``ERRORS`` says which and by
what, and names one network on which the comparison then fails; the test ids are the list. On the same
network the comparison holds without the error, and the wrong expression must have been evaluated.
"""

import inspect
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ntktheory import empirical_ntk, functional, ntk_trace
from ntktheory.ntk import (
    contractions,
    jacobian,
    kernel,
    layerwise,
    problem,
    reference,
    rows,
    rules,
    trace,
)
from proofs_check import cases
from proofs_check.compare import relative_gap

TOLERANCE = 1e-12
VISIBLE = 1e-6


@dataclass(frozen=True)
class Error:
    """One wrong expression.

    Attributes:
        function: The function it stands in.
        right: The expression as it is; it stands there once.
        wrong: What replaces it. It may use ``kernel_gradient``.
        network: A network on which the comparison fails, of ``cases.BUILDERS`` or of ``OWN``.
        masks: The masks of that comparison: "none", "bool" and "real", whose squares differ.
        constants: Sizes to set by (module, name): small ones split what is else computed whole.
    """

    function: Any
    right: str
    wrong: str
    network: str
    masks: tuple[str, ...] = ("none", "bool")
    constants: Mapping[tuple[Any, str], int] = field(default_factory=lambda: MappingProxyType({}))


def kernel_gradient(
    window: rules.Window, inputs: Tensor, outputs: Tensor, padding: tuple[int, ...]
) -> Tensor:
    """Return every sample's gradient of a kernel, [N, p], from explicit patches.

    Unlike torch's own it takes any window: what lies beyond the input counts as zero.
    """
    n, _, *spatial = inputs.shape
    patches = inputs
    for axis in reversed(range(len(spatial))):
        starts = torch.arange(outputs.shape[2 + axis]) * window.stride[axis]
        taps = torch.arange(window.kernel[axis]) * window.dilation[axis]
        places = starts[:, None] + taps - padding[axis]
        inside = (places >= 0) & (places < spatial[axis])
        patches = patches[(slice(None),) * (2 + axis) + (places.clamp(0, spatial[axis] - 1),)]
        patches = patches * inside.reshape(*inside.shape, *(1,) * (patches.ndim - 4 - axis))
    rank = len(spatial)
    positions, taps_axes = range(2, 2 + 2 * rank, 2), range(3, 3 + 2 * rank, 2)
    patches = patches.permute(0, 1, *taps_axes, *positions).flatten(2 + rank)
    patches = patches.flatten(1, 1 + rank).unflatten(1, (window.groups, -1))
    g = outputs.flatten(2).unflatten(1, (window.groups, -1))
    return torch.einsum("ngos,ngps->ngop", g, patches).reshape(n, -1)


def _by_patches(changes: str = "", inputs: str = "inputs", padding: str = "padding") -> str:
    """Return the text of a kernel gradient with something changed."""
    return f"kernel_gradient(replace(window{changes}), {inputs}, outputs, {padding})"


def _kernel_gradient_error(network: str, wrong: str) -> Error:
    return Error(rules._weight_gradient, "gradient.reshape(n, -1)", wrong, network)


# Networks for what none of ``cases`` meets: the ghost contraction with several positions, and where a
# grouped convolution would be cheaper by it.


def _small_maps() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1),
        nn.Tanh(),
        nn.Conv2d(6, 12, (3, 2), stride=(1, 2), padding=(1, 0), dilation=(2, 1)),
        nn.Tanh(),
        nn.Conv2d(12, 10, 2, padding="same"),
        nn.Flatten(),
        nn.Linear(40, 3),
    )


def _grouped_small_map() -> nn.Module:
    return nn.Sequential(nn.Conv2d(12, 12, 3, padding=1, groups=2), nn.Flatten(), nn.Linear(48, 3))


class WideSequences(nn.Module):
    """A wide Linear on two positions, averaged over them."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(16, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.inner(x))).mean(1)


SMALL_MAPS, GROUPED_MAP, WIDE = "own: small maps", "own: grouped small map", "own: wide sequences"
OWN = {
    SMALL_MAPS: (_small_maps, (3, 2, 4, 4)),
    GROUPED_MAP: (_grouped_small_map, (3, 12, 2, 2)),
    WIDE: (WideSequences, (3, 2, 16)),
}
BIASED, SEQUENCES = "MLP with biases", "sequences"
GROUPED, TRANSPOSED = "grouped, dilated, depthwise CNN", "transposed convolutions"
ONE_D, EVEN, THREE_D = (
    "one-dimensional convolutions",
    "even kernels, same padding",
    "3-d convolution",
)
NORMS, TOKENS = "group, instance and layer norm, PReLU", "embedding and layer norm"
TWICE, OUTSIDE = "layer used twice", "weight used outside its layer"

REAL = ("real",)
ONE_OUTPUT = {(layerwise, "GROUP_BYTES"): 1}
ONE_SAMPLE = {(problem, "PASS_BYTES"): 1}
ONE_UNIT = {(problem, "PIECE_BYTES"): 1}
ONE_SLICE = {(contractions, "SLICE_BYTES"): 1}

MATRIX_ROWS = "(g.transpose(1, 2) @ a)"
BIAS_ROWS = '_keep_axes(g, (g.ndim - 2,) if call.kind == "matrix" else (0,))'
PADS = "[p for pair in reversed(window.padding) for p in pair]"
UNFOLDED = "x.unfold(2 + axis, extent, window.stride[axis])[..., ::dilation]"
X_HAT = "func(*plain, **named)"
BAND = "self.values[first:last, :, -b.shape[0] :]"
FACTOR = "factor if bias is None else factor + 1"
PLACE = "c : c + part.shape[0], n : n + part.shape[1]"
POSITIONS = "(a.transpose(2, 3) @ a) * (stacked.transpose(2, 3) @ stacked)"

ERRORS = {
    # Rows of weights.
    "matrix: transpose forgotten": Error(
        rules._matrix_rows, MATRIX_ROWS, "(a.transpose(1, 2) @ g)", SEQUENCES
    ),
    "matrix: mean over positions": Error(
        rules._matrix_rows, MATRIX_ROWS, "(g.transpose(1, 2) @ a) / a.shape[1]", SEQUENCES
    ),
    "matrix: positions of the input reversed": Error(
        rules._matrix_rows, MATRIX_ROWS, "(g.transpose(1, 2) @ a.flip(1))", SEQUENCES
    ),
    "convolution: stride dropped": _kernel_gradient_error(
        "CNN", _by_patches(", stride=(1,) * len(padding)")
    ),
    "convolution: padding forgotten": _kernel_gradient_error(
        "CNN", _by_patches(padding="(0,) * len(padding)")
    ),
    "convolution: dilation dropped": _kernel_gradient_error(
        GROUPED, _by_patches(", dilation=(1,) * len(padding)")
    ),
    "convolution: groups ignored": _kernel_gradient_error(
        GROUPED,
        _by_patches(
            inputs="inputs.unflatten(1, (window.groups, -1))[:, :1]"
            ".expand(-1, window.groups, *(-1,) * (len(padding) + 1)).flatten(1, 2)"
        ),
    ),
    "convolution: samples in another's place": _kernel_gradient_error(
        "CNN", "gradient.reshape(n, -1).flip(0)"
    ),
    "convolution: one axis moves as another": _kernel_gradient_error(
        THREE_D, _by_patches(", stride=window.stride[1:] + window.stride[:1]")
    ),
    "convolution: kernel reflected": _kernel_gradient_error(
        ONE_D, "gradient.flip(-1).reshape(n, -1)"
    ),
    "convolution: padding all on one side": Error(
        rules._convolution_rows, PADS,
        "[p for pair in reversed(window.padding) for p in (0, sum(pair))]", EVEN,
    ),
    "convolution: left and right padding exchanged": Error(
        rules._convolution_rows, PADS,
        "[p for pair in reversed(window.padding) for p in reversed(pair)]", EVEN,
    ),
    "transposed: stride dropped": _kernel_gradient_error(
        TRANSPOSED, _by_patches(", stride=(1,) * len(padding)")
    ),
    "transposed: dilation dropped": _kernel_gradient_error(
        TRANSPOSED, _by_patches(", dilation=(1,) * len(padding)")
    ),
    "transposed: groups ignored": _kernel_gradient_error(
        TRANSPOSED,
        _by_patches(
            inputs="inputs.unflatten(1, (window.groups, -1))[:, :1]"
            ".expand(-1, window.groups, *(-1,) * (len(padding) + 1)).flatten(1, 2)"
        ),
    ),
    "transposed: padding forgotten": Error(
        rules._transposed_rows, "window.padding[axis][0]", "0", TRANSPOSED
    ),
    "transposed: left and right padding exchanged": Error(
        rules._transposed_rows, "[left, reached - left - g.shape[2 + axis]]",
        "[reached - left - g.shape[2 + axis], left]", TRANSPOSED,
    ),
    "transposed: kernel reflected": Error(
        rules._transposed_rows, "_weight_gradient(call, F.pad(g, pads), a, (0,) * len(window.kernel))",
        "_weight_gradient(call, F.pad(g, pads), a, (0,) * len(window.kernel)).flip(1)", TRANSPOSED,
    ),
    "scale: mean over positions": Error(
        rules._scale_rows, "torch.linalg.vecdot(g.flatten(2), a.flatten(2))",
        "(g * a).flatten(2).mean(2)", "batch norm in eval mode",
    ),
    "scale: absolute values": Error(
        rules._scale_rows, "_keep_axes(g * a, call.axes)", "_keep_axes(g * a.abs(), call.axes)", NORMS
    ),
    "scale: the input for its normalised self": Error(
        rules._read_norm, X_HAT, "args[0]", "batch norm in eval mode"
    ),
    "scale: the output, scaled and shifted": Error(rules._read_norm, X_HAT, "result", TOKENS),
    "scale: axes of a layer norm off by one": Error(
        rules._read_norm, "range(result.ndim - 1 - last, result.ndim - 1)",
        "range(result.ndim - 2 - last, result.ndim - 2)", NORMS,
    ),
    "scale: PReLU has the positive part": Error(
        rules._read_prelu, 'given["input"].clamp(max=0)', 'given["input"].clamp(min=0)', NORMS
    ),
    "scale: PReLU has all of its input": Error(
        rules._read_prelu, 'given["input"].clamp(max=0)', 'given["input"]', NORMS
    ),
    "embedding: the padding row trained": Error(
        rules._embedding_rows, "call.padding_idx is not None", "False", TOKENS
    ),
    "embedding: a repeated token counted once": Error(
        rules._embedding_rows, "hot.to(g.dtype)", "(hot & (hot.cumsum(1) == 1)).to(g.dtype)", TOKENS
    ),
    "embedding: mean over positions": Error(
        rules._embedding_rows, "hot.to(g.dtype)", "hot.to(g.dtype) / hot.shape[1]", TOKENS
    ),
    # Rows of biases.
    "bias of a matrix: mean over positions": Error(
        rules.bias_rows, BIAS_ROWS, f"{BIAS_ROWS} / g[0, ..., 0].numel()", SEQUENCES
    ),
    "bias of a convolution: mean over positions": Error(
        rules.bias_rows, BIAS_ROWS, f"{BIAS_ROWS} / g[0, 0].numel()", "CNN"
    ),
    "bias of a transposed convolution: mean over positions": Error(
        rules.bias_rows, BIAS_ROWS, f"{BIAS_ROWS} / g[0, 0].numel()", TRANSPOSED
    ),
    "bias of a norm: mean over positions": Error(
        rules.bias_rows, "_keep_axes(g, call.axes)", "_keep_axes(g, call.axes) / g[0, 0].numel()", NORMS
    ),
    "bias of a matrix: the units added up": Error(
        rules.bias_rows, "(g.ndim - 2,)", "()", SEQUENCES, ("none",)
    ),
    # Reading of calls.
    "same padding: the odd one on the left": Error(
        rules._padding, "(t // 2, t - t // 2)", "(t - t // 2, t // 2)", EVEN
    ),
    # Several uses of a parameter.
    "uses: one dropped": Error(
        layerwise.rows, "torch.stack(parts).sum(0)", "parts[0]", TWICE
    ),
    "uses: mean": Error(
        layerwise.rows, "torch.stack(parts).sum(0)", "torch.stack(parts).mean(0)", TWICE
    ),
    "uses: those outside of layers forgotten": Error(
        layerwise.Plan.covered, "self.elsewhere", "set()", OUTSIDE
    ),
    # Factored contraction of a Linear on vectors.
    "factored: bias forgotten": Error(kernel._contract_factors, FACTOR, "factor", BIASED),
    "factored: 1 in place of + 1": Error(
        kernel._contract_factors, FACTOR, "factor * 0 + 1", BIASED
    ),
    "factored: bias without a bias": Error(
        kernel._contract_factors, FACTOR, "factor + 1", "MLP"
    ),
    "factored: rows for columns": Error(
        kernel._contract_factors, "times_transpose(f1.a, f2.a)", "times_transpose(f1.a, f1.a)", "MLP"
    ),
    "factored: mask of the bias ignored": Error(
        kernel._contract_factors, "bias in problem.masks", "False", BIASED
    ),
    # Masked sum over output units.
    "masked: mask not squared": Error(
        contractions.masked_linear_tile, "mask.to(f1.a.dtype).square()", "mask.to(f1.a.dtype)",
        "MLP", REAL,
    ),
    "masked: mask ignored": Error(
        contractions.masked_linear_tile, "(f1.a * squared[o : o + step, None, :])",
        "(f1.a * torch.ones_like(squared)[o : o + step, None, :])", "MLP",
    ),
    "masked, full: one mask for all units": Error(
        contractions.masked_linear_tile, 'torch.einsum("cno,onm->ncmo", g1, kernel)',
        'torch.einsum("cno,onm->ncmo", g1, kernel[:1].expand_as(kernel))', "MLP",
    ),
    "masked, trace: one mask for all units": Error(
        contractions.masked_linear_tile, '"onm,onm->nm"', '"onm,pnm->nm"', "MLP",
    ),
    "masked, diagonal: outputs of the rows added up": Error(
        contractions.masked_linear_tile, '"cno,cmo,onm->nmc"', '"dno,cmo,onm->nmc"', "MLP"
    ),
    "masked: only the last slice of units": Error(
        contractions.masked_linear_tile, "tile + part", "part", "MLP", constants=ONE_SLICE
    ),
    # Ghost contraction.
    "ghost: chosen in spite of a mask": Error(
        contractions.choose, "masked or grouped", "grouped", "CNN, small last map"
    ),
    "ghost: chosen in spite of groups": Error(
        contractions.choose, "masked or grouped", "masked", GROUPED_MAP
    ),
    "ghost, full: positions exchanged": Error(
        contractions.ghost_tile, '"mst,cos->mcto"', '"mts,cos->mcto"', SMALL_MAPS
    ),
    "ghost, full: outputs exchanged": Error(
        contractions.ghost_tile, '"mcto,meot->cme"', '"mcto,meot->emc"', SMALL_MAPS
    ),
    "ghost, trace: positions exchanged": Error(
        contractions.ghost_tile, '"cos,mcot->mst"', '"cos,mcot->mts"', SMALL_MAPS
    ),
    "ghost, trace: outputs paired with all": Error(
        contractions.ghost_tile, '"cos,mcot->mst"', '"cos,mdot->mst"', "CNN, small last map"
    ),
    "ghost, diagonal: positions exchanged": Error(
        contractions.ghost_tile, '"cos,mcot->mcst"', '"cos,mcot->mcts"', SMALL_MAPS
    ),
    "ghost, diagonal: outputs of the rows added up": Error(
        contractions.ghost_tile, '"cos,mcot->mcst"', '"dos,mcot->mcst"', "CNN, small last map"
    ),
    "ghost: positions of a sequence exchanged": Error(
        contractions.ghost_tile, '"mst,cos->mcto"', '"mts,cos->mcto"', WIDE
    ),
    "patches: padding all on one side": Error(
        rules.unfold, PADS, "[p for pair in reversed(window.padding) for p in (0, sum(pair))]",
        "CNN, small last map",
    ),
    "patches: left and right padding exchanged": Error(
        rules.unfold, PADS, "[p for pair in reversed(window.padding) for p in reversed(pair)]",
        SMALL_MAPS,
    ),
    "patches: stride dropped": Error(
        rules.unfold, UNFOLDED,
        "x.unfold(2 + axis, extent, 1)"
        ".narrow(2 + axis, 0, (x.shape[2 + axis] - extent) // window.stride[axis] + 1)"
        "[..., ::dilation]", SMALL_MAPS,
    ),
    "patches: dilation dropped": Error(
        rules.unfold, UNFOLDED, UNFOLDED.replace("::dilation", ": window.kernel[axis]"), SMALL_MAPS
    ),
    # The tile.
    "tile, full: bands on the wrong side": Error(
        contractions.Tile.add, BAND, "self.values[first:last, :, : b.shape[0]]", "MLP"
    ),
    "tile, full: bands overlap": Error(
        contractions.Tile._bands, "first + size)", "first + size + 1)", "MLP"
    ),
    "tile, full: a triangle for two different chunks": Error(
        kernel._tile, "left is right)", "True)", "MLP"
    ),
    "tile, full: mirrored without its samples": Error(
        contractions.Tile.finish, "above.permute(2, 3, 0, 1)", "above.permute(2, 1, 0, 3)", "MLP"
    ),
    "tile, full: factor of the swapped samples": Error(
        contractions.Tile.add, "factor[:, None, :]", "factor.T[:, None, :]", "MLP"
    ),
    "tile, full: not mirrored": Error(
        contractions.Tile.finish, "self.symmetric", "False", "MLP"
    ),
    "tile, trace and diagonal: factor left out": Error(
        contractions.Tile.add, "product if factor is None else product * factor", "product", "MLP"
    ),
    "tile, trace: first output only": Error(
        contractions.Tile.add, "zip(left, right, strict=True)",
        "zip(left[:1], right[:1], strict=True)", "MLP",
    ),
    "tiles below the diagonal: outputs not exchanged": Error(
        contractions.swapped, "flipped.transpose(2, 3)", "flipped", "MLP"
    ),
    # Rows that are made, masked and contracted.
    "direct: mask not squared": Error(
        kernel._tile, "mask.to(j.dtype).square().flatten()", "mask.to(j.dtype).flatten()", "CNN", REAL
    ),
    "direct: mask ignored": Error(
        kernel._tile, "problem.masks.get(name)", "None", SEQUENCES, ("bool",)
    ),
    "pieces: the last units lost": Error(
        rules.Factors.by_units, "self.g.split(step, axis)", "self.g.split(step, axis)[:-1]",
        "CNN", constants=ONE_UNIT,
    ),
    "pieces: each masked like the first": Error(
        kernel._tile, "squares[first:last]", "squares[: last - first]", "CNN", constants=ONE_UNIT
    ),
    "pieces: the first output's rows for all": Error(
        rows.Rows._made, "part.g[c : c + 1]", "part.g[:1]", "CNN"
    ),
    "passes: every one in the first's place": Error(
        rows._placed, PLACE, "(slice(c, c + part.shape[0]), slice(part.shape[1]))", "CNN",
        constants=ONE_SAMPLE,
    ),
    "groups of outputs: every one in the first's place": Error(
        rows._placed, PLACE, "(slice(part.shape[0]), slice(n, n + part.shape[1]))", "CNN",
        constants=ONE_OUTPUT,
    ),
    "Jacobian of the rest: mask forgotten": Error(
        jacobian.jacobian_rows, "masked(params | varied, masks)", "masked(params | varied, {})",
        OUTSIDE,
    ),
    # The trace.
    "trace, factored: outputs added up before the square": Error(
        trace.weight_norms, "f.g.square().sum((0, 2))", "f.g.sum(0).square().sum(1)", "MLP"
    ),
    "trace, factored: mask not squared": Error(
        trace.weight_norms, "mask.to(a.dtype).square().T", "mask.to(a.dtype).T", "MLP", REAL
    ),
    "trace, factored: mask ignored": Error(
        trace.weight_norms, "mask.to(a.dtype).square().T", "torch.ones_like(mask, dtype=a.dtype).T",
        "MLP",
    ),
    "trace, ghost: outputs added up before the product": Error(
        trace.weight_norms, "g.transpose(1, 2).flatten(2, 3)", "g.transpose(1, 2).sum(2)", SEQUENCES
    ),
    "trace, ghost: each position by itself": Error(
        trace.weight_norms, POSITIONS, f"({POSITIONS}) * torch.eye(a.shape[3], dtype=a.dtype)",
        SEQUENCES,
    ),
    "trace, ghost: first group only": Error(
        trace.weight_norms, POSITIONS, f"({POSITIONS})[:, :1]", GROUPED_MAP
    ),
    "trace, direct: mask ignored": Error(
        trace._masked_rows, "j * mask.to(j.dtype).flatten()", "j", "CNN"
    ),
    "trace, direct: mask not flattened like its rows": Error(
        trace._masked_rows, "mask.to(j.dtype).flatten()", "mask.to(j.dtype).flatten().flip(0)", "CNN"
    ),
    "trace: last group of outputs only": Error(
        trace.sample_traces, "terms[name] + term if name in terms else term", "term", "MLP",
        constants=ONE_OUTPUT,
    ),
    "trace per parameter, factored: samples added up before the square": Error(
        trace.diagonal, "(f.g.square().sum(0).T @ f.a.square())", "(f.g.sum(0).T @ f.a).square()",
        "MLP",
    ),
    "trace per parameter: mask not squared": Error(
        trace.diagonal, "masks[name].to(term.dtype).square().flatten()",
        "masks[name].to(term.dtype).flatten()", "CNN", REAL,
    ),
    "trace per parameter: last group of outputs only": Error(
        trace.diagonal, "squares[name] + term if name in squares else term", "term", "CNN",
        constants=ONE_OUTPUT,
    ),
}  # fmt: skip


@cache
def network(name):
    if name in cases.BUILDERS:
        return cases.network(name)
    build, shape = OWN[name]
    generator = torch.Generator().manual_seed(0)
    model = build().double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype) * p[0].numel() ** -0.5)
    return cases.Network(name, model, torch.randn(shape, generator=generator, dtype=torch.float64))


def masks_of(model, kind):
    if kind == "none":
        return None
    masks = cases.random_masks(model)
    if kind == "bool":
        return masks
    generator = torch.Generator().manual_seed(1)
    return {k: m * torch.rand(m.shape, generator=generator).double() for k, m in masks.items()}


@cache
def expected(name, kind):
    """Return a second batch, the kernels without and with it, and the Jacobian, by the reference."""
    net = network(name)
    f, masks = functional(net.model), masks_of(net.model, kind)
    shape, generator = (2, *net.x.shape[1:]), torch.Generator().manual_seed(9)
    other = torch.randn(shape, generator=generator, dtype=torch.float64)
    thetas = [reference.ntk(f.model_fn, f.params, masks, net.x, x2) for x2 in (None, other)]
    return other, thetas, reference.jacobian(f.model_fn, f.params, masks, net.x)


def gaps(name: str, kind: str) -> Iterator[tuple[str, float]]:
    """Yield the relative gaps of kernel and trace to the reference, and what was compared."""
    net = network(name)
    masks = masks_of(net.model, kind)
    other, thetas, jacobian = expected(name, kind)
    for x2, theta in zip((None, other), thetas, strict=True):
        diagonal = theta.diagonal(dim1=2, dim2=3)
        outputs: dict[contractions.Output, Tensor] = {
            "full": theta,
            "trace": diagonal.sum(-1),
            "diagonal": diagonal,
        }
        for output, value in outputs.items():
            for size in (None, 1, 2):
                found = empirical_ntk(
                    net.model, net.x, x2, output=output, masks=masks, chunk_size=size
                )
                where = f"{kind} masks, {output}, x2 {x2 is not None}, chunks of {size}"
                yield where, relative_gap(found, value)
    by_sample = sum(j.flatten(1).square().sum(1) for j in jacobian.values())
    found = ntk_trace(net.model, net.x, per="sample", masks=masks)
    yield f"{kind} masks, trace per sample", relative_gap(found, by_sample)
    by_layer = ntk_trace(net.model, net.x, per="layer", masks=masks)
    by_parameter = ntk_trace(net.model, net.x, per="parameter", masks=masks)
    for key, j in jacobian.items():
        squares = j.square().sum((0, 1))
        yield f"{kind} masks, trace of {key}", relative_gap(by_layer[key], squares.sum())
        yield f"{kind} masks, trace by entry of {key}", relative_gap(by_parameter[key], squares)


def all_gaps(error: Error) -> Iterator[tuple[str, float]]:
    for kind in error.masks:
        yield from gaps(error.network, kind)


def plant(monkeypatch: pytest.MonkeyPatch, error: Error) -> list[bool]:
    """Replace the expression, wherever the function was imported; return what fills when it is met."""
    source = textwrap.dedent(inspect.getsource(error.function))
    assert source.count(error.right) == 1, f"this expression has changed: {error.right}"
    met: list[bool] = []

    def planted(value):
        met.append(True)
        return value

    target = error.function
    module = sys.modules[target.__module__]
    names = {"planted": planted, "kernel_gradient": kernel_gradient, "replace": rules.replace}
    for name, value in names.items():
        monkeypatch.setitem(target.__globals__, name, value)
    namespace = dict(vars(module))
    exec(compile(_with(source, error), f"<{module.__name__}>", "exec"), namespace)
    monkeypatch.setattr(target, "__code__", namespace[target.__name__].__code__)
    return met


def _with(source: str, error: Error) -> str:
    return source.replace(error.right, f"planted({error.wrong})")


@cache
def gaps_without(name: str, kind: str, sizes: tuple[Any, ...]) -> tuple[tuple[str, float], ...]:
    """Return the gaps with nothing planted, once for every network and choice of sizes."""
    return tuple(gaps(name, kind))


@pytest.mark.parametrize("name", ERRORS)
def test_error_is_seen(monkeypatch, name):
    error = ERRORS[name]
    for (module, size), value in error.constants.items():
        monkeypatch.setattr(module, size, value)
    for kind in error.masks:
        for where, gap in gaps_without(error.network, kind, tuple(error.constants)):
            assert gap < TOLERANCE, where
    met = plant(monkeypatch, error)
    assert any(gap > VISIBLE for _, gap in all_gaps(error))
    assert met


@pytest.mark.parametrize("name", ["CNN", GROUPED, TRANSPOSED, ONE_D, EVEN, THREE_D])
def test_kernel_gradient_from_patches_is_no_error(monkeypatch, name):
    """The gradient from which errors are made is right with nothing changed."""
    error = _kernel_gradient_error(name, _by_patches())
    met = plant(monkeypatch, error)
    assert max(gap for _, gap in all_gaps(error)) < TOLERANCE
    assert met


def test_every_rule_has_its_errors():
    kinds = {name.split(":")[0].split(",")[0] for name in ERRORS}
    assert set(rules.ROWS) <= kinds
