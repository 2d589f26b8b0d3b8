"""PHEW: the law of its walks against all paths of small nets, what walks may visit, and the order."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ntktheory import UnsupportedModule, functional
from ntktheory.checks import NumericalError
from ntktheory.estimators.evidence import check_mean
from ntktheory.functional import masked
from ntktheory.models import cifar_resnet, convnet, mlp
from ntktheory.pruning.scorers.phew import phew
from ntktheory.pruning.scorers.walk_graph import read_graph
from ntktheory.pruning.scorers.walks import Walker, expected_visits, plan_steps
from ntktheory.pruning.topk import keep_highest

DELTA = 1e-9
WALKS = 4000


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(*shape, seed=0):
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


class Shortcut(nn.Module):
    """head(x + body(x)), two units, one shortcut without a weight."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(2, 2, bias=False).double()
        self.head = nn.Linear(2, 2, bias=False).double()

    def forward(self, x):
        return self.head(F.relu(x + self.body(x)))


def flattened():
    """A convolution of 2 channels on 2 positions, flattened, and a head."""
    return nn.Sequential(
        nn.Conv1d(1, 2, 2, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2, bias=False)
    ).double()


def with_weights(model):
    for i, p in enumerate(model.parameters()):
        p.data.copy_(draw(*p.shape, seed=10 + i))
    return functional(model.eval())


def share(row, i):
    return abs(float(row[i])) / float(row.abs().sum())


# Every walk and its probability, written out: a walk is the list of its (weight, flat index).


def mlp_walks(f, forward, start):
    w1, w2 = f.params["layer1.weight"], f.params["layer2.weight"]
    hidden, inputs = w1.shape
    outputs = w2.shape[0]
    for h, other in itertools.product(range(hidden), range(outputs if forward else inputs)):
        i, o = (start, other) if forward else (other, start)
        p = share(w1[:, i], h) * share(w2[:, h], o)
        p = p if forward else share(w2[o], h) * share(w1[h], i)
        yield p, [("layer1.weight", h * inputs + i), ("layer2.weight", o * hidden + h)]


def shortcut_walks(f, forward, start):
    body, head = f.params["body.weight"], f.params["head.weight"]
    if forward:
        for o in range(2):
            yield share(head[:, start], o) / 2, [("head.weight", 2 * o + start)]
            for h in range(2):
                p = share(body[:, start], h) / 2 * share(head[:, h], o)
                yield p, [("body.weight", 2 * h + start), ("head.weight", 2 * o + h)]
        return
    for h in range(2):
        last = share(head[start], h), ("head.weight", 2 * start + h)
        yield last[0] / 2, [last[1]]
        for i in range(2):
            yield last[0] / 2 * share(body[h], i), [("body.weight", 2 * h + i), last[1]]


def flattened_walks(f, forward, start):
    conv, head = f.params["0.weight"][:, 0], f.params["3.weight"]
    for c, k, s, other in itertools.product(range(2), range(2), range(2), range(2)):
        o = other if forward else start
        if not forward and other:
            continue
        feature = 2 * c + s
        if forward:
            p = share(conv.flatten(), 2 * c + k) / 2 * share(head[:, feature], o)
        else:
            p = share(head[o], feature) * share(conv[c], k)
        yield p, [("0.weight", 2 * c + k), ("3.weight", 4 * o + feature)]


CASES = {
    "MLP": (lambda: mlp([2, 3, 2], dtype=torch.float64), (1, 2), mlp_walks, 2),
    "shortcut": (Shortcut, (1, 2), shortcut_walks, 2),
    "flattened": (flattened, (1, 1, 3), flattened_walks, 1),
}
EACH = pytest.mark.parametrize("name", CASES)
DIRECTIONS = pytest.mark.parametrize("forward", [True, False])


def prepared(name, forward):
    build, shape, enumerate_walks, inputs = CASES[name]
    f = with_weights(build())
    graph = read_graph(f.model_fn, f.params, torch.zeros(shape, dtype=torch.float64))
    return f, plan_steps(graph, forward), enumerate_walks, inputs if forward else 2


def walked(steps, start, count, generator):
    """Return the walks as lists of edges."""
    starts = steps.starts[start].expand(count)
    walks = [[] for _ in range(count)]
    for i, here, edge in Walker.of(steps).walk(starts, generator):
        weight = steps.graph.blocks[i].weight
        for w, e in zip(here.tolist(), edge.tolist(), strict=True):
            walks[w].append((weight, e))
    return walks


