"""The drawn families: what they reach, that they stay small and exact; and the ladder on all of them.

``HYPOTHESIS_PROFILE=deep`` tries 10,000 networks of every family.
"""

import os
from collections import Counter

import pytest
import torch
from hypothesis import event, given, settings
from hypothesis import strategies as st
from torch import nn

from ntktheory import NumericalError, path_bounds
from ntktheory.paths.reference import decompose
from proofs_check import strategies
from proofs_check.bounds_evidence import in_order, values_of
from proofs_check.cases import Residual
from proofs_check.claims.beyond import LADDER, SANDWICH
from proofs_check.search import search

FAMILIES = strategies.FAMILIES
EXAMPLES = 10_000 if os.environ.get("HYPOTHESIS_PROFILE") == "deep" else 10


def features(case):
    """Name what a network has."""
    for module in case.model.modules():
        kind = type(module).__name__
        yield kind
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            for name in ("stride", "padding", "dilation"):
                yield f"{name} {max(getattr(module, name))}"
            yield f"groups {module.groups}"
            yield f"convolution bias {module.bias is not None}"
        if isinstance(module, nn.MaxPool1d | nn.MaxPool2d):
            yield f"windows overlap {module.stride < module.kernel_size}"
            yield f"padded windows {module.padding > 0}"
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            yield f"eps {module.eps}"
            yield "negative γ" if module.affine and (module.weight < 0).any() else "other γ"
            yield f"mean 0 {bool((module.running_mean == 0).all())}"
        if isinstance(module, nn.LeakyReLU):
            yield f"slope {module.negative_slope}"
        if isinstance(module, Residual):
            yield f"shortcut {type(module.shortcut).__name__}"


HAS = {
    "MLP": {"Linear", "ReLU"},
    "MLP with biases": {"Linear", "ReLU"},
    "convolution": {
        "Conv1d", "Conv2d", "stride 2", "padding 0", "padding 1", "dilation 2", "groups 2",
        "convolution bias True", "convolution bias False",
    },
    "average pooling": {"AvgPool1d", "AvgPool2d"},
    "max pooling": {
        "MaxPool1d", "MaxPool2d", "windows overlap True", "windows overlap False",
        "padded windows True", "padded windows False",
    },
    "leaky ReLU": {f"slope {slope}" for slope in strategies.SLOPES},
    "residual": {"shortcut NoneType", "shortcut Linear", "shortcut Conv1d", "shortcut Conv2d"},
    "batch norm": {
        "BatchNorm1d", "BatchNorm2d", "negative γ", "other γ", "eps 0.0", "eps 0.125", "mean 0 False",
    },
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_reaches_its_hard_classes_and_stays_small(family):
    seen, most = Counter(), 0

    def check(case):
        nonlocal most
        seen.update(set(features(case)))
        most = max(most, len(decompose(case.model, case.x).paths))
        assert case.model(case.x).shape[0] == len(case.x)

    search(FAMILIES[family], check, 120)
    assert not HAS[family] - set(seen)
    assert 10 < most < 5000


@pytest.mark.parametrize("family", FAMILIES)
def test_values_are_whole_numbers_and_powers_of_two(family):
    def check(case):
        for p in case.model.parameters():
            assert torch.equal(p, p.round())
            assert float(p.detach().abs().max()) <= 3
        x = decompose(case.model, case.x)
        y = decompose(case.model, case.x, exact=True)
        assert [float(v) for v in y.outputs.flat] == x.outputs.flatten().tolist()

    search(FAMILIES[family], check, 25)


@settings(max_examples=EXAMPLES)
@pytest.mark.parametrize("family", FAMILIES)
@given(data=st.data())
def test_the_ladder_and_the_sandwich_hold(family, data):
    case = data.draw(strategies.scaled(strategies.masked(FAMILIES[family])))
    try:
        bounds = path_bounds(case.model, case.x, masks=case.masks)
    except NumericalError:
        event("overflow refused")
        return
    event(f"kinks {bounds.kinks > 0}, masked {case.masks is not None}, {case.note}")
    in_order(case, values_of(bounds), [*LADDER, *SANDWICH])


def test_where_terms_join_only_the_head_is_scaled_far():
    scales = Counter()

    def check(case):
        scales[case.note] += 1
        *others, head = case.model
        largest = max(float(p.detach().abs().max()) for m in others for p in m.parameters())
        if case.note in ("scale 2^500", "scale 2^-500"):
            assert largest <= 3
            for p in head.parameters():
                unscaled = p.detach() * 2.0 ** -int(case.note[8:])
                assert torch.equal(unscaled, unscaled.round())
                assert float(unscaled.abs().max()) <= 3

    search(strategies.scaled(FAMILIES["residual"]), check, 60)
    assert {"scale 2^500", "scale 2^-500", "scale 2^0"} <= set(scales)


def test_tied_networks_have_a_weight_twice_on_a_path():
    most = []

    def check(case):
        most.append(int(decompose(case.model, case.x).multiplicity.max()))

    search(strategies.tied(), check, 20)
    assert set(most) == {2}


def test_fixed_networks_of_a_family_are_alive_dense_and_masked():
    for family in FAMILIES:
        dense, masked = strategies.family_cases(family)
        assert dense.masks is None
        assert dense.title == family
        assert masked.title == f"{family}, masked"
        assert not all(bool(m.all()) for m in masked.masks.values())
        for case in (dense, masked):
            assert decompose(case.model, case.x, masks=case.masks).bounds()["trace"] > 0


def test_a_case_prints_all_that_is_needed_to_rebuild_it():
    texts = "".join(str(strategies.family_cases(f)[1]) for f in ("residual", "batch norm"))
    assert "[x + Conv1d(2, 1, kernel_size=(3,), stride=(1,), padding=(1,)) → ReLU() → " in texts
    assert "[Conv1d(2, 2, kernel_size=(1,), stride=(2,)) + Conv1d(" in texts
    assert "1: μ = [0.405" in texts
    assert "σ² = [0.5, 1.5] + 0.25" in texts
    assert "mask of 0.weight = " in texts
