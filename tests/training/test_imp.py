"""Masks from trained weights: against the procedure written out, rewinding, resuming, and errors."""

import itertools

import pytest
import torch
from torch import nn

from ntktheory import NumericalError, apply_masks
from ntktheory.models import mlp
from ntktheory.pruning import to_torch_prune
from ntktheory.training import (
    iterative_magnitude_pruning,
    magnitude_after,
    train,
    training_on,
)
from ntktheory.training.checkpoint import fingerprint, load_checkpoint, save_checkpoint
from ntktheory.training.imp import _resume, kept_counts

STEPS = 8


def problem():
    generator = torch.Generator().manual_seed(0)
    net = mlp([4, 9, 3], bias=True, dtype=torch.float64, generator=generator)
    x = torch.randn(12, 4, generator=generator, dtype=torch.float64)
    return net, x, torch.arange(12) % 3


def recorded(x, y, calls, **options):
    """A train_fn that notes where each training starts and what from."""
    inner = training_on(x, y, steps=STEPS, batch=5, lr=0.2, **options)

    def train_fn(model, *, first_step, on_step):
        calls.append((first_step, weights(model)))
        losses = inner(model, first_step=first_step, on_step=on_step)
        calls[-1] += (weights(model), losses)
        return losses

    return train_fn


def weights(model):
    """The weights of a masked network as they act, θ⊙m."""
    return {
        name: model.get_submodule(name).weight.detach().clone() for name in ("layer1", "layer2")
    }


def thetas(model):
    return {
        name: model.get_submodule(name).parametrizations["weight"].original.detach()
        for name in ("layer1", "layer2")
    }


def test_counts_by_hand():
    assert kept_counts(63, 20, 0.2) == [50, 40, 32, 26, 21, 20]
    assert kept_counts(63, 63) == []
    assert kept_counts(3, 1, 0.01) == [2, 1]  # at least one weight goes


@pytest.mark.parametrize("density", [1.0, 0.7, 0.3, 0.05, 0.01])
@pytest.mark.parametrize("method", [iterative_magnitude_pruning, magnitude_after])
def test_kept_weights_are_exact(method, density):
    net, x, y = problem()
    found = method(net, training_on(x, y, steps=2), density)
    kept = sum(int(m.sum()) for m in found.masks.values())
    assert kept == max(1, round(density * 63))
    assert found.density == kept / 63
    assert all(m.dtype == torch.bool for m in found.masks.values())
    assert [r.kept for r in found.history][-1:] == ([kept] if density < 1 else [])


def test_masks_are_nested_and_are_those_of_the_procedure():
    net, x, y = problem()
    start = {"layer1": net.layer1.weight.detach(), "layer2": net.layer2.weight.detach()}
    masks = {f"{name}.weight": torch.ones_like(w).bool() for name, w in start.items()}
    kept, seen = 63, []
    while kept > 20:
        model = apply_masks(net, masks)
        train(model, x, y, steps=STEPS, lr=0.2, generator=torch.Generator().manual_seed(3))
        sizes = torch.cat(
            [
                torch.where(masks[f"{n}.weight"], w.abs(), -1.0).flatten()
                for n, w in weights(model).items()
            ]
        )
        kept = max(20, round(0.8 * kept))
        chosen = torch.zeros(63, dtype=torch.bool)
        chosen[sizes.argsort(descending=True, stable=True)[:kept]] = True
        masks = {
            "layer1.weight": chosen[:36].view(9, 4),
            "layer2.weight": chosen[36:].view(3, 9),
        }
        seen.append(chosen)
    found = iterative_magnitude_pruning(
        net, training_on(x, y, steps=STEPS, lr=0.2, seed=3), 20 / 63
    )
    assert all(torch.equal(found.masks[name], m) for name, m in masks.items())
    assert all(bool((small <= large).all()) for large, small in itertools.pairwise(seen))
    assert len(found.history) == len(seen) > 3


