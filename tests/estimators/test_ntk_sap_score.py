"""NTK-SAP's score: against the authors' code, by hand, its draws, its options and bad input."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ntktheory import NumericalError, functional
from ntktheory.estimators.batch_norm_modes import official_statistics
from ntktheory.estimators.ntk_sap import objective
from ntktheory.estimators.ntk_sap_draws import Draw, kaiming_normal, sample_draws
from ntktheory.estimators.ntk_sap_score import (
    ScoreEstimate,
    ntk_sap_score,
    realization_scores,
    score_of_realization,
)
from ntktheory.functional import FunctionalModel
from ntktheory.models import cifar_resnet, convnet, mlp
from ntktheory.probes import sample_gaussian
from ntktheory.pruning.scorers.ntk_sap import ntk_sap

GOLDEN = Path(__file__).parents[1] / "golden"
PUBLISHED = {"form": "finite_difference", "bn": "official"}
OPTIONS: dict[str, Any] = {"dtype": torch.float64}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=seeded(seed), **OPTIONS)


# Against the authors' code.


class Dense(nn.Module):
    """The MLPs of the golden scores."""

    def __init__(self, bias):
        super().__init__()
        self.l1 = nn.Linear(12, 16, bias)
        self.l2 = nn.Linear(16, 16, bias)
        self.l3 = nn.Linear(16, 5, bias)

    def forward(self, x):
        return self.l3(F.relu(self.l2(F.relu(self.l1(x.flatten(1))))))


class Conv(nn.Module):
    """The CNN of the golden scores."""

    def __init__(self):
        super().__init__()
        self.c1 = nn.Conv2d(3, 6, 3, padding=1)
        self.c2 = nn.Conv2d(6, 8, 3, 2, 1, bias=False)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(F.relu(self.c2(F.relu(self.c1(x)))).mean((2, 3)))


class ConvBN(nn.Module):
    """The residual CNN with batch norm of the golden scores."""

    def __init__(self):
        super().__init__()
        self.c1 = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.n1 = nn.BatchNorm2d(6)
        self.c2 = nn.Conv2d(6, 8, 3, 2, 1, bias=False)
        self.n2 = nn.BatchNorm2d(8)
        self.sc = nn.Conv2d(3, 8, 1, 2, bias=False)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        branch = self.n2(self.c2(F.relu(self.n1(self.c1(x)))))
        return self.head(F.relu(branch + self.sc(x)).mean((2, 3)))


NETWORKS = {
    "mlp": lambda: Dense(False),
    "mlp_bias": lambda: Dense(True),
    "conv": Conv,
    "conv_bn": ConvBN,
}


def golden(name):
    """Return the network with its parameters, the recorded draws, and the published scores."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        record = {key: torch.from_numpy(array) for key, array in arrays.items()}

    def under(prefix):
        return {key.removeprefix(prefix): t for key, t in record.items() if key.startswith(prefix)}

    model = NETWORKS[name]().double().eval()
    model.load_state_dict(under("param/") | under("buffer/"), strict=False)
    draws = []
    for r in (0, 1):
        start = f"ntk_sap/{r}/"
        noise = {key: t[None] for key, t in under(f"{start}unit_noise/").items()}
        draws.append(Draw(under(f"{start}param/"), record[f"{start}x"], noise))
    return model, draws, under("score/ntk_sap/")


@pytest.mark.parametrize("name", NETWORKS)
def test_published_scores(name):
    model, draws, expected = golden(name)
    found = ntk_sap(model, draws=draws, sigma=0.01, **PUBLISHED)
    assert set(found) == set(expected)
    for key, score in expected.items():
        torch.testing.assert_close(found[key], score, rtol=1e-10, atol=1e-13 * score.max())


def test_the_perturbed_network_keeps_its_scale_and_shift_as_published():
    """Where the draw's scale and shift are the model's own, nothing is kept, and scores differ."""
    model, draws, expected = golden("conv_bn")
    with torch.no_grad():
        for norm in (model.n1, model.n2):
            norm.weight.fill_(1.0)
            norm.bias.zero_()
    found = ntk_sap(model, draws=draws, **PUBLISHED)
    for key, score in expected.items():
        assert (found[key] - score).abs().max() > 0.9 * score.max()


