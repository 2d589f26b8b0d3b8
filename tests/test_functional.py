"""A module as a pure function: its parameters, its names, and that nothing changes it."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ntktheory import FunctionalModel, empirical_ntk, functional, ntk_trace, path_bounds
from ntktheory.functional import batch_size, describe, evaluate, masked, selected, take, to_dtype
from ntktheory.models import convnet, mlp
from proofs_check.cases import networks

close = partial(torch.testing.assert_close, rtol=1e-13, atol=1e-13)
X = torch.tensor([[1.0, -2.0, 0.5], [0.0, 1.0, 3.0]], dtype=torch.float64)
BY_NAME = {network.name: network for network in networks()}
NAMES = ("0.weight", "0.bias", "2.weight", "2.bias")


def net():
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()


def tied():
    """Two layers of one weight, and biases of their own."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3)).double()
    model[2].weight = model[0].weight
    return model


def normalised():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).double().eval()
    model[1].running_mean.fill_(0.3)
    return model


@pytest.mark.parametrize("name", BY_NAME)
def test_the_function_is_the_module(name):
    network = BY_NAME[name]
    model = functional(network.model)
    close(model.model_fn(model.params, network.x), network.model(network.x))


@pytest.mark.parametrize("name", BY_NAME)
def test_the_module_is_not_changed(name):
    model, x = copy.deepcopy(BY_NAME[name].model), BY_NAME[name].x.clone()
    before, parameters = copy.deepcopy(model.state_dict()), list(model.named_parameters())
    fn = functional(model)
    fn.model_fn({name: torch.zeros_like(p) for name, p in fn.params.items()}, x)
    empirical_ntk(model, x, output="trace")
    ntk_trace(model, x, per="parameter")
    assert all(a is b for (_, a), (_, b) in zip(parameters, model.named_parameters(), strict=True))
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(model.state_dict()[name], t) for name, t in before.items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert torch.equal(x, BY_NAME[name].x)
    assert not any(module.training for module in model.modules())


def test_other_parameters_give_another_function():
    model = functional(net())
    other = {name: 2 * p for name, p in model.params.items()}
    doubled = net()
    doubled.load_state_dict(other)
    close(model.model_fn(other, X), doubled(X))


def test_parameters_share_storage_and_are_detached():
    module = net()
    params = functional(module).params
    assert tuple(params) == NAMES
    assert not any(p.requires_grad for p in params.values())
    assert all(params[name].data_ptr() == p.data_ptr() for name, p in module.named_parameters())


def test_functional_twice_is_functional_once():
    model = functional(net())
    assert functional(model) is model
    own = FunctionalModel(lambda params, x: x @ params["w"], {"w": torch.eye(3)})
    assert functional(own) is own
    assert ntk_trace(own, torch.ones(2, 3)).item() == 18


def test_tied_parameters_are_listed_once():
    model = functional(tied())
    assert tuple(model.params) == ("0.weight", "0.bias", "2.bias")
    assert model.tied == {"2.weight": "0.weight"}
    assert functional(net()).tied == {}


def test_tied_parameters_change_together():
    module = tied()
    model = functional(module)
    zero = {name: torch.zeros_like(p) if p.ndim == 2 else p for name, p in model.params.items()}
    expected = module[2].bias.expand(2, 3)
    close(model.model_fn(zero, X), expected)


def test_names_of_a_module_used_twice():
    layer = nn.Linear(3, 3)
    model = functional(nn.Sequential(layer, nn.ReLU(), layer))
    assert tuple(model.params) == ("0.weight", "0.bias")
    assert model.tied == {"2.weight": "0.weight", "2.bias": "0.bias"}
    assert model.prunable == ("0.weight",)


def test_prunable_are_weights_of_linear_and_convolution():
    module = nn.ModuleDict(
        {
            "c1": nn.Conv1d(1, 1, 1), "n": nn.BatchNorm1d(1), "c2": nn.Conv2d(1, 1, 1),
            "t": nn.ConvTranspose2d(1, 1, 1), "e": nn.Embedding(2, 2), "p": nn.PReLU(),
            "c3": nn.Conv3d(1, 1, 1), "b": nn.Bilinear(1, 1, 1), "l": nn.Linear(1, 1),
        }
    ).eval()  # fmt: skip
    expected = ("c1.weight", "c2.weight", "t.weight", "c3.weight", "l.weight")
    assert functional(module).prunable == expected
    assert functional(tied()).prunable == ("0.weight",)


SELECTIONS = {
    "everything": (None, NAMES),
    "prunable": ("prunable", ("0.weight", "2.weight")),
    "names in another order": (["2.bias", "0.weight"], ("0.weight", "2.bias")),
    "a name twice": (["0.bias", "0.bias"], ("0.bias",)),
    "a set": ({"2.bias"}, ("2.bias",)),
    "a generator": ((name for name in ("0.bias",)), ("0.bias",)),
    "by name": (lambda name, p: name.startswith("2"), ("2.weight", "2.bias")),
    "by tensor": (lambda name, p: p.ndim == 1, ("0.bias", "2.bias")),
}


@pytest.mark.parametrize("selection", SELECTIONS)
def test_selected(selection):
    select, expected = SELECTIONS[selection]
    assert selected(functional(net()), select) == expected


@pytest.mark.parametrize("alias", ["0.weight", "2.weight"])
def test_either_name_selects_a_tied_parameter(alias):
    assert selected(functional(tied()), [alias]) == ("0.weight",)
    model = tied()
    expected = empirical_ntk(model, X) - empirical_ntk(model, X, select=["0.bias", "2.bias"])
    close(empirical_ntk(model, X, select=[alias]), expected)