def test_rewinding_to_the_start_restores_it_exactly():
    net, x, y = problem()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    calls = []
    found = iterative_magnitude_pruning(net, recorded(x, y, calls), 0.3)
    for name, theta in thetas(found.model).items():
        assert torch.equal(theta, net.get_submodule(name).weight)
    assert torch.equal(found.model.layer1.bias, net.layer1.bias)
    assert all(torch.equal(before[name], t) for name, t in net.state_dict().items())
    for first_step, start, *_ in calls:
        assert first_step == 0
        for name, w in start.items():
            whole = net.get_submodule(name).weight
            assert torch.equal(w, torch.where(w == 0, 0.0, whole))
    assert found.first_step == 0


def test_early_rewinding_restores_the_weights_of_that_step():
    net, x, y = problem()
    calls = []
    found = iterative_magnitude_pruning(
        net, recorded(x, y, calls), 0.3, rewind="early", rewind_step=3
    )
    early = apply_masks(net, {})
    snapshots = {}

    def on_step(step):
        snapshots[step] = {k: v.detach().clone() for k, v in early.state_dict().items()}

    training_on(x, y, steps=STEPS, batch=5, lr=0.2)(early, first_step=0, on_step=on_step)
    for name, theta in thetas(found.model).items():
        assert torch.equal(theta, snapshots[3][f"{name}.weight"])
        assert not torch.equal(theta, net.get_submodule(name).weight)
    assert [call[0] for call in calls] == [0] + [3] * (len(calls) - 1)
    assert [len(call[3]) for call in calls] == [STEPS] + [STEPS - 3] * (len(calls) - 1)
    assert found.first_step == 3


def test_learning_rate_rewinding_keeps_weights_and_repeats_the_schedule():
    net, x, y = problem()
    calls = []
    found = iterative_magnitude_pruning(
        net, recorded(x, y, calls), 0.3, rewind="learning_rate", rewind_step=2
    )
    assert len(calls) > 3
    for (_, _, end, _), (first_step, start, _, losses) in itertools.pairwise(calls):
        assert first_step == 2
        assert len(losses) == STEPS - 2
        for name, w in start.items():
            assert torch.equal(w, torch.where(w == 0, 0.0, end[name]))
            assert bool((w != 0).any())
    last = calls[-1][2]
    for name, theta in thetas(found.model).items():
        mask = found.masks[f"{name}.weight"]
        assert torch.equal(theta[mask], last[name][mask])
    assert found.first_step == 2


def test_schedule_is_entered_where_it_is_said():
    net, x, y = problem()
    whole, part = apply_masks(net, {}), apply_masks(net, {})
    snapshots = []

    def on_step(step):
        if step == 5:
            part.load_state_dict(whole.state_dict())
        snapshots.append(step)

    def order():
        return torch.Generator().manual_seed(1)

    options = {"steps": 9, "batch": 5, "lr": 0.3, "momentum": 0.0}
    losses = train(whole, x, y, generator=order(), on_step=on_step, **options)
    again = train(part, x, y, generator=order(), first_step=5, **options)
    assert again == losses[5:]  # plain gradient descent has no memory: rates and samples agree
    assert torch.equal(part.layer1.weight, whole.layer1.weight)
    assert snapshots == list(range(10))
    with pytest.raises(ValueError, match=r"first_step must be in 0…8, got 9"):
        train(part, x, y, first_step=9, **options)


def test_buffers_are_rewound():
    net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).eval()
    _, x, y = problem()
    found = iterative_magnitude_pruning(net, training_on(x.float(), y, steps=3), 0.5)
    assert torch.equal(found.model[1].running_mean, torch.zeros(6))
    kept = iterative_magnitude_pruning(
        net, training_on(x.float(), y, steps=3), 0.5, rewind="learning_rate"
    )
    assert not torch.equal(kept.model[1].running_mean, torch.zeros(6))


def test_history():
    net, x, y = problem()
    calls = []
    found = iterative_magnitude_pruning(net, recorded(x, y, calls), 0.3)
    for entry, call in zip(found.history, calls, strict=True):
        assert (entry.first_loss, entry.last_loss) == (call[3][0], call[3][-1])
        assert entry.density == entry.kept / 63
        layers = entry.per_layer
        kept = 36 * layers["layer1.weight"] + 27 * layers["layer2.weight"]
        assert kept == pytest.approx(entry.kept)
    final = torch.cat([w[found.masks[f"{n}.weight"]] for n, w in calls[-1][2].items()])
    assert found.history[-1].threshold == float(final.abs().min())