def test_perturbed_scales_are_perturbed_about_the_models_own():
    model, draws, _ = golden("conv_bn")
    probe = {"n1.bias": normal(1, 6, seed=4)}
    moved = [Draw(d.params, d.x, {**d.probes, **probe}) for d in draws]
    own = [
        Draw(
            d.params,
            d.x,
            d.probes
            | {
                key: (model.get_parameter(key).detach() - d.params[key])[None] / 0.01
                + probe.get(key, 0)
                for key in ("n1.weight", "n1.bias", "n2.weight", "n2.bias")
            },
        )
        for d in draws
    ]
    with torch.no_grad():
        reset = copy.deepcopy(model)
        for norm in (reset.n1, reset.n2):
            norm.weight.fill_(1.0)
            norm.bias.zero_()
    found, expected = (
        ntk_sap(model, draws=moved, **PUBLISHED),
        ntk_sap(reset, draws=own, **PUBLISHED),
    )
    for key, score in expected.items():
        torch.testing.assert_close(found[key], score, rtol=1e-10, atol=0)


@pytest.mark.parametrize("form", ["jvp", "finite_difference"])
def test_probes_without_an_axis_are_one_probe(form):
    model, draws, _ = golden("conv")
    flat = [Draw(d.params, d.x, {n: t[0] for n, t in d.probes.items()}) for d in draws]
    a, b = (ntk_sap(model, draws=made, form=form) for made in (draws, flat))
    assert all(torch.equal(a[name], b[name]) for name in a)


# By hand: f(x) = w·x at x = (1, 3); with u = σΔ·x the score of w_j is 2 u σ Δ_j x_j, for every w.

LINEAR = nn.Linear(2, 1, bias=False, **OPTIONS)
X = torch.tensor([[1.0, 3.0]], dtype=torch.float64)


def signs(*values):
    return {"weight": torch.tensor([[values]], dtype=torch.float64)}


@pytest.mark.parametrize("form", ["jvp", "finite_difference"])
def test_hand_values(form):
    draws = [Draw({}, X, signs(1, 1)), Draw({}, X, signs(1, -1))]
    found = ntk_sap_score(LINEAR, draws, sigma=0.5, form=form)
    values = {sign: found.score(sign)["weight"][0].tolist() for sign in ("signed", "abs_of_mean")}
    assert values["signed"] == pytest.approx([(8 - 4) / 8, (24 + 12) / 8], rel=1e-12)
    assert values["abs_of_mean"] == pytest.approx(values["signed"], rel=1e-12)
    assert found.score("mean_of_abs")["weight"][0].tolist() == pytest.approx([1.5, 4.5], rel=1e-12)
    assert found.variance["weight"][0].tolist() == pytest.approx([4.5, 4.5], rel=1e-12)
    assert found.standard_error()["weight"][0].tolist() == pytest.approx([1.5, 1.5], rel=1e-12)
    assert found.count == 2
    both = ntk_sap_score(LINEAR, [Draw({}, X, joined(signs(1, 1), signs(1, -1)))], sigma=0.5)
    torch.testing.assert_close(both.mean["weight"], found.mean["weight"])


def joined(*probes):
    return {name: torch.cat([p[name] for p in probes]) for name in probes[0]}


def test_the_scorer_sums_over_realisations():
    draws = [Draw({}, X, signs(1, 1)), Draw({}, X, signs(1, -1))]
    assert ntk_sap(LINEAR, draws=draws, sigma=1.0)["weight"].tolist() == [[4, 36]]
    assert ntk_sap(LINEAR, draws=draws, sigma=1.0, sign="mean_of_abs")["weight"].tolist() == [
        [12, 36]
    ]
    swapped = ntk_sap(LINEAR, draws=[Draw({}, X, signs(1, -1))], sigma=1.0, sign="signed")
    assert swapped["weight"].tolist() == [[-4, 12]]


def test_the_variance_of_one_realisation_is_unknown():
    found = ntk_sap_score(LINEAR, [Draw({}, X, signs(1, 1))])
    assert bool(found.variance["weight"].isnan().all())


def networks():
    generator = seeded(1)
    return {
        "MLP with biases": (mlp([3, 4, 4, 2], bias=True, generator=generator, **OPTIONS), (5, 3)),
        "CNN": (convnet([1, 2, 3], 2, image_size=4, generator=generator, **OPTIONS), (3, 1, 4, 4)),
        "tanh MLP": (
            mlp([3, 4, 2], activation=nn.Tanh, generator=generator, **OPTIONS), (5, 3)
        ),
        "ResNet-8": (cifar_resnet(8, 3, width=2, generator=generator, **OPTIONS), (4, 3, 8, 8)),
    }  # fmt: skip


