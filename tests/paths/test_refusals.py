"""What has no path rule is refused by module, function, place and reason."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ntktheory import UnsupportedModule, functional, path_bounds
from ntktheory.paths import mixed_gate_bounds, path_kernel_trace
from ntktheory.paths.gates import record
from ntktheory.pruning.scorers import path_edge, px, synflow_l2, t_sq
from tests.paths.test_gates import draw


class Block(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.conv, self.act = nn.Conv2d(2, 2, 3, padding=1), act

    def forward(self, x):
        return self.act(self.conv(x)) + x


class Net(nn.Module):
    """stem, layer1 and layer2 of blocks, head; the second activation of layer2 is the argument."""

    def __init__(self, act):
        super().__init__()
        self.stem = nn.Conv2d(1, 2, 1)
        self.layer1 = nn.Sequential(Block(nn.ReLU()))
        self.layer2 = nn.ModuleList([Block(nn.ReLU()), Block(act)])
        self.head = nn.Linear(2 * 9, 2)

    def forward(self, x):
        x = self.layer1(self.stem(x))
        for block in self.layer2:
            x = block(x)
        return self.head(x.flatten(1))


class Functional(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


WHY = {
    "relu6": (nn.ReLU6(), "ReLU6", "hardtanh", "it is flat above a level that no path sees"),
    "hardtanh": (nn.Hardtanh(), "Hardtanh", "hardtanh", "it is flat above"),
    "prelu": (nn.PReLU(), "PReLU", "prelu", "would be an edge and a gate"),
    "gelu": (nn.GELU(), "GELU", "gelu", "mixed_gate_bounds covers it"),
    "silu": (nn.SiLU(), "SiLU", "silu", "mixed_gate_bounds covers it"),
    "tanh": (nn.Tanh(), "Tanh", "tanh", "its gate φ\\(z\\)/z is not its derivative"),
    "softmax": (nn.Softmax(1), "Softmax", "softmax", "it divides data by data"),
    "layer norm": (nn.LayerNorm(3), "LayerNorm", "layer_norm", "it divides data by data"),
    "group norm": (nn.GroupNorm(1, 2), "GroupNorm", "group_norm", "it divides data by data"),
    "instance norm": (nn.InstanceNorm2d(2), "InstanceNorm2d", "instance_norm", "it divides data"),
    "clamp": (Functional(lambda h: h.clamp(min=0)), "Functional", "clamp", "it is flat above"),
    "maximum": (
        Functional(lambda h: torch.maximum(h, -h)), "Functional", "maximum", "it gates two tensors"),
    "max of two": (
        Functional(lambda h: torch.max(h, -h)), "Functional", "max", "it gates two tensors"),
    "product": (
        Functional(lambda h: h * h), "Functional", "mul", "both of its operands depend on the data"),
    "sorting": (
        Functional(lambda h: h.take_along_dim(h.max(1, keepdim=True).indices, 1)), "Functional",
        "take_along_dim", "the rules cover Linear, convolution"),
    "indices": (
        Functional(lambda h: h[:, h.max(1).indices[0, 0, :2]]), "Functional",
        "__getitem__ of indices that depend on the data", "they are gates"),
    "where": (Functional(lambda h: torch.where(h > 0, h, 0.0)), "Functional", "gt", "the rules cover"),
    "no gradient": (Functional(lambda h: h.detach()), "Functional", "detach", "it hides paths"),
}  # fmt: skip


@pytest.mark.parametrize("name", WHY)
def test_refused_by_module_function_and_reason(name):
    module, kind, function, why = WHY[name]
    model = Net(module).double().eval()
    text = (
        rf"model at 'layer2\.1\.act' \({kind}\) must be made of functions with a path rule, "
        rf"got {function} at test_refusals\.py:\d+ \(\S+\)\. Replace it; .*{why}"
    )
    with pytest.raises(UnsupportedModule, match=text):
        path_bounds(model, draw(1, 1, 3, 3))  # nothing is noticed earlier


def test_the_top_has_no_path():
    class Top(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x):
            return F.softmax(self.layer(x), 1)

    with pytest.raises(
        UnsupportedModule, match=r"^model must be made of functions with a path rule"
    ):
        path_bounds(Top(), draw(1, 2))


def test_a_module_under_two_names_is_named_by_its_place():
    act = nn.Tanh()
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.Sequential(act, act))
    with pytest.raises(UnsupportedModule, match=r"model at '1\.0' \(Tanh\)"):
        path_bounds(model.double(), draw(1, 2))


def test_a_caller_that_is_a_module_is_no_part_of_the_path():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(2, 2), nn.Softmax(1)).double()

        def forward(self, x):
            return path_bounds(self.inner, x)

    with pytest.raises(UnsupportedModule, match=r"^model at '1' \(Softmax\)"):
        Outer()(draw(1, 2))


def scored(scorer):
    def call(model, x):
        net = functional(model)
        return scorer(net.model_fn, net.params, None, x)

    return call


@pytest.mark.parametrize(
    "entry",
    [scored(px), scored(path_edge), scored(t_sq), scored(synflow_l2), path_kernel_trace,
     mixed_gate_bounds],
)  # fmt: skip
def test_every_entry_refuses(entry):
    model = nn.Sequential(nn.Linear(3, 3), nn.Softmax(1), nn.Linear(3, 2)).double()
    with pytest.raises(UnsupportedModule, match=r"model at '1' \(Softmax\).*got softmax at"):
        entry(model, draw(2, 3))


IN_PLACE = {
    "mul_ by a parameter": lambda h, w: h.mul_(w),
    "add_ in place on a tensor that does not depend on the data": lambda h, w: torch.zeros(
        2, 3, dtype=h.dtype
    ).add_(h),
}


class Writes(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.layer, self.w = nn.Linear(3, 3), nn.Parameter(torch.ones(3))
        self.function = function

    def forward(self, x):
        return self.function(self.layer(x), self.w)


@pytest.mark.parametrize("name", IN_PLACE)
def test_writes_that_have_no_rule(name):
    model = functional(Writes(IN_PLACE[name]).double())
    with pytest.raises(UnsupportedModule, match=f"got {name} at"):
        record(model.model_fn, model.params, draw(2, 3))


class LowRank(nn.Module):
    """A weight that is a matrix product of parameters, or of a parameter and a constant."""

    def __init__(self, constant):
        super().__init__()
        self.p, self.q = (nn.Parameter(torch.ones(1, 1).double()) for _ in range(2))
        if constant:
            del self.p
            self.register_buffer("p", torch.ones(1, 1).double())

    def forward(self, x):
        return torch.nn.functional.linear(x, self.p @ self.q)


@pytest.mark.parametrize("constant", [False, True])
def test_layers_without_data_are_refused(constant):
    with pytest.raises(UnsupportedModule, match="of parameters without data"):
        path_bounds(LowRank(constant), torch.ones(1, 1).double())