def test_a_killed_run_resumes(tmp_path):
    net, x, y = problem()
    options = {"rewind": "early", "rewind_step": 3, "checkpoint": tmp_path / "imp"}
    whole = iterative_magnitude_pruning(
        net, training_on(x, y, steps=STEPS), 0.2, rewind="early", rewind_step=3
    )
    calls = []
    inner = recorded(x, y, calls)

    def dies(model, **where):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(None)
        return training_on(x, y, steps=STEPS)(model, **where)

    with pytest.raises(KeyboardInterrupt):
        iterative_magnitude_pruning(net, dies, 0.2, **options)
    calls.clear()

    def counted(model, **where):
        calls.append(None)
        return training_on(x, y, steps=STEPS)(model, **where)

    resumed = iterative_magnitude_pruning(net, counted, 0.2, **options)
    assert len(calls) == len(whole.history) - 3
    assert all(torch.equal(resumed.masks[name], m) for name, m in whole.masks.items())
    for name, theta in thetas(whole.model).items():
        assert torch.equal(thetas(resumed.model)[name], theta)
    assert [r.threshold for r in resumed.history] == [r.threshold for r in whole.history]
    with pytest.raises(ValueError, match="checkpoint must be of the same call"):
        iterative_magnitude_pruning(net, inner, 0.3, **options)
    with torch.no_grad():
        net.layer1.weight[0, 0] += 1
    with pytest.raises(ValueError, match="checkpoint must be of the same call"):
        iterative_magnitude_pruning(net, inner, 0.2, **options)


def test_what_is_resumed_is_on_the_devices_of_the_model(tmp_path):
    """Files hold tensors of the CPU; "meta" stands for another device."""
    tensors = {
        "masks/a.weight": torch.tensor([True, False]),
        "state/a.weight": torch.ones(2),
        "state/a.steps": torch.ones(()),
        "early/a.weight": torch.zeros(2),
        "early/a.steps": torch.zeros(()),
    }
    save_checkpoint(tmp_path / "imp", tensors, {"counts": [1], "history": []})
    own_masks = {"a.weight": torch.ones(2, dtype=torch.bool, device="meta")}
    own_state = {"a.weight": torch.ones(2, device="meta"), "a.steps": torch.ones(())}
    masks, state, early, _ = _resume(tmp_path / "imp", {"counts": [1]}, own_masks, own_state)
    assert masks["a.weight"].device.type == "meta"
    for found, mine in ((state, "state"), (early, "early")):
        assert {n: t.device.type for n, t in found.items()} == {
            "a.weight": "meta",
            "a.steps": "cpu",
        }
        assert torch.equal(found["a.steps"], tensors[f"{mine}/a.steps"])


def stopped_after(rounds, train_fn):
    """The same training, killed after so many rounds."""
    left = [rounds]

    def dies(model, **where):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return train_fn(model, **where)

    if hasattr(train_fn, "fingerprint"):
        dies.fingerprint = train_fn.fingerprint
    return dies


def trained_on(scale=1.0, flipped=False, **options):
    _, x, y = problem()
    options = {"steps": 3, "lr": 0.2} | options
    return training_on(scale * x, y.flip(0) if flipped else y, **options)


def mean_square(z, y):
    return (z**2).mean()


@pytest.mark.parametrize(
    "other",
    [
        {"scale": 3.0},
        {"flipped": True},
        {"steps": 30},
        {"lr": 1.0},
        {"seed": 1},
        {"momentum": 0.0},
        {"batch": 5},
        {"loss_fn": mean_square},
    ],
)
def test_a_checkpoint_of_another_training_is_refused(tmp_path, other):
    net, path = problem()[0], tmp_path / "imp"
    with pytest.raises(KeyboardInterrupt):
        iterative_magnitude_pruning(net, stopped_after(2, trained_on()), 0.2, checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="checkpoint must be of the same call"):
        iterative_magnitude_pruning(net, trained_on(**other), 0.2, checkpoint=path)
    with pytest.raises(ValueError, match="checkpoint must be of the same call"):
        iterative_magnitude_pruning(net, lambda *_, **__: [0.0], 0.2, checkpoint=path)
    assert path.read_bytes() == before
    spelled = trained_on(momentum=0.9, batch=128, seed=0, progress=False)
    found = iterative_magnitude_pruning(net, spelled, 0.2, checkpoint=path)
    whole = iterative_magnitude_pruning(net, trained_on(), 0.2)
    assert all(torch.equal(found.masks[name], m) for name, m in whole.masks.items())