@pytest.mark.parametrize("form", ["jvp", "finite_difference"])
@pytest.mark.parametrize("network", networks())
def test_the_score_is_the_derivative_in_the_mask(network, form):
    """Central differences of the objective itself, at masks with zeros and fractions."""
    model, shape = networks()[network]
    net, x = functional(model), normal(*shape, seed=2)
    masks = {
        name: torch.randint(0, 3, p.shape, generator=seeded(3), **OPTIONS) / 2
        for name, p in net.params.items()
    }
    probes = sample_gaussian(net.params, 2, generator=seeded(4))
    options = {"sigma": 0.01, "form": form}
    score, mean = score_of_realization(
        net.model_fn, net.params, masks, x, probes, net.prunable, **options
    )
    assert list(score) == list(net.prunable)
    for name in net.prunable:
        for place in {(0,) * score[name].ndim, tuple(n - 1 for n in score[name].shape)}:
            ends = []
            for step in (1e-5, -1e-5):
                moved = {**masks, name: masks[name].clone()}
                moved[name][place] += step
                value = objective(net.model_fn, net.params, moved, x, probes, **options)
                ends.append(float(value.mean()))
            slope = (ends[0] - ends[1]) / 2e-5
            scale = float(mean) + float(score[name].abs().max())
            assert float(score[name][place]) == pytest.approx(slope, rel=1e-4, abs=1e-6 * scale)


@pytest.mark.parametrize("form", ["jvp", "finite_difference"])
@pytest.mark.parametrize("network", ["MLP with biases", "CNN"])
def test_vmap_over_draws_is_a_loop(network, form):
    model, shape = networks()[network]
    net = functional(model)
    count, generator = 4, seeded(5)
    params = {n: normal(count, *p.shape, seed=6) for n, p in net.params.items()}
    x, probes = normal(count, *shape, seed=7), sample_gaussian(params, 3, generator=generator)
    probes = {n: t.transpose(0, 1) for n, t in probes.items()}

    def one(params, x, probes):
        options = {"sigma": 0.1, "form": form}
        return score_of_realization(net.model_fn, params, None, x, probes, net.prunable, **options)[
            0
        ]

    mapped = torch.func.vmap(one)(params, x, probes)
    for r in range(count):
        draw = Draw(
            {n: p[r] for n, p in params.items()}, x[r], {n: t[r] for n, t in probes.items()}
        )
        single = ntk_sap_score(model, [draw], sigma=0.1, form=form).mean
        for name, expected in single.items():
            torch.testing.assert_close(mapped[name][r], expected, rtol=1e-10, atol=1e-12)


def test_gradients_may_be_off_or_asked_for():
    """The score is the same without gradients, and differentiable where its inputs ask for it."""
    model, shape = networks()["tanh MLP"]
    net, x = functional(model), normal(*shape, seed=2)
    probes = sample_gaussian(net.params, 1, generator=seeded(4))
    rest = (None, x, probes, net.prunable)
    plain, _ = score_of_realization(net.model_fn, net.params, *rest, sigma=0.1)
    assert not any(s.requires_grad for s in plain.values())
    with torch.no_grad():
        without, _ = score_of_realization(net.model_fn, net.params, *rest, sigma=0.1)
    asked = {name: p.clone().requires_grad_() for name, p in net.params.items()}
    differentiable, _ = score_of_realization(net.model_fn, asked, *rest, sigma=0.1)
    for name, score in plain.items():
        assert torch.equal(without[name], score)
        torch.testing.assert_close(differentiable[name].detach(), score)
        assert differentiable[name].requires_grad


def test_running_moments_are_those_of_the_realisations():
    model, _ = networks()["MLP with biases"]
    options = {"realizations": 7, "samples": 4, "input_shape": [3]}
    stack = list(realization_scores(model, sample_draws(model, **options, generator=seeded())))
    found = ntk_sap_score(model, sample_draws(model, **options, generator=seeded()))
    for name in found.mean:
        rows = torch.stack([scores[name] for scores in stack])
        torch.testing.assert_close(found.mean[name], rows.mean(0))
        torch.testing.assert_close(found.mean_abs[name], rows.abs().mean(0))
        torch.testing.assert_close(found.variance[name], rows.var(0))


# Batch norm.


def trained_statistics(model, params, x):
    """Run a copy of the module in train mode with momentum 1 and reset statistics."""
    twin = copy.deepcopy(model)
    twin.load_state_dict(dict(params), strict=False)
    for module in twin.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = 1.0
    with torch.no_grad():
        twin.train()(x)
    return {name: b for name, b in twin.named_buffers() if "running" in name}


