"""Packed training: each network as ``train`` trains it alone, noise by its definition, and errors."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ntktheory import NumericalError, apply_masks
from ntktheory.models import convnet, mlp
from ntktheory.training import stack_models, train, train_packed
from ntktheory.training.live_units import drop_dead_units

NETS, SAMPLES = 4, 10
KIND = {"dtype": torch.float64}


def generator(seed):
    return torch.Generator().manual_seed(seed)


def problem(network="mlp", density=0.6):
    if network == "mlp":
        nets = [mlp([5, 8, 6, 3], bias=True, generator=generator(s), **KIND) for s in range(NETS)]
        x = torch.randn(NETS, SAMPLES, 5, generator=generator(9), **KIND)
    else:
        nets = [
            convnet([1, 2, 3], 3, image_size=4, stride=[1, 2], generator=generator(s), **KIND)
            for s in range(NETS)
        ]
        x = torch.randn(NETS, SAMPLES, 1, 4, 4, generator=generator(9), **KIND)
    y = torch.randint(3, (NETS, SAMPLES), generator=generator(8))
    params = stack_models(nets)
    masks = {
        name: torch.rand(p.shape, generator=generator(i)) < density
        for i, (name, p) in enumerate(params.items())
        if name.endswith("weight")
    }
    return nets, params, masks, x, y


def alone(net, mask, x, y, **options):
    """Return the losses and θ⊙m of one network trained by the loop."""
    sparse = apply_masks(net, mask)
    losses = train(sparse, x, y, **options)
    plain = {}
    for name, _ in net.named_parameters():
        owner, _, attribute = name.rpartition(".")
        plain[name] = getattr(sparse.get_submodule(owner), attribute).detach()
    return losses, plain


@pytest.mark.parametrize("network", ["mlp", "convnet"])
@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "sgd", "lr": 0.1},
        {"optimizer": "sgd", "lr": 0.1, "momentum": 0.0, "schedule": "constant"},
        {"optimizer": "adam", "lr": 0.01},
        {"optimizer": "adam", "lr": 0.01, "weight_decay": 0.1, "schedule": "constant"},
        {"optimizer": "sgd", "lr": 0.1, "weight_decay": 0.05},
    ],
    ids=str,
)
@pytest.mark.parametrize("batch", [4, SAMPLES])
def test_packed_is_a_loop(network, options, batch):
    nets, params, masks, x, y = problem(network)
    run = train_packed(
        nets[0], params, x, y, steps=7, masks=masks, batch=batch,
        generators=[generator(s) for s in range(NETS)], **options,
    )  # fmt: skip
    for s, net in enumerate(nets):
        mask = {name: m[s] for name, m in masks.items()}
        losses, plain = alone(
            net, mask, x[s], y[s], steps=7, batch=batch, generator=generator(s), **options
        )
        torch.testing.assert_close(
            run.losses[:, s], torch.tensor(losses, **KIND), rtol=1e-10, atol=1e-12
        )
        for name, p in plain.items():
            torch.testing.assert_close(run.params[name][s], p, rtol=1e-10, atol=1e-12)
    assert run.steps.tolist() == [7] * NETS
    assert not torch.equal(run.params["layer1.weight" if network == "mlp" else next(iter(params))][0],
                           next(iter(params.values()))[0])  # fmt: skip


def test_learning_rates_of_their_own():
    nets, params, masks, x, y = problem()
    rates = torch.tensor([0.01, 0.1, 0.2, 0.0], **KIND)
    run = train_packed(nets[0], params, x, y, steps=5, masks=masks, lr=rates)
    for s in range(3):
        mask = {name: m[s] for name, m in masks.items()}
        _, plain = alone(nets[s], mask, x[s], y[s], steps=5, lr=float(rates[s]))
        for name, p in plain.items():
            torch.testing.assert_close(run.params[name][s], p, rtol=1e-10, atol=1e-12)
    for name, p in params.items():
        start = p[3] * masks[name][3] if name in masks else p[3]
        assert torch.equal(run.params[name][3], start)


def test_a_finished_network_is_frozen():
    nets, params, masks, x, y = problem()
    ends = torch.tensor([1, 3, 2, 9])

    def on_epoch(epoch, _):
        return ends <= epoch

    run = train_packed(
        nets[0], params, x, y, steps=8, masks=masks, batch=5, schedule="constant", lr=0.05,
        optimizer="adam", generators=[generator(s) for s in range(NETS)], on_epoch=on_epoch,
    )  # fmt: skip
    assert run.steps.tolist() == [2, 6, 4, 8]  # two steps an epoch
    for s, net in enumerate(nets):
        mask = {name: m[s] for name, m in masks.items()}
        losses, plain = alone(
            net, mask, x[s], y[s], steps=int(run.steps[s]), batch=5, schedule="constant", lr=0.05,
            optimizer="adam", generator=generator(s),
        )  # fmt: skip
        torch.testing.assert_close(
            run.losses[: len(losses), s], torch.tensor(losses, **KIND), rtol=1e-10, atol=1e-12
        )
        assert bool(run.losses[len(losses) :, s].isnan().all())
        for name, p in plain.items():
            torch.testing.assert_close(run.params[name][s], p, rtol=1e-10, atol=1e-12)


def test_training_ends_when_all_are_finished():
    nets, params, _, x, y = problem()
    run = train_packed(
        nets[0], params, x, y, steps=50, on_epoch=lambda epoch, _: torch.tensor([epoch >= 3] * NETS)
    )
    assert run.losses.shape == (3, NETS)


def test_the_weights_given_stay_as_they_are():
    nets, params, masks, x, y = problem()
    before = {name: p.clone() for name, p in params.items()}
    own = {name: p.clone() for name, p in nets[0].named_parameters()}
    train_packed(nets[0], params, x, y, steps=3, masks=masks)
    assert all(torch.equal(params[name], p) for name, p in before.items())
    assert all(torch.equal(p, own[name]) for name, p in nets[0].named_parameters())


def test_the_noise_of_a_network_does_not_depend_on_the_others():
    nets = [nn.Linear(4, 3, **KIND) for _ in range(3)]
    params = stack_models(nets)
    masks = {"weight": torch.rand(3, 3, 4, generator=generator(0)) < 0.7}
    x, y = torch.randn(3, 6, 4, generator=generator(1), **KIND), torch.zeros(3, 6).long()

    def run(part):
        return train_packed(
            nets[0], {n: p[part] for n, p in params.items()}, x[part], y[part], steps=3,
            masks={"weight": masks["weight"][part]}, gradient_noise=0.5,
            noise_generators=[generator(s) for s in range(3)[part]],
        ).params  # fmt: skip

    together, alone = run(slice(0, 3)), run(slice(2, 3))
    for name, p in together.items():
        assert torch.allclose(p[2], alone[name][0], rtol=1e-12, atol=1e-14)
    with pytest.raises(ValueError, match="noise_generators must be 3 of them, got 1"):
        train_packed(nets[0], params, x, y, steps=1, noise_generators=[generator(0)])


@pytest.mark.parametrize("unit", ["absolute", "relative"])
def test_gradient_noise_has_the_size_that_it_says(unit):
    sizes = torch.tensor([0.0, 0.5, 2.0], **KIND)
    nets = [nn.Linear(40, 30, bias=False, **KIND) for _ in range(3)]
    params = stack_models(nets)
    masks = {"weight": torch.rand(3, 30, 40, generator=generator(0)) < 0.7}
    x, y = torch.randn(3, 6, 40, generator=generator(1), **KIND), torch.zeros(3, 6).long()
    options = {"steps": 1, "masks": masks, "momentum": 0.0, "lr": 1.0, "schedule": "constant"}
    calm = train_packed(nets[0], params, x, y, **options).params["weight"]
    noisy = train_packed(
        nets[0], params, x, y, gradient_noise=sizes, noise_unit=unit,
        noise_generators=[generator(s) for s in range(2, 5)], **options,
    ).params["weight"]  # fmt: skip
    assert torch.equal(noisy[0], calm[0])
    for s in (1, 2):
        kept = masks["weight"][s]
        assert bool((noisy[s][~kept] == 0).all())
        slope = (params["weight"][s] - calm[s])[kept]
        unit_size = float(slope.square().mean().sqrt()) if unit == "relative" else 1.0
        noise = (noisy[s] - calm[s])[kept]
        wanted = float(sizes[s]) * unit_size
        assert float(noise.std()) == pytest.approx(wanted, rel=5 / (2 * kept.sum().item()) ** 0.5)
        assert abs(float(noise.mean())) < 5 * wanted / kept.sum().item() ** 0.5


def test_diverging_network_is_named():
    nets, params, _, x, y = problem()
    rates = torch.tensor([0.1, 0.1, 1e200, 0.1], **KIND)
    with pytest.raises(NumericalError, match=r"loss of network 2 at step \d+ must be finite"):
        train_packed(nets[0], params, x, y, steps=50, lr=rates, momentum=0.0, schedule="constant")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "lbfgs"}, "optimizer must be"),
        ({"schedule": "step"}, "schedule must be"),
        ({"noise_unit": "percent"}, "noise_unit must be"),
        ({"steps": 0}, "steps must be a positive integer"),
        ({"batch": 0}, "batch must be a positive integer"),
        ({"lr": torch.ones(3)}, r"lr must be a number or 4 of them, got shape \[3\]"),
        ({"lr": -1.0}, "lr must be finite and not negative"),
        ({"gradient_noise": float("nan")}, "gradient_noise must be finite and not negative"),
        ({"generators": [None]}, "generators must be 4 of them, got 1"),
        ({"masks": {"layer9": torch.ones(4)}}, "masks must be one of"),
        (
            {"masks": {"layer1.weight": torch.ones(4, 8, 5)}},
            r"masks\['layer1.weight'\] must be bool",
        ),
        ({"labels": torch.zeros(4, 3)}, r"labels must be one for each sample, \[4, 10\]"),
        ({"params": {"layer1.weight": torch.ones(3, 8, 5)}}, "must be of 4 networks"),
    ],
)
def test_bad_input(changes, message):
    nets, params, _, x, y = problem()
    given = {"params": params, "inputs": x, "labels": y, "steps": 1} | changes
    with pytest.raises(ValueError, match=message):
        train_packed(nets[0], **given)


def test_models_of_different_shapes_are_not_stacked():
    with pytest.raises(ValueError, match="models must be networks of one shape"):
        stack_models([mlp([2, 3]), mlp([2, 4])])


class TestDeadUnits:
    def packed(self, density):
        nets = [mlp([5, 20, 15, 3], generator=generator(s), **KIND) for s in range(NETS)]
        params = stack_models(nets)
        masks = {
            name: torch.rand(p.shape, generator=generator(i)) < density
            for i, (name, p) in enumerate(params.items())
        }
        x = torch.randn(NETS, 12, 5, generator=generator(3), **KIND)
        return nets[0], params, masks, x, torch.randint(3, (NETS, 12), generator=generator(4))

    @pytest.mark.parametrize("density", [0.02, 0.1, 0.3, 1.0])
    def test_training_is_the_same_without_them(self, density):
        net, params, masks, x, y = self.packed(density)
        small = drop_dead_units(params, masks)
        options = {"steps": 20, "lr": 0.05, "optimizer": "adam"}
        full = train_packed(net, params, x, y, masks=masks, **options)
        less = train_packed(net, small.params, x, y, masks=small.masks, **options)
        torch.testing.assert_close(less.losses, full.losses, rtol=1e-10, atol=1e-12)
        restored = small.restore(less.params, params)
        for name, p in full.params.items():
            torch.testing.assert_close(restored[name] * masks[name], p, rtol=1e-9, atol=1e-11)
        if density < 0.2:
            assert small.params["layer2.weight"].numel() < params["layer2.weight"].numel() / 2
        if density == 1.0:
            assert small.params["layer2.weight"].shape == params["layer2.weight"].shape

    def test_by_hand(self):
        params = {"a": torch.arange(6.0).view(1, 3, 2), "b": torch.ones(1, 1, 3)}
        masks = {
            "a": torch.tensor([[[1, 0], [0, 0], [0, 1]]]).bool(),
            "b": torch.tensor([[[0, 1, 1]]]).bool(),
        }
        small = drop_dead_units(params, masks)  # unit 0 is not read, unit 1 is not reached
        assert small.params["a"].tolist() == [[[4.0, 5.0]]]
        assert small.masks["a"].tolist() == [[[False, True]]]
        assert small.masks["b"].tolist() == [[[True]]]

    def test_a_layer_without_mask_is_refused(self):
        with pytest.raises(ValueError, match=r"params\['a'\] must be weights \[S, out, in\]"):
            drop_dead_units({"a": torch.ones(1, 2, 3)}, {})


def test_losses_of_targets():
    nets, params, _, x, _ = problem()
    y = torch.randn(NETS, SAMPLES, 3, **KIND)
    run = train_packed(nets[0], params, x, y, steps=2, lr=0.0, loss_fn=F.mse_loss)
    wanted = [float(F.mse_loss(net(x[s]), y[s])) for s, net in enumerate(nets)]
    assert run.losses[0].tolist() == pytest.approx(wanted, rel=1e-12)
