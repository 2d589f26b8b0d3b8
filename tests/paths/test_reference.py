"""The enumeration of paths: against autodiff on every rule, and against values by hand."""

from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ntktheory import UnsupportedModule, functional
from ntktheory.functional import masked
from ntktheory.models import mlp
from ntktheory.models.resnet import BasicBlock
from ntktheory.ntk import reference as ntk_reference
from ntktheory.paths.reference import decompose, graph_of
from ntktheory.paths.reference_graph import Edge
from ntktheory.paths.reference_rules import RULES
from proofs_check.cases import random_masks
from proofs_check.compare import relative_gap

TOLERANCE = 1e-12
LADDER = [
    ("trace", "half_per_output"), ("half_per_output", "half"), ("half", "edge"),
    ("half_per_output", "edge_per_output"), ("trace", "abs"), ("abs", "edge_per_output"),
    ("edge_per_output", "edge"), ("edge", "px"), ("edge_per_output", "px_per_output"),
    ("px_per_output", "px"),
]  # fmt: skip


class Residual(nn.Module):
    """x + body(x), or with the body's output first."""

    def __init__(self, *body):
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x):
        return x + self.body(x)


class Calls(nn.Module):
    """Functions in place of modules: relu, cat, flatten, mean, +=."""

    def __init__(self):
        super().__init__()
        self.conv, self.other = nn.Conv2d(1, 2, 2), nn.Conv2d(1, 2, 2, bias=False)
        self.head, self.tail = nn.Linear(4, 2), nn.Linear(36, 2)

    def forward(self, x):
        h = torch.cat([F.relu(self.conv(x)), self.other(x).relu()], dim=1)
        h += torch.relu(h)
        return self.head(h.mean((2, 3))) + self.tail(torch.flatten(h, 1))


def flat_head(units, outputs=2):
    return nn.Flatten(), nn.Linear(units, outputs)


def basic_block(stride):
    return nn.Sequential(BasicBlock(1, 2, stride), nn.AdaptiveAvgPool2d(1), *flat_head(2))


BUILDERS = {
    "max pooling": (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 2), nn.ReLU(), nn.MaxPool2d(2, 1), *flat_head(8)),
        (3, 1, 4, 4),
    ),
    "max pooling, padded, dilated": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 2), nn.MaxPool2d(2, 2, padding=1, dilation=2), *flat_head(8)
        ),
        (3, 1, 5, 5),
    ),
    "global average": (
        lambda: nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), *flat_head(3)),
        (3, 1, 4, 4),
    ),
    "adaptive average, uneven": (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 1), nn.AdaptiveAvgPool2d((2, None)), *flat_head(12)),
        (3, 1, 5, 3),
    ),
    "average pooling, 1-d": (
        lambda: nn.Sequential(nn.Conv1d(2, 2, 2), nn.AvgPool1d(2), *flat_head(4)),
        (3, 2, 5),
    ),
    "leaky ReLU": (
        lambda: nn.Sequential(
            nn.Linear(3, 4), nn.LeakyReLU(0.3), nn.Linear(4, 3), nn.LeakyReLU(), nn.Linear(3, 2)
        ),
        (3, 3),
    ),
    "1-d convolution": (
        lambda: nn.Sequential(
            nn.Conv1d(2, 4, 3, 2, 2, 2, groups=2), nn.ReLU(), nn.MaxPool1d(2), *flat_head(4)
        ),
        (3, 2, 6),
    ),
    "batch norm, 1-d": (
        lambda: nn.Sequential(
            nn.BatchNorm1d(3), nn.Linear(3, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Dropout(),
            nn.Linear(3, 2), nn.BatchNorm1d(2, affine=False),
        ),
        (3, 3),
    ),
    "batch norm, 2-d": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 2, 2, bias=False),
            nn.BatchNorm2d(2), nn.ReLU(), *flat_head(2),
        ),
        (3, 1, 3, 3),
    ),
    "residual": (
        lambda: nn.Sequential(
            nn.Linear(3, 3), nn.ReLU(), Residual(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 3)),
            nn.ReLU(), Residual(nn.Linear(3, 3)), nn.Linear(3, 2),
        ),
        (3, 3),
    ),
    "basic block": (lambda: basic_block(1), (2, 1, 2, 2)),
    "basic block, stride": (lambda: basic_block(2), (2, 1, 4, 4)),
    "calls of functions": (Calls, (3, 1, 4, 4)),
    "linear layers on a sequence": (
        lambda: nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2), *flat_head(4)),
        (3, 2, 3),
    ),
    "layer used twice": (
        lambda: nn.Sequential(*[nn.Linear(3, 3), nn.ReLU()] * 2, nn.Linear(3, 2)),
        (3, 3),
    ),
}  # fmt: skip


