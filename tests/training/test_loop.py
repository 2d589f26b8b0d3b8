"""Training: against the update rule written out, under masks, and its errors."""

import pytest
import torch
from torch import nn

from ntktheory import NumericalError, apply_masks
from ntktheory.data import digits
from ntktheory.models import mlp
from ntktheory.training import accuracy, train


def problem(n=12):
    generator = torch.Generator().manual_seed(0)
    net = mlp([4, 6, 3], bias=True, dtype=torch.float64, generator=generator)
    x = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    return net, x, torch.arange(n) % 3


def test_full_batch_steps_are_gradient_descent():
    net, x, y = problem()
    by_hand = {name: p.detach().clone() for name, p in net.named_parameters()}
    losses = []
    for step in range(5):
        theta = {name: p.requires_grad_() for name, p in by_hand.items()}
        loss = nn.functional.cross_entropy(torch.func.functional_call(net, theta, x), y)
        gradient = torch.autograd.grad(loss, list(theta.values()))
        losses.append(float(loss.detach()))
        rate = 0.3 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / 5)).item())
        by_hand = {
            name: (p - rate * g).detach()
            for (name, p), g in zip(theta.items(), gradient, strict=True)
        }
    assert train(net, x, y, steps=5, lr=0.3, momentum=0.0) == pytest.approx(losses, rel=1e-6)
    for name, p in net.named_parameters():
        torch.testing.assert_close(p.detach(), by_hand[name], rtol=1e-6, atol=1e-9)
    assert not net.training


def test_every_sample_is_seen_once_per_epoch():
    seen = []

    def loss_fn(outputs, labels):
        seen.append(labels.clone())
        return outputs.square().mean()

    net, x, _ = problem(10)
    train(net, x, torch.arange(10), steps=6, batch=4, loss_fn=loss_fn)
    assert [len(s) for s in seen] == [4, 4, 2] * 2
    for epoch in (seen[:3], seen[3:]):
        assert sorted(torch.cat(epoch).tolist()) == list(range(10))


def test_generator_decides():
    runs = []
    for seed in (1, 1, 2):
        net, x, y = problem()
        generator = torch.Generator().manual_seed(seed)
        runs.append(train(net, x, y, steps=6, batch=4, generator=generator))
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_masked_weights_stay_without_effect(optimizer):
    net, x, y = problem()
    masks = {"layer1.weight": torch.rand(6, 4) < 0.5}
    model = apply_masks(net, masks)
    train(model, x, y, steps=10, lr=0.05, optimizer=optimizer, weight_decay=0.1)
    weight = dict(model.named_modules())["layer1"].weight
    assert bool((weight[~masks["layer1.weight"]] == 0).all())
    assert bool((weight[masks["layer1.weight"]] != 0).all())


def test_digits_are_learned():
    x, y = digits(400)
    net = mlp([64, 32, 10], generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Flatten(), net)
    before = accuracy(model, x, y)
    train(model, x, y, steps=150, batch=50, lr=0.1, generator=torch.Generator().manual_seed(0))
    assert accuracy(model, x, y, batch=70) > 0.9 > before


def test_accuracy_by_hand_and_modes():
    model = nn.Sequential(nn.Dropout(0.9), nn.Identity())
    model[1].eval()
    outputs = torch.tensor([[0.0, 1.0], [3.0, 2.0], [0.0, 5.0]])
    assert accuracy(model, outputs, torch.tensor([1, 1, 1]), batch=2) == pytest.approx(2 / 3)
    assert model[0].training
    assert not model[1].training


def test_diverging_run_stops():
    net, x, y = problem()
    with pytest.raises(NumericalError, match=r"loss at step \d+ must be finite"):
        train(net, x, y, steps=50, lr=1e200, momentum=0.0, schedule="constant")
    assert not net.training


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "lbfgs"}, "optimizer must be"),
        ({"schedule": "step"}, "schedule must be"),
        ({"steps": 0}, "steps must be a positive integer"),
        ({"batch": 0}, "batch must be a positive integer"),
    ],
)
def test_bad_options(options, message):
    net, x, y = problem()
    with pytest.raises(ValueError, match=message):
        train(net, x, y, **({"steps": 1} | options))


def test_labels_must_fit():
    net, x, y = problem()
    with pytest.raises(ValueError, match="labels must be 12 of them, got 3"):
        train(net, x, y[:3], steps=1)
