"""The toy: its data sets, learner and masks against the definition, and its exact information."""

import math
from collections import Counter, defaultdict
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import entropy

import ntktheory.information.toy_learner as toy_learner
from ntktheory import NumericalError
from ntktheory.information import (
    exact_mask_information,
    mask_information,
    reference_enumeration,
    reference_toy,
)
from ntktheory.information.code_words import code_word, mask_of
from ntktheory.information.enumeration import information_of_masks
from ntktheory.information.toy_data import toy_data
from ntktheory.information.toy_learner import train
from ntktheory.information.toy_masks import (
    masks_by_rank,
    near_tie,
    scores_at,
    toy_masks,
)
from ntktheory.information.toy_network import ToyNetwork, initial_weights
from ntktheory.pruning.scorers import SCORERS, register_scorer

NETWORKS = [ToyNetwork(width=4), ToyNetwork(width=3, loss="cross_entropy"),
            ToyNetwork(width=3, loss="logistic")]  # fmt: skip
SETTINGS: dict[str, Any] = {"steps": 8, "lr": 0.3}


@pytest.fixture(scope="module")
def small():
    """Return all multisets of three points of {±1}²: 120 data sets."""
    return toy_data(3, 2)


@pytest.fixture(scope="module")
def everything():
    """Return the toy itself."""
    return toy_data()


def small_network(loss, width=2):
    return ToyNetwork(2, width, loss)


def kept_at_random(network, data, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(network.size, len(data), generator=generator) < 0.6


class TestData:
    def test_how_many(self, everything):
        data = everything
        assert (len(data), data.law.total) == (54_264, 16**6)
        assert int(data.law.numerators.sum()) == 16**6
        assert int(data.counts.sum((0, 1)).min()) == int(data.counts.sum((0, 1)).max()) == 6
        apart = toy_data(replacement=False)
        assert (len(apart), apart.law.total) == (1792, math.comb(8, 6) * 2**6)
        assert int(apart.counts.sum(0).max()) == 1

    def test_weights_are_those_of_all_sequences(self, small):
        wanted = reference_enumeration.data_sets(3, 2)
        found = {}
        for i, weight in enumerate(small.law.numerators):
            x, y = small.points(i, i + 1)
            drawn = zip(map(tuple, x[0].int().tolist()), y[0].int().tolist(), strict=True)
            found[tuple(sorted(drawn))] = Fraction(int(weight), small.law.total)
        assert found == wanted

    def test_points_are_the_counts(self, everything):
        data = everything
        x, y = data.points(30_000, 30_003)
        for i in range(3):
            drawn = Counter(zip(map(tuple, x[i].tolist()), y[i].tolist(), strict=True))
            for label, number in ((-1.0, 0), (1.0, 1)):
                for j, point in enumerate(data.inputs.tolist()):
                    assert drawn[tuple(point), label] == data.counts[number, j, 30_000 + i]

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            ({"samples": 0}, r"samples must be a positive integer, got 0"),
            ({"dimension": True}, r"dimension must be a positive integer, got True"),
            ({"samples": 9, "replacement": False}, r"samples must be at most 8, got 9\. Inputs"),
            ({"samples": 12}, r"samples must be few: at most 2,000,000 data sets, got 17,383,860"),
        ],
    )
    def test_what_cannot_be_enumerated_is_refused(self, arguments, text):
        with pytest.raises(ValueError, match=text):
            toy_data(**arguments)


