"""Memorisation: data and thresholds by hand, the stopping rules, methods end to end, and errors."""

import math

import pytest
import torch
import torch.nn.functional as F

from ntktheory import apply_masks
from ntktheory.data import load_data
from ntktheory.information.memorization import (
    THRESHOLD_NATS,
    Training,
    masks_of,
    memorised,
    noisy_image_pack,
    random_label_pack,
    train_pack,
)
from ntktheory.information.streams import stream
from ntktheory.training import train

KIND = {"dtype": torch.float64}


def all_kept(pack):
    return {name: torch.ones_like(p).bool() for name, p in pack.params.items()}


def small(seeds=(0, 1, 2), **options):
    return random_label_pack(seeds, samples=12, dim=8, width=20, **(KIND | options))


class TestPacks:
    def test_random_labels(self):
        pack = random_label_pack(range(400), samples=20, dim=5, width=3)
        x, y = pack.inputs.double(), pack.labels.double()
        assert x.shape == (400, 20, 5)
        assert abs(float(x.mean())) < 5 / x.numel() ** 0.5
        assert float(x.var()) == pytest.approx(1, abs=5 * (2 / x.numel()) ** 0.5)
        assert abs(float(y.mean()) - 0.5) < 2.5 / y.numel() ** 0.5
        assert set(pack.labels.unique().tolist()) == {0, 1}
        assert not torch.equal(pack.inputs[0], pack.inputs[1])

    @pytest.mark.parametrize(("init", "variance"), [("he", 2 / 8), ("torch", 1 / (3 * 8))])
    def test_inits(self, init, variance):
        pack = random_label_pack(range(30), dim=8, width=50, init=init)
        weights = pack.params["layer1.weight"].double()
        assert float(weights.var()) == pytest.approx(variance, rel=0.06)
        if init == "torch":
            assert float(weights.abs().max()) <= 8**-0.5

    def test_a_seed_decides_alone(self):
        one, two = random_label_pack([3], width=4), random_label_pack([1, 3], width=4)
        assert torch.equal(one.inputs[0], two.inputs[1])
        assert torch.equal(one.params["layer2.weight"][0], two.params["layer2.weight"][1])

    def test_noise_on_images(self):
        images, labels = load_data("digits", 50)
        pack = noisy_image_pack(images, labels, range(20), noise_variance=3.0, widths=[5])
        noise = (pack.inputs - images.flatten(1)).double()
        assert float(noise.var()) == pytest.approx(3, abs=15 * (2 / noise.numel()) ** 0.5)
        assert not torch.equal(noise[0], noise[1])
        assert torch.equal(pack.labels[4], labels)
        assert pack.params["layer2.weight"].shape == (20, 10, 5)
        calm = noisy_image_pack(images, labels, [0], noise_variance=0.0, widths=[5])
        assert torch.equal(calm.inputs[0], images.flatten(1))