def test_trainings_of_ones_own_are_told_apart_by_their_fingerprint(tmp_path):
    net, path = problem()[0], tmp_path / "imp"

    def own(fingerprint=None):
        inner = trained_on()

        def train_fn(model, **where):
            return inner(model, **where)

        if fingerprint is not None:
            train_fn.fingerprint = lambda: fingerprint
        return train_fn

    for mark, other in (({"run": 1}, {"run": 2}), ({"run": 1}, None), (None, {"run": 1})):
        path.unlink(missing_ok=True)
        with pytest.raises(KeyboardInterrupt):
            iterative_magnitude_pruning(net, stopped_after(1, own(mark)), 0.3, checkpoint=path)
        with pytest.raises(ValueError, match="checkpoint must be of the same call"):
            iterative_magnitude_pruning(net, own(other), 0.3, checkpoint=path)
        assert iterative_magnitude_pruning(net, own(mark), 0.3, checkpoint=path).history[0].kept


# Models that carry masks already.


def plain(name):
    return name.replace("parametrizations.", "").removesuffix(".original")


@pytest.mark.parametrize("masked", [("layer1",), ("layer1", "layer2")])
@pytest.mark.parametrize("rewind", [("init", 0), ("early", 2), ("learning_rate", 1)])
@pytest.mark.parametrize("method", [iterative_magnitude_pruning, magnitude_after])
def test_a_masked_model_goes_on_from_its_masks(method, rewind, masked):
    net, x, y = problem()
    generator = torch.Generator().manual_seed(4)
    first = {
        f"{name}.weight": torch.rand(w.shape, generator=generator) < 0.7
        for name, w in weights(net).items()
        if name in masked
    }
    model = apply_masks(net, first)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    kind, step = rewind
    train_fn = training_on(x, y, steps=4, lr=0.2)
    found = method(model, train_fn, 0.2, rewind=kind, rewind_step=step)
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert sum(int(m.sum()) for m in found.masks.values()) == round(0.2 * 63)
    for name, mask in found.masks.items():
        if plain(name) in first:
            assert name == f"{plain(name)[:6]}.parametrizations.weight.original"
            assert bool((mask <= first[plain(name)]).all())
    again = apply_masks(model, found.masks)
    assert list(again.state_dict()) == list(found.model.state_dict())
    for name, mask in found.masks.items():
        acting = found.model.get_submodule(plain(name)[:6]).weight
        assert torch.equal(acting != 0, mask)
    if kind == "init":
        assert torch.equal(found.model(x), again(x))
    # The very masks of the dense model where the first training is the same but for them.
    if method is magnitude_after:
        trained = apply_masks(net, first)
        train_fn(trained)
        sizes = torch.cat([w.abs().flatten() for w in weights(trained).values()])
        chosen = torch.zeros(63, dtype=torch.bool)
        chosen[sizes.argsort(descending=True, stable=True)[:13]] = True
        assert torch.equal(torch.cat([m.flatten() for m in found.masks.values()]), chosen)


def test_rounds_of_a_masked_model_count_from_what_it_has_left(tmp_path):
    net, x, y = problem()
    masks = {"layer1.weight": torch.arange(36).view(9, 4) < 13}  # 13 of 36, and 27 of 27
    model, train_fn = apply_masks(net, masks), training_on(x, y, steps=2)
    options = {"checkpoint": tmp_path / "imp"}
    whole = iterative_magnitude_pruning(model, train_fn, 20 / 63)
    assert [r.kept for r in whole.history] == kept_counts(40, 20)
    with pytest.raises(KeyboardInterrupt):
        iterative_magnitude_pruning(model, stopped_after(2, train_fn), 20 / 63, **options)
    other = apply_masks(net, {"layer1.weight": torch.arange(36).view(9, 4) >= 23})
    with pytest.raises(ValueError, match="checkpoint must be of the same call"):
        iterative_magnitude_pruning(other, train_fn, 20 / 63, **options)
    resumed = iterative_magnitude_pruning(model, train_fn, 20 / 63, **options)
    assert all(torch.equal(resumed.masks[name], m) for name, m in whole.masks.items())
    same = iterative_magnitude_pruning(model, train_fn, 40 / 63)
    assert same.history == ()
    assert same.density == 40 / 63
    for method in (iterative_magnitude_pruning, magnitude_after):
        with pytest.raises(
            ValueError, match=r"density must be at most 0\.634921, what the model's"
        ):
            method(model, train_fn, 0.7)