def problem(name):
    """Build a network with seeded parameters and statistics, and a batch."""
    build, shape = BUILDERS[name]
    generator = torch.Generator().manual_seed(sorted(BUILDERS).index(name))
    model = build().double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.running_mean.copy_(torch.randn(module.num_features, generator=generator))
                module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
    return model, torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("density", [1.0, 0.7])
@pytest.mark.parametrize("name", BUILDERS)
def test_enumeration_equals_autodiff(name, density):
    model, x = problem(name)
    masks = random_masks(model, density) if density < 1 else None
    f = functional(model)
    paths = decompose(model, x, masks=masks)
    outputs = f.model_fn(masked(f.params, masks), x).flatten()
    assert float(outputs.abs().max()) > 0
    assert relative_gap(torch.as_tensor(paths.J_v_f @ paths.v), outputs) < TOLERANCE
    assert relative_gap(torch.as_tensor(paths.outputs).flatten(), outputs) < TOLERANCE
    jacobian = ntk_reference.jacobian(f.model_fn, f.params, masks, x)
    columns = [jacobian[key].flatten(2)[..., i].flatten() for key, i in paths.parameters]
    assert relative_gap(torch.as_tensor(paths.jacobian()), torch.stack(columns, 1)) < TOLERANCE


@pytest.mark.parametrize("density", [1.0, 0.7])
@pytest.mark.parametrize("name", BUILDERS)
def test_the_ladder_holds_and_some_bound_is_loose(name, density):
    model, x = problem(name)
    masks = random_masks(model, density) if density < 1 else None
    bounds = decompose(model, x, masks=masks).bounds()
    slack = 1 + TOLERANCE
    for low, high in LADDER:
        assert bounds[low] <= slack * bounds[high], (low, high)
    assert bounds["px"] > 1.5 * bounds["trace"] > 0


@pytest.mark.parametrize(
    "name", ["max pooling", "leaky ReLU", "batch norm, 1-d", "residual", "1-d convolution"]
)
def test_the_ladder_holds_exactly(name):
    model, x = problem(name)
    exact, rounded = (decompose(model, x[:1], exact=e).bounds() for e in (True, False))
    assert all(isinstance(value, Fraction) for value in exact.values())
    for low, high in LADDER:
        assert exact[low] <= exact[high], (low, high)
    for key, value in exact.items():
        assert relative_gap(float(value), rounded[key]) < TOLERANCE, key


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_half_per_output_is_the_trace_of_one_hidden_layer(seed, bias):
    generator = torch.Generator().manual_seed(seed)
    model = mlp([3, 4, 2], bias=bias, dtype=torch.float64, generator=generator)
    x = torch.randn(3, 3, dtype=torch.float64, generator=generator)
    exact = decompose(model, x, exact=True).bounds()
    assert exact["half_per_output"] == exact["trace"]
    assert exact["half"] > exact["half_per_output"]
    assert exact["edge_per_output"] > exact["half_per_output"]


# --- values by hand -------------------------------------------------------------------------------


def with_values(model, *values):
    """Fill the parameters in order, from flat lists."""
    parameters = list(model.parameters())
    with torch.no_grad():
        for p, entries in zip(parameters, values, strict=True):
            p.copy_(torch.tensor(entries, dtype=p.dtype).reshape(p.shape))
    return model.double().eval()


def bounds_of(model, x, **options):
    found = decompose(model, torch.tensor([x], dtype=torch.float64), exact=True, **options).bounds()
    return {key: float(value) for key, value in found.items()}


