"""Outputs in groups, samples in passes, rows in pieces, kernels in tiles: the same numbers."""

from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ntktheory import empirical_ntk, functional, ntk_trace
from ntktheory.models import convnet, mlp
from ntktheory.ntk import contractions, layerwise, problem, reference
from ntktheory.ntk.layerwise import plan, sweep
from ntktheory.ntk.trace import diagonal, sample_traces
from proofs_check import cases
from proofs_check.compare import relative_gap

TOLERANCE = 1e-12


def wide_late_layer():
    """Few parameters on a large map, then many channels on a 2×2 map."""
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, stride=2, padding=1),
        nn.BatchNorm2d(3),
        nn.Tanh(),
        nn.Conv2d(3, 12, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(48, 3),
    )


def grouped():
    return nn.Sequential(
        nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2),
        nn.Tanh(),
        nn.Conv2d(6, 12, 3, padding=1, groups=3),
        nn.GELU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(48, 3),
    )


def transposed():
    return nn.Sequential(
        nn.ConvTranspose2d(2, 4, 3, stride=2, padding=1, output_padding=1, groups=2),
        nn.Tanh(),
        nn.ConvTranspose2d(4, 2, (2, 3), stride=(1, 2), padding=(0, 1), dilation=(2, 1)),
        nn.Flatten(),
        nn.Linear(84, 3),
    )


def dilated_same():
    return nn.Sequential(
        nn.Conv1d(2, 5, 3, padding="same", dilation=2),
        nn.Tanh(),
        nn.Conv1d(5, 9, 4, padding="same", dilation=3),
        nn.Flatten(),
        nn.Linear(27, 3),
    )


class Sequences(nn.Module):
    """A wide Linear on two positions (ghost), then a narrow one on six (direct)."""

    def __init__(self):
        super().__init__()
        self.wide, self.norm, self.narrow = nn.Linear(16, 12), nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, x):
        h = torch.tanh(self.wide(x)).unflatten(2, (3, 4)).flatten(1, 2)
        return self.narrow(self.norm(h)).mean(1)


class Tied(nn.Module):
    """A layer used twice, a weight that stands in two layers, and one used outside of its layer."""

    def __init__(self):
        super().__init__()
        self.twice, self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.outside, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        h = torch.tanh(self.twice(torch.tanh(self.twice(x))))
        h = self.second(torch.tanh(self.first(h)))
        return self.head(torch.tanh(self.outside(h)) + h @ self.outside.weight)


class Tokens(nn.Module):
    """An embedding and a convolution over its positions."""

    def __init__(self):
        super().__init__()
        self.table, self.conv = nn.Embedding(9, 3, padding_idx=-1), nn.Conv1d(3, 4, 2)
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        tokens = (2 * x.abs()).long() % 9
        return self.head(F.gelu(self.conv(self.table(tokens).transpose(1, 2))).flatten(1))


def prelu():
    return nn.Sequential(
        nn.Conv1d(2, 4, 2), nn.PReLU(4), nn.Flatten(), nn.Linear(12, 3), nn.PReLU(), nn.Linear(3, 3)
    )


NETWORKS = {
    "MLP with biases": (lambda: mlp([5, 7, 6, 3], bias=True), (5, 5)),
    "many outputs": (lambda: mlp([4, 5, 11], bias=True), (5, 4)),
    "wide late layer": (wide_late_layer, (5, 1, 8, 8)),
    "CNN": (lambda: convnet([2, 3, 4], 3, image_size=6, stride=[1, 2], bias=True), (5, 2, 6, 6)),
    "grouped": (grouped, (5, 4, 7, 7)),
    "transposed": (transposed, (5, 2, 2, 2)),
    "dilated, same padding": (dilated_same, (5, 2, 3)),
    "sequences": (Sequences, (5, 2, 16)),
    "tied": (Tied, (5, 4)),
    "tokens": (Tokens, (5, 4)),
    "PReLU": (prelu, (5, 2, 4)),
}
MASKS = ["none", "bool", "real"]