def test_buffers_are_the_models_own_unless_given():
    module = normalised()
    model = functional(module)
    other = model.buffers | {"1.running_mean": torch.tensor([1.0, -1.0], dtype=torch.float64)}
    assert set(model.buffers) == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    close(model.model_fn(model.params, X), module(X))
    shifted = model.model_fn(model.params, X, other)
    moved = copy.deepcopy(module)
    moved[1].running_mean.copy_(other["1.running_mean"])
    close(shifted, moved(X))
    assert not torch.allclose(shifted, module(X))


class TestToDtype:
    def test_converts_floats_and_nothing_else(self):
        model = to_dtype(functional(normalised()), torch.float32)
        assert {p.dtype for p in model.params.values()} == {torch.float32}
        assert {name: b.dtype for name, b in model.buffers.items()} == {
            "1.running_mean": torch.float32,
            "1.running_var": torch.float32,
            "1.num_batches_tracked": torch.int64,
        }
        assert model.prunable == ("0.weight",)

    def test_computes_in_that_dtype(self):
        module = normalised()
        model = to_dtype(functional(module), torch.float32)
        expected = copy.deepcopy(module).float()(X.float())
        found = model.model_fn(model.params, X.float())
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected)
        assert module[0].weight.dtype == torch.float64

    def test_given_buffers_are_used(self):
        model = to_dtype(functional(normalised()), torch.float32)
        zeros = {name: torch.zeros_like(b) for name, b in model.buffers.items()}
        zeros["1.running_var"] += 1
        expected = F.linear(X.float(), model.params["0.weight"], model.params["0.bias"])
        found = model.model_fn(model.params, X.float(), zeros)
        torch.testing.assert_close(found, expected / (1 + 1e-5) ** 0.5)

    def test_keeps_ties(self):
        assert to_dtype(functional(tied()), torch.float32).tied == {"2.weight": "0.weight"}


class TestEvaluate:
    def test_returns_the_outputs(self):
        model = functional(net())
        found = evaluate(model.model_fn, model.params, X)
        assert torch.equal(found, model.model_fn(model.params, X))

    def test_names_the_argument_and_keeps_the_cause(self):
        model = functional(net())
        with pytest.raises(ValueError, match=r"x2 must be a batch .*mat1 and mat2") as caught:
            evaluate(model.model_fn, model.params, X[:, :2], "x2")
        assert isinstance(caught.value.__cause__, RuntimeError)

    def test_takes_a_tree_of_tensors(self):
        def model_fn(params, batch):
            x, scale = batch
            return scale * (x @ params["w"])

        batch = (X, torch.tensor([[2.0], [3.0]], dtype=X.dtype))
        found = evaluate(model_fn, {"w": torch.eye(3, dtype=X.dtype)}, batch)
        assert torch.equal(found, X * batch[1])


def test_batches_may_be_trees():
    batch = {"a": torch.arange(10).view(5, 2), "b": (torch.arange(5),)}
    assert batch_size(batch) == 5
    part = take(batch, 1, 3)
    assert part["a"].tolist() == [[2, 3], [4, 5]]
    assert part["b"][0].tolist() == [1, 2]


def test_describe():
    assert describe(torch.ones(2, 3)) == "shape [2, 3], torch.float32 on cpu"
    assert describe((torch.ones(2),)) == "tuple"


def test_masked():
    params = {"a": torch.ones(2, dtype=torch.float64), "b": torch.ones(2)}
    result = masked(params, {"a": torch.tensor([True, False])})
    assert result["a"].tolist() == [1.0, 0.0]
    assert result["a"].dtype == torch.float64
    assert result["b"] is params["b"]
    assert masked(params, None) == params


def test_float_masks_are_differentiated_through():
    params = {"a": torch.tensor([2.0, 3.0])}
    slope = torch.func.grad(lambda m: masked(params, {"a": m})["a"].sum())(torch.ones(2))
    assert slope.tolist() == [2.0, 3.0]


# In-place ReLUs.


def in_place(model):
    """Return a copy whose ReLUs work in place."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = True
    return model


RELU_NETS = {
    "MLP": (mlp([3, 5, 4, 2], bias=True, dtype=torch.float64), X),
    "CNN": (
        convnet([1, 2, 3], 2, image_size=4, bias=True, dtype=torch.float64),
        torch.randn(3, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),
    ),
}


@pytest.mark.parametrize("name", RELU_NETS)
class TestInPlace:
    @pytest.mark.parametrize("engine", ["layerwise", "jacobian", "ntk_vp"])
    def test_same_kernel(self, name, engine):
        model, x = RELU_NETS[name]
        found = empirical_ntk(in_place(model), x, engine=engine)
        expected = empirical_ntk(model, x, engine=engine)
        close(found, expected)

    def test_same_traces_and_bounds(self, name):
        model, x = RELU_NETS[name]
        found, expected = path_bounds(in_place(model), x), path_bounds(model, x)
        assert found.trace == pytest.approx(expected.trace, rel=1e-13)
        assert found.upper == pytest.approx(expected.upper, rel=1e-13)
        assert found.lower == pytest.approx(expected.lower, rel=1e-13)
        diagonal = ntk_trace(model, x, per="parameter")
        for key, value in ntk_trace(in_place(model), x, per="parameter").items():
            close(value, diagonal[key])
