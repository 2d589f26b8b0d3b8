"""Scorers by hand on three weights, and against their slow definitions on many networks."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ntktheory import functional
from ntktheory.models import convnet, mlp
from ntktheory.pruning import SCORERS, score
from ntktheory.pruning import reference_scorers as reference
from proofs_check.cases import Residual, TwiceInPlace, random_masks

F64: dict[str, Any] = {"dtype": torch.float64}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def half_squares(outputs, y):
    return (outputs - y).square().sum() / 2


def chain(a=2.0, b=3.0):
    """f(x) = b relu(a x)."""
    model = mlp([1, 1, 1], **F64)
    nn.init.constant_(model.layer1.weight, a)
    nn.init.constant_(model.layer2.weight, b)
    return model


ONE = torch.ones(1, 1, **F64)
WITHOUT_B = {"layer2.weight": torch.tensor([[False]])}


def both(scorer, masks=None, model=None, **options):
    batch = {"batch": (ONE, ONE), "loss_fn": half_squares}
    found = score(model or chain(), scorer, masks=masks, **batch, **options)
    return [float(s) for s in found.values()]


# ℓ = (ab − 1)²/2 at a = 2, b = 3: r = ab − 1 = 5, slopes rb = 15 and ra = 10. Without b: r = −1,
# slopes 0 and −2. H = [[b², ab + r], [ab + r, a²]] = [[9, 11], [11, 4]], Hg = (245, 205).
# With T = 2, ℓ = (ab/2 − 1)²/2: g = (3, 2), H = [[9/4, 5/2], [5/2, 1]], Hg = (11.75, 9.5).
# One step of η = 0.01: w = (1.85, 2.9), r = 4.365, g = (12.6585, 8.07525), D = 1 − ηH.
HAND = [
    ("magnitude", None, {}, [2, 3]),
    ("magnitude", WITHOUT_B, {}, [2, 0]),
    ("snip", None, {}, [30, 30]),
    ("snip", WITHOUT_B, {}, [0, 6]),
    ("iter_snip", None, {}, [30, 30]),
    ("iter_snip", WITHOUT_B, {}, [0, 0]),
    ("force", None, {}, [30, 30]),
    ("force", WITHOUT_B, {}, [0, 6]),
    ("grasp", None, {"temperature": 1.0}, [490, 615]),
    ("grasp", None, {"temperature": 2.0}, [23.5, 28.5]),
    ("grasp", WITHOUT_B, {"temperature": 1.0}, [0, 0]),
    ("prospr", None, {"steps": 0}, [30, 30]),
    ("prospr", None, {"steps": 1, "lr": 0.01}, [21.261915, 19.079415]),
    ("prospr", None, {"steps": 1, "lr": 0.01, "momentum": 0.9}, [21.261915, 19.079415]),
    ("prospr", WITHOUT_B, {"steps": 0}, [0, 6]),
    ("synflow", None, {}, [6, 6]),
    ("synflow", WITHOUT_B, {}, [0, 0]),
    ("synflow_repo", None, {}, [6, 6]),
    ("synflow_l2", None, {}, [36, 36]),
    ("synflow_l2", None, {"power": 1}, [18, 12]),
    ("synflow_l2", WITHOUT_B, {"power": 1}, [0, 0]),
    ("synflow_l2_repo", None, {}, [18, 12]),
    ("synflow_l2_repo", WITHOUT_B, {}, [0, 0]),
    ("px_repo", None, {}, [36, 36]),
    ("px_repo", WITHOUT_B, {}, [0, 0]),
]


@pytest.mark.parametrize(("scorer", "masks", "options", "expected"), HAND)
def test_by_hand(scorer, masks, options, expected):
    assert both(scorer, masks, **options) == pytest.approx(expected, rel=1e-13)


def test_grasp_keeps_its_sign():
    """At ab < 1 pruning either weight raises the loss but lowers the flow, or the other way round."""
    found = both("grasp", model=chain(0.5, 1.0), temperature=1.0)  # r = −½: g = (−½, −¼)
    assert found == pytest.approx([-0.25, -0.0625])  # H = [[1, 0], [0, ¼]], Hg = (−½, −1/16)


def test_grasp_predicts_the_change_of_the_flow():
    """Shrinking weight j by the share t changes ‖g‖² by −2t · score_j to first order."""
    model, (x, y) = mlp([3, 4, 2], generator=seeded(), **F64), batch(3, 2)
    found = score(model, "grasp", batch=(x, y), temperature=1.0)["layer1.weight"]
    net, t = functional(model), 1e-6

    def flow(params):
        slopes = torch.func.grad(lambda p: F.cross_entropy(net.model_fn(p, x), y))(params)
        return float(sum(s.square().sum() for s in slopes.values()))

    start = flow(net.params)
    for j in range(found.numel()):
        moved = {n: p.clone() for n, p in net.params.items()}
        moved["layer1.weight"].view(-1)[j] *= 1 - t
        change = (flow(moved) - start) / t
        assert change == pytest.approx(-2 * float(found.view(-1)[j]), rel=1e-3, abs=1e-8)


class Normed(nn.Module):
    """f(x) = 3 (2x − μ)/2."""

    def __init__(self, mean):
        super().__init__()
        self.first, self.norm = nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1, eps=0.0)
        self.head = nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.first.weight, 2.0)
        nn.init.constant_(self.head.weight, -3.0)
        self.norm.running_mean.fill_(mean)
        self.norm.running_var.fill_(4.0)
        self.double().eval()

    def forward(self, x):
        return self.head(self.norm(self.first(x)))


# |f| on ones: 3 (2 − μ)/2. The published code makes μ positive; squared, it is 9 (4 − μ²)/√16.
@pytest.mark.parametrize(
    ("scorer", "mean", "expected"),
    [
        ("synflow", 1.0, [3, 1.5]),
        ("synflow", -1.0, [3, 4.5]),
        ("synflow_repo", 1.0, [3, 1.5]),
        ("synflow_repo", -1.0, [3, 1.5]),
        ("synflow_l2_repo", 1.0, [4.5, 2.25]),
        ("synflow_l2_repo", -1.0, [4.5, 2.25]),
    ],
)
def test_running_statistics_by_hand(scorer, mean, expected):
    found = score(Normed(mean), scorer, input_shape=[1])
    assert [float(s) for s in found.values()] == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("scorer", ["random", "erk_random"])
def test_random_is_uniform_and_reproducible(scorer):
    net = mlp([100, 200, 10], generator=seeded())
    one, two = (score(net, scorer, generator=seeded(5)) for _ in range(2))
    other = score(net, scorer, generator=seeded(6))
    for name, s in one.items():
        assert torch.equal(s, two[name])
        assert not torch.equal(s, other[name])
        assert s.dtype == torch.float32
        assert 0 <= float(s.min()) < 0.01
        assert 0.99 < float(s.max()) < 1
        assert float(s.mean()) == pytest.approx(0.5, abs=6 * (1 / 12 / s.numel()) ** 0.5)
    assert SCORERS["erk_random"].budget == "erk"


def test_published_rounds():
    rounds = {name: entry.rounds for name, entry in SCORERS.items() if entry.rounds > 1}
    assert {n: rounds[n] for n in ("iter_snip", "force", "ntk_sap")} == {
        "iter_snip": 60, "force": 60, "ntk_sap": 20
    }  # fmt: skip
    flows = ("synflow", "synflow_repo", "synflow_l2", "synflow_l2_repo", "px", "px_repo")
    assert all(rounds[n] == 100 for n in flows)
    assert [n for n, entry in SCORERS.items() if entry.regrows] == ["force"]
    assert all(SCORERS[n].schedule == "exponential" for n in rounds)


# Against the slow definitions.


def batch(*shape, count=5):
    *inputs, outputs = shape
    x = torch.randn(count, *inputs, generator=seeded(1), **F64)
    return x, torch.arange(count) % outputs


def normed():
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3), nn.ReLU(),
        nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip


def gelu():
    return nn.Sequential(nn.Conv2d(2, 4, 2, groups=2), nn.GELU(), nn.Flatten(), nn.Linear(16, 2))


def residual():
    body = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU())
    return nn.Sequential(Residual(body), nn.Flatten(), nn.Linear(18, 3))


NETWORKS = {
    "MLP": (lambda: mlp([4, 5, 3]), (4, 3)),
    "MLP with biases": (lambda: mlp([4, 5, 4, 3], bias=True), (4, 3)),
    "CNN": (lambda: convnet([1, 2, 3], 3, image_size=4, bias=True), (1, 4, 4, 3)),
    "convolutions and batch norm": (normed, (2, 4, 4, 3)),
    "residual": (residual, (2, 3, 3, 3)),
    "grouped, GELU": (gelu, (2, 3, 3, 2)),
    "one layer used twice": (TwiceInPlace, (4, 3)),
}
DENSITIES = {"dense": None, "masked": 0.7}


def case(network, density):
    """Return model, masks, x and y; weights, scales and statistics are all drawn."""
    build, shape = NETWORKS[network]
    model, generator = build().double().eval(), seeded(3)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, **F64))
            p.mul_((2 / max(1, p[0].numel())) ** 0.5)
        for name, b in model.named_buffers():
            if b.is_floating_point():
                drawn = torch.randn(b.shape, generator=generator, **F64)
                b.copy_(drawn.square() + 0.5 if "var" in name else drawn)
    masks = None
    if DENSITIES[density] is not None:
        drawn = random_masks(model, DENSITIES[density])
        masks = {n: drawn[n] for n in functional(model).prunable}
    return model, masks, *batch(*shape)


def assert_near(found, expected):
    assert set(found) == set(expected)
    scale = max(float(s.abs().max()) for s in expected.values())
    assert scale > 0
    for name, s in expected.items():
        torch.testing.assert_close(found[name], s, rtol=1e-10, atol=1e-13 * scale)


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("network", NETWORKS)
class TestDefinitions:
    @pytest.mark.parametrize("bn", ["eval", "train"])
    def test_snip(self, network, density, bn):
        model, masks, x, y = case(network, density)
        train = bn == "train"
        expected = reference.reference_snip(model, masks, x, y, F.cross_entropy, train=train)
        given = {"batch": (x, y), "masks": masks, "bn": bn}
        assert_near(score(model, "snip", **given), expected)
        assert_near(score(model, "force", **given), expected)
        if masks is not None:
            expected = {n: s * masks[n] for n, s in expected.items()}
        assert_near(score(model, "iter_snip", **given), expected)

    @pytest.mark.parametrize("bn", ["eval", "train"])
    def test_grasp(self, network, density, bn):
        model, masks, x, y = case(network, density)
        train = bn == "train"
        expected = reference.reference_grasp(model, masks, x, y, F.cross_entropy, train=train)
        assert_near(score(model, "grasp", batch=(x, y), masks=masks, bn=bn), expected)

    @pytest.mark.parametrize("momentum", [0.0, 0.9])
    def test_prospr(self, network, density, momentum):
        model, masks, x, y = case(network, density)
        train = momentum > 0
        options = {"steps": 2, "lr": 0.05, "momentum": momentum}
        loss = F.cross_entropy
        expected = reference.reference_prospr(model, masks, x, y, loss, train=train, **options)
        options["bn"] = "train" if train else "eval"
        assert_near(score(model, "prospr", batch=(x, y), masks=masks, **options), expected)

    @pytest.mark.parametrize("scorer", ["synflow", "synflow_repo", "synflow_l2_repo"])
    def test_flow_of_ones(self, network, density, scorer):
        model, masks, x, _ = case(network, density)
        rule = torch.square if "l2" in scorer else torch.abs
        ones = torch.ones_like(x[:1])
        expected = reference.reference_synflow(
            model, masks, ones, rule=rule, buffers=scorer.endswith("repo")
        )
        assert_near(score(model, scorer, masks=masks, input_shape=x.shape[1:]), expected)

    def test_synflow_l2_of_one_power(self, network, density):
        if network == "grouped, GELU":
            pytest.skip("no path rule")
        model, masks, x, _ = case(network, density)
        two = score(model, "synflow_l2", batch=x, masks=masks)
        one = score(model, "synflow_l2", batch=x, masks=masks, power=1)
        theta = {n: model.get_parameter(n).detach() for n in one}
        assert_near({n: s * theta[n].abs() for n, s in one.items()}, two)

    def test_px_repo(self, network, density):
        model, masks, x, _ = case(network, density)
        expected = reference.reference_px_repo(model, masks, x)
        assert_near(score(model, "px_repo", batch=x, masks=masks), expected)

    def test_ntk_sap(self, network, density):
        model, masks, x, _ = case(network, density)
        names = functional(model).prunable
        draws = [
            ({}, (r + 1) * x, {n: torch.randn(model.get_parameter(n).shape, generator=seeded(r), **F64)
             for n in names})
            for r in range(2)
        ]  # fmt: skip
        expected = reference.reference_ntk_sap(model, masks, draws, sigma=0.1)
        options = {"draws": draws, "form": "finite_difference", "sigma": 0.1}
        assert_near(score(model, "ntk_sap", masks=masks, **options), expected)


def test_one_detached_step_would_be_noticed():
    """What the published code of ProsPr leaves out for μ ≠ 0 is not small."""
    model, _, x, y = case("MLP", "dense")
    options = {"batch": (x, y), "steps": 1, "lr": 0.5}
    found = score(model, "prospr", **options)
    net = functional(model)
    slopes = torch.func.grad(lambda p: F.cross_entropy(net.model_fn(p, x), y))(net.params)
    moved = {n: p - 0.5 * slopes[n] for n, p in net.params.items()}
    last = torch.func.grad(lambda p: F.cross_entropy(net.model_fn(p, x), y))(moved)
    detached = {n: (p * last[n]).abs() for n, p in net.params.items()}
    gap = max(float((found[n] - s).abs().max() / s.max()) for n, s in detached.items())
    assert gap > 0.1