def two_chains():
    """f = max(1·10·x, −4·3·x): two chains of two weights, then the larger one."""
    model = nn.Sequential(
        nn.Linear(1, 2, bias=False), nn.Unflatten(1, (2, 1)),
        nn.Conv1d(2, 2, 1, groups=2, bias=False), nn.Flatten(), nn.Unflatten(1, (1, 2)),
        nn.MaxPool1d(2), nn.Flatten(),
    )  # fmt: skip
    return with_values(model, [1, -4], [10, 3])


def test_max_pool_by_hand():
    # At x = 1 the first chain is active: Tr = 10² + 1² = 101. Its only active path has a²x² = 1, and
    # every entry of the window counts in the weights' sum: Σ_j B_j = 101 + 3² + 4² = 126.
    bounds = bounds_of(two_chains(), [1.0])
    assert bounds["px"] == bounds["px_per_output"] == 126
    for name in ("trace", "half_per_output", "half", "abs", "edge_per_output", "edge", "t_sq"):
        assert bounds[name] == 101, name
    # At x = −1 the second chain is: Tr = 3² + 4² = 25.
    assert bounds_of(two_chains(), [-1.0])["trace"] == 25


def test_each_sample_picks_its_own_entry_of_the_window():
    paths = decompose(two_chains(), torch.tensor([[1.0], [-1.0]], dtype=torch.float64))
    assert sorted(map(tuple, paths.a.T.tolist())) == [(0, 1), (1, 0)]
    assert float(paths.bounds()["trace"]) == 126


def test_ties_of_a_window_go_to_the_first_entry_as_in_torch():
    model, x = nn.Sequential(nn.MaxPool2d(2), nn.Flatten()), torch.ones(1, 1, 2, 2)
    paths = decompose(model, x)
    order = sorted(paths.paths, key=lambda path: path.start)
    gates = [paths.a[0, paths.paths.index(path)] for path in order]
    x.requires_grad_(True)
    model(x).sum().backward()
    assert gates == x.grad.flatten().tolist() == [1, 0, 0, 0]


def test_residual_by_hand():
    # f = u(x + v·relu(w x)) with w = 2, v = 3, u = 5, x = 1. Two paths, values u and u v w.
    # Tr = (1 + 6)² + (u w)² + (u v)² = 49 + 100 + 225 = 374. A_u = 2, B_u = 1 + 36; A_v = A_w = 1.
    body = Residual(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False))
    model = with_values(nn.Sequential(body, nn.Linear(1, 1, bias=False)), [2], [3], [5])
    bounds = bounds_of(model, [1.0])
    assert bounds["trace"] == bounds["abs"] == 374
    assert bounds["edge"] == bounds["edge_per_output"] == 2 * 37 + 100 + 225
    assert bounds["px"] == 2 * (37 + 100 + 225)
    # One path leads from every edge to the output: the exact activations give the trace.
    assert bounds["half"] == bounds["half_per_output"] == 374
    assert bounds["t_sq"] == 1 + (36 + 100 + 225)  # the shortcut's path, and the branch's


def one_normed_unit():
    """v·relu(γ (w x − μ)/σ + β) with w = 2, μ = 2, σ = 1/2, γ = 3, β = 1, v = 5."""
    model = nn.Sequential(
        nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1, eps=0.0), nn.ReLU(),
        nn.Linear(1, 1, bias=False),
    )  # fmt: skip
    model[1].running_mean.fill_(2.0)
    model[1].running_var.fill_(0.25)
    return with_values(model, [2], [3], [1], [5])


def test_batch_norm_by_hand():
    # At x = 3: x̂ = (6 − 2)·2 = 8, h = 25, f = 125. Tr = 25² + (5·8)² + 5² + (5·3·2·3)² for v, γ, β, w.
    # Paths: w γ v from x = 3 with c = 2; γ v from 1 with c = −4; β v from 1.
    bounds = bounds_of(one_normed_unit(), [3.0])
    assert bounds["trace"] == 625 + 1600 + 25 + 8100
    # A_v = 2·9 + 4 + 1, A_γ = 2·9 + 4, A_β = 1, A_w = 2·9;
    # B_v = 2·36 + 4·9 + 1, B_γ = 2·100 + 4·25, B_β = 25, B_w = 2·225.
    assert bounds["edge"] == 23 * 109 + 22 * 300 + 1 * 25 + 18 * 450
    assert bounds["px"] == 23 * (109 + 300 + 25 + 450)
    # |c| twice side by side: v (2·6·3 + 4·3 + 1)², γ (5·(2·2·3 + 4))², β 5², w (5·3·2·3)².
    assert bounds["abs"] == 49**2 + 80**2 + 25 + 8100
    # c² in the one net: 4·9·(36 + 100 + 225) + 16·(9 + 25) + (1 + 25).
    assert bounds["t_sq"] == 36 * 361 + 16 * 34 + 26
    # One path leads from every edge to the output: the exact activations 25, 8, 1 and 3 give Tr.
    assert bounds["half"] == bounds["half_per_output"] == bounds["trace"]


