"""A module under masks computes f(θ⊙m), trains under its masks, and copies like any module."""

import copy
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ntktheory import apply_masks, empirical_ntk, functional, ntk_trace
from ntktheory.functional import masked
from ntktheory.models import convnet, mlp
from ntktheory.pruning import carried_masks, score
from proofs_check.cases import random_masks

close = partial(torch.testing.assert_close, rtol=1e-12, atol=1e-13)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def draw(*shape):
    return torch.randn(shape, generator=seeded(9), dtype=torch.float64)


def dense():
    options = {"bias": True, "generator": seeded(0), "dtype": torch.float64}
    return mlp([3, 5, 2], activation=nn.Tanh, **options)


def conv():
    options = {"bias": True, "generator": seeded(1), "dtype": torch.float64}
    return convnet([1, 2, 3], 2, image_size=4, stride=[1, 2], **options)


def tied():
    """A network whose first two layers share their weight."""
    model = mlp([3, 3, 3, 2], bias=True, generator=seeded(2), dtype=torch.float64)
    model.layer2.weight = model.layer1.weight
    return model


NETWORKS = {"MLP": (dense, draw(4, 3)), "CNN": (conv, draw(4, 1, 4, 4)), "tied": (tied, draw(4, 3))}
OPTIMISERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "Nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.1),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1),
}


def outputs(model, masks, x):
    net = functional(model)
    return net.model_fn(masked(net.params, masks), x)


def original(name):
    """Return the name under which a masked copy keeps a parameter."""
    module, _, parameter = name.rpartition(".")
    return f"{module}.parametrizations.{parameter}.original"


def train(model, optimiser, steps=5):
    optimiser = OPTIMISERS[optimiser](model.parameters())
    x, targets = draw(8, 3), draw(8, 2)
    for _ in range(steps):
        optimiser.zero_grad()
        (model(x) - targets).square().mean().backward()
        optimiser.step()


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float64])
@pytest.mark.parametrize("network", NETWORKS)
def test_computes_the_masked_function(network, dtype):
    build, x = NETWORKS[network]
    masks = {name: mask.to(dtype) for name, mask in random_masks(build()).items()}
    expected = outputs(build(), masks, x)
    close(apply_masks(build(), masks)(x), expected)
    assert not torch.allclose(build()(x), expected)


def test_only_named_parameters_are_masked():
    masks = {"layer1.weight": torch.zeros(5, 3)}
    pruned = apply_masks(dense(), masks)
    assert set(dict(pruned.named_parameters())) == {
        original("layer1.weight"), "layer1.bias", "layer2.weight", "layer2.bias"
    }  # fmt: skip
    close(pruned(draw(4, 3)), outputs(dense(), masks, draw(4, 3)))


@pytest.mark.parametrize("network", NETWORKS)
def test_a_mask_of_ones_changes_no_output(network):
    build, x = NETWORKS[network]
    keep_all = {name: torch.ones_like(p) > 0 for name, p in build().named_parameters()}
    assert torch.equal(apply_masks(build(), keep_all)(x), build()(x))
    assert torch.equal(apply_masks(build(), {})(x), build()(x))


@pytest.mark.parametrize("mode", [True, False])
def test_the_model_and_its_masks_are_untouched(mode):
    model = dense().train(mode)
    masks = random_masks(model)
    before, masks_before = copy.deepcopy(model.state_dict()), copy.deepcopy(masks)
    parameters = list(model.parameters())
    pruned = apply_masks(model, masks)
    assert pruned.training is mode
    train(pruned, "SGD")
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert all(p.grad is None for p in parameters)
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(model.state_dict()[name], t) for name, t in before.items())
    assert all(torch.equal(masks[name], m) for name, m in masks_before.items())


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_training_moves_what_is_kept_and_revives_nothing(optimiser):
    model = dense()
    masks = random_masks(model)
    pruned = apply_masks(model, masks)
    start = {name: pruned.get_parameter(original(name)).detach().clone() for name in masks}
    train(pruned, optimiser)
    for name, mask in masks.items():
        module, _, parameter = name.rpartition(".")
        effective = getattr(pruned.get_submodule(module), parameter)
        assert not effective[~mask].any()
        assert (effective[mask] != start[name][mask]).all()
    trained = {name: pruned.get_parameter(original(name)).detach() for name in masks}
    expected = functional(model).model_fn(masked(trained, masks), draw(4, 3))
    close(pruned(draw(4, 3)), expected)


