"""The oracles, ``ntk_trace`` and ``ntk_trace_saliency``: by hand, dense, and by differences."""

import pytest
import torch
from torch import nn

from ntktheory import functional
from ntktheory import ntk_trace as trace_of
from ntktheory.functional import masked
from ntktheory.models import cifar_resnet, mlp
from ntktheory.ntk import reference
from ntktheory.ntk.layerwise import plan
from ntktheory.ntk.trace_gradient import gradient_chunk
from ntktheory.pruning.scorers.ntk_trace import ntk_trace
from ntktheory.pruning.scorers.ntk_trace_saliency import ntk_trace_saliency
from proofs_check import cases
from proofs_check.compare import relative_gap

TOLERANCE = 1e-10
NETWORKS = [*cases.BUILDERS, "residual"]


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def residual():
    """A residual network with batch norms whose statistics and scales are no ones and zeros."""
    generator = torch.Generator().manual_seed(3)
    net = cifar_resnet(8, 3, width=2, channels=2, generator=generator, dtype=torch.float64)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            shape = module.running_mean.shape
            module.running_mean.copy_(0.3 * draw(*shape, seed=1))
            module.running_var.copy_(0.5 + draw(*shape, seed=2).square())
            nn.init.normal_(module.bias, generator=generator)
            nn.init.normal_(module.weight, generator=generator)
    return net


def problem(name, dense):
    if name == "residual":
        model, x = residual(), draw(3, 2, 4, 4, seed=5)
    else:
        model, x = cases.network(name).model, cases.network(name).x
    f = functional(model)
    masks = None if dense else {k: cases.random_masks(model)[k] for k in f.prunable}
    return f, x, masks


def everywhere(masks, f):
    masks = masks or {}
    return {k: masks.get(k, torch.ones_like(f.params[k])) for k in f.prunable}


# By hand.


def two_layers(w1, b, w2):
    """f(x) = w2 relu(w1 x + b) with one unit in each layer; the bias b is no prunable weight."""
    model = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1, bias=False)).double()
    for p, value in zip(model.parameters(), (w1, b, w2), strict=True):
        nn.init.constant_(p, value)
    return functional(model)


def both(f, scores):
    return [float(scores[name]) for name in f.prunable]


W1, B, W2, X = 0.5, 0.25, 3.0, 2.0
FIRST, BIAS, LAST = (W2 * X) ** 2, W2**2, (W1 * X + B) ** 2  # squares of the rows of J
# Tr(m) = m1² (m2 w2 x)² + (m2 w2)² + m2² (m1 w1 x + b)², the middle term for the bias.
HAND = {
    ("all", 1, 1): [2 * FIRST + 2 * (W1 * X + B) * W1 * X, 2 * FIRST + 2 * BIAS + 2 * LAST],
    ("prunable", 1, 1): [2 * FIRST + 2 * (W1 * X + B) * W1 * X, 2 * FIRST + 2 * LAST],
    ("all", 0, 1): [2 * B * W1 * X, 2 * BIAS + 2 * B**2],
    ("prunable", 0, 1): [2 * B * W1 * X, 2 * B**2],
    ("all", 1, 0): [0.0, 0.0],
}


@pytest.mark.parametrize(("select", "m1", "m2"), HAND)
def test_saliency_by_hand(select, m1, m2):
    f, x = two_layers(W1, B, W2), torch.tensor([[X]], dtype=torch.float64)
    masks = {"0.weight": torch.full((1, 1), bool(m1)), "2.weight": torch.full((1, 1), bool(m2))}
    chosen = None if select == "all" else "prunable"
    found = ntk_trace_saliency(f.model_fn, f.params, masks, x, f.prunable, select=chosen)
    assert both(f, found) == pytest.approx(HAND[select, m1, m2], rel=1e-14)


def test_trace_by_hand():
    f, x = two_layers(W1, B, W2), torch.tensor([[X]], dtype=torch.float64)
    found = ntk_trace(f.model_fn, f.params, None, x, f.prunable)
    assert both(f, found) == pytest.approx([W1**2 * FIRST, W2**2 * LAST], rel=1e-14)
    dropped = {"0.weight": torch.zeros(1, 1, dtype=torch.bool)}
    found = ntk_trace(f.model_fn, f.params, dropped, x, f.prunable)
    assert both(f, found) == pytest.approx([0.0, W2**2 * B**2], rel=1e-14)