@cache
def build(name):
    make, shape = NETWORKS[name]
    return seeded(make, shape, (2, *shape[1:]), seed=sorted(NETWORKS).index(name))


def seeded(make, *shapes, seed=0):
    """Return a network with standard normal parameters over √fan_in, and normal batches."""
    generator = torch.Generator().manual_seed(seed)
    model = make().double().eval()
    with torch.no_grad():
        for p in model.parameters():
            values = torch.randn(p.shape, generator=generator, dtype=p.dtype)
            p.copy_(values * max(1, p[0].numel()) ** -0.5)
    batches = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return model, *batches


def masks_of(model, kind):
    if kind == "none":
        return None
    masks = cases.random_masks(model)
    if kind == "bool":
        return masks
    generator = torch.Generator().manual_seed(1)
    return {k: m * torch.rand(m.shape, generator=generator).double() for k, m in masks.items()}


@cache
def with_reference(name, kind):
    """Return the problem, and its kernels with one batch and with two by the reference."""
    model, x, other = build(name)
    f, masks = functional(model), masks_of(model, kind)
    masks = None if masks is None else {k: m for k, m in masks.items() if k in f.params}
    thetas = [reference.ntk(f.model_fn, f.params, masks, x, x2) for x2 in (None, other)]
    return model, x, other, masks, thetas


def outputs_of(theta):
    diagonal = theta.diagonal(dim1=2, dim2=3)
    return {"full": theta, "trace": diagonal.sum(-1), "diagonal": diagonal}


def numbers_per_output(model, x):
    """Count the entries of all layers' cotangents of one output."""
    f = functional(model)
    layers = plan(f.model_fn, f.params, x)
    run = sweep(f.model_fn, f.params, x, layers, layers.covered())
    (first, *_) = run.factors()
    return sum(made.g[0].numel() for made in first)


def group_sizes(model, x):
    """Return how many outputs are differentiated at a time."""
    f = functional(model)
    layers = plan(f.model_fn, f.params, x)
    run = sweep(f.model_fn, f.params, x, layers, layers.covered())
    return [made[0].g.shape[0] for made in run.factors()]


def set_group(monkeypatch, model, x, outputs):
    monkeypatch.setattr(layerwise, "GROUP_BYTES", 8 * outputs * numbers_per_output(model, x))


def set_samples_per_pass(monkeypatch, model, x, samples):
    planned = problem.prepare(model, x, None, "full", None, None, "auto", None, None)
    size = samples * 8 * max(1, planned.activations)
    monkeypatch.setattr(problem, "PASS_BYTES", size)
    return problem.prepare(model, x, None, "full", None, None, "auto", None, None).samples_per_pass


SIZES = ["one output", "two outputs", "one sample", "passes of 3", "one unit", "all at once"]