class TestNetwork:
    @pytest.mark.parametrize(("network", "size"), list(zip(NETWORKS, (21, 20, 16), strict=True)))
    def test_the_number_of_parameters(self, network, size):
        assert network.size == size == len(initial_weights(network, 0))

    def test_initial_weights_have_their_law(self):
        network = ToyNetwork(width=2000)
        named = network.split(initial_weights(network, 1))
        assert float(named["layer1.weight"].var()) == pytest.approx(2 / 3, rel=0.1)
        assert float(named["layer2.weight"].var()) == pytest.approx(2 / 2000, rel=0.1)
        assert 0.98 * 3**-0.5 < float(named["layer1.bias"].abs().max()) <= 3**-0.5
        other = network.split(initial_weights(network, 1, "uniform"))
        assert 0.98 * 3**-0.5 < float(other["layer1.weight"].abs().max()) <= 3**-0.5
        assert 0.98 * 2000**-0.5 < float(other["layer2.weight"].abs().max()) <= 2000**-0.5
        assert float(other["layer1.weight"].var()) == pytest.approx(1 / 9, rel=0.1)

    def test_bad_names_and_numbers_are_refused(self):
        with pytest.raises(ValueError, match="loss must be one of 'cross_entropy', 'logistic'"):
            ToyNetwork(loss="hinge")
        with pytest.raises(ValueError, match="width must be a positive integer, got 0"):
            ToyNetwork(width=0)
        with pytest.raises(ValueError, match="init must be one of 'kaiming_normal', 'uniform'"):
            initial_weights(ToyNetwork(), 0, "zeros")


class TestTraining:
    @pytest.mark.parametrize("masked", [False, True])
    @pytest.mark.parametrize("network", NETWORKS, ids=lambda n: n.loss)
    def test_is_autograd_on_the_points(self, everything, network, masked):
        data = everything
        start = initial_weights(network, 5)
        kept = kept_at_random(network, data) if masked else None
        found = train(data, network, start, kept, **SETTINGS)
        for i in range(0, len(data), 4409):
            x, y = data.points(i, i + 1)
            keep = torch.ones(network.size).double() if kept is None else kept[:, i].double()
            wanted = reference_toy.train_one(network, start, x[0], y[0], keep, **SETTINGS)
            torch.testing.assert_close(found[:, i], wanted, rtol=1e-11, atol=1e-13)

    @pytest.mark.parametrize("loss", ["mse", "cross_entropy", "logistic"])
    @pytest.mark.parametrize("seed", range(4))
    def test_every_small_data_set_every_kind_of_mask(self, small, loss, seed):
        network = small_network(loss)
        start, kept = initial_weights(network, seed), kept_at_random(network, small, seed)
        found = train(small, network, start, kept, **SETTINGS)
        for i in range(seed, len(small), 4):
            x, y = small.points(i, i + 1)
            keep = kept[:, i].double()
            wanted = reference_toy.train_one(network, start, x[0], y[0], keep, **SETTINGS)
            torch.testing.assert_close(found[:, i], wanted, rtol=1e-11, atol=1e-13)
            assert bool((found[~kept[:, i], i] == 0).all())

    @pytest.mark.parametrize("loss", ["mse", "cross_entropy", "logistic"])
    @pytest.mark.parametrize("masked", [False, True])
    def test_outgoing_weights_that_start_without_effect(self, small, loss, masked):
        """Unit 0 starts with zeros, unit 1 with equal rows of the two logits; both are active."""
        network = small_network(loss, width=3)
        start = torch.rand(network.size, generator=torch.Generator().manual_seed(0)).double()
        network.split(start)["layer2.weight"][:, 0] = 0
        network.split(start)["layer2.weight"][:, 1] = 0.5 if loss == "cross_entropy" else 0
        kept = kept_at_random(network, small) if masked else torch.ones(network.size, 120).bool()
        found = train(small, network, start, kept, **SETTINGS)
        moved = network.split(found - start.unsqueeze(1) * kept)["layer2.weight"]
        assert bool((moved[:, :2] != 0).any(-1).all())
        for i in range(0, len(small), 7):
            x, y = small.points(i, i + 1)
            keep = kept[:, i].double()
            wanted = reference_toy.train_one(network, start, x[0], y[0], keep, **SETTINGS)
            torch.testing.assert_close(found[:, i], wanted, rtol=1e-11, atol=1e-13)

    def test_blocks_do_not_matter(self, small):
        network = small_network("mse")
        start, kept = initial_weights(network, 0), kept_at_random(network, small)
        one = train(small, network, start, kept, chunk=1, **SETTINGS)
        all_ = train(small, network, start, kept, chunk=10**6, **SETTINGS)
        torch.testing.assert_close(one, all_, rtol=1e-12, atol=1e-14)

    def test_threads_do_not_matter(self, small, monkeypatch):
        network, start = small_network("mse"), initial_weights(small_network("mse"), 0)
        alone = train(small, network, start, chunk=50, **SETTINGS)
        before = torch.get_num_threads()
        monkeypatch.setattr(toy_learner.torch, "get_num_threads", lambda: 4)
        found = train(small, network, start, chunk=50, **SETTINGS)
        torch.set_num_threads(before)
        assert torch.equal(found, alone)

    def test_torch_keeps_its_threads(self, small):
        before = torch.get_num_threads()
        network = small_network("mse")
        train(small, network, initial_weights(network, 0), steps=1, lr=0.1)
        assert torch.get_num_threads() == before

    def test_one_step_by_hand(self):
        # f = 2·max(0, x + 1) + 3 on the only point (1, −1): f = 7, loss (f + 1)², slope 16
        data = toy_data(1, 1)
        at = next(i for i in range(4) if data.points(i, i + 1)[0].item() == 1
                  and data.points(i, i + 1)[1].item() == -1)  # fmt: skip
        start = torch.tensor([1.0, 1.0, 2.0, 3.0], dtype=torch.float64)
        found = train(data, ToyNetwork(1, 1), start, steps=1, lr=0.01)[:, at]
        assert found.tolist() == pytest.approx([1 - 0.32, 1 - 0.32, 2 - 0.32, 3 - 0.16])

    @pytest.mark.parametrize("method", ["imp", "magnitude_after"])
    def test_inits_side_by_side(self, small, method):
        network = small_network("cross_entropy")
        starts = [initial_weights(network, seed) for seed in range(3)]
        alone = [toy_masks(method, small, network, start, **SETTINGS).codes for start in starts]
        stacked = torch.stack(starts, 1).repeat_interleave(len(small), 1)
        together = toy_masks(method, small.repeated(3), network, stacked, **SETTINGS).codes
        assert torch.equal(together, torch.cat(alone, 1))
        assert small.repeated(3).law.total == 3 * small.law.total

    def test_no_steps(self, small):
        network = small_network("cross_entropy")
        start, kept = initial_weights(network, 0), kept_at_random(network, small)
        found = train(small, network, start, kept, steps=0, lr=0.1)
        assert torch.equal(found, start.unsqueeze(1) * kept)

    @pytest.mark.parametrize(
        ("changes", "text"),
        [
            ({"steps": -1}, "steps must be a non-negative integer, got -1"),
            ({"lr": 0.0}, "lr must be positive and finite, got 0.0"),
            ({"start": torch.ones(3)}, r"start must be of shape \[9\] or \[9, 120\], got \[3\]"),
            ({"kept": torch.ones(9, 3)}, r"kept must be of shape \[9, 120\], got \[9, 3\]"),
        ],
    )
    def test_bad_input_is_refused(self, small, changes, text):
        arguments = {"start": torch.ones(9).double(), "steps": 1, "lr": 0.1, **changes}
        with pytest.raises(ValueError, match=text):
            train(small, small_network("mse"), **arguments)