@DIRECTIONS
@EACH
def test_law_of_the_walks(name, forward):
    """The frequency of every walk, at a false-alarm probability of 1e-9."""
    f, steps, enumerate_walks, ends = prepared(name, forward)
    for start in range(ends):
        law = {}
        for p, edges in enumerate_walks(f, forward, start):
            law[tuple(sorted(edges))] = law.get(tuple(sorted(edges)), 0.0) + p
        assert sum(law.values()) == pytest.approx(1, rel=1e-12)
        seen = [tuple(sorted(w)) for w in walked(steps, start, WALKS, seeded(start))]
        assert set(seen) <= set(law)
        hits = torch.tensor([[float(w == path) for path in law] for w in seen]).double()
        p = torch.tensor(list(law.values()), dtype=torch.float64)
        assert check_mean(hits, p, p * (1 - p), delta=DELTA).status == "pass"
        off = p.flip(0)  # another law is noticed
        assert check_mean(hits, off, off * (1 - off), delta=DELTA).status == "fail"


@DIRECTIONS
@EACH
def test_expected_visits(name, forward):
    f, steps, enumerate_walks, ends = prepared(name, forward)
    expected = {k: torch.zeros(f.params[k].numel(), dtype=torch.float64) for k in f.prunable}
    for start in range(ends):
        for p, edges in enumerate_walks(f, forward, start):
            for weight, e in edges:
                expected[weight][e] += p / ends
    for key, visits in expected_visits(steps, f.params).items():
        torch.testing.assert_close(visits.flatten(), expected[key], rtol=1e-12, atol=1e-15)


@DIRECTIONS
def test_visits_of_a_residual_network_add_up(forward):
    """Every walk starts with one edge and ends with one; what flows into a sum flows out of it."""
    f = with_weights(cifar_resnet(8, 3, width=2, dtype=torch.float64))
    graph = read_graph(f.model_fn, f.params, torch.zeros(1, 3, 8, 8, dtype=torch.float64))
    steps = plan_steps(graph, forward)
    visits = expected_visits(steps, f.params)
    sums = {name: float(v.sum()) for name, v in visits.items()}
    assert sums["conv1.weight"] == pytest.approx(1, rel=1e-12)
    assert sums["head.weight"] == pytest.approx(1, rel=1e-12)
    assert sums["stage1.0.conv1.weight"] == pytest.approx(0.5, rel=1e-12)
    assert sums["stage2.0.shortcut.conv.weight"] == pytest.approx(0.5, rel=1e-12)
    assert sums["stage2.0.conv2.weight"] == pytest.approx(0.5, rel=1e-12)
    counts = dict.fromkeys(visits, 0)
    starts = steps.starts.repeat(300)
    for i, here, _ in Walker.of(steps).walk(starts, seeded()):
        counts[graph.blocks[i].weight] += len(here)
    assert counts["conv1.weight"] == counts["head.weight"] == len(starts)
    assert counts["stage2.0.conv2.weight"] + counts["stage2.0.shortcut.conv.weight"] == len(starts)


# What may be visited.


def on_paths(weights):
    """Say of every weight of an MLP whether a path of weights other than 0 runs through it."""
    links = [w != 0 for w in weights]
    for i, own in enumerate(weights):
        before = torch.ones(weights[0].shape[1], dtype=torch.bool)
        for w in weights[:i]:
            before = ((w != 0) & before).any(1)
        after = torch.ones(weights[-1].shape[0], dtype=torch.bool)
        for w in reversed(weights[i + 1 :]):
            after = ((w != 0) & after.unsqueeze(1)).any(0)
        links[i] = (own != 0) & before & after.unsqueeze(1)
    return links