@pytest.mark.parametrize("method", [iterative_magnitude_pruning, magnitude_after])
def test_a_frozen_model(method):
    net, x, y = problem()
    net.requires_grad_(False)
    with pytest.raises(ValueError, match="model must be a network with parameters to train"):
        method(net, training_on(x, y, steps=2), 0.5)


@pytest.mark.parametrize("method", [iterative_magnitude_pruning, magnitude_after])
def test_a_layer_without_a_weight_of_its_own(method):
    net, x, y = problem()
    pruned = to_torch_prune(net, {"layer2.weight": torch.ones(3, 9)})
    with pytest.raises(ValueError, match=r"model must be .*'layer2' with a mask of torch"):
        method(pruned, training_on(x, y, steps=2), 0.5)


class TestCheckpoint:
    def test_there_and_back(self, tmp_path):
        tensors = {"a": torch.randn(2, 3), "b": torch.tensor([True, False])}
        save_checkpoint(tmp_path / "c", tensors, {"round": 2})
        read, values = load_checkpoint(tmp_path / "c")
        assert values == {"round": 2}
        assert all(torch.equal(read[name], t) for name, t in tensors.items())
        assert [p.name for p in tmp_path.iterdir()] == ["c"]

    def test_damaged(self, tmp_path):
        (tmp_path / "c").write_bytes(b"nothing of the kind")
        with pytest.raises(ValueError, match="checkpoint must be a file that a killed run left"):
            load_checkpoint(tmp_path / "c")

    def test_fingerprint_sees_every_change(self):
        base = {"a": torch.zeros(2), "b": torch.ones(1)}
        others = [
            {"a": torch.zeros(2), "b": torch.ones(1) * 2},
            {"a": torch.zeros(2, 1), "b": torch.ones(1)},
            {"a": torch.zeros(2), "c": torch.ones(1)},
            {"a": torch.zeros(2).double(), "b": torch.ones(1)},
        ]
        assert fingerprint(base) == fingerprint(dict(reversed(base.items())))
        assert all(fingerprint(base) != fingerprint(other) for other in others)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"density": 0.0}, r"density must be a fraction in \(0, 1\]"),
        ({"density": 0.001}, "density must be at least"),
        ({"drop": 1.0}, r"drop must be inside \(0, 1\)"),
        ({"rewind": "never"}, "rewind must be one of 'early', 'init', 'learning_rate'"),
        ({"rewind_step": 1}, "rewind_step of 'init' must be 0, got 1"),
        (
            {"rewind": "early", "rewind_step": -1},
            "rewind_step of 'early' must be a number of steps",
        ),
        (
            {"rewind": "early", "rewind_step": 99},
            r"rewind_step must be a step that train_fn reports",
        ),
    ],
)
def test_bad_options(options, message):
    net, x, y = problem()
    with pytest.raises(ValueError, match=message):
        iterative_magnitude_pruning(net, training_on(x, y, steps=2), **({"density": 0.5} | options))


def test_nothing_to_prune():
    net = nn.LayerNorm(4).eval()
    with pytest.raises(ValueError, match="model must be a network with prunable weights"):
        magnitude_after(net, training_on(torch.ones(2, 4), torch.zeros(2).long(), steps=1), 0.5)


def test_diverging_training_is_refused():
    net, x, y = problem()
    with pytest.raises(NumericalError, match="loss at step"):
        magnitude_after(net, training_on(x, y, steps=50, lr=1e200, momentum=0.0), 0.5)