class TestMasks:
    @pytest.mark.parametrize("method", ["imp", "magnitude_after"])
    @pytest.mark.parametrize("loss", ["mse", "cross_entropy", "logistic"])
    def test_trained_masks_are_the_definition(self, small, loss, method):
        network = small_network(loss)
        start = initial_weights(network, 2)
        found = toy_masks(method, small, network, start, **SETTINGS)
        assert not bool(found.near_ties.any())
        slow = {"imp": reference_toy.imp, "magnitude_after": reference_toy.magnitude_after}[method]
        for i in range(0, len(small), 11):
            x, y = small.points(i, i + 1)
            wanted = slow(network, start, x[0], y[0], **SETTINGS)
            assert [code_word(mask) for mask in wanted] == found.codes[:, i].tolist()

    @pytest.mark.parametrize("network", NETWORKS, ids=lambda n: n.loss)
    @pytest.mark.parametrize("scorer", ["snip", "grasp", "px", "path_edge", "t_sq"])
    def test_scores_are_the_scorer_on_the_points(self, network, scorer):
        data = toy_data(replacement=False)
        start = initial_weights(network, 1)
        found = scores_at(data, network, start, scorer)
        entry, own = SCORERS[scorer], network.model(start)
        for i in range(0, len(data), 211):
            x, y = data.points(i, i + 1)
            supplied = {
                "model_fn": own.model_fn, "params": own.params, "masks": None,
                "names": own.prunable, "x": x[0], "y": network.labels(y[0]),
                "loss_fn": network.loss_fn,
            }  # fmt: skip
            alone = entry.function(**{k: v for k, v in supplied.items() if k in entry.takes})
            wanted = torch.cat([alone[name].flatten() for name in network.shapes])
            torch.testing.assert_close(found[:, i], wanted, rtol=1e-11, atol=1e-14)

    def test_snip_by_the_definition_of_its_loss(self):
        data, network = toy_data(replacement=False), ToyNetwork()
        start = initial_weights(network, 1)
        x, y = data.points(77, 78)
        leaf = start.clone().requires_grad_()
        named = network.split(leaf)
        hidden = torch.relu(x[0] @ named["layer1.weight"].T + named["layer1.bias"])
        f = (hidden @ named["layer2.weight"].T + named["layer2.bias"]).squeeze(1)
        ((f - y[0]) ** 2).mean().backward()
        wanted = (start * leaf.grad).abs()
        torch.testing.assert_close(scores_at(data, network, start, "snip")[:, 77], wanted)

    @pytest.mark.parametrize("scorer", ["synflow", "random", "ntk_sap", "magnitude", "synflow_l2"])
    def test_scorers_without_data_have_one_mask(self, scorer):
        data, network = toy_data(replacement=False), ToyNetwork()
        start = initial_weights(network, 0)
        found = toy_masks(scorer, data, network, start, steps=0, lr=0.1, seed=3)
        assert bool((found.codes == found.codes[:, :1]).all())
        bits = [information_of_masks(codes, data.law).bits for codes in found.codes]
        assert bits == [0.0] * 21

    def test_ties_keep_the_smaller_index(self):
        found = masks_by_rank(torch.tensor([[1.0], [2.0], [1.0], [2.0]]))
        kept = [mask_of(int(code), 4).int().tolist() for code in found.codes[:, 0]]
        assert kept == [[1, 1, 1, 1], [1, 1, 0, 1], [0, 1, 0, 1], [0, 1, 0, 0]]
        assert found.near_ties[:, 0].tolist() == [False, True, False, True]

    def test_near_ties(self):
        a = torch.tensor([1.0, 1.0, 0.0, 0.0, -1.0, 1e-20], dtype=torch.float64)
        b = torch.tensor([1 + 1e-10, 1 + 1e-8, 0.0, 1e-30, 1.0, 1e-20], dtype=torch.float64)
        assert near_tie(a, b).tolist() == [True, False, False, False, False, True]

    def test_imp_keeps_the_smaller_index_and_remembers_near_ties(self, small):
        network = small_network("mse")
        start = torch.full((network.size,), -0.5, dtype=torch.float64)  # nothing is active
        start[-1] = 0.25
        found = toy_masks("imp", small, network, start, steps=0, lr=0.1)
        gone = [mask_of(int(code), 9).int().tolist() for code in found.codes[:3, 0]]
        assert gone == [[1] * 9, [1] * 8 + [0], [1] * 7 + [0, 0]]
        assert found.near_ties[:, 0].tolist() == [False, False] + [True] * 7

    def test_divergence_is_named(self, small):
        network = small_network("mse")
        start = initial_weights(network, 0)
        for method in ("imp", "magnitude_after"):
            with pytest.raises(
                NumericalError, match=r"must be finite, got NaN or Inf on \d+ of 120"
            ):
                toy_masks(method, small, network, start, steps=400, lr=1e9)

    @pytest.mark.parametrize("method", ["imp", "magnitude_after"])
    def test_masks_of_divergent_training_are_left_open(self, small, method):
        network = small_network("mse")
        start = initial_weights(network, 0)
        wild: dict[str, Any] = {"steps": 400, "lr": 0.9}
        trained = train(small, network, start, **wild)
        lost = (~torch.isfinite(trained)).any(0)
        assert 0 < int(lost.sum()) < len(small)
        found = toy_masks(method, small, network, start, diverged=True, **wild)
        assert bool(found.near_ties[1:, lost].all())
        assert not bool(found.near_ties[0].any())
        sizes = [{bin(code).count("1") for code in row.tolist()} for row in found.codes]
        assert sizes == [{network.size - k} for k in range(network.size)]

    def test_unknown_methods_and_options_are_refused(self, small):
        network = small_network("mse")
        start = initial_weights(network, 0)
        with pytest.raises(ValueError, match=r"method must be one of .*'imp'.*'snip'"):
            toy_masks("lottery", small, network, start, **SETTINGS)
        with pytest.raises(ValueError, match="option of 'imp' must be left out, got 'step'"):
            toy_masks("imp", small, network, start, options={"step": 2}, **SETTINGS)
        with pytest.raises(ValueError, match="option of 'magnitude_after' must be left out"):
            toy_masks("magnitude_after", small, network, start, options={"a": 2}, **SETTINGS)
        with pytest.raises(
            ValueError, match="option of 'grasp' must be among temperature, got 'T'"
        ):
            toy_masks("grasp", small, network, start, options={"T": 2}, **SETTINGS)

    def test_a_scorer_that_draws_by_itself_is_noticed(self, small):
        network = small_network("mse")
        start = initial_weights(network, 0)

        def moody(params, names):
            return {name: torch.rand_like(params[name]) for name in names}

        register_scorer("moody", moody, "random numbers of torch's own")
        try:
            with pytest.raises(
                ValueError, match="learner must be deterministic, given its initial"
            ):
                toy_masks("moody", small, network, start, **SETTINGS)
        finally:
            del SCORERS["moody"]

    def test_a_part_of_the_data(self, small):
        part = small.part(torch.tensor([5, 7]))
        assert torch.equal(part.counts, small.counts[:, :, [5, 7]])
        weights = small.law.numerators[[5, 7]]
        assert (part.law.numerators.tolist(), part.law.total) == (weights.tolist(), weights.sum())

    def test_too_many_weights_for_a_code_word_are_refused(self):
        with pytest.raises(ValueError, match=r"P must be in 1…62, the bits of a code word, got 66"):
            exact_mask_information("snip", width=13, steps=0, lr=0.1, seed=0)


