"""Options of scorers in rounds: all of them are recorded, and none is used up."""

import pytest
import torch

from ntktheory.estimators.ntk_sap_draws import sample_draws
from ntktheory.models import mlp
from ntktheory.pruning import SCORERS, Scorer, prune


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def network():
    return mlp([3, 5, 4, 2], generator=seeded(), dtype=torch.float64)  # 15 + 20 + 8 = 43 weights


BATCH = (torch.randn(4, 3, generator=seeded(1), dtype=torch.float64), torch.arange(4) % 2)


@pytest.mark.parametrize(
    ("scorer", "given", "recorded"),
    [
        ("snip", {}, {"bn": "eval"}),
        ("snip", {"bn": "train"}, {"bn": "train"}),
        ("grasp", {}, {"temperature": 200.0, "bn": "eval"}),
        ("prospr", {"lr": 0.5}, {"steps": 3, "lr": 0.5, "momentum": 0.0, "bn": "eval"}),
        ("px", {}, {}),
        ("synflow_l2", {}, {"power": 2}),
    ],
)
def test_options_left_at_their_defaults_are_recorded(scorer, given, recorded):
    result = prune(network(), scorer, 0.5, rounds=1, batch=BATCH, **given)
    assert result.settings["options"] == recorded


def test_a_default_spelled_out_is_the_same_run(tmp_path):
    given = {"rounds": 2, "batch": BATCH, "resume": tmp_path / "run.safetensors"}
    first = prune(network(), "snip", 0.3, **given)
    again = prune(network(), "snip", 0.3, bn="eval", **given)
    assert again.history == first.history
    with pytest.raises(ValueError, match=r"a file of this run, got .* with options .*eval.*train"):
        prune(network(), "snip", 0.3, bn="train", **given)


def drawn():
    return sample_draws(network(), realizations=2, generator=seeded(2), input_shape=[3])


def test_an_iterator_is_refused_before_the_first_of_several_rounds(monkeypatch):
    called = []
    own = Scorer("own", lambda params, names, draws=(): called.append(1), "for a test")
    monkeypatch.setitem(SCORERS, "own", own)
    with pytest.raises(ValueError, match=r"draws must be a collection that every round can go thr"):
        prune(network(), "own", 0.5, draws=drawn(), rounds=2)
    assert not called


def test_a_list_lasts_and_so_does_an_iterator_for_one_round():
    listed = prune(network(), "ntk_sap", 0.5, draws=list(drawn()), rounds=1)
    once = prune(network(), "ntk_sap", 0.5, draws=drawn(), rounds=1)
    assert all(torch.equal(m, once.masks[n]) for n, m in listed.masks.items())
    assert len(prune(network(), "ntk_sap", 0.5, draws=list(drawn()), rounds=2).history) == 2


def test_the_history_says_how_many_scores_are_not_zero(monkeypatch):
    """Three weights have a score, ten are kept: seven of them by index alone."""

    def three(params, names):
        scores = {name: torch.zeros_like(params[name]) for name in names}
        scores["layer2.weight"].view(-1)[-3:] = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
        return scores

    monkeypatch.setitem(SCORERS, "own", Scorer("own", three, "for a test"))
    first, last = prune(network(), "own", 10 / 43, rounds=2).history
    assert (first.nonzero, last.nonzero) == (3, 2)  # −2 is the lowest, and dropped
    assert sum(last.kept.values()) == 10