class TestCounting:
    def test_threshold_by_hand(self):
        assert math.exp(-THRESHOLD_NATS) == pytest.approx(2 ** (-0.1))
        pack = small()
        masks, none = all_kept(pack), Training(lr=1e-12, epochs=1)
        losses = torch.stack(
            [
                F.cross_entropy(self.outputs(pack, s), pack.labels[s], reduction="none")
                for s in range(3)
            ]
        )
        for threshold in (0.2, 0.7, 1.5):
            found = memorised(pack, masks, none, threshold_nats=threshold)
            assert found.counts.tolist() == (losses <= threshold).sum(1).tolist()
        right = [int((self.outputs(pack, s).argmax(1) == pack.labels[s]).sum()) for s in range(3)]
        assert found.correct.tolist() == right
        torch.testing.assert_close(found.loss, losses.mean(1))
        assert found.samples == 12

    @staticmethod
    def outputs(pack, s):
        x = pack.inputs[s]
        for layer in (1, 2, 3):
            x = x @ pack.params[f"layer{layer}.weight"][s].T
            x = x.relu() if layer < 3 else x
        return x

    def test_a_dense_network_memorises_all_and_an_empty_one_nothing(self):
        pack = small()
        masks = all_kept(pack)
        assert memorised(pack, masks, Training(epochs=400)).counts.tolist() == [12] * 3
        none = {name: torch.zeros_like(m) for name, m in masks.items()}
        found = memorised(pack, none, Training(epochs=3))
        assert found.counts.tolist() == [0] * 3
        assert found.loss.tolist() == pytest.approx([math.log(2)] * 3)

    def test_training_is_that_of_the_loop(self):
        pack = small()
        masks = {
            name: torch.rand(p.shape, generator=torch.Generator().manual_seed(i)) < 0.2
            for i, (name, p) in enumerate(pack.params.items())
        }
        trained, epochs = train_pack(pack, masks, Training(epochs=5, batch=5))
        for s, seed in enumerate(pack.seeds):
            net = small([seed]).model
            sparse = apply_masks(net, {name: m[s] for name, m in masks.items()})
            train(
                sparse, pack.inputs[s], pack.labels[s], steps=15, batch=5, optimizer="adam",
                lr=1e-2, schedule="constant", generator=stream(seed, "order of samples"),
            )  # fmt: skip
            for name, p in trained.items():
                alone = sparse.get_submodule(name.removesuffix(".weight")).weight
                torch.testing.assert_close(
                    p[s] * masks[name][s], alone.detach(), rtol=1e-9, atol=1e-11
                )
        assert epochs.tolist() == [5] * 3


class TestStopping:
    def test_level(self):
        pack = small()
        found = memorised(pack, all_kept(pack), Training(epochs=500, stop="level", patience=400))
        assert bool((found.loss <= 0.01).all())
        assert bool((found.epochs < 500).all())
        assert len(set(found.epochs.tolist())) > 1
        for s, epochs in enumerate(found.epochs.tolist()):
            one = small([pack.seeds[s]])
            before = memorised(one, all_kept(one), Training(epochs=epochs - 1))
            assert float(before.loss[0]) > 0.01

    def test_change(self):
        pack = small()
        options = {"stop": "change", "patience": 400, "lr": 1e-3}
        found = memorised(pack, all_kept(pack), Training(epochs=500, **options))
        for s, epochs in enumerate(found.epochs.tolist()):
            one = small([pack.seeds[s]])
            losses = [
                float(memorised(one, all_kept(one), Training(epochs=e, lr=1e-3)).loss[0])
                for e in range(1, epochs + 1)
            ]
            changes = [abs(a - b) for a, b in zip(losses[1:], losses, strict=False)]
            assert [c <= 0.01 for c in changes] == [False] * (len(changes) - 1) + [True]

    def test_accuracy_that_stands_still(self):
        pack = small()
        none = {name: torch.zeros_like(p).bool() for name, p in pack.params.items()}
        found = memorised(pack, none, Training(epochs=50, stop="level", patience=3))
        assert found.epochs.tolist() == [4] * 3  # the same after epochs 1, 2, 3 and 4


@pytest.mark.parametrize("method", ["imp", "magnitude_after", "snip", "synflow", "random", "px"])
def test_masks_of_a_method(method):
    pack = small()
    total = sum(p[0].numel() for p in pack.params.values())
    found = masks_of(pack, method, [0.5, 0.1, 0.02], Training(epochs=10), rounds=None)
    for density, masks in found.items():
        kept = sum(m.flatten(1).sum(1) for m in masks.values())
        assert kept.tolist() == [max(1, round(density * total))] * 3