def test_batch_norm_reads_the_float_of_one_over_sigma():
    model = one_normed_unit()
    model[1].running_var.fill_(2.0)
    (coefficient,) = {p.coefficient for p in decompose(model, torch.ones(1, 1)).paths if p.start}
    assert coefficient == Fraction(1 / 2**0.5)


def test_leaky_relu_by_hand():
    # f = v·leaky(w x), slope 1/2, w = −2, x = 3, v = 5: z = −6, h = −3, f = −15.
    # Tr = h² + (v/2·x)² = 9 + 56.25. A = (1/2)²·9, B_v = 4, B_w = 25: a chain, so R = Tr.
    model = nn.Sequential(
        nn.Linear(1, 1, bias=False), nn.LeakyReLU(0.5), nn.Linear(1, 1, bias=False)
    )
    bounds = bounds_of(with_values(model, [-2], [5]), [3.0])
    assert bounds["trace"] == 65.25
    assert set(bounds.values()) == {65.25}


def test_shared_kernel_by_hand():
    # f = Σ_s u_s·k x_s with k = 3, u = (5, 7), x = (1, 2), both active.
    # Tr = (5·1 + 7·2)² + (3·1)² + (3·2)² = 361 + 45. A_k = 1 + 4, B_k = 25 + 49; u: 9 and 4·9.
    model = nn.Sequential(nn.Conv1d(1, 1, 1, bias=False), nn.ReLU(), *flat_head(2, 1))
    model[3] = nn.Linear(2, 1, bias=False)
    bounds = bounds_of(with_values(model, [3], [5, 7]), [[1.0, 2.0]])
    assert bounds["trace"] == bounds["abs"] == 406
    assert bounds["edge"] == 5 * 74 + 45
    assert bounds["px"] == 5 * (74 + 9 + 9)
    assert bounds["half"] == bounds["half_per_output"] == 5 * 74 + 45  # h_s² = x_s², Bpre = 1


def test_half_by_hand():
    # f = (v_1, v_2)·relu(3 x_1 − x_2), v = (5, 4), x = (1, 2): z = 1.
    # Tr = (25 + 16)·5 + 2·1. B_w = 41; Bpre of the hidden unit: 10.
    model = with_values(mlp([2, 1, 2], dtype=torch.float64), [3, -1], [5, 4])
    bounds = bounds_of(model, [1.0, 2.0])
    assert bounds["trace"] == 5 * 41 + 2
    assert bounds["half_per_output"] == 5 * 41 + 2 * (1 / 10) * 10  # A_vc = h²/Bpre, B_vc = Bpre
    assert bounds["half"] == 5 * (2 * 41) + 2  # A_w sums the two outputs: 2x²; v reaches only one
    assert bounds["edge_per_output"] == 5 * 41 + 2 * (5 * 10)


def test_half_with_nothing_below():
    # w = 0: h = Bpre = 0 at the last weight, 0/0 = 0; the first keeps v² x².
    model = with_values(mlp([1, 1, 1], bias=True, dtype=torch.float64), [0], [2], [3], [1])
    bounds = bounds_of(model, [5.0])
    assert bounds["trace"] == bounds["half_per_output"] == 9 * 25 + 9 + 4 + 1
    no_bias = with_values(mlp([1, 1, 1], dtype=torch.float64), [0], [3])
    assert bounds_of(no_bias, [5.0])["half_per_output"] == 0