def test_official_statistics_are_those_of_a_pass_in_train_mode():
    model = cifar_resnet(8, 3, width=2, generator=seeded(), **OPTIONS)
    x, params = normal(6, 3, 8, 8, seed=1), {n: p.detach() for n, p in model.named_parameters()}
    found = official_statistics(model)(params, x)
    expected = trained_statistics(model, params, x)
    assert len(expected) == 14 + 4
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-14)
    again = official_statistics(model)(params, 2 * x)
    assert not torch.equal(again["bn1.running_var"], found["bn1.running_var"])


def test_official_batch_norm_scores_the_network_with_those_statistics():
    model = cifar_resnet(8, 3, width=2, generator=seeded(), **OPTIONS)
    options = {"realizations": 1, "samples": 5, "input_shape": [3, 8, 8]}
    draws = list(sample_draws(model, **options, generator=seeded()))
    params = {n: p.detach() for n, p in model.named_parameters()} | dict(draws[0].params)
    twin = copy.deepcopy(model)
    twin.load_state_dict(params | trained_statistics(model, params, draws[0].x), strict=False)
    for form in ("jvp", "finite_difference"):
        found = ntk_sap_score(model, draws, form=form, bn="official").mean
        expected = ntk_sap_score(twin, draws, form=form, bn="eval").mean
        other = ntk_sap_score(model, draws, form=form, bn="eval").mean
        for name, score in expected.items():
            torch.testing.assert_close(found[name], score, rtol=1e-9, atol=1e-14)
            assert not torch.allclose(other[name], score, rtol=0.01)


def test_dropout_stays_off():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    net = net.double().eval()
    params = {n: p.detach() for n, p in net.named_parameters()}
    statistics, state = official_statistics(net), torch.get_rng_state()
    a, b = (statistics(params, normal(5, 3)) for _ in range(2))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("bn", ["eval", "official"])
@pytest.mark.parametrize("form", ["jvp", "finite_difference"])
def test_nothing_is_changed(bn, form):
    model = cifar_resnet(8, 3, width=2, generator=seeded(), **OPTIONS)
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    flags = [p.requires_grad for p in model.parameters()]
    momenta = [m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    state = torch.get_rng_state()
    ntk_sap(
        model,
        realizations=2,
        samples=4,
        input_shape=[3, 8, 8],
        generator=seeded(),
        form=form,
        bn=bn,
    )
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == flags
    assert [m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)] == momenta
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(state, torch.get_rng_state())


# The sampler.


def net_and_options(**options):
    model = cifar_resnet(8, 3, width=2, generator=seeded(), **OPTIONS)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.fill_(2.0)
                module.bias.fill_(0.5)
    base = {"realizations": 3, "input_shape": [3, 8, 8], "generator": seeded(1)}
    return model, {**base, **options}


def drawn(**options):
    model, options = net_and_options(**options)
    return model, list(sample_draws(model, **options))


def test_new_weights_and_new_noise_by_default():
    model, draws = drawn()
    net = functional(model)
    assert len(draws) == 3
    for draw in draws:
        assert set(draw.params) == {n for n in net.params if not n.startswith("head.bias")}
        assert draw.x.shape == (30, 3, 8, 8)  # ten per output
        assert draw.x.dtype == torch.float64
        assert list(draw.probes) == list(net.prunable)
        for name, p in draw.params.items():
            if "bn" in name:
                assert bool((p == (1.0 if name.endswith("weight") else 0.0)).all())
    one, two = draws[:2]
    assert not torch.equal(one.x, two.x)
    for name in net.prunable:
        assert not torch.equal(one.params[name], two.params[name])
        assert not torch.equal(one.probes[name], two.probes[name])


def test_fixed_weights_are_the_models_own():
    model, draws = drawn(weights="fixed")
    assert all(draw.params == {} for draw in draws)
    score = ntk_sap_score(model, draws).mean
    own = {n: p.detach() for n, p in model.named_parameters()}
    same = ntk_sap_score(model, [Draw(own, d.x, d.probes) for d in draws]).mean
    assert all(torch.equal(score[name], same[name]) for name in score)


