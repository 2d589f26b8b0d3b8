"""The mathematics inside the experiment on the law of robustness, and its record."""

import json
import math

import numpy as np
import pytest
import torch

from experiments import law_of_robustness as law
from ntktheory.information import robustness_lower_bound, samples_for_robustness


def small(seeds=2, d=3):
    nets = law.start_nets(d, seeds)
    return law.Nets(nets.first.double(), nets.second.double(), nets.masks)


def test_gradients_are_those_of_autograd():
    nets = small()
    x = torch.randn(2, 4, 3, generator=law.seeded(9), dtype=torch.float64).requires_grad_()
    law.outputs(nets.first, nets.second, x).sum().backward()
    gradients, norms = law.gradient_norms(nets, x.detach())
    assert torch.allclose(gradients, x.grad, rtol=1e-12)
    assert torch.allclose(norms, x.grad.norm(dim=2), rtol=1e-12)


def test_the_ends_enclose_and_meet_on_one_unit():
    first = torch.zeros(1, law.WIDTH, 2)
    second = torch.zeros(1, law.WIDTH)
    first[0, 7], second[0, 7] = torch.tensor([3.0, 4.0]), -2.0
    nets = law.Nets(first, second, (first, second))
    x, y = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.ones(1, 2)
    assert float(law.lipschitz_low(nets, x, y, 1)) == pytest.approx(10, rel=1e-12)
    assert float(law.lipschitz_high(nets)) == pytest.approx(10, rel=1e-12)


def test_the_low_end_is_below_the_high_end():
    x, y = law.data(8, 3, 2)
    nets = law.start_nets(3, 2)
    low, high = law.lipschitz_low(nets, x, y, 2), law.lipschitz_high(nets)
    assert (low <= high).all()
    slopes = law.gradient_norms(small(), x.double())[1].amax(1)
    assert (low >= slopes - 1e-12).all()


def test_masks_keep_what_was_asked():
    nets = law.randomly_masked(3, 2, 100)
    assert (nets.masks[0].sum((1, 2)) + nets.masks[1].sum(1)).tolist() == [100, 100]
    dense = law.start_nets(3, 2)
    kept = law.largest_of(dense, 50)
    for s in range(2):
        values = torch.cat([dense.first[s].flatten(), dense.second[s]]).abs()
        mask = torch.cat([kept.masks[0][s].flatten(), kept.masks[1][s]]) > 0
        assert values[mask].min() >= values[~mask].max()


def test_training_keeps_the_first_weights_that_fit():
    x, y = law.data(4, 3, 2)
    nets, losses = law.train(law.randomly_masked(3, 2, 400), x, y)
    assert (losses <= law.TARGET).all()
    found = (law.outputs(nets.first, nets.second, x) - y).square().mean(1)
    assert torch.allclose(found, losses, rtol=1e-5)
    assert (nets.first[nets.masks[0] == 0] == 0).all()


def test_exact_powers_are_recovered():
    runs = [
        {
            "mask": "random", "fitted": True, "n": n, "d": d, "kept": p,
            "lipschitz_low": 3 * n**0.7 * d**0.2 * p**-0.4,
        }
        for n in (2, 4, 8) for d in (3, 9) for p in (5, 25)
    ]  # fmt: skip
    found = law.fit([*runs, {"mask": "random", "fitted": False}], "random", "lipschitz_low")
    assert (found["runs"], found["left_out"]) == (12, 1)
    for name, expected in {"n": 0.7, "d": 0.2, "p": -0.4}.items():
        assert found["exponents"][name] == pytest.approx(
            dict.fromkeys(("value", "low", "high"), expected)
        )


def test_intervals_resample_whole_cells():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((30, 1))
    y = 2 * x[:, 0] + 0.3 * rng.standard_normal(30)
    once = law.regress(x, y, np.arange(30))[0]
    again = law.regress(np.repeat(x, 9, axis=0), np.repeat(y, 9), np.repeat(np.arange(30), 9))[0]
    assert again == pytest.approx(once, rel=1e-9)  # copies within a cell tell nothing new
    assert once[0] == pytest.approx(2, abs=0.2)
    assert 0.1 < once[2] - once[1] < 0.4


class TestRecord:
    record = json.loads(law.RECORD.read_text())

    def test_fits_follow_from_the_runs(self):
        for name, fit in self.record["fits"].items():
            mask, end = name.split(", ")
            again = law.fit(self.record["runs"], mask, end)
            assert again["slope"]["value"] == pytest.approx(fit["slope"]["value"], rel=1e-4)
            assert again["left_out"] == fit["left_out"]

    def test_bounds_are_the_library_s(self):
        for entry in self.record["bound_at_largest"]:
            for form, found in entry["forms"].items():
                n = samples_for_robustness(1 - law.TARGET, law.DELTA, form=form)
                bound = robustness_lower_bound(
                    entry["kept"], samples=n, dimension=entry["d"], epsilon=1 - law.TARGET,
                    delta=law.DELTA, form=form,
                )  # fmt: skip
                assert found["bound"] == pytest.approx(bound, rel=1e-5)

    def test_the_claim_s_record_has_the_same_runs(self):
        found = json.loads(law.CLAIM.read_text())
        assert found == law.claim_record(self.record)

    def test_every_cell_is_there(self):
        assert self.record["cells_not_started"] == []
        cells = {(r["n"], r["d"]) for r in self.record["runs"]}
        assert len(cells) == len(law.SAMPLES) * len(law.DIMENSIONS)

    def test_no_run_contradicts_the_theorem(self):
        for run in self.record["runs"]:
            if run["fitted"]:
                assert run["lipschitz_low"] <= run["lipschitz_high"] * (1 + 1e-6)
        constants = [e["forms"]["sharp"]["per_root"] for e in self.record["bound_at_largest"]]
        found = [
            r["lipschitz_low"] / math.sqrt(r["n"] * r["d"] / r["kept"])
            for r in self.record["runs"]
            if r["fitted"]
        ]
        assert min(found) > max(constants)
