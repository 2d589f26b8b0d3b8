"""Correlation with label noise: by hand, its error, the procedure written out, and errors."""

import pytest
import torch
import torch.nn.functional as F

import ntktheory.information.noise_correlation as module
from ntktheory import apply_masks
from ntktheory.information.noise_correlation import (
    noise_correlation,
    student_teacher,
    track_noise,
)
from ntktheory.training import train
from ntktheory.training.packed import train_packed

KIND = {"dtype": torch.float64}
SMALL = {"samples": 24, "dim": 5, "student": [8, 6], "teacher": [4], "fresh": 40} | KIND


def outputs(task, params, s, x):
    names = list(params)
    for name in names:
        x = x @ params[name][s].T
        x = x.relu() if name != names[-1] else x
    return x[:, 0]


def test_by_hand():
    task = student_teacher([0, 1], **SMALL)
    values, errors = noise_correlation(task, task.params)
    for s in range(2):
        f = outputs(task, task.params, s, task.inputs[s])
        fresh = outputs(task, task.params, s, task.fresh[s])
        z = task.noise[s]
        by_hand = sum(float((f[i] - fresh.mean()) * z[i]) for i in range(24)) / 24
        assert float(values[s]) == pytest.approx(by_hand, rel=1e-12)
        error = abs(float(z.mean())) * float(fresh.std()) / 40**0.5
        assert float(errors[s]) == pytest.approx(error, rel=1e-12)


def test_error_is_the_spread_over_fresh_inputs():
    base = student_teacher([0], **(SMALL | {"fresh": 40 * 400}))
    many = [
        type(base)(base.model, base.params, base.inputs, base.targets, base.noise, part, base.seeds)
        for part in base.fresh.split(40, dim=1)
    ]
    found = [noise_correlation(task, task.params) for task in many]
    spread = float(torch.cat([v for v, _ in found]).std())
    said = float(torch.cat([e for _, e in found]).square().mean().sqrt())
    assert said == pytest.approx(spread, rel=0.15)


def test_labels_are_the_teacher_s_and_noise_of_the_variance_asked_for():
    task = student_teacher(range(50), **(SMALL | {"noise_variance": 2.0, "samples": 200}))
    z = task.noise
    assert float(z.var()) == pytest.approx(2, abs=5 * 2 * (2 / z.numel()) ** 0.5)
    clean = task.targets[..., 0] - z
    quiet = student_teacher(range(50), **(SMALL | {"noise_variance": 1e-30, "samples": 200}))
    torch.testing.assert_close(clean, quiet.targets[..., 0], rtol=1e-9, atol=1e-9)
    assert float(clean.std()) > 0.3


def test_a_network_that_fits_everything_reaches_the_noise_s_own_size(monkeypatch):
    task = student_teacher([0], **(SMALL | {"student": [64, 64]}))
    trained = []

    def kept(*args, **options):
        trained.append(train_packed(*args, **options))
        return trained[-1]

    monkeypatch.setattr(module, "train_packed", kept)
    curve = track_noise(task, epochs=600, batch=24, lr=3e-3, every=600)
    value, loss = float(curve.values[-1]), float(curve.losses[-1])
    assert loss < 0.01
    f, fresh = (outputs(task, trained[-1].params, 0, x[0]) for x in (task.inputs, task.fresh))
    z, y, mean = task.noise[0], task.targets[0, :, 0], fresh.mean()
    assert value == pytest.approx(float(((f - mean) * z).mean()), rel=1e-10)
    short = (loss * float(z.square().mean())) ** 0.5  # of labels that it fits (Cauchy's inequality)
    assert value == pytest.approx(float(((y - mean) * z).mean()), abs=short)
    assert value > 5 * float(curve.values[0].abs())


@pytest.mark.parametrize("go_on", ["weights", "init"])
def test_pruning_is_the_procedure_written_out(go_on):
    task = student_teacher([3, 4], **SMALL)
    curve = track_noise(task, epochs=7, prune_every=3, every=2, batch=24, go_on=go_on)
    assert curve.epochs == (0, 2, 3, 3, 4, 6, 6, 7)
    assert curve.prunings == (3, 6)
    total = 5 * 8 + 8 * 6 + 6
    kept = [round(0.8 * total), round(0.8 * round(0.8 * total))]
    wanted = [1.0] * 3 + [kept[0] / total] * 3 + [kept[1] / total] * 2
    assert curve.densities == pytest.approx(wanted)
    for s in range(2):
        values = alone(task, s, kept, go_on)
        torch.testing.assert_close(
            curve.values[:, s], torch.tensor(values, **KIND), rtol=1e-9, atol=1e-12
        )