def test_fixed_noise_and_data_are_the_same_in_every_realisation():
    _, noise = drawn(inputs="fixed_noise", samples=6)
    assert all(torch.equal(draw.x, noise[0].x) for draw in noise)
    x = normal(6, 3, 8, 8, seed=9)
    _, images = drawn(inputs="data", x=x)
    assert all(torch.equal(draw.x, x) for draw in images)
    _, some = drawn(inputs="data", x=x, samples=2)
    assert torch.equal(some[0].x, x[:2])


def test_every_batch_has_weights_of_its_own():
    _, draws = drawn(samples=7, batch_size=3)
    assert [len(draw.x) for draw in draws] == [3, 3, 1] * 3
    firsts = {float(draw.params["conv1.weight"].flatten()[0]) for draw in draws}
    assert len(firsts) == 9
    x = normal(7, 3, 8, 8, seed=9)
    _, images = drawn(inputs="data", x=x, batch_size=3, realizations=1)
    assert torch.equal(torch.cat([draw.x for draw in images]), x)


def test_what_is_perturbed():
    model, draws = drawn(perturb=None)
    assert list(draws[0].probes) == [name for name, _ in model.named_parameters()]
    _, draws = drawn(perturb=["conv1.weight"], law="rademacher")
    assert list(draws[0].probes) == ["conv1.weight"]
    assert bool((draws[0].probes["conv1.weight"].abs() == 1).all())


def test_draws_are_reproducible_and_lazy():
    _, one = drawn()
    _, two = drawn()
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a.x, b.x)
        assert all(torch.equal(a.params[n], b.params[n]) for n in a.params)
    model, options = net_and_options()
    state = options["generator"].get_state()
    sample_draws(model, **options)
    assert torch.equal(state, options["generator"].get_state())


def test_kaiming_normal_by_its_moments():
    """Standardised squares have mean 1 and variance 2, fourth powers mean 3 and variance 96."""
    net = functional(mlp([64, 100, 50], **OPTIONS))
    weights = kaiming_normal(net, 20, generator=seeded())
    for name, w in weights.items():
        z = w.square() * net.params[name].shape[1] / 2
        n = z.numel()
        assert float(z.mean()) == pytest.approx(1, abs=6 * (2 / n) ** 0.5)
        assert float(z.square().mean()) == pytest.approx(3, abs=6 * (96 / n) ** 0.5)


def test_float32_on_a_functional_model():
    net = functional(mlp([3, 4, 2], generator=seeded()))
    draws = sample_draws(net, realizations=2, input_shape=[3], generator=seeded())
    found = ntk_sap_score(net, draws)
    assert all(s.dtype == torch.float32 for s in found.mean.values())


# Bad input.


def scored(model=LINEAR, draws=None, **options):
    return ntk_sap_score(model, [Draw({}, X, signs(1, 1))] if draws is None else draws, **options)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"sigma": 0.0}, ValueError, r"sigma must be a positive standard deviation, got 0\.0"),
        ({"sigma": -1.0}, ValueError, r"sigma must be a positive standard deviation, got -1\.0"),
        ({"form": "exact"}, ValueError, r"form must be one of 'finite_difference', 'jvp'"),
        ({"bn": "train"}, ValueError, r"bn must be one of 'eval', 'official', got 'train'"),
        ({"draws": []}, ValueError, r"draws must be at least one realisation, got none\. Draw"),
        ({"draws": [X]}, TypeError, r"draws\[0\] must be a triple \(params, x, probes\), got Ten"),
        ({"draws": [({}, X, {})]}, ValueError, r"probes must be at least one probe, got none"),
        (
            {"draws": [({}, X, {"weight": torch.ones(1, 2, 2, **OPTIONS)})]},
            ValueError,
            r"probes\['weight'\] must be of shape \[K, 1, 2\], got \[1, 2, 2\]",
        ),
        (
            {"draws": [({}, X, {"bias": torch.ones(1, 2)})]},
            ValueError,
            r"probes must be named like the parameters \(weight\), got 'bias'",
        ),
        (
            {"draws": [({"weight": torch.ones(2, 2)}, X, signs(1, 1))]},
            ValueError,
            r"draws\[0\]'s params\['weight'\] must be of shape \[1, 2\], got \[2, 2\]\. Draw",
        ),
        (
            {"draws": [({"bias": torch.ones(2)}, X, signs(1, 1))]},
            ValueError,
            r"draws\[0\]'s params\['bias'\] must be a parameter's, got 'bias'",
        ),
        ({"draws": [({}, X[:0], signs(1, 1))]}, ValueError, r"draws\[0\]'s x must be a non-empty"),
        (
            {"draws": [({}, X, signs(1, 1)), ({}, X * torch.nan, signs(1, 1))]},
            NumericalError,
            r"draws\[1\]'s x must be finite",
        ),
        ({"draws": [({}, X[:, :1], signs(1, 1))]}, ValueError, r"x must be a batch that the model"),
        ({"masks": {"bias": X}}, ValueError, r"masks must be named like the parameters"),
        ({"model": nn.LayerNorm(2, **OPTIONS)}, ValueError, r"model must be a network with prunab"),
        ({"model": nn.BatchNorm1d(2)}, ValueError, r"model must be in eval mode"),
        (
            {"model": functional(LINEAR), "bn": "official"},
            TypeError,
            r'model must be an nn\.Module for bn="official", got FunctionalModel\. Pass the module',
        ),
    ],
)
def test_bad_scores(options, error, text):
    with pytest.raises(error, match=text):
        scored(**options)


