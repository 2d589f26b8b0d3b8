"""Masks as sets: by hand, and against Python's sets."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ntktheory.pruning.mask_sets import (
    count_kept,
    difference,
    intersection,
    jaccard,
    layer_density,
    overlap,
    total_density,
    union,
)

A = {"a": torch.tensor([[True, True], [False, False]]), "b": torch.tensor([True, False])}
B = {"a": torch.tensor([[False, True], [True, False]]), "b": torch.tensor([False, False])}
PAIRS = st.integers(1, 12).flatmap(
    lambda n: st.tuples(*[st.lists(st.booleans(), min_size=n, max_size=n)] * 2)
)


def listed(masks):
    return {name: mask.tolist() for name, mask in masks.items()}


def test_by_hand():
    assert (count_kept(A), count_kept(B)) == (3, 2)
    assert (total_density(A), total_density(B)) == (3 / 6, 2 / 6)
    assert layer_density(A) == {"a": 0.5, "b": 0.5}
    assert overlap(A, B) == 1 / 2
    assert jaccard(A, B) == 1 / 4
    assert listed(union(A, B)) == {"a": [[True, True], [True, False]], "b": [True, False]}
    assert listed(intersection(A, B)) == {"a": [[False, True], [False, False]], "b": [False, False]}
    assert listed(difference(A, B)) == {"a": [[True, False], [False, False]], "b": [True, False]}
    assert listed(difference(B, A)) == {"a": [[False, False], [True, False]], "b": [False, False]}


@given(PAIRS, st.sampled_from([torch.bool, torch.uint8, torch.float64]))
def test_as_sets(pair, dtype):
    a, b = ({"w": torch.tensor(values).to(dtype)} for values in pair)
    p, q = ({i for i, kept in enumerate(values) if kept} for values in pair)

    def members(masks):
        assert masks["w"].dtype == torch.bool
        return set(masks["w"].nonzero().flatten().tolist())

    assert members(union(a, b)) == p | q
    assert members(intersection(a, b)) == p & q
    assert members(difference(a, b)) == p - q
    assert jaccard(a, b) == (len(p & q) / len(p | q) if p | q else 1.0)
    if p and q:
        assert overlap(a, b) == overlap(b, a) == len(p & q) / min(len(p), len(q))


def test_what_does_not_fit():
    with pytest.raises(ValueError, match="masks must be of the same layers, a, b, got a"):
        union(A, {"a": A["a"]})
    with pytest.raises(ValueError, match=r"masks\['b'\] must be of shape \[2\], got \[3\]"):
        jaccard(A, {**A, "b": torch.ones(3)})
    with pytest.raises(ValueError, match=r"masks\['b'\] must be made of 0 and 1"):
        intersection(A, {**A, "b": torch.tensor([0.5, 1.0])})
    with pytest.raises(TypeError, match=r"masks\['b'\] must be a torch\.Tensor"):
        difference(A, {**A, "b": [0, 1]})
    with pytest.raises(ValueError, match="masks must be some that keep a weight"):
        overlap(A, {name: torch.zeros_like(mask) for name, mask in A.items()})
    with pytest.raises(ValueError, match="masks must be those of some weights"):
        total_density({})
    for measure in (count_kept, total_density, layer_density):
        with pytest.raises(ValueError, match=r"masks\['a'\] must be made of 0 and 1"):
            measure({"a": torch.tensor([0.3, 1.0])})
        with pytest.raises(TypeError, match=r"masks\['a'\] must be a torch\.Tensor"):
            measure({"a": [0, 1]})
        with pytest.raises(TypeError, match="masks must be a mapping from names to tensors"):
            measure(None)


def test_many_weights_in_half_precision():
    """More than float16 can count to, 65504, and more than bfloat16 can count exactly, 256."""
    for dtype in (torch.float16, torch.bfloat16):
        masks = {"a": torch.ones(70_001, dtype=dtype)}
        assert count_kept(masks) == 70_001
        assert layer_density(masks) == {"a": 1.0}