def test_walks_visit_exactly_the_weights_on_paths():
    f = with_weights(mlp([6, 7, 7, 4], dtype=torch.float64))
    masks = {k: draw(*f.params[k].shape, seed=i) > 0.9 for i, k in enumerate(f.prunable)}
    effective = masked(f.params, masks)
    allowed = torch.cat([t.flatten() for t in on_paths([effective[k] for k in f.prunable])])
    assert 3 < int(allowed.sum()) < sum(int(m.sum()) for m in masks.values())
    x = torch.zeros(1, 6, dtype=torch.float64)
    graph = read_graph(f.model_fn, effective, x)
    for forward in (True, False):
        steps = plan_steps(graph, forward)
        visits = expected_visits(steps, f.params)
        assert torch.equal(torch.cat([visits[k].flatten() > 0 for k in f.prunable]), allowed)
        seen = torch.zeros_like(allowed)
        offsets = {"layer1.weight": 0, "layer2.weight": 42, "layer3.weight": 91}
        for i, _, edge in Walker.of(steps).walk(steps.starts.repeat(400), seeded()):
            seen[offsets[graph.blocks[i].weight] + edge] = True
        assert torch.equal(seen, allowed)
    scores = phew(f.model_fn, f.params, masks, f.prunable, x, seeded(), coverage=1.0, walks=4000)
    kept = keep_highest(scores, int(allowed.sum()))
    assert torch.equal(torch.cat([kept[k].flatten() for k in f.prunable]), allowed)


def test_no_path_at_all():
    f = with_weights(mlp([3, 4, 2], dtype=torch.float64))
    masks = {"layer2.weight": torch.zeros(2, 4, dtype=torch.bool)}
    scores = phew(f.model_fn, f.params, masks, f.prunable, torch.zeros(1, 3).double(), seeded())
    flat = torch.cat([scores[k].flatten() for k in f.prunable])
    assert torch.equal(flat, -torch.arange(20).double())


# The order.


def test_the_mask_is_that_of_the_first_walks():
    """At every count the k highest are the first k weights met by walks made one after the other."""
    f = with_weights(mlp([3, 5, 4, 2], dtype=torch.float64))
    x = torch.zeros(1, 3, dtype=torch.float64)
    scores = phew(f.model_fn, f.params, None, f.prunable, x, seeded(4), coverage=1.0, walks=60)
    graph = read_graph(f.model_fn, f.params, x)
    generator = seeded(4)
    walks = {}
    for forward in (True, False):
        steps = plan_steps(graph, forward)
        starts = steps.starts[torch.arange(30) % len(steps.starts)]
        own = [[] for _ in range(30)]
        for i, here, edge in Walker.of(steps).walk(starts, generator):
            for w, e in zip(here.tolist(), edge.tolist(), strict=True):
                own[w].append((graph.blocks[i].weight, e))
        walks |= {2 * i + (0 if forward else 1): edges for i, edges in enumerate(own)}
    met = list(dict.fromkeys(edge for i in range(60) for edge in walks[i]))
    assert 20 < len(met) < 43
    for count in range(1, len(met) + 1):
        kept = keep_highest(scores, count)
        chosen = {(k, i) for k in kept for i in torch.nonzero(kept[k].flatten()).flatten().tolist()}
        assert chosen == set(met[:count])


def test_never_visited_weights_follow_by_their_mean_visits():
    f = with_weights(mlp([3, 5, 2], dtype=torch.float64))
    x = torch.zeros(1, 3, dtype=torch.float64)
    scores = phew(f.model_fn, f.params, None, f.prunable, x, seeded(), coverage=0.0)
    graph = read_graph(f.model_fn, f.params, x)
    means = [expected_visits(plan_steps(graph, forward), f.params) for forward in (True, False)]
    rates = torch.cat([(means[0][k] + means[1][k]).flatten() for k in f.prunable])
    flat = torch.cat([scores[k].flatten() for k in f.prunable])
    assert torch.equal(rates[flat.argsort(descending=True)], rates.sort(descending=True).values)


@pytest.mark.parametrize("coverage", [0.05, 0.5])
def test_scores_are_a_permutation(coverage):
    f = with_weights(cifar_resnet(8, 3, width=4, dtype=torch.float64))
    before = {k: p.clone() for k, p in f.params.items()}
    x = torch.zeros(1, 3, 8, 8, dtype=torch.float64)
    state = torch.random.get_rng_state()
    call = (f.model_fn, f.params, None, f.prunable, x)
    scores = phew(*call, seeded(), coverage=coverage)
    flat = torch.cat([s.flatten() for s in scores.values()])
    assert torch.equal(flat.sort(descending=True).values, -torch.arange(len(flat)).double())
    again, other = (
        phew(*call, seeded(), coverage=coverage),
        phew(*call, seeded(1), coverage=coverage),
    )
    assert all(torch.equal(again[k], s) for k, s in scores.items())
    assert any(not torch.equal(other[k], s) for k, s in scores.items())
    assert all(torch.equal(before[k], p) for k, p in f.params.items())
    assert torch.equal(state, torch.random.get_rng_state())


# Reading networks.


