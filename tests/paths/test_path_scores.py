"""The scores path_edge and t_sq against the sums over paths; every pass is pure (vmap = loop)."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from ntktheory import functional, ntk_trace, path_bounds
from ntktheory.models import cifar_resnet
from ntktheory.paths.bounds import NAMES, bound_values
from ntktheory.paths.reference import decompose
from ntktheory.pruning.scorers import path_edge, px, px_bound, synflow_l2, t_sq
from proofs_check.cases import enumerable_networks, random_masks
from tests.paths.test_fixed_edges import ENUMERABLE, seeded
from tests.paths.test_gates import draw

NETWORKS = {net.name: (net.model, net.x) for net in enumerable_networks()} | {
    name: (seeded(model), draw(*shape)) for name, (model, shape) in ENUMERABLE.items()
}


def scored(scorer, model, x, masks=None):
    net = functional(model)
    return scorer(net.model_fn, net.params, masks, x)


def expected_scores(model, x, masks):
    """θ_j² A_j B_j and θ_j² Σ a² c² x² w_pj² from the list of paths."""
    d = decompose(model, x, masks=masks)
    c = np.abs(np.array([float(p.coefficient) for p in d.paths]))
    theta = np.array([d.theta[j] for j in d.parameters], dtype=float)
    a = (d.activity.sum(0)[:, None] * c[:, None] * d.multiplicity).sum(0)
    squares = d.J_theta_v.astype(float) ** 2
    b = (squares * c[:, None]).sum(0)
    surrogate = (d.activity.sum(0) * c**2) @ squares
    scores = {"path_edge": theta**2 * a * b, "t_sq": theta**2 * surrogate}
    return {
        name: dict(zip(d.parameters, values.tolist(), strict=True))
        for name, values in scores.items()
    }


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_scores_are_sums_over_paths(name, masked):
    model, x = NETWORKS[name]
    masks = random_masks(model, 0.7) if masked else None
    exact = expected_scores(model, x, masks)
    for key, scorer in {"path_edge": path_edge, "t_sq": t_sq}.items():
        found = scored(scorer, model, x, masks)
        assert max(exact[key].values()) > 0
        for parameter, score in found.items():
            wanted = [exact[key].get((parameter, i), 0.0) for i in range(score.numel())]
            assert score.flatten().tolist() == pytest.approx(wanted, rel=1e-11)


def test_path_edge_bounds_every_parameters_share_of_the_trace():
    model, x = seeded(cifar_resnet(8, 3, width=4, dtype=torch.float64)), draw(3, 3, 8, 8)
    scores, exact = scored(path_edge, model, x), ntk_trace(model, x, per="parameter")
    for name, p in model.named_parameters():
        assert bool((p.detach().square() * exact[name] <= scores[name] * (1 + 1e-10)).all())


def test_edge_is_the_sum_of_its_scores():
    """With θ = ±1 every θ² is 1."""
    model, x = seeded(nn.Sequential(nn.Linear(3, 5), nn.LeakyReLU(), nn.Linear(5, 2))), draw(4, 3)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.sign())
    bounds = path_bounds(model, x)
    for name, value in {"path_edge": bounds.upper["edge"], "t_sq": bounds.t_sq}.items():
        scorer = {"path_edge": path_edge, "t_sq": t_sq}[name]
        total = sum(float(s.sum()) for s in scored(scorer, model, x).values())
        assert total == pytest.approx(value, rel=1e-12)


# vmap = loop, on networks with every kind of call.

SCORERS = {
    "path_edge": path_edge, "t_sq": t_sq, "px": px, "px_bound": px_bound, "synflow_l2": synflow_l2,
}  # fmt: skip
BOUNDS = {f"bound {name}": name for name in NAMES}


def evaluated(name, model_fn, params, masks, x):
    if name in SCORERS:
        return SCORERS[name](model_fn, params, masks, x)
    return bound_values(model_fn, params, masks, x, [BOUNDS[name]])


MODELS = {
    "max pooling, leaky ReLU": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1), nn.LeakyReLU(-0.3), nn.MaxPool2d(2), nn.Conv2d(3, 2, 2),
            nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(2, 2)), True),
    "residual, batch norm": (lambda: cifar_resnet(8, 2, width=2, channels=1), False),
}  # fmt: skip


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("network", MODELS)
@pytest.mark.parametrize("name", [*SCORERS, *BOUNDS])
def test_vmap_over_parameters_is_a_loop(name, network, masked):
    build, is_chain = MODELS[network]
    if name == "bound op" and not is_chain:
        return
    model, x = seeded(build()), draw(2, 1, 8, 8)
    f, function, sets = functional(model), partial(evaluated, name), 3
    generator = torch.Generator().manual_seed(4)
    stack = {
        key: torch.randn(sets, *p.shape, generator=generator, dtype=torch.float64)
        for key, p in f.params.items()
    }
    masks = [random_masks(model, 0.8, seed) if masked else None for seed in range(sets)]
    looped = [
        function(f.model_fn, {key: p[i] for key, p in stack.items()}, masks[i], x)
        for i in range(sets)
    ]
    vmap = partial(torch.func.vmap, randomness="error")
    if masked:
        stacked = {key: torch.stack([m[key] for m in masks]) for key in masks[0]}
        mapped = vmap(lambda p, m: function(f.model_fn, p, m, x))(stack, stacked)
    else:
        mapped = vmap(lambda p: function(f.model_fn, p, None, x))(stack)
    for i, expected in enumerate(looped):
        for key, value in expected.items():
            torch.testing.assert_close(mapped[key][i], value, rtol=1e-10, atol=1e-300)
