"""What everything rests on: pure functions of (model_fn, params, masks, batch), vmap = loop."""

from functools import partial

import pytest
import torch

from ntktheory import functional
from ntktheory.estimators.ntk_sap import objective
from ntktheory.models import convnet, mlp
from ntktheory.ntk.trace import diagonal, sample_traces
from ntktheory.paths.bounds import NAMES, bound_values
from ntktheory.probes import sample_gaussian
from ntktheory.pruning.scorers import px, px_bound, synflow_l2
from proofs_check.cases import random_masks

SETS = 5
OPTIONS = {"dtype": torch.float64}


def networks():
    dense = mlp([3, 4, 4, 2], bias=True, **OPTIONS)
    conv = convnet([1, 2, 3], 2, image_size=4, stride=[1, 2], **OPTIONS)
    x = torch.randn(3, 3, generator=torch.Generator().manual_seed(1), **OPTIONS)
    images = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(2), **OPTIONS)
    return {"MLP": (dense, x), "CNN": (conv, images)}


def traces(model_fn, params, masks, x):
    return sample_traces(model_fn, params, masks, x, tuple(params))


def trace_diagonals(model_fn, params, masks, x):
    return diagonal(model_fn, params, masks, x, tuple(params))


def bounds(name):
    return lambda model_fn, params, masks, x: bound_values(model_fn, params, masks, x, [name])


def estimator(form):
    def value(model_fn, params, masks, x):
        generator = torch.Generator().manual_seed(0)
        probes = {
            name: torch.randn((4, *p.shape), generator=generator, **OPTIONS)
            for name, p in params.items()
        }
        return {form: objective(model_fn, params, masks, x, probes, sigma=0.1, form=form)}

    return value


FUNCTIONS = {
    "ntk_trace per sample": traces,
    "ntk_trace per parameter": trace_diagonals,
    "px": px,
    "px_bound": px_bound,
    "synflow_l2": synflow_l2,
    "ntk_sap jvp": estimator("jvp"),
    "ntk_sap finite difference": estimator("finite_difference"),
    **{f"bound {name}": bounds(name) for name in NAMES},
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("network", ["MLP", "CNN"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_vmap_over_parameters_is_a_loop(name, network, masked):
    model, x = networks()[network]
    f = functional(model)
    generator = torch.Generator().manual_seed(4)
    stack = {
        key: torch.randn(SETS, *p.shape, generator=generator, **OPTIONS)
        for key, p in f.params.items()
    }
    sets = [{key: p[i] for key, p in stack.items()} for i in range(SETS)]
    masks = [random_masks(model, 0.8, seed) if masked else None for seed in range(SETS)]
    function = FUNCTIONS[name]
    vmap = partial(torch.func.vmap, randomness="same")  # one set of probes for all
    looped = [function(f.model_fn, p, m, x) for p, m in zip(sets, masks, strict=True)]
    if masked:
        stacked = {key: torch.stack([m[key] for m in masks]) for key in masks[0]}
        mapped = vmap(lambda p, m: function(f.model_fn, p, m, x))(stack, stacked)
    else:
        mapped = vmap(lambda p: function(f.model_fn, p, None, x))(stack)
    for i, expected in enumerate(looped):
        for key, value in expected.items():
            torch.testing.assert_close(mapped[key][i], value, rtol=1e-11, atol=1e-12)
    different = next(iter(mapped.values()))
    assert not torch.equal(different[0], different[1]) or bool((different == 0).all())


def test_objective_is_differentiable_in_float_masks():
    model, x = networks()["MLP"]
    f = functional(model)
    probes = sample_gaussian(f.params, 3, generator=torch.Generator().manual_seed(0))
    ones = {name: torch.ones_like(p) for name, p in f.params.items()}

    def total(masks):
        return objective(f.model_fn, f.params, masks, x, probes, sigma=0.1).sum()

    slopes = torch.func.grad(total)(ones)
    name, step = "layer2.weight", 1e-6
    moved = {key: m.clone() for key, m in ones.items()}
    moved[name][1, 2] += step
    expected = (total(moved) - total(ones)) / step
    assert slopes[name][1, 2] == pytest.approx(float(expected), rel=1e-4)