def test_learned_masks_see_the_labels():
    pack = small()
    other = random_label_pack(pack.seeds, samples=12, dim=8, width=20, **KIND)
    flipped = type(pack)(other.model, other.params, other.inputs, 1 - other.labels, other.seeds)
    for method, sees in (("magnitude_after", True), ("synflow", False)):
        a = masks_of(pack, method, [0.1], Training(epochs=30))[0.1]
        b = masks_of(flipped, method, [0.1], Training(epochs=30))[0.1]
        assert any(not torch.equal(a[name], b[name]) for name in a) == sees


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: random_label_pack([]), "seeds must be one or more, all different"),
        (lambda: random_label_pack([1, 1]), "seeds must be one or more, all different"),
        (lambda: random_label_pack([0], samples=0), "samples must be a positive integer"),
        (lambda: random_label_pack([0], init="zero"), "init must be one of 'he', 'torch'"),  # type: ignore[arg-type]
        (lambda: random_label_pack([0], width=0), "widths must be"),
        (
            lambda: noisy_image_pack(torch.ones(2, 3), torch.tensor([0, 1]), [0], noise_variance=-1),
            "noise_variance must be finite and not negative, got -1",
        ),
        (
            lambda: noisy_image_pack(torch.ones(2, 3), torch.tensor([0, -1]), [0]),
            "labels must be 2 classes 0, 1, …, got torch.int64 of shape .* from -1",
        ),
        (lambda: noisy_image_pack(torch.ones(2, 3), torch.zeros(2), [0]), "labels must be 2 classes"),
        (lambda: masks_of(small(), "best", [0.1], Training()), "method must be one of"),
        (lambda: masks_of(small(), "random", [0.0], Training()), "density must be a fraction"),
        (
            lambda: train_pack(small(), all_kept(small()), Training(stop="never")),  # type: ignore[arg-type]
            "stop must be one of 'change', 'level', 'steps'",
        ),
        (
            lambda: memorised(small(), all_kept(small()), Training(epochs=0)),
            "epochs must be a positive integer",
        ),
        (
            lambda: memorised(small(), all_kept(small()), Training(), threshold_nats=0.0),
            "threshold_nats must be positive",
        ),
        (lambda: trained(lr=0.0), "lr must be positive and finite, got 0.0"),
        (lambda: trained(lr=math.inf), "lr must be positive and finite, got inf"),
        (lambda: trained(momentum=1.0), r"momentum must be in \[0, 1\), got 1.0"),
        (lambda: trained(tolerance=-0.1), "tolerance must be finite and not negative, got -0.1"),
        (
            lambda: masks_of(small(), "imp", [0.1], Training(), drop=1.0),
            r"drop must be inside \(0, 1\), got 1.0",
        ),
        (
            lambda: masks_of(small(), "snip", [0.1], Training(), rounds=0),
            "rounds must be a positive integer",
        ),
        (
            lambda: load_data("fashion_mnist", 10, data_dir="nowhere"),
            "data_dir must be a folder that holds fashion_mnist/train-images",
        ),
    ],
)  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def trained(**options):
    return train_pack(small(), all_kept(small()), Training(**options))


def test_masks_that_see_no_data_do_not_depend_on_them():
    """A scorer's random numbers are not those that drew the data (the same seed drew both)."""
    pack = random_label_pack(range(200), samples=6, dim=6, width=6)
    random = masks_of(pack, "random", [0.5], Training())[0.5]["layer1.weight"]
    overlap = torch.corrcoef(torch.stack([random.flatten().double(), pack.inputs.abs().flatten()]))
    assert abs(float(overlap[0, 1])) < 4 / random.numel() ** 0.5
    uniform = torch.rand(36, generator=stream(0, "data and weights"))
    assert not torch.equal(uniform, torch.rand(36, generator=stream(0, "scorer")))
    assert torch.equal(uniform, torch.rand(36, generator=stream(0, "data and weights")))


def test_looks_at_the_stop_rule():
    pack = random_label_pack([0], samples=8, dim=4, width=5)
    none = {name: torch.zeros_like(p, dtype=torch.bool) for name, p in pack.params.items()}
    ends = [
        int(memorised(pack, none, Training(epochs=20, stop="level", **rule)).epochs[0])
        for rule in ({}, {"look_every": 3}, {"patience": 1}, {"patience": None})
    ]
    assert ends == [4, 12, 2, 20]