def test_a_non_finite_objective_names_its_realisation():
    huge = {"weight": torch.full((1, 2), 1e200, **OPTIONS)}
    two_layers = mlp([2, 1, 1], **OPTIONS)
    probes = {n: torch.ones_like(p)[None] for n, p in functional(two_layers).params.items()}
    fine = {n: torch.ones_like(p) for n, p in functional(two_layers).params.items()}
    large = {n: 1e140 * p for n, p in fine.items()}
    draws = [Draw(fine, X, probes), Draw(large, X, probes)]
    with pytest.raises(
        NumericalError, match=r"the objective must be finite, got NaN or Inf in re.* 1\."
    ):
        ntk_sap_score(two_layers, draws, sigma=1e30)
    # The objective of a linear layer does not see its weights.
    assert bool(ntk_sap_score(LINEAR, [Draw(huge, X, signs(1, 1))]).mean["weight"].isfinite().all())


def test_a_batch_of_one_has_no_official_statistics():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 1)).double().eval()
    draws = sample_draws(net, realizations=1, samples=1, input_shape=[2], generator=seeded())
    with pytest.raises(ValueError, match=r"x must be a batch with a variance per channel, got sh"):
        ntk_sap_score(net, draws, bn="official")


def test_an_unknown_sign():
    estimate = ScoreEstimate({}, {}, {}, 1)
    with pytest.raises(ValueError, match=r"sign must be one of 'abs_of_mean', 'mean_of_abs', 's"):
        estimate.score("positive")


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"realizations": 0}, ValueError, r"realizations must be a positive integer, got 0"),
        ({"realizations": None}, ValueError, r"realizations must be a positive integer, got None"),
        ({"samples": -1}, ValueError, r"samples must be a positive integer or None, got -1"),
        ({"batch_size": 0}, ValueError, r"batch_size must be a positive integer or None, got 0"),
        ({"weights": "old"}, ValueError, r"weights must be one of 'fixed', 'new', got 'old'"),
        ({"inputs": "ones"}, ValueError, r"inputs must be one of 'data', 'fixed_noise', 'noise'"),
        ({"law": "cauchy"}, ValueError, r"law must be one of 'gaussian', 'rademacher'"),
        ({"generator": None}, TypeError, r"generator must be a torch\.Generator, got NoneType"),
        ({"perturb": "biases"}, ValueError, r"select must be one of 'prunable', got 'biases'"),
        ({"input_shape": None}, ValueError, r"input_shape must be given where no x is, got None"),
        (
            {"input_shape": [1, 8, 8]},
            ValueError,
            r"input_shape must be a batch that the model take",
        ),
        ({"inputs": "data"}, ValueError, r'x must be the real images for inputs="data", got None'),
        ({"x": [1.0]}, TypeError, r"x must be a torch\.Tensor, got list"),
    ],
)
def test_bad_draws(options, error, text):
    model, options = net_and_options(**options)
    with pytest.raises(error, match=text):
        sample_draws(model, **options)


def test_the_scorer_needs_draws_or_a_generator():
    with pytest.raises(TypeError, match=r"generator must be a torch\.Generator, got NoneType"):
        ntk_sap(LINEAR, input_shape=[2])


def test_a_functional_model_has_no_batch_norms_to_reset():
    net = functional(mlp([2, 3, 1], **OPTIONS))
    assert isinstance(net, FunctionalModel)
    draw = next(iter(sample_draws(net, realizations=1, input_shape=[2], generator=seeded())))
    assert set(draw.params) == {"layer1.weight", "layer2.weight"}