def set_sizes(monkeypatch, sizes, model, x):
    if sizes in ("one output", "two outputs"):
        size = SIZES.index(sizes) + 1
        set_group(monkeypatch, model, x, size)
        c = functional(model).model_fn(functional(model).params, x).shape[1]
        assert group_sizes(model, x) == [size] * (c // size) + [c % size] * (c % size > 0)
    elif sizes == "one sample":
        assert set_samples_per_pass(monkeypatch, model, x, 1) == 1
    elif sizes == "passes of 3":
        assert set_samples_per_pass(monkeypatch, model, x, 3) == 3
    elif sizes == "one unit":
        monkeypatch.setattr(problem, "PIECE_BYTES", 1)
        monkeypatch.setattr(contractions, "SLICE_BYTES", 1)
    else:
        set_group(monkeypatch, model, x, 2)
        set_samples_per_pass(monkeypatch, model, x, 2)
        monkeypatch.setattr(problem, "PIECE_BYTES", 1)


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("name", NETWORKS)
def test_kernel(monkeypatch, name, sizes, kind):
    model, x, other, masks, thetas = with_reference(name, kind)
    set_sizes(monkeypatch, sizes, model, x)
    for x2, theta in zip((None, other), thetas, strict=True):
        for output, expected in outputs_of(theta).items():
            for chunk_size in (None, 3):
                value = empirical_ntk(
                    model, x, x2, output=output, masks=masks, chunk_size=chunk_size
                )
                where = (x2 is not None, output, chunk_size)
                assert relative_gap(value, expected) < TOLERANCE, where


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("sizes", ["one output", "two outputs"])
@pytest.mark.parametrize("name", NETWORKS)
def test_trace(monkeypatch, name, sizes, kind):
    model, x, _, masks, _ = with_reference(name, kind)
    f = functional(model)
    set_sizes(monkeypatch, sizes, model, x)
    jacobian = reference.jacobian(f.model_fn, f.params, masks, x)
    by_sample = sum(j.flatten(1).square().sum(1) for j in jacobian.values())
    for chunk_size in (None, 3):
        options = {"masks": masks, "chunk_size": chunk_size}
        assert relative_gap(ntk_trace(model, x, **options), by_sample.sum()) < TOLERANCE
        value = ntk_trace(model, x, per="sample", **options)
        assert relative_gap(value, by_sample) < TOLERANCE
        by_parameter = ntk_trace(model, x, per="parameter", **options)
        for key, j in jacobian.items():
            assert relative_gap(by_parameter[key], j.square().sum((0, 1))) < TOLERANCE, key


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("name", NETWORKS)
def test_several_tiles_within_a_budget(name, kind):
    """The smallest budget that is taken makes tiles of one sample; three times that, others."""
    model, x, other, masks, thetas = with_reference(name, kind)
    for x2, theta in zip((None, other), thetas, strict=True):
        for output, expected in outputs_of(theta).items():
            with pytest.raises(ValueError, match="budget_bytes must be at least") as refusal:
                empirical_ntk(model, x, x2, output=output, masks=masks, budget_bytes=1)
            least = int(str(refusal.value).split("at least ")[1].split()[0])
            for factor, size in ((1, 1), (2, 2)):
                options = (output, None, masks, "auto", None, factor * least)
                assert problem.prepare(model, x, x2, *options).chunk == size
                value = empirical_ntk(
                    model, x, x2, output=output, masks=masks, budget_bytes=factor * least
                )
                assert relative_gap(value, expected) < TOLERANCE, (output, factor)


def test_the_networks_keep_rows_and_cotangents_and_use_every_contraction():
    """What is kept, and how it is contracted, differs between layers: all kinds are met above."""
    kept, contracted = set(), set()
    for name in NETWORKS:
        model, x, _ = build(name)
        planned = problem.prepare(model, x, None, "full", None, None, "auto", None, None)
        for call in planned.layers.calls:
            if set(call.names()) & set(planned.layerwise):
                kept.add((call.kind, planned.keeps_factors(call)))
                contracted.add((call.kind, planned.contraction(call)))
    assert {("convolution", True), ("convolution", False)} <= kept
    assert {("transposed", False), ("scale", False), ("embedding", True)} <= kept
    assert {("matrix", "factored"), ("matrix", "ghost"), ("matrix", "direct")} <= contracted
    assert {("convolution", "ghost"), ("convolution", "direct")} <= contracted
    model, x, _ = build("wide late layer")
    planned = problem.prepare(model, x, None, "full", None, None, "auto", None, None)
    early, _, late, _ = (planned.keeps_factors(call) for call in planned.layers.calls)
    assert (early, late) == (False, True)


# Differentiation of the trace itself, and vmap.


def trace_and_gradient(model, masks, x):
    """Return ``Σ_nc ‖∇f_c(x_n)‖²`` and its gradient with respect to the masks, by autograd alone.

    One backward pass per sample and output: torch 2.13 differentiates ``jacrev`` of a layer norm
    with respect to its input and its scale wrongly.
    """
    f = functional(model)
    masks = {name: m.clone().requires_grad_() for name, m in masks.items()}
    params = {name: p.clone().requires_grad_() for name, p in f.params.items()}
    outputs = f.model_fn({name: p * masks[name] for name, p in params.items()}, x)
    options = {"create_graph": True, "allow_unused": True}
    total = 0.0
    for output in outputs.flatten():
        gradients = torch.autograd.grad(output, list(params.values()), **options)
        total = total + sum(g.square().sum() for g in gradients if g is not None)
    gradients = torch.autograd.grad(total, list(masks.values()), allow_unused=True)
    return total.detach(), {
        name: torch.zeros_like(m) if g is None else g
        for (name, m), g in zip(masks.items(), gradients, strict=True)
    }


def ours(f, x, terms):
    names = tuple(f.params)
    return lambda masks: sum(t.sum() for t in terms(f.model_fn, f.params, masks, x, names).values())


def real_masks(f, seed, *batch):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: 0.5 + torch.rand(*batch, *p.shape, generator=generator, dtype=torch.float64)
        for name, p in f.params.items()
    }


