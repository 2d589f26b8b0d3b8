"""Masks of packs: those of every network alone, at every count, for training and for scorers."""

import pytest
import torch

from ntktheory.functional import FunctionalModel, functional
from ntktheory.models import mlp
from ntktheory.pruning.schedules import densities
from ntktheory.pruning.scoring import score
from ntktheory.pruning.topk import keep_highest, kept_count
from ntktheory.training import (
    iterative_magnitude_pruning,
    magnitude_after,
    stack_models,
    train_packed,
    training_on,
)
from ntktheory.training.packed_masks import keep_highest_packed, scored_masks, trained_masks

NETS = 3
KIND = {"dtype": torch.float64}
TRAINING = {"steps": 6, "lr": 0.2, "schedule": "constant", "momentum": 0.5}
TOTAL = 4 * 8 + 8 * 6 + 6 * 2


def generator(seed):
    return torch.Generator().manual_seed(seed)


def sources():
    return [generator(seed) for seed in range(NETS)]


def problem():
    nets = [mlp([4, 8, 6, 2], generator=generator(s), **KIND) for s in range(NETS)]
    x = torch.randn(NETS, 9, 4, generator=generator(7), **KIND)
    return nets, stack_models(nets), x, torch.randint(2, (NETS, 9), generator=generator(8))


def trainer(nets, params, x, y):
    return lambda masks: train_packed(nets[0], params, x, y, masks=masks, **TRAINING).params


@pytest.mark.parametrize("method", [iterative_magnitude_pruning, magnitude_after])
def test_trained_masks_are_those_of_each_network_alone(method):
    nets, params, x, y = problem()
    counts = [TOTAL, 70, 59, 40, 20, 3]
    found = trained_masks(
        params, trainer(nets, params, x, y), counts,
        in_rounds=method is iterative_magnitude_pruning,
    )  # fmt: skip
    assert sorted(found) == sorted(counts)
    for count in counts:
        for s, net in enumerate(nets):
            alone = method(net, training_on(x[s], y[s], **TRAINING), count / TOTAL).masks
            for name, mask in alone.items():
                assert torch.equal(found[count][name][s], mask)


def test_one_run_of_rounds_serves_all_counts():
    nets, params, x, y = problem()
    calls = []

    def train(masks):
        calls.append(sum(int(m[0].sum()) for m in masks.values()))
        return trainer(nets, params, x, y)(masks)

    trained_masks(params, train, [70, 50, 48, 30])
    assert calls == [92, 74, 59, 47, 38]


def test_uniform_budget_keeps_the_same_share_of_each_layer():
    nets, params, x, y = problem()
    found = trained_masks(
        params, trainer(nets, params, x, y), [46, 23], in_rounds=False, budget="uniform"
    )
    kept = {name: m.flatten(1).sum(1).tolist() for name, m in found[46].items()}
    assert kept == {
        "layer1.weight": [16] * NETS, "layer2.weight": [24] * NETS, "layer3.weight": [6] * NETS,
    }  # fmt: skip
    assert sum(int(m[0].sum()) for m in found[23].values()) == 23
    trained = trainer(nets, params, x, y)(None)
    sizes = trained["layer2.weight"][1].abs()
    mask = found[46]["layer2.weight"][1]
    assert float(sizes[mask].min()) >= float(sizes[~mask].max())


@pytest.mark.parametrize(
    "scorer", ["random", "magnitude", "snip", "grasp", "synflow", "px", "path_edge", "ntk_sap"]
)
@pytest.mark.parametrize("rounds", [1, 3])
def test_scored_masks_are_those_of_each_network_alone(scorer, rounds):
    nets, params, x, y = problem()
    seeds = [5, 6, 7]
    found = scored_masks(
        nets[0],
        params,
        scorer,
        [40, 7],
        inputs=x,
        labels=y,
        generators=[generator(s) for s in seeds],
        rounds=rounds,
    )
    for s, net in enumerate(nets):
        f = functional(net)
        source = generator(seeds[s])
        first = None
        for count in (40, 7):
            masks = {name: torch.ones_like(p).bool() for name, p in f.params.items()}
            for position, density in enumerate(densities(count / TOTAL, rounds)):
                if position or first is None:
                    at = score(net, scorer, batch=(x[s], y[s]), masks=masks, generator=source)
                    first = at if first is None else first
                at = first if not position else at
                kept = {name: a.masked_fill(~masks[name], -float("inf")) for name, a in at.items()}
                masks = keep_highest(kept, kept_count(density, TOTAL))
            for name, mask in masks.items():
                assert torch.equal(found[count][name][s], mask)


def test_the_data_of_each_network_are_its_own():
    nets, params, x, y = problem()
    same = {name: p[:1].expand_as(p).clone() for name, p in params.items()}
    found = scored_masks(nets[0], same, "snip", [20], inputs=x, labels=y, generators=sources())[20]
    assert any(not torch.equal(m[0], m[1]) for m in found.values())


def test_exact_counts_with_ties():
    masks = keep_highest_packed({"a": torch.zeros(2, 3, 3), "b": torch.zeros(2, 4)}, 10)
    assert [int(m[0].sum()) for m in masks.values()] == [9, 1]
    assert masks["b"].tolist() == [[True, False, False, False]] * 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"counts": []}, "counts must be between 1 and 92"),
        ({"counts": [0]}, "counts must be between 1 and 92"),
        ({"counts": [93]}, "counts must be between 1 and 92"),
        ({"scorer": "best"}, "scorer must be one of"),
        ({"generators": [generator(1)]}, "generators must be 3 of them, got 1"),
        ({"power": 2}, "option of 'snip' must be"),
        ({"bn": "train"}, "bn must be 'eval' in a pack, got 'train'"),
    ],
)
def test_bad_scoring(changes, message):
    nets, params, x, y = problem()
    given = {"scorer": "snip", "counts": [5], "generators": sources()} | changes
    with pytest.raises(ValueError, match=message):
        scored_masks(nets[0], params, inputs=x, labels=y, **given)


def test_bad_budget():
    nets, params, x, y = problem()
    with pytest.raises(ValueError, match="budget must be one of 'global', 'uniform'"):
        trained_masks(params, trainer(nets, params, x, y), [5], budget="erk")


def test_model_given_may_be_functional():
    nets, params, x, y = problem()
    f = functional(nets[0])
    plain = FunctionalModel(f.model_fn, f.params, prunable=f.prunable)
    wanted = scored_masks(nets[0], params, "snip", [9], inputs=x, labels=y, generators=sources())
    found = scored_masks(plain, params, "snip", [9], inputs=x, labels=y, generators=sources())
    assert all(torch.equal(found[9][name], m) for name, m in wanted[9].items())