class Joined(nn.Module):
    """Two branches side by side, one grouped, one transposed; averaged over positions."""

    def __init__(self):
        super().__init__()
        self.grouped = nn.Conv2d(4, 6, 3, padding=1, groups=2)
        self.wide = nn.ConvTranspose2d(4, 2, 2, stride=2)
        self.norm, self.head = nn.BatchNorm2d(8), nn.Linear(8, 3)

    def forward(self, x):
        a, b = F.avg_pool2d(self.grouped(x), 3, 1, 1), F.max_pool2d(self.wide(x), 2)
        h = F.leaky_relu(self.norm(torch.cat([a, b], 1))) * 2.0
        return self.head(h.mean((2, 3)))


def test_grouped_transposed_and_joined():
    f = with_weights(Joined().double())
    graph = read_graph(f.model_fn, f.params, torch.zeros(1, 4, 4, 4, dtype=torch.float64))
    assert graph.inputs == 4
    grouped, wide, head = graph.blocks
    assert head.sources.tolist() == [*range(5, 11), *range(11, 13)]
    w = f.params["grouped.weight"].abs()
    assert torch.equal(grouped.strengths[1, 1, 2], w[5, 1].flatten())
    assert int(grouped.index[1, 1, 2, 4]) == 5 * 18 + 1 * 9 + 4
    t = f.params["wide.weight"].abs()
    assert torch.equal(wide.strengths[0, 3, 1], t[3, 1].flatten())
    assert int(wide.index[0, 3, 1, 2]) == 3 * 8 + 1 * 4 + 2
    visits = expected_visits(plan_steps(graph, False), f.params)
    row = f.params["head.weight"].abs()
    share_of_wide = float((row[:, 6:].sum(1) / row.sum(1)).mean())
    assert float(visits["wide.weight"].sum()) == pytest.approx(share_of_wide, rel=1e-12)


def test_pixels_are_inputs_of_a_linear_network():
    """Flattened images enter a Linear pixel by pixel, a convolution channel by channel."""
    image = torch.zeros(1, 2, 3, 3)
    flat = functional(nn.Sequential(nn.Flatten(), nn.Linear(18, 2)))
    assert read_graph(flat.model_fn, flat.params, image).inputs == 18
    conv = functional(convnet([2, 2], 2, image_size=3))
    assert read_graph(conv.model_fn, conv.params, image).inputs == 2
    tokens = functional(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))
    assert read_graph(tokens.model_fn, tokens.params, torch.zeros(1, 5, 3)).inputs == 3


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.head(x * self.first(x))


class OverUnits(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)

    def forward(self, x):
        return self.first(x).mean(1, keepdim=True)


class Sorted(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)

    def forward(self, x):
        return self.first(x).sort(1).values


class Computed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)

    def forward(self, x):
        return F.linear(x, 2 * self.first.weight)


class Constant(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)

    def forward(self, x):
        return self.first(torch.ones(1, 3))


REFUSED = {
    Gated: "mul.* of data with data",
    OverUnits: "mean over several units",
    Sorted: "can cross, got sort",
    Computed: "linear with a weight that is not itself a parameter",
    Constant: "outputs that do not depend on the inputs",
}


@pytest.mark.parametrize("build", REFUSED)
def test_refused(build):
    f = functional(build())
    with pytest.raises(UnsupportedModule, match=REFUSED[build]):
        phew(f.model_fn, f.params, None, f.prunable, torch.zeros(1, 3), seeded())


def test_the_module_is_named():
    f = functional(nn.Sequential(nn.Linear(3, 3), Gated()))
    with pytest.raises(UnsupportedModule, match=r"model at '1' \(Gated\)"):
        read_graph(f.model_fn, f.params, torch.zeros(1, 3))


def test_bad_options():
    f = functional(mlp([2, 2]))
    call = (f.model_fn, f.params, None, f.prunable, torch.zeros(1, 2), seeded())
    with pytest.raises(ValueError, match=r"coverage must be a fraction in \[0, 1\], got 1\.5"):
        phew(*call, coverage=1.5)
    with pytest.raises(ValueError, match="walks must be a positive integer"):
        phew(*call, walks=0)
    broken = {"layer1.weight": torch.full((2, 2), torch.inf)}
    with pytest.raises(NumericalError, match=r"parameter 'layer1\.weight' must be finite"):
        phew(f.model_fn, broken, None, f.prunable, torch.zeros(1, 2), seeded())