@pytest.mark.parametrize("terms", [sample_traces, diagonal])
@pytest.mark.parametrize("outputs", [None, 1, 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_gradient_with_respect_to_masks(monkeypatch, name, outputs, terms):
    model, x, _ = build(name)
    f = functional(model)
    if outputs is not None:
        set_group(monkeypatch, model, x, outputs)
    masks = real_masks(f, 3)
    total, gradient = trace_and_gradient(model, masks, x)
    by_reference = sum(t.sum() for t in reference.trace(f.model_fn, f.params, masks, x).values())
    assert relative_gap(total, by_reference) < TOLERANCE
    value = torch.func.grad(ours(f, x, terms))(masks)
    for key, expected in gradient.items():
        assert relative_gap(value[key], expected) < TOLERANCE, key


def assert_vmap_agrees(name, terms):
    model, x, _ = build(name)
    f = functional(model)
    masks = real_masks(f, 4, 3)
    values = torch.func.vmap(ours(f, x, terms))(masks)
    gradients = torch.func.vmap(torch.func.grad(ours(f, x, terms)))(masks)
    for k in range(3):
        total, gradient = trace_and_gradient(model, {key: m[k] for key, m in masks.items()}, x)
        assert relative_gap(values[k], total) < TOLERANCE
        for key, expected in gradient.items():
            assert relative_gap(gradients[key][k], expected) < TOLERANCE, key


@pytest.mark.parametrize("terms", [sample_traces, diagonal])
@pytest.mark.parametrize("name", NETWORKS)
def test_vmap_over_masks(name, terms):
    assert_vmap_agrees(name, terms)


@pytest.mark.parametrize("terms", [sample_traces, diagonal])
@pytest.mark.parametrize("name", NETWORKS)
def test_vmap_over_masks_one_output_at_a_time(monkeypatch, name, terms):
    monkeypatch.setattr(layerwise, "GROUP_BYTES", 1)
    assert_vmap_agrees(name, terms)


# Two batches whose samples have other sizes, which networks with a mean at the end take.


def averaged_map():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.Tanh(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


class AveragedSequence(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(2, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.inner(x)).mean(1))


SAMPLES = {
    "maps": (averaged_map, (2, 4, 4), (2, 6, 6)),
    "sequences": (AveragedSequence, (3, 2), (5, 2)),
}
SAMPLES |= {
    "maps and points": (averaged_map, (2, 4, 4), (2, 1, 1)),
    "sequences and positions": (AveragedSequence, (3, 2), (1, 2)),
}


@pytest.mark.parametrize("engine", ["auto", "jacobian", "ntk_vp"])
@pytest.mark.parametrize("name", SAMPLES)
def test_batches_of_other_sizes(name, engine):
    make, one, two = SAMPLES[name]
    model, x, other = seeded(make, (3, *one), (2, *two))
    f = functional(model)
    for x1, x2 in ((x, other), (other, x)):
        theta = reference.ntk(f.model_fn, f.params, None, x1, x2)
        for output, expected in outputs_of(theta).items():
            value = empirical_ntk(model, x1, x2, output=output, engine=engine)
            assert relative_gap(value, expected) < TOLERANCE, output