def test_sign():
    """With b < 0 the first weight of a dropped unit would lower the trace: 2 b w1 x < 0."""
    f, x = two_layers(W1, 0.25, W2), torch.tensor([[-1.0]], dtype=torch.float64)
    masks = {"0.weight": torch.zeros(1, 1, dtype=torch.bool)}
    signed = ntk_trace_saliency(f.model_fn, f.params, masks, x, f.prunable, sign="signed")
    assert both(f, signed)[0] == pytest.approx(-2 * 0.25 * W1, rel=1e-14)
    default = ntk_trace_saliency(f.model_fn, f.params, masks, x, f.prunable)
    assert both(f, default) == [abs(value) for value in both(f, signed)]


# Against the dense reference.


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_trace_score(name, dense):
    f, x, masks = problem(name, dense)
    squares = reference.trace(f.model_fn, f.params, masks, x)
    for chunk_size in (None, 2):
        found = ntk_trace(f.model_fn, f.params, masks, x, f.prunable, chunk_size=chunk_size)
        assert list(found) == list(f.prunable)
        for key, score in found.items():
            assert relative_gap(score, f.params[key].square() * squares[key]) < TOLERANCE, key
            assert masks is None or not score[~masks[key]].any()


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_saliency(name, dense):
    f, x, masks = problem(name, dense)
    select, chosen, chunk_size = (None, None, 2) if dense else ("prunable", f.prunable, None)
    expected = reference.trace_saliency(f.model_fn, f.params, everywhere(masks, f), x, chosen)
    found = ntk_trace_saliency(
        f.model_fn, f.params, masks, x, f.prunable, select=select, sign="signed",
        chunk_size=chunk_size,
    )  # fmt: skip
    assert list(found) == list(f.prunable)
    scale = max(float(t.abs().max()) for t in expected.values())
    for key, value in found.items():
        assert float((value - expected[key]).abs().max()) < TOLERANCE * scale, key


@pytest.mark.parametrize("name", ["MLP with biases", "residual"])
def test_saliency_by_differences(name):
    """Along a random direction of masks; a difference of traces knows nothing of derivatives."""
    f, x, masks = problem(name, False)
    m = {k: t.double() for k, t in everywhere(masks, f).items()}
    along = {k: draw(*t.shape, seed=i) for i, (k, t) in enumerate(m.items())}
    found = ntk_trace_saliency(f.model_fn, f.params, masks, x, f.prunable, sign="signed")
    slope = sum(float((found[k] * along[k]).sum()) for k in f.prunable)
    h = 1e-5
    ends = [trace_of(f, x, masks={k: m[k] + s * h * along[k] for k in m}) for s in (1, -1)]
    assert slope == pytest.approx(float(ends[0] - ends[1]) / (2 * h), rel=1e-7)


@pytest.mark.parametrize("dense", [True, False])
def test_the_signed_saliency_is_conserved(dense):
    """Homogeneous of degree 2 in each layer's mask: Σ_j m_j ∂Tr/∂m_j = 2 Tr for every layer."""
    f, x, masks = problem("MLP", dense)
    found = ntk_trace_saliency(f.model_fn, f.params, masks, x, f.prunable, sign="signed")
    total, m = float(trace_of(f, x, masks=masks)), everywhere(masks, f)
    for name in f.prunable:
        assert float((m[name] * found[name]).sum()) == pytest.approx(2 * total, rel=1e-12)


def test_shortcuts_break_the_conservation():
    f, x, _ = problem("residual", True)
    found = ntk_trace_saliency(f.model_fn, f.params, None, x, f.prunable, sign="signed")
    sums = [float(score.sum()) for score in found.values()]
    assert max(sums) > 1.01 * min(sums)


# The layer rules do not hold for every network.


class Swapped(nn.Module):
    """Sorts its samples inside, and back again: the layer rules would mix their rows."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        order = x[:, 0].argsort()
        return self.head(torch.tanh(self.first(x[order])))[order.argsort()]


class Doubled(nn.Module):
    """A weight used outside of its layer only."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(torch.relu(x @ self.first.weight.T + self.first.bias))