@pytest.mark.parametrize("network", NETWORKS)
def test_gradients_are_masked(network):
    build, x = NETWORKS[network]
    masks = random_masks(build())
    pruned, net = apply_masks(build(), masks), functional(build())
    pruned(x).square().sum().backward()
    at_kept = torch.func.grad(lambda theta: net.model_fn(theta, x).square().sum())
    for name, expected in at_kept(masked(net.params, masks)).items():
        gradient = pruned.get_parameter(original(name)).grad
        close(gradient, expected * masks[name])
        assert gradient.any()


@pytest.mark.parametrize("name", ["layer1.weight", "layer2.weight"])
def test_either_name_masks_every_use_of_a_tied_parameter(name):
    mask = torch.eye(3) == 0
    pruned = apply_masks(tied(), {name: mask})
    expected = outputs(tied(), {"layer1.weight": mask}, draw(4, 3))
    close(pruned(draw(4, 3)), expected)


def test_tied_parameters_stay_tied():
    pruned = apply_masks(tied(), {"layer1.weight": torch.eye(3) == 0})
    first, second = original("layer1.weight"), original("layer2.weight")
    assert pruned.get_parameter(first) is pruned.get_parameter(second)
    assert functional(pruned).tied == {second: first}
    start = pruned.layer1.weight.detach().clone()
    train(pruned, "SGD")
    assert not torch.equal(pruned.layer1.weight, start)
    assert torch.equal(pruned.layer1.weight, pruned.layer2.weight)
    assert not pruned.layer2.weight.diagonal().any()


def test_a_module_used_twice_is_masked_once():
    layer = nn.Linear(3, 3, bias=False).double()
    model, masks = nn.Sequential(layer, nn.Tanh(), layer), {"0.weight": torch.eye(3)}
    found = apply_masks(model, masks)(draw(4, 3))
    close(found, outputs(model, masks, draw(4, 3)))


@pytest.mark.parametrize("network", NETWORKS)
def test_state_dict_carries_weights_and_masks(network):
    build, x = NETWORKS[network]
    pruned = apply_masks(build(), random_masks(build()))
    other = build()
    nn.init.ones_(next(other.parameters()))
    other = apply_masks(other, random_masks(other, seed=1))
    assert not torch.allclose(other(x), pruned(x))
    other.load_state_dict(pruned.state_dict())
    assert torch.equal(other(x), pruned(x))


def test_deepcopy_is_independent():
    pruned = apply_masks(dense(), random_masks(dense()))
    twin, start = copy.deepcopy(pruned), pruned(draw(4, 3))
    assert torch.equal(twin(draw(4, 3)), start)
    train(twin, "SGD")
    assert torch.equal(pruned(draw(4, 3)), start)
    assert not torch.allclose(twin(draw(4, 3)), start)


@pytest.mark.parametrize("network", NETWORKS)
def test_same_kernel_as_with_masks_given(network):
    build, x = NETWORKS[network]
    masks = random_masks(build())
    pruned = apply_masks(build(), masks)
    expected = empirical_ntk(build(), x, masks=masks)
    close(empirical_ntk(pruned, x), expected)
    diagonal = ntk_trace(pruned, x, per="parameter")
    for name, value in ntk_trace(build(), x, per="parameter", masks=masks).items():
        close(diagonal[original(name)], value)
        assert not value[~masks[name]].any()


