"""Networks that an exact kernel must not get silently wrong."""

import numpy as np
import pytest
import torch
from torch import nn

from ntktheory import NTKOperator, empirical_ntk, functional, ntk_to_file, ntk_trace
from ntktheory.ntk import reference, to_file
from ntktheory.ntk.layerwise import RulesDisagree
from proofs_check.compare import relative_gap

TOLERANCE = 1e-12


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def seeded(make):
    torch.manual_seed(0)
    return make().double().eval()


class ChoosesLayers(nn.Module):
    """Samples with a positive sum pass one more layer, if there is one in the batch."""

    def __init__(self, width):
        super().__init__()
        self.a, self.c, self.b = nn.Linear(4, 4), nn.Linear(4, width), nn.Linear(4, 2)

    def forward(self, x):
        h = torch.tanh(self.a(x))
        up = (x.sum(1) > 0)[:, None]
        if up.any():
            h = torch.where(up, self.c(h).mean(1, keepdim=True).expand_as(h), h)
        return self.b(h)


class Reorders(nn.Module):
    def __init__(self, order):
        super().__init__()
        self.order = order
        self.a, self.b = nn.Linear(2, 3), nn.Linear(3, 2)

    def forward(self, x):
        order = self.order(x)
        return self.b(torch.tanh(self.a(x[order])[order.argsort()]))


class TiedEmbedding(nn.Module):
    def __init__(self):
        super().__init__()
        self.e, self.o = nn.Embedding(3, 2, padding_idx=0), nn.Linear(2, 3, bias=False)
        self.o.weight = self.e.weight

    def forward(self, x):
        return self.o(self.e(x).sum(1))


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.t = nn.Linear(2, 2), nn.Parameter(torch.tensor(1.5))

    def forward(self, x):
        return self.layer(x * self.t)


def middle_swapped(x):
    order = torch.arange(len(x))
    if len(x) > 3:
        order[[1, 2]] = order[[2, 1]]
    return order


ORDERS = {
    "flip": lambda x: torch.arange(len(x)).flip(0),
    "roll": lambda x: torch.arange(len(x)).roll(1),
    "sort by length": lambda x: x.norm(dim=1).argsort(stable=True),
    "swap in the middle": middle_swapped,
}
NETWORKS = {
    **{f"chooses layers, width {w}": (lambda w=w: ChoosesLayers(w), normal(4, 4)) for w in (4, 3)},
    **{
        f"reorders: {name}, {n} samples": (lambda order=order: Reorders(order), normal(n, 2))
        for name, order in ORDERS.items()
        for n in (2, 3, 5, 20)
    },
    "tied embedding with padding": (TiedEmbedding, torch.tensor([[0, 1], [2, 0], [1, 2]])),
    "scalar parameter": (Scaled, normal(3, 2)),
    "one token per sample": (lambda: nn.Embedding(3, 2), torch.tensor([0, 1, 1])),
    "frequencies": (
        lambda: nn.Sequential(
            nn.Embedding(4, 3, scale_grad_by_freq=True), nn.Flatten(), nn.Linear(6, 2)
        ),
        torch.tensor([[0, 1], [3, 3]]),
    ),
}


@pytest.fixture(params=NETWORKS)
def problem(request):
    make, x = NETWORKS[request.param]
    if "width" in request.param:
        x = x - x.mean(1, keepdim=True) - 0.1
        x[1] = x[1] + 1.0  # only the second sample has a positive sum
    model = seeded(make)
    if "frequencies" in request.param:  # the derivative of f has no frequencies in it
        plain = seeded(lambda: nn.Sequential(nn.Embedding(4, 3), nn.Flatten(), nn.Linear(6, 2)))
        plain.load_state_dict(model.state_dict())
        return model, functional(plain), x
    return model, functional(model), x


@pytest.mark.parametrize("engine", ["auto", "jacobian", "ntk_vp"])
def test_kernel(problem, engine):
    model, f, x = problem
    expected = one_by_one(f, x)
    assert relative_gap(empirical_ntk(model, x, engine=engine), expected) < TOLERANCE
    chunked = empirical_ntk(model, x, engine=engine, chunk_size=2)
    assert relative_gap(chunked, expected) < TOLERANCE


