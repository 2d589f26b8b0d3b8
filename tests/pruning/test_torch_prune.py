"""Masks to and from torch.nn.utils.prune."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

from ntktheory import functional
from ntktheory.models import convnet, mlp
from ntktheory.pruning import apply_masks, from_torch_prune, reinitialise, to_torch_prune
from proofs_check.cases import random_masks


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def tied():
    model = mlp([3, 3, 3, 2], generator=seeded(2), dtype=torch.float64)
    model.layer2.weight = model.layer1.weight
    return model


NETWORKS = {
    "MLP": (lambda: mlp([3, 5, 2], bias=True, generator=seeded(), dtype=torch.float64), (4, 3)),
    "CNN": (lambda: convnet([1, 2, 3], 2, image_size=4, generator=seeded()).double(), (4, 1, 4, 4)),
    "tied": (tied, (4, 3)),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_round_trip(network):
    build, shape = NETWORKS[network]
    model, x = build(), torch.randn(shape, generator=seeded(1), dtype=torch.float64)
    before = copy.deepcopy(model.state_dict())
    masks = random_masks(model)
    pruned = to_torch_prune(model, masks)
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(model.state_dict()[name], t) for name, t in before.items())
    found = from_torch_prune(pruned)
    assert set(masks) <= set(found)
    assert all(torch.equal(found[name], mask) for name, mask in masks.items())
    assert all(mask.dtype == torch.bool for mask in found.values())
    assert torch.equal(pruned(x), apply_masks(model, masks)(x))
    assert torch.equal(apply_masks(model, found)(x), pruned(x))
    assert not torch.allclose(pruned(x), model(x))
    again = from_torch_prune(to_torch_prune(model, found))
    assert all(torch.equal(again[name], mask) for name, mask in found.items())


def test_what_torch_pruned():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    torch_prune.l1_unstructured(model[0], "weight", 0.5)
    torch_prune.random_unstructured(model[2], "bias", 1)
    masks = from_torch_prune(model)
    assert set(masks) == {"0.weight", "2.bias"}
    assert [int(mask.sum()) for mask in masks.values()] == [32, 1]
    assert torch.equal(masks["0.weight"], model[0].weight != 0)
    torch_prune.ln_structured(model[0], "weight", 0.25, n=2, dim=0)
    assert torch.equal(from_torch_prune(model)["0.weight"], model[0].weight != 0)


def test_tied_parameters_stay_tied():
    pruned = to_torch_prune(tied(), {"layer2.weight": torch.eye(3) == 0})
    assert pruned.layer1.weight_orig is pruned.layer2.weight_orig
    assert set(from_torch_prune(pruned)) == {"layer1.weight", "layer2.weight"}
    assert not pruned.layer1.weight.diagonal().any()


def test_removing_makes_zeros_permanent():
    masks = {"layer1.weight": torch.eye(5, 3) > 0}
    pruned = to_torch_prune(NETWORKS["MLP"][0](), masks)
    torch_prune.remove(pruned.layer1, "weight")
    assert torch.equal(pruned.layer1.weight != 0, masks["layer1.weight"])


@pytest.mark.parametrize("parameter", ["weight", "bias"])
def test_an_exported_model_is_refused_where_it_would_be_copied(parameter):
    """Torch cannot; the way out that the message names works."""
    model = NETWORKS["MLP"][0]()
    name = f"layer1.{parameter}"
    masks = {name: torch.rand(model.get_parameter(name).shape, generator=seeded(3)) < 0.5}
    pruned = to_torch_prune(model, masks)
    with pytest.raises(RuntimeError, match="Only Tensors created explicitly"):
        copy.deepcopy(pruned)
    for use in (
        lambda: to_torch_prune(pruned, {"layer2.weight": torch.ones(2, 5)}),
        lambda: to_torch_prune(pruned, {f"{name}_orig": masks[name]}),
        lambda: apply_masks(pruned, {f"{name}_orig": masks[name]}),
        lambda: reinitialise(pruned, generator=seeded(9)),
    ):
        with pytest.raises(
            ValueError, match=r"model must be one whose layers .*'layer1'.* Take the m"
        ):
            use()
    found = from_torch_prune(pruned)
    torch_prune.remove(pruned.layer1, parameter)
    x = torch.randn(4, 3, generator=seeded(1), dtype=torch.float64)
    assert torch.equal(apply_masks(pruned, found)(x), apply_masks(model, masks)(x))


def test_a_buffer_that_is_only_called_a_mask():
    model = nn.Linear(2, 2)
    model.register_buffer("causal_mask", torch.ones(2))
    assert apply_masks(model, {"weight": torch.eye(2)}).weight.count_nonzero() == 2


def test_what_is_refused():
    model = NETWORKS["MLP"][0]()
    masks = {"layer1.weight": torch.eye(5, 3) > 0}
    with pytest.raises(ValueError, match="model must be pruned by torch, got one"):
        from_torch_prune(model)
    with pytest.raises(ValueError, match="model must be one without masks of its own"):
        to_torch_prune(apply_masks(model, masks), masks)
    with pytest.raises(ValueError, match=r"masks\['layer1\.weight'\] must be of shape \[5, 3\]"):
        to_torch_prune(model, {"layer1.weight": torch.ones(3, 5)})
    with pytest.raises(TypeError, match=r"masks\['layer1\.weight'\] must be a torch\.Tensor"):
        to_torch_prune(model, {"layer1.weight": 1})
    with pytest.raises(TypeError, match="masks must be a mapping from names to tensors, got NoneT"):
        to_torch_prune(model, None)
    with pytest.raises(TypeError, match=r"model must be an nn\.Module, got FunctionalModel"):
        to_torch_prune(functional(model), masks)
    with pytest.raises(TypeError, match=r"model must be an nn\.Module, got FunctionalModel"):
        from_torch_prune(functional(model))
    pruned = to_torch_prune(model, masks)
    with torch.no_grad():
        pruned.layer1.weight_mask[0, 0] = 0.5
    with pytest.raises(ValueError, match=r"mask of 'layer1\.weight' must be made of 0 and 1"):
        from_torch_prune(pruned)