def test_an_optimiser_that_already_has_momentum_revives_nothing():
    """Momentum of dropped weights goes on moving their θ, which nobody reads."""
    model = dense()
    keep_all = {"layer1.weight": torch.ones(5, 3, dtype=torch.bool)}
    pruned = apply_masks(model, keep_all)
    optimiser = OPTIMISERS["SGD"](pruned.parameters())
    x, targets = draw(8, 3), draw(8, 2)

    def step():
        optimiser.zero_grad()
        (pruned(x) - targets).square().mean().backward()
        optimiser.step()

    step()
    mask = torch.eye(5, 3) > 0
    pruned.layer1.parametrizations.weight[0].mask.copy_(mask)
    theta = pruned.get_parameter(original("layer1.weight"))
    before = theta.detach().clone()
    for _ in range(3):
        step()
        assert not pruned.layer1.weight[~mask].any()
    assert (theta[~mask] != before[~mask]).all()


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_compiled_training_is_the_same(backend, optimiser):
    torch.compiler.reset()
    masks = random_masks(dense())
    plain, compiled = apply_masks(dense(), masks), apply_masks(dense(), masks)
    train(plain, optimiser)
    train(torch.compile(compiled, backend=backend), optimiser)
    close(compiled(draw(4, 3)), plain(draw(4, 3)), rtol=1e-9, atol=1e-9)
    for name, mask in masks.items():
        module, _, parameter = name.rpartition(".")
        assert not getattr(compiled.get_submodule(module), parameter)[~mask].any()


def test_the_state_is_tensors_and_needs_no_pickle(tmp_path):
    pruned = apply_masks(dense(), random_masks(dense()))
    save_file(pruned.state_dict(), tmp_path / "state.safetensors")
    other = apply_masks(dense(), random_masks(dense(), seed=1))
    other.load_state_dict(load_file(tmp_path / "state.safetensors"))
    assert torch.equal(other(draw(4, 3)), pruned(draw(4, 3)))
    torch.save(pruned.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert all(torch.equal(state[name], t) for name, t in pruned.state_dict().items())


# Masked again.


@pytest.mark.parametrize("network", NETWORKS)
def test_masks_of_masks_keep_what_both_keep(network):
    build, x = NETWORKS[network]
    first, second = random_masks(build(), 0.7), random_masks(build(), 0.6, seed=1)
    once = apply_masks(build(), first)
    before = copy.deepcopy(once.state_dict())
    twice = apply_masks(once, {original(name): mask for name, mask in second.items()})
    both = {name: mask & second[name] for name, mask in first.items()}
    assert torch.equal(twice(x), apply_masks(build(), both)(x))
    assert list(twice.state_dict()) == list(before)
    assert all(torch.equal(once.state_dict()[name], t) for name, t in before.items())
    for name, mask in carried_masks(twice).items():
        assert torch.equal(
            mask, both[name.replace("parametrizations.", "").removesuffix(".original")]
        )


def test_carried_masks_are_named_like_parameters():
    masks = {"layer1.weight": torch.eye(3) == 0}
    assert list(carried_masks(apply_masks(tied(), masks))) == [original("layer1.weight")]
    assert carried_masks(tied()) == {}
    assert carried_masks(functional(tied())) == {}


def test_a_masked_model_is_scored_like_its_masks():
    model, x = mlp([3, 5, 2], generator=seeded(0), dtype=torch.float64), draw(4, 3)
    masks = {name: m for name, m in random_masks(model).items() if name.endswith("weight")}
    pruned = apply_masks(model, masks)
    assert functional(pruned).prunable == tuple(map(original, masks))
    for scorer in ("px", "synflow_l2", "t_sq", "path_edge"):
        expected = score(model, scorer, batch=x, masks=masks)
        for name, found in score(pruned, scorer, batch=x).items():
            wanted = expected[name.replace("parametrizations.", "").removesuffix(".original")]
            close(found, wanted)


def test_what_is_refused():
    model = mlp([3, 5, 2])
    masks = {"layer1.weight": torch.ones(5, 3)}
    with pytest.raises(TypeError, match=r"model must be an nn\.Module, got FunctionalModel"):
        apply_masks(functional(model), masks)
    for none in (None, [torch.ones(5, 3)]):
        with pytest.raises(TypeError, match="masks must be a mapping from names to tensors, got"):
            apply_masks(model, none)