@pytest.mark.parametrize("build", [Swapped, Doubled])
def test_networks_without_rules(build):
    model = build().double()
    for i, p in enumerate(model.parameters()):
        p.data.copy_(draw(*p.shape, seed=i))
    f, x = functional(model), draw(9, 3, seed=7)
    expected = reference.trace_saliency(f.model_fn, f.params, everywhere(None, f), x)
    found = ntk_trace_saliency(f.model_fn, f.params, None, x, f.prunable, sign="signed")
    squares = reference.trace(f.model_fn, f.params, None, x)
    shares = ntk_trace(f.model_fn, f.params, None, x, f.prunable)
    for name in f.prunable:
        assert relative_gap(found[name], expected[name]) < TOLERANCE
        assert relative_gap(shares[name], f.params[name].square() * squares[name]) < TOLERANCE


# Many networks at once.


@pytest.mark.parametrize("scorer", [ntk_trace, ntk_trace_saliency])
def test_vmap_is_a_loop(scorer):
    f = functional(mlp([3, 4, 2], bias=True, dtype=torch.float64))
    x = draw(4, 5, 3, seed=1)
    params = {k: draw(4, *p.shape, seed=i) for i, (k, p) in enumerate(f.params.items())}
    masks = {k: draw(4, *f.params[k].shape, seed=9) > -0.5 for k in f.prunable}

    def one(params, masks, x):
        return scorer(f.model_fn, params, masks, x, f.prunable)

    together = torch.func.vmap(one)(params, masks, x)
    for i in range(4):
        alone = one({k: p[i] for k, p in params.items()}, {k: m[i] for k, m in masks.items()}, x[i])
        for name in f.prunable:
            assert relative_gap(together[name][i], alone[name]) < 1e-12


def test_nothing_is_changed():
    f, x, masks = problem("residual", False)
    before = {k: p.clone() for k, p in f.params.items()}
    state = torch.random.get_rng_state()
    for scorer in (ntk_trace, ntk_trace_saliency):
        scorer(f.model_fn, f.params, masks, x, f.prunable)
    assert all(torch.equal(before[k], p) for k, p in f.params.items())
    assert torch.equal(state, torch.random.get_rng_state())


def test_weights_of_dropped_parameters_do_not_matter_to_the_trace():
    f, x, masks = problem("CNN", False)
    found = ntk_trace(f.model_fn, f.params, masks, x, f.prunable)
    zeroed = ntk_trace(f.model_fn, masked(f.params, masks), masks, x, f.prunable)
    assert all(torch.equal(zeroed[name], score) for name, score in found.items())


def test_chunks_hold_rows_of_weights_at_positions_only():
    """A Linear on vectors needs no row per sample: its chunk does not shrink with its weights."""
    sizes = {}
    for width in (64, 4096):
        for name, net, shape in (
            ("vectors", nn.Linear(width, 64, bias=False), (1, width)),
            ("positions", nn.Conv1d(width, 64, 1, bias=False), (1, width, 4)),
        ):
            f, x = functional(nn.Sequential(net, nn.Flatten())), torch.ones(shape)
            layers = plan(f.model_fn, f.params, x)
            sizes[name, width] = gradient_chunk(layers, f.params, f.prunable, 10_000, 10)
    assert sizes["vectors", 4096] == sizes["vectors", 64]
    assert 50 * sizes["positions", 4096] < sizes["positions", 64]


def test_options():
    f, x, _ = problem("MLP", True)
    call = (f.model_fn, f.params, None, x, f.prunable)
    with pytest.raises(ValueError, match="sign must be one of 'abs', 'signed', got 'mean'"):
        ntk_trace_saliency(*call, sign="mean")
    with pytest.raises(ValueError, match="select must be one of"):
        ntk_trace_saliency(*call, select=["nothing"])
    with pytest.raises(TypeError, match="select must be None"):
        ntk_trace_saliency(*call, select=3)
    for scorer in (ntk_trace, ntk_trace_saliency):
        with pytest.raises(ValueError, match="chunk_size must be a positive integer or None"):
            scorer(*call, chunk_size=0)
