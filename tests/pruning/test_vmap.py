"""Every deterministic scorer under vmap gives what a loop gives, over masks, weights and data."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import vmap

from ntktheory import functional
from ntktheory.models import convnet, mlp
from ntktheory.pruning import SCORERS

F64 = {"dtype": torch.float64}
COUNT, SAMPLES = 3, 4
DRAWN = {"random", "erk_random", "phew"}  # these draw
ELSEWHERE = {"ntk_sap", "ntk_trace", "ntk_trace_saliency"}  # ntk_sap: see below
NAMES = sorted(set(SCORERS) - DRAWN - ELSEWHERE)
DATA = {"x", "y", "like"}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normed():
    """Return a network whose map is not the same everywhere on ones, where px_repo is rounding."""
    return nn.Sequential(
        nn.Conv2d(1, 2, 2, padding=1), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)
    )


NETWORKS = {
    "MLP": (lambda: mlp([4, 5, 3], bias=True), (4,)),
    "CNN": (lambda: convnet([1, 2], 3, image_size=3), (1, 3, 3)),
    "batch norm": (normed, (1, 3, 3)),
}


def stacks(network):
    """Return the network, and COUNT of each: parameters, masks, inputs and labels."""
    build, shape = NETWORKS[network]
    model = build().double().eval()
    net, generator = functional(model), seeded(1)

    def draw(*sizes):
        return torch.randn(*sizes, generator=generator, **F64)

    params = {n: draw(COUNT, *p.shape) for n, p in net.params.items()}
    masks = {n: draw(COUNT, *net.params[n].shape) > -0.7 for n in net.prunable}
    x = draw(COUNT, SAMPLES, *shape)
    y = torch.randint(0, 3, (COUNT, SAMPLES), generator=generator)
    return model, net, params, masks, x, y


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("scorer", NAMES)
def test_vmap_is_a_loop(scorer, network):
    model, net, params, masks, x, y = stacks(network)
    entry = SCORERS[scorer]
    fixed = {
        "model": model,
        "model_fn": net.model_fn,
        "buffers": net.buffers,
        "names": net.prunable,
        "loss_fn": F.cross_entropy,
    }

    def scored(params, masks, x, y):
        given = fixed | {"params": params, "masks": masks, "x": x, "y": y, "like": x}
        found = entry.function(**{n: v for n, v in given.items() if n in entry.takes})
        return {n: found[n] for n in net.prunable}

    together = vmap(scored)(params, masks, x, y)
    assert any(bool(s.any()) for s in together.values())
    for i in range(COUNT):
        alone = scored(pick(params, i), pick(masks, i), x[i], y[i])
        for n, s in alone.items():
            assert not s.requires_grad
            scale = max(float(t.abs().max()) for t in alone.values())
            torch.testing.assert_close(together[n][i], s, rtol=1e-10, atol=1e-13 * scale)
    if entry.takes & {"x"}:  # over data alone, as when one start meets many data sets
        one = pick(params, 0), pick(masks, 0)
        data = vmap(lambda x, y: scored(*one, x, y))(x, y)
        alone = scored(*one, x[1], y[1])
        scale = max(float(t.abs().max()) for t in alone.values())
        for n, s in alone.items():
            torch.testing.assert_close(data[n][1], s, rtol=1e-10, atol=1e-13 * scale)


def pick(tensors, i):
    return {n: t[i] for n, t in tensors.items()}


@pytest.mark.parametrize("form", ["jvp", "finite_difference"])
@pytest.mark.parametrize("sign", ["signed", "abs_of_mean", "mean_of_abs"])
def test_ntk_sap(form, sign):
    model, net, params, masks, x, _ = stacks("MLP")
    scorer = SCORERS["ntk_sap"].function
    probes = {n: torch.randn(params[n].shape, generator=seeded(2), **F64) for n in net.prunable}

    def scored(params, masks, x, probes):
        draws = [(params, x, probes), ({}, 2 * x, probes)]
        return scorer(model, masks, draws=draws, form=form, sign=sign)

    together = vmap(scored)(params, masks, x, probes)
    for i in range(COUNT):
        alone = scored(pick(params, i), pick(masks, i), x[i], pick(probes, i))
        for n, s in alone.items():
            torch.testing.assert_close(together[n][i], s, rtol=1e-9, atol=1e-15)


def test_a_score_of_weights_that_ask_for_gradients_can_be_differentiated():
    _, net, params, _, x, y = stacks("MLP")
    leaves = {n: p[0].clone().requires_grad_() for n, p in params.items()}
    given = (net.model_fn, leaves, None, net.prunable, x[0], y[0], F.cross_entropy)
    total = sum(s.sum() for s in SCORERS["snip"].function(*given).values())
    slopes = torch.autograd.grad(total, list(leaves.values()))
    assert all(bool(s.any()) for s in slopes)