def alone(task, s, kept, go_on):
    """Values of one student by single steps of the loop; full batches, so no order matters."""
    net = student_teacher([task.seeds[s]], **SMALL).model
    start = {name: p.detach().clone() for name, p in net.named_parameters()}
    masks = {name: torch.ones_like(p).bool() for name, p in start.items()}
    theta, values = dict(start), [measure(task, s, start)]
    for phase, length in enumerate([3, 3, 1]):
        if phase:
            sizes = torch.cat(
                [torch.where(masks[n], theta[n].abs(), -1.0).flatten() for n in theta]
            )
            chosen = torch.zeros_like(sizes).bool()
            chosen[sizes.argsort(descending=True, stable=True)[: kept[phase - 1]]] = True
            parts = chosen.split([p.numel() for p in theta.values()])
            masks = {n: c.view(theta[n].shape) for n, c in zip(theta, parts, strict=True)}
            theta = dict(start) if go_on == "init" else theta
            values.append(measure(task, s, {n: theta[n] * masks[n] for n in theta}))
        for done in range(1, length + 1):
            model = apply_masks(net, masks)
            for n in theta:
                owner = model.get_submodule(n.removesuffix(".weight"))
                owner.parametrizations["weight"].original.data.copy_(theta[n])
            train(
                model, task.inputs[s], task.targets[s], steps=done, batch=24, optimizer="adam",
                lr=1e-3, schedule="constant", loss_fn=F.mse_loss,
            )  # fmt: skip
            now = {n: model.get_submodule(n.removesuffix(".weight")).weight.detach() for n in theta}
            epoch = 3 * phase + done
            if epoch % 2 == 0 or done == length:
                values.append(measure(task, s, now))
        theta = now
    return values


def measure(task, s, params):
    stacked = {n: torch.stack([p] * 2) for n, p in params.items()}
    return float(noise_correlation(task, stacked)[0][s])


def test_rates_and_noise_of_their_own():
    task = student_teacher([0, 1, 2], **SMALL)
    rates = torch.tensor([1e-4, 1e-3, 1e-2], **KIND)
    together = track_noise(task, epochs=4, lr=rates, batch=24)
    for s, rate in enumerate(rates.tolist()):
        single = track_noise(student_teacher([s], **SMALL), epochs=4, lr=rate, batch=24)
        torch.testing.assert_close(together.values[:, s], single.values[:, 0])
    calm = track_noise(task, epochs=4)
    noisy = track_noise(task, epochs=4, gradient_noise=0.3, noise_unit="relative")
    assert torch.equal(calm.values[0], noisy.values[0])
    assert not torch.equal(calm.values[-1], noisy.values[-1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: student_teacher([]), "seeds must be one or more"),
        (lambda: student_teacher([0], samples=0), "samples must be a positive integer"),
        (lambda: student_teacher([0], noise_variance=0.0), "noise_variance must be positive"),
        (lambda: student_teacher([0], init="zero"), "init must be one of"),  # type: ignore[arg-type]
        (lambda: tracked(epochs=0), "epochs must be a positive integer"),
        (lambda: tracked(prune_every=0), "prune_every must be a positive integer"),
        (lambda: tracked(batch=0), "batch must be a positive integer"),
        (lambda: tracked(lr=0.0), "lr must be positive and finite, got 0.0"),
        (lambda: tracked(lr=torch.tensor([-1.0])), "lr must be positive and finite"),
        (lambda: tracked(drop=0.0), r"drop must be inside \(0, 1\)"),
        (lambda: tracked(go_on="again"), "go_on must be one of 'init', 'weights'"),
        (lambda: tracked(gradient_noise=-0.1), "gradient_noise must be finite and not negative"),
        (lambda: tracked(noise_unit="percent"), "noise_unit must be one of"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def tracked(**options):
    return track_noise(student_teacher([0], **SMALL), **({"epochs": 1} | options))
