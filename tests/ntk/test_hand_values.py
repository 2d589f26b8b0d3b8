"""Kernels small enough to compute by hand."""

import torch
from torch import nn

from ntktheory import empirical_ntk, ntk_trace


def set_to(layer, values):
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(values, dtype=torch.float64).view_as(layer.weight))
    return layer


def two_layers():
    """f(x) = (3 relu(2 x1 − x2) + 1 relu(x1 + x2), 2 relu(2 x1 − x2) − 1 relu(x1 + x2))."""
    return nn.Sequential(
        set_to(nn.Linear(2, 2, bias=False), [[2, -1], [1, 1]]),
        nn.ReLU(),
        set_to(nn.Linear(2, 2, bias=False), [[3, 1], [2, -1]]),
    ).double()


def test_relu_net():
    # x = (1, 1): h = (1, 2), both active. Last layer: |h|² = 5 on the diagonal.
    # First layer: |x|² (v_c · v_c'), v_1 = (3, 1), v_2 = (2, −1): 2·[[10, 5], [5, 5]].
    # x' = (0, 1): h = (0, 1), the first unit is off. h·h' = 2; x·x' = 1; only unit 2 is shared:
    # 1·[[1, −1], [−1, 1]].
    x = torch.tensor([[1.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    theta = empirical_ntk(two_layers(), x)
    assert theta[0, 0].tolist() == [[25.0, 10.0], [10.0, 15.0]]
    assert theta[0, 1].tolist() == [[3.0, -1.0], [-1.0, 3.0]]
    assert theta[1, 0].tolist() == [[3.0, -1.0], [-1.0, 3.0]]
    assert theta[1, 1].tolist() == [[2.0, -1.0], [-1.0, 2.0]]
    assert ntk_trace(two_layers(), x).item() == 25 + 15 + 2 + 2


def test_masked_relu_net():
    # Without the weight 3 the first unit reaches output 2 only. x = (1, 1), h = (1, 2):
    # last layer: output 1 keeps h_2 (4), output 2 keeps both (5); first layer: 2·(0² + 1²) and
    # 2·(2² + 1²).
    masks = {"2.weight": torch.tensor([[False, True], [True, True]])}
    x = torch.tensor([[1.0, 1.0]], dtype=torch.float64)
    theta = empirical_ntk(two_layers(), x, masks=masks, output="diagonal")
    assert theta[0, 0].tolist() == [4.0 + 2.0, 5.0 + 10.0]


def test_convolution():
    # f = w ∗ x on a 3-pixel row, kernel (1, 2), stride 1: outputs w·(x1, x2), w·(x2, x3), summed
    # by a head of ones: ∂f/∂w = (x1 + x2, x2 + x3), ∂f/∂b = 2, ∂f/∂head = the two outputs.
    conv = set_to(nn.Conv2d(1, 1, (1, 2)), [5, 7])
    nn.init.zeros_(conv.bias)
    net = nn.Sequential(conv, nn.Flatten(), set_to(nn.Linear(2, 1, bias=False), [1, 1])).double()
    x = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64).view(1, 1, 1, 3)
    trace = ntk_trace(net, x, per="layer")
    assert {name: t.item() for name, t in trace.items()} == {
        "0.weight": 3.0**2 + 6.0**2, "0.bias": 4.0, "2.weight": 19.0**2 + 38.0**2
    }  # fmt: skip


def test_weight_used_twice():
    # f = θ²x: ∂f/∂θ = 2θx.
    class Square(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = set_to(nn.Linear(1, 1, bias=False).double(), [3])

        def forward(self, x):
            return self.layer(self.layer(x))

    x = torch.tensor([[2.0]], dtype=torch.float64)
    assert empirical_ntk(Square(), x).item() == (2 * 3 * 2) ** 2
    assert ntk_trace(Square(), x).item() == (2 * 3 * 2) ** 2


def test_unused_parameters_give_zero():
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Linear(1, 1), nn.Linear(1, 1)

        def forward(self, x):
            return self.used(x)

    trace = ntk_trace(Idle(), torch.ones(2, 1), per="parameter")
    assert trace["idle.weight"].tolist() == [[0.0]]
    assert empirical_ntk(Idle(), torch.ones(2, 1), select=["idle.bias"]).abs().sum() == 0