def test_basic_block_has_the_paths_of_its_branches():
    # 1 → 1 channel on a 1×1 map. The branch: x, μ₁ or β₁ through conv2 and bn2, and μ₂ and β₂ at bn2;
    # with the identity shortcut 6 paths.
    block = BasicBlock(1, 1, 1, torch.float64).eval()
    for norm in (block.bn1, block.bn2):
        norm.running_mean.fill_(0.5)
    paths = decompose(nn.Sequential(block, nn.Flatten()), torch.ones(1, 1, 1, 1).double())
    assert len(paths.paths) == 6


def test_graph_of_max_pooling():
    model, x = problem("max pooling")
    graph = graph_of(model, tuple(x.shape[1:]))
    assert len(graph.outputs) == 2
    assert len(graph.gates) == 2 * 9 + 2 * 4  # ReLUs, and windows
    assert np.array_equal(graph.inputs, range(1, 17))


class Tripled(nn.Module):
    def forward(self, x):
        return 3 * x


def test_a_rule_can_be_added(monkeypatch):
    model, x = nn.Sequential(Tripled(), nn.Linear(2, 1, bias=False)), torch.ones(1, 2)
    with pytest.raises(UnsupportedModule, match=r"got mul\(\) at '0'"):
        decompose(model, x)

    def rule(graph, units, module):
        return np.array([graph.unit([Edge(int(u), None, Fraction(3))]) for u in units])

    monkeypatch.setitem(RULES, Tripled, rule)
    assert decompose(model, x).bounds()["trace"] == 18


REFUSED = {
    "train-mode batch norm": (
        nn.BatchNorm1d(2), r"got BatchNorm1d with the statistics of the batch \(train mode\) at '0'"
    ),
    "no running statistics": (
        nn.BatchNorm1d(2, track_running_stats=False).eval(), "BatchNorm1d with no running statistics"
    ),
    "train-mode dropout": (nn.Dropout(), "got Dropout with train mode at '0'"),
    "parts of the axes": (nn.Flatten(0), "Flatten with the sample axis or a part of the axes"),
    "another axis": (nn.Unflatten(2, (1, 1)), "Unflatten with an axis other than 1"),
    "divisor": (nn.AvgPool2d(2, divisor_override=3), "AvgPool2d with padding, ceil_mode or a divis"),
    "padded average": (nn.AvgPool2d(2, padding=1), "AvgPool2d with padding, ceil_mode or a divisor"),
    "ceil mode": (nn.MaxPool2d(2, ceil_mode=True), "MaxPool2d with ceil_mode or indices"),
    "circular": (nn.Conv1d(2, 2, 2, padding_mode="circular"), "Conv1d with padding .*'circular'"),
    "same": (nn.Conv1d(2, 2, 2, padding="same"), "Conv1d with padding 'same', 'zeros'"),
    "GELU": (nn.GELU(), "got GELU at '0'. Enumerate a simpler network"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_a_module_without_a_rule_is_refused(what):
    module, text = REFUSED[what]
    shape = (2, 4, 4) if "2d" in type(module).__name__ else (2,)
    with pytest.raises(UnsupportedModule, match=text):
        graph_of(nn.Sequential(module), shape)


class Forward(nn.Module):
    """A forward by a function."""

    def __init__(self, function):
        super().__init__()
        self.function, self.weight = function, nn.Parameter(torch.ones(2))

    def forward(self, x):
        return self.function(self, x)


FORWARDS = {
    "product": (lambda m, x: x * x, r"got mul\(\) at '0'"),
    "parameter": (lambda m, x: x + m.weight, "got the tensor 'weight' at '0'"),
    "constant": (lambda m, x: x + 1, r"a sum must be of two activations of one shape, got \[\(2,\), 1"),
    "branch": (lambda m, x: x if x.sum() > 0 else -x, r"got Forward \(.*control flow\) at '0'"),
    "samples": (lambda m, x: torch.cat([x, x]), "dim must be other than 0, got 0. Samples must not"),
    "flat samples": (lambda m, x: torch.flatten(x), "start_dim must be 1, got 0. Keep the sample"),
}  # fmt: skip


@pytest.mark.parametrize("what", FORWARDS)
def test_a_call_without_a_rule_is_refused(what):
    function, text = FORWARDS[what]
    with pytest.raises(UnsupportedModule, match=text):
        graph_of(nn.Sequential(Forward(function)), (2,))