def test_trace_and_operator(problem):
    model, f, x = problem
    expected = one_by_one(f, x)
    n, _, c, _ = expected.shape
    matrix = expected.permute(0, 2, 1, 3).reshape(n * c, n * c)
    assert relative_gap(ntk_trace(model, x), matrix.trace()) < TOLERANCE
    operator = NTKOperator(model, x)
    assert relative_gap(operator.matmat(torch.eye(n * c).double()), matrix) < TOLERANCE


def one_by_one(f, x):
    """Return the kernel from backward passes of one output of one sample, in its batch."""
    params = {name: p.detach().clone().requires_grad_() for name, p in f.params.items()}
    outputs = f.model_fn(params, x)
    rows = []
    for value in outputs.flatten():
        gradients = torch.autograd.grad(
            value, list(params.values()), retain_graph=True, allow_unused=True
        )
        rows.append(
            torch.cat(
                [
                    (torch.zeros_like(p) if g is None else g).flatten()
                    for g, p in zip(gradients, params.values(), strict=True)
                ]
            )
        )
    j = torch.stack(rows)
    n, c = outputs.shape
    return (j @ j.T).view(n, c, n, c).permute(0, 2, 1, 3)


def test_layerwise_refuses_what_chooses_its_layers():
    model = seeded(lambda: ChoosesLayers(4))
    x = -torch.ones(4, 4).double()
    x[1] = 1.0
    with pytest.raises(RulesDisagree, match="calls the same layers for all data"):
        empirical_ntk(model, x, engine="layerwise")


def test_reference_has_scalar_parameters():
    model, x = seeded(Scaled), normal(3, 2)
    f = functional(model)
    theta = reference.ntk(f.model_fn, f.params, None, x)
    assert relative_gap(theta, one_by_one(f, x)) < TOLERANCE


def test_file_of_a_network_with_batch_norm(tmp_path):
    model = seeded(lambda: nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))
    x = normal(4, 2)
    theta = ntk_to_file(model, x, path=tmp_path / "ntk.npy", chunk_size=2)
    np.testing.assert_allclose(theta, empirical_ntk(model, x), rtol=1e-12)


def test_file_of_a_network_that_reorders(tmp_path):
    model, x = seeded(lambda: Reorders(ORDERS["flip"])), normal(5, 2)
    theta = ntk_to_file(model, x, path=tmp_path / "ntk.npy", chunk_size=2)
    np.testing.assert_allclose(theta, empirical_ntk(model, x), rtol=1e-12)
    assert [p.name for p in tmp_path.iterdir()] == ["ntk.npy"]
    with pytest.raises(RulesDisagree):
        ntk_to_file(model, x, path=tmp_path / "other.npy", engine="layerwise")


CHANGES = {
    "a parameter": lambda m, o: (m[0].bias.data.add_(1), o),
    "a buffer": lambda m, o: (m[1].running_mean.add_(1), o),
    "the function": lambda m, o: (m.__setitem__(2, nn.Sigmoid()), o),
    "the masks": lambda m, o: (None, o | {"masks": {"0.bias": torch.tensor([True, False, True])}}),
    "the output": lambda m, o: (None, o | {"output": "trace"}),
    "the chunks": lambda m, o: (None, o | {"chunk_size": 3}),
    "the selection": lambda m, o: (None, o | {"select": ["0.bias"]}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_file_of_another_run_is_not_continued(tmp_path, monkeypatch, change):
    model = seeded(lambda: nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Tanh()))
    x, options = normal(4, 2), {"chunk_size": 1}
    write, written = to_file._write, []

    def stop(ledger, run, done):
        write(ledger, run, done)
        written.append(len(done))
        if len(done) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(to_file, "_write", stop)
    with pytest.raises(KeyboardInterrupt):
        ntk_to_file(model, x, path=tmp_path / "ntk.npy", **options)
    monkeypatch.undo()
    _, changed = CHANGES[change](model, options)
    with pytest.raises(ValueError, match="begun with the same parameters, data and options"):
        ntk_to_file(model, x, path=tmp_path / "ntk.npy", **changed)


def test_other_number_of_outputs():
    class AsManyAsInputs(nn.Module):
        def __init__(self):
            super().__init__()
            self.t = nn.Parameter(torch.tensor(2.0))

        def forward(self, x):
            return x * self.t

    model = AsManyAsInputs().double()
    with pytest.raises(ValueError, match="x2 must be samples with 2 outputs, like x1, got 3"):
        empirical_ntk(model, normal(2, 2), normal(2, 3))
