"""Controls change what they should, and keep what they must."""

import copy

import pytest
import torch
from torch import nn

from ntktheory import functional
from ntktheory.models import convnet, mlp
from ntktheory.pruning import apply_masks, carried_masks, reinitialise, shuffle_masks
from proofs_check.cases import random_masks


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def network():
    return mlp([200, 300, 100, 10], bias=True, generator=seeded(1), dtype=torch.float64)


def test_shuffled_masks_keep_counts_and_move_weights():
    masks = random_masks(network(), 0.3)
    shuffled = shuffle_masks(masks, generator=seeded())
    for name, mask in masks.items():
        assert shuffled[name].shape == mask.shape
        assert shuffled[name].dtype == torch.bool
        assert int(shuffled[name].sum()) == int(mask.sum())
    assert not torch.equal(shuffled["layer1.weight"], masks["layer1.weight"])
    both = (shuffled["layer1.weight"] & masks["layer1.weight"]).double().mean()
    assert float(both) == pytest.approx(0.09, abs=0.01)  # independent: 0.3²


def test_shuffling_is_uniform():
    masks = {"a": torch.tensor([True, False, False, False])}
    generator = seeded(3)
    counts = sum(shuffle_masks(masks, generator=generator)["a"].int() for _ in range(4000))
    assert counts.sum() == 4000
    assert all(abs(int(n) - 1000) < 5 * 750**0.5 for n in counts)


def test_shuffling_is_decided_by_the_generator_alone():
    masks = random_masks(network(), 0.3)
    before, random = copy.deepcopy(masks), torch.get_rng_state()
    first, again = (shuffle_masks(masks, generator=seeded()) for _ in range(2))
    other = shuffle_masks(masks, generator=seeded(1))
    assert all(torch.equal(first[name], again[name]) for name in masks)
    assert not torch.equal(first["layer1.weight"], other["layer1.weight"])
    assert all(torch.equal(before[name], masks[name]) for name in masks)
    assert torch.equal(random, torch.get_rng_state())


def test_a_full_and_an_empty_layer_stay_so():
    masks = {"a": torch.ones(3, 2), "b": torch.zeros(4)}
    shuffled = shuffle_masks(masks, generator=seeded())
    assert shuffled["a"].all()
    assert not shuffled["b"].any()


@pytest.mark.parametrize("method", ["kaiming_normal", "permutation"])
def test_reinitialising_changes_prunable_weights_only(method):
    model = network()
    before = copy.deepcopy(model.state_dict())
    other = reinitialise(model, method, generator=seeded())
    assert all(torch.equal(model.state_dict()[name], t) for name, t in before.items())
    prunable = functional(model).prunable
    for name, p in other.named_parameters():
        assert p.shape == before[name].shape
        assert p.dtype == before[name].dtype
        assert torch.equal(p, before[name]) is (name not in prunable)
        if name in prunable:
            assert (p == before[name]).double().mean() < 0.01
    again = reinitialise(model, method, generator=seeded())
    assert torch.equal(again.layer1.weight, other.layer1.weight)


def test_permuted_weights_are_the_same_values():
    model = network()
    other = reinitialise(model, "permutation", generator=seeded())
    for name in functional(model).prunable:
        values, found = (m.get_parameter(name).detach().flatten() for m in (model, other))
        assert torch.equal(values.sort().values, found.sort().values)


def test_new_weights_are_normal_with_variance_two_over_fan_in():
    other = reinitialise(network(), generator=seeded())
    weights = other.layer1.weight.detach()
    n = weights.numel()
    assert abs(float(weights.mean())) < 5 * (0.01 / n) ** 0.5
    assert float(weights.var()) == pytest.approx(0.01, rel=5 * (2 / n) ** 0.5)
    assert float((weights.abs() < 0.1).double().mean()) == pytest.approx(0.6827, abs=0.01)
    conv = reinitialise(convnet([8, 64], 2, image_size=4), generator=seeded()).conv1.weight.detach()
    assert float(conv.var()) == pytest.approx(2 / 72, rel=5 * (2 / conv.numel()) ** 0.5)


@pytest.mark.parametrize("training", [True, False])
def test_mode_and_masks_stay(training):
    model = apply_masks(network(), random_masks(network(), 0.3)).train(training)
    other = reinitialise(model, generator=seeded())
    assert other.training is training
    carried = carried_masks(model)
    assert carried
    assert all(torch.equal(mask, carried_masks(other)[name]) for name, mask in carried.items())
    assert not torch.equal(other.layer1.weight, model.layer1.weight)
    assert not other.layer1.weight[~carried["layer1.parametrizations.weight.original"]].any()


def test_a_generator_that_repeats_the_weights_is_refused():
    """The first layer alone is enough: the others are drawn after the biases."""
    for bias in (False, True):
        model = mlp([3, 4, 2], bias=bias, generator=seeded(3))
        expected = r"generator must be of another seed .* draws the same 'layer1\.weight' again"
        with pytest.raises(ValueError, match=expected):
            reinitialise(model, generator=seeded(3))
        reinitialise(model, generator=seeded(4))
        reinitialise(model, "permutation", generator=seeded(3))
    constant = nn.Linear(1, 1, bias=False)  # its one permutation is no mistake
    assert torch.equal(
        reinitialise(constant, "permutation", generator=seeded()).weight, constant.weight
    )


def test_what_is_refused():
    with pytest.raises(ValueError, match="method must be one of 'kaiming_normal', 'permutation'"):
        reinitialise(network(), "uniform", generator=seeded())
    with pytest.raises(TypeError, match=r"model must be an nn\.Module, got FunctionalModel"):
        reinitialise(functional(network()), generator=seeded())
    with pytest.raises(ValueError, match="model must be a network with prunable weights"):
        reinitialise(nn.LayerNorm(3), generator=seeded())
    with pytest.raises(ValueError, match=r"masks\['a'\] must be made of 0 and 1"):
        shuffle_masks({"a": torch.tensor([0.5])}, generator=seeded())
    with pytest.raises(TypeError, match=r"masks\['a'\] must be a torch\.Tensor"):
        shuffle_masks({"a": [1, 0]}, generator=seeded())
    with pytest.raises(TypeError, match="masks must be a mapping from names to tensors, got NoneT"):
        shuffle_masks(None, generator=seeded())
    for generator in (None, 0):
        with pytest.raises(TypeError, match=r"generator must be a torch\.Generator, got"):
            shuffle_masks({"a": torch.ones(2)}, generator=generator)
        with pytest.raises(TypeError, match=r"generator must be a torch\.Generator, got"):
            reinitialise(network(), generator=generator)
