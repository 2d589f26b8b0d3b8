"""Networks that are easy to get silently wrong: sharing, views, writes in place, operators."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ntktheory import (
    UnsupportedModule,
    empirical_ntk,
    functional,
    ntk_sap_objective,
    ntk_trace,
    path_bounds,
)
from ntktheory.functional import FunctionalModel
from ntktheory.ntk import reference
from ntktheory.paths.reference import decompose
from ntktheory.pruning import apply_masks
from proofs_check.compare import relative_gap

TOLERANCE = 1e-12


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


class OneWeight(nn.Module):
    """f(x) = function(x, w)."""

    def __init__(self, function, values):
        super().__init__()
        self.function = function
        self.w = nn.Parameter(torch.as_tensor(values, dtype=torch.float64))

    def forward(self, x):
        return self.function(x, self.w)


class ThreeLayers(nn.Module):
    def __init__(self, in_place):
        super().__init__()
        self.in_place = in_place
        self.a, self.b, self.c = (nn.Linear(3, 3).double() for _ in range(3))

    def forward(self, x):
        h = self.a(x)
        y = self.b(h)
        h = h.relu_() if self.in_place else h.relu()
        return y + self.c(h)


def agree_with_reference(model, x):
    f = functional(model)
    theta = reference.ntk(f.model_fn, f.params, None, x)
    for engine in ("auto", "jacobian", "ntk_vp"):
        assert relative_gap(empirical_ntk(model, x, engine=engine), theta) < TOLERANCE, engine
    trace = sum(t.sum() for t in reference.trace(f.model_fn, f.params, None, x).values())
    assert relative_gap(ntk_trace(model, x), trace) < TOLERANCE


def test_module_under_two_names_is_left_alone():
    layer = nn.Linear(3, 3, bias=False).double()
    model, x = nn.Sequential(layer, nn.ReLU(), layer), normal(2, 3)
    before = model(x)
    agree_with_reference(model, x)
    path_bounds(model, x)
    f = functional(model)
    zeros = {name: torch.zeros_like(p) for name, p in f.params.items()}
    assert f.model_fn(zeros, x).abs().sum() == 0
    assert isinstance(layer.weight, nn.Parameter)
    assert torch.equal(model(x), before)


def test_shared_modules_are_enumerated_every_time():
    layer, relu = nn.Linear(2, 2).double(), nn.ReLU()
    model = nn.Sequential(layer, relu, layer, relu, nn.Linear(2, 2).double())
    x = normal(2, 2)
    exact, bounds = decompose(model, x).bounds(), path_bounds(model, x)
    assert relative_gap(bounds.trace, exact["trace"]) < TOLERANCE
    for name, value in bounds.upper.items():
        assert relative_gap(value, exact[name]) < TOLERANCE, name


def test_tied_parameters_of_two_modules():
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3)).double()
    model[2].weight = model[0].weight
    assert functional(model).tied == {"2.weight": "0.weight"}
    agree_with_reference(model, normal(4, 3))


def test_weight_used_again_through_a_view():
    model = OneWeight(lambda x, w: F.linear(F.linear(x, w), w.T), [[1.0]])
    bounds = path_bounds(model, torch.ones(1, 1).double())
    assert bounds.trace == bounds.upper["edge"] == 4
    assert "px" not in bounds.upper


def test_views_do_not_make_lower_bounds():
    model = OneWeight(lambda x, w: F.linear(x[:, :2] + F.linear(x[:, 2:], w.t()), w), [[1.0, -1.0]])
    bounds = path_bounds(model, torch.tensor([[1, -1, -0.5]]).double())
    assert bounds.trace == 0
    assert bounds.lower == {}


def test_head_with_an_activation_in_place():
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(inplace=True)).double()
    nn.init.constant_(model[0].weight, -1.0)
    bounds = path_bounds(model, torch.ones(1, 1).double())
    assert bounds.trace == 0
    assert "last_layer" not in bounds.lower


def test_layer_input_changed_in_place_afterwards():
    model, x = ThreeLayers(in_place=True), normal(2, 3)
    same = ThreeLayers(in_place=False)
    same.load_state_dict(model.state_dict())
    f = functional(same)
    theta = reference.ntk(f.model_fn, f.params, None, x)
    assert relative_gap(empirical_ntk(model, x), theta) < TOLERANCE
    assert relative_gap(ntk_trace(model, x), ntk_trace(same, x)) < TOLERANCE


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("mul", lambda x, w: F.linear(x, w) * x),
        ("div", lambda x, w: F.linear(x, w) / w),
        ("matmul", lambda x, w: F.linear(x, w) @ x.T),
        ("pow", lambda x, w: F.linear(x, w) ** 2),
        ("__eq__", lambda x, w: F.linear(x, w) + (F.linear(x, w) == 0)),
        ("linear", lambda x, w: F.linear(x, F.linear(x, w))),
        ("relu", lambda x, w: F.linear(x, w.relu())),
        (
            "avg_pool2d with a negative divisor",
            lambda x, w: F.avg_pool2d(F.linear(x, w)[:, None, None], 1, divisor_override=-1).view(
                -1, 1
            ),
        ),
    ],
)
def test_operators_are_refused_by_name_and_place(name, function):
    model = OneWeight(function, [[1.0]])
    with pytest.raises(
        UnsupportedModule, match=rf"got {name}.* at test_hard_cases.py:\d+ \(<lambda>\)"
    ):
        path_bounds(model, torch.ones(1, 1).double())


def test_fractional_masks_have_no_path_bounds():
    masks = {"weight": torch.full((2, 3), 0.5)}
    with pytest.raises(ValueError, match="must be made of 0 and 1"):
        path_bounds(nn.Linear(3, 2).double(), normal(2, 3), masks=masks)
    with pytest.raises(ValueError, match="must be made of 0 and 1"):
        apply_masks(nn.Linear(3, 2), masks)


def test_one_sample_against_many():
    class PositionsFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head = nn.Linear(2, 2).double(), nn.Linear(2, 2).double()

        def forward(self, x):
            return self.head(torch.relu(self.inner(x.transpose(0, 1)))).mean(0)

    model, x = PositionsFirst(), normal(3, 1, 2)
    f = functional(model)
    theta = reference.ntk(f.model_fn, f.params, None, x[:1], x)
    assert relative_gap(empirical_ntk(model, x[:1], x, chunk_size=2), theta) < TOLERANCE
    assert path_bounds(model, x[:1]).trace == pytest.approx(float(ntk_trace(model, x[:1])))


@pytest.mark.parametrize("activation", [nn.PReLU(), nn.Softplus()])
def test_modules_without_a_layer_rule(activation):
    agree_with_reference(
        nn.Sequential(nn.Linear(3, 3), activation, nn.Linear(3, 2)).double(), normal(3, 3)
    )


def test_recurrent_network():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.head = nn.GRU(2, 3, batch_first=True), nn.Linear(3, 2)

        def forward(self, x):
            return self.head(self.cell(x)[0][:, -1])

    model, x = Recurrent().double(), normal(2, 4, 2)
    theta = empirical_ntk(model, x)
    params = list(model.parameters())
    rows = [
        torch.cat([g.flatten() for g in torch.autograd.grad(value, params, retain_graph=True)])
        for value in model(x).flatten()
    ]
    j = torch.stack(rows)
    assert relative_gap(theta.permute(0, 2, 1, 3).reshape(4, 4), j @ j.T) < TOLERANCE


def test_plain_function_as_a_model():
    params = {"w": normal(2, 3), "b": normal(2, seed=1)}
    model = FunctionalModel(lambda p, x, buffers=None: torch.tanh(x @ p["w"].T + p["b"]), params)
    agree_with_reference(model, normal(4, 3, seed=2))


def test_network_that_writes_into_its_input_is_refused():
    x = -torch.ones(2, 3)
    with pytest.raises(ValueError, match="leaves its input as it is"):
        ntk_trace(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 1)), x)
    assert bool((x == -1).all())


def test_equal_samples_do_not_hide_mixing():
    class Mixing(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2).double()

        def forward(self, x):
            return self.layer(x - x.mean(0))

    with pytest.raises(ValueError, match="treats samples independently"):
        ntk_trace(Mixing(), normal(2, 3)[[0, 0, 1]])


def test_two_masks_of_one_parameter():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    kept = torch.ones(2, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="the same for every name of a tied parameter"):
        apply_masks(model, {"0.weight": kept, "1.weight": ~kept})


def test_random_outputs_of_one_sample():
    model = OneWeight(lambda x, w: F.linear(F.dropout(x, 0.5), w), normal(2, 40))
    with pytest.raises(ValueError, match="draws no random numbers"):
        ntk_trace(model, normal(1, 40))


def test_last_sample_is_checked_too():
    model = OneWeight(lambda x, w: F.linear(x.cumsum(0), w), normal(2, 3))
    with pytest.raises(ValueError, match="treats samples independently"):
        ntk_trace(model, normal(3, 3))


def test_batch_sorted_inside():
    class Sorting(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            order = x.norm(dim=1).argsort()
            return self.head(torch.relu(self.inner(x[order]))[order.argsort()])

    model, x = Sorting().double(), normal(5, 4)
    agree_with_reference(model, x)
    by_sample = empirical_ntk(model, x, engine="jacobian", output="trace").diagonal()
    assert relative_gap(ntk_trace(model, x, per="sample"), by_sample) < TOLERANCE
    with pytest.raises(UnsupportedModule, match="keeps the order of its samples"):
        empirical_ntk(model, x, engine="layerwise")


def test_one_tensor_under_two_names():
    weight, zeros = normal(4, 4), torch.zeros(4).double()
    params = {"a": weight, "b1": zeros, "c": weight, "b2": zeros}
    model = FunctionalModel(
        lambda p, x, buffers=None: F.linear(
            torch.tanh(F.linear(x, p["a"], p["b1"])), p["c"], p["b2"]
        ),
        params,
    )
    agree_with_reference(model, normal(3, 4))


def test_finite_difference_by_hand():
    # f = w2 w1 x at w = (2, 3), x = 1; Δ = (1, 1), σ = ½: (2.5·3.5 − 6)² = 2.75².
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
    nn.init.constant_(model[0].weight, 2.0)
    nn.init.constant_(model[1].weight, 3.0)
    probes = {name: torch.ones(1, 1, 1).double() for name, _ in model.named_parameters()}
    x = torch.ones(1, 1).double()
    value = ntk_sap_objective(model, x, sigma=0.5, probes=probes, form="finite_difference")
    assert value.tolist() == [2.75**2]
    # The JVP moves along 3 + 2: (½·5)².
    assert ntk_sap_objective(model, x, sigma=0.5, probes=probes).tolist() == [6.25]


def test_attention():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
            self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 2)

        def forward(self, x):
            mixed, _ = self.attention(x, x, x, need_weights=False)
            return self.head(self.norm(x + mixed)).mean(1)

    fast = torch.backends.mha.get_fastpath_enabled()
    agree_with_reference(Attention().double().eval(), normal(3, 5, 4))
    assert torch.backends.mha.get_fastpath_enabled() == fast