class TestExactInformation:
    @pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
    @pytest.mark.parametrize("method", ["imp", "magnitude_after"])
    def test_a_three_point_toy_by_loops_rationals_and_scipy(self, loss, method):
        """Nothing is shared with the fast path but the network's definition."""
        data, network = toy_data(3, 1), ToyNetwork(1, 1, loss)
        start = initial_weights(network, 4)
        found = toy_masks(method, data, network, start, **SETTINGS)
        slow = {"imp": reference_toy.imp, "magnitude_after": reference_toy.magnitude_after}[method]
        laws: list[dict] = [defaultdict(Fraction) for _ in range(network.size)]
        joint: list[dict] = [defaultdict(Fraction) for _ in range(network.size)]
        for drawn, weight in reference_enumeration.data_sets(3, 1).items():
            x = torch.tensor([point for point, _ in drawn]).double()
            y = torch.tensor([label for _, label in drawn]).double()
            assert weight == reference_enumeration.multinomial(drawn, 4)
            for k, mask in enumerate(slow(network, start, x, y, **SETTINGS)):
                laws[k][tuple(mask)] += weight
                joint[k][tuple(mask), drawn] += weight
        for codes, masks, both in zip(found.codes, laws, joint, strict=True):
            assert sum(masks.values()) == 1
            exact = information_of_masks(codes, data.law)
            scipy = entropy([float(p) for p in masks.values()], base=2)
            assert exact.bits == pytest.approx(scipy, abs=1e-12)
            assert exact.bits == pytest.approx(
                reference_enumeration.mutual_information(both), abs=1e-12
            )
            assert exact.masks == len(masks)
        assert max(information_of_masks(codes, data.law).bits for codes in found.codes) > 0.5

    def test_is_the_general_enumeration(self):
        """A learner as a plain function of the points, on the list of data sets."""
        small = toy_data(2, 2)
        network = small_network("mse")
        start = initial_weights(network, 2)
        found = toy_masks("magnitude_after", small, network, start, **SETTINGS)

        def learner(i):
            x, y = small.points(i, i + 1)
            ones = torch.ones(network.size).double()
            trained = reference_toy.train_one(network, start, x[0], y[0], ones, **SETTINGS)
            return reference_toy.prune_lowest(trained.abs().tolist(), [True] * 9, 4)

        weights = [Fraction(int(w), small.law.total) for w in small.law.numerators]
        exact = mask_information(learner, range(len(small)), weights)
        assert exact == information_of_masks(found.codes[4], small.law)

    def test_details(self):
        settings: dict[str, Any] = {"steps": 5, "lr": 0.1, "seed": 2, "replacement": False}
        details = exact_mask_information("magnitude_after", return_details=True, **settings)
        assert details.bits == exact_mask_information("magnitude_after", **settings)
        assert details.parameters == len(details.bits) == 21
        assert details.codes.shape == (21, 1792)
        sizes = [[bin(code).count("1") for code in row.tolist()] for row in details.codes]
        assert [set(row) for row in sizes] == [{21 - k} for k in range(21)]
        assert details.effective_parameters() == [
            pytest.approx(bits + 21 - k) for k, bits in enumerate(details.bits)
        ]
        assert details.effective_parameters(0.5)[4] == pytest.approx(details.bits[4] + 8.5)

    def test_without_replacement_is_a_part_of_all(self, everything):
        apart = toy_data(replacement=False)
        network, start = ToyNetwork(), initial_weights(ToyNetwork(), 0)
        distinct = (everything.counts.sum(0) <= 1).all(0)
        both = [toy_masks("snip", d, network, start, **SETTINGS) for d in (everything, apart)]
        left = Counter(both[0].codes[9, distinct].tolist())
        assert left == Counter(both[1].codes[9].tolist())

    def test_half_of_a_symmetric_law_is_another_law(self, small):
        """Any law over the data sets will do: here only those with a majority of +1."""
        half = small.part(small.counts[1].sum(0) > small.counts[0].sum(0))
        assert 2 * half.law.total == small.law.total
        network = small_network("mse")
        start = initial_weights(network, 2)
        found, all_ = (toy_masks("magnitude_after", d, network, start, **SETTINGS)
                       for d in (half, small))  # fmt: skip
        joint: list[dict] = [{} for _ in range(network.size)]
        for drawn, weight in reference_enumeration.data_sets(3, 2).items():
            if sum(label for _, label in drawn) > 0:
                x = torch.tensor([point for point, _ in drawn]).double()
                y = torch.tensor([label for _, label in drawn]).double()
                masks = reference_toy.magnitude_after(network, start, x, y, **SETTINGS)
                for both, mask in zip(joint, masks, strict=True):
                    both[tuple(mask), drawn] = 2 * weight
        bits = [information_of_masks(codes, half.law).bits for codes in found.codes]
        wanted = [reference_enumeration.mutual_information(both) for both in joint]
        assert bits == pytest.approx(wanted, abs=1e-12)
        whole = [information_of_masks(codes, small.law).bits for codes in all_.codes]
        assert max(abs(a - b) for a, b in zip(bits, whole, strict=True)) > 0.1

    def test_bad_settings_are_refused_before_anything_is_enumerated(self):
        half_a_step: Any = 1.5
        with pytest.raises(ValueError, match=r"steps must be a non-negative integer, got 1\.5"):
            exact_mask_information("snip", steps=half_a_step, lr=0.1, seed=0)


def test_masks_by_rank_refuses_what_is_not_finite():
    with pytest.raises(NumericalError, match="got NaN or Inf on 1 of 2 data sets"):
        masks_by_rank(torch.tensor([[1.0, 2.0], [np.nan, 1.0]]))
