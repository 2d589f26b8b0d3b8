"""Which samples, in which order, and of which type."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ntktheory.data.selection import as_images, choose, in_turn


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@given(st.integers(1, 50), st.data())
def test_a_choice_is_a_choice(total, data):
    count = data.draw(st.integers(1, total))
    assert choose(total, count, None).tolist() == list(range(count))
    seed = data.draw(st.integers(0, 2**32))
    drawn = choose(total, count, seeded(seed)).tolist()
    assert len(set(drawn)) == count
    assert set(drawn) <= set(range(total))
    assert choose(total, None, seeded(seed)).tolist()[:count] == drawn
    assert sorted(choose(total, None, seeded(seed)).tolist()) == list(range(total))


@pytest.mark.parametrize("count", [0, 6, -1, True, 2.0])
def test_a_choice_that_cannot_be(count):
    with pytest.raises(ValueError, match="count must be an integer between 1 and 5"):
        choose(5, count, None)


@given(st.lists(st.integers(0, 6), max_size=6))
def test_classes_come_in_turn(sizes):
    classes = [[(label, i) for i in range(size)] for label, size in enumerate(sizes)]
    found = in_turn(classes)
    assert all(member[0] == label for member, label in found)
    assert [member for member, _ in found] == sorted(
        (m for members in classes for m in members), key=lambda m: (m[1], m[0])
    )


def test_the_start_is_balanced():
    labels = [label for _, label in in_turn([range(5), range(5), range(5)])]
    for count in range(16):
        seen = [labels[:count].count(label) for label in range(3)]
        assert max(seen) - min(seen) <= 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.uint8])
def test_pixels(dtype):
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    images = as_images(pixels, dtype)
    assert images.dtype == dtype
    expected = torch.arange(256, dtype=torch.float64).reshape(16, 16)
    if dtype == torch.uint8:
        assert torch.equal(images.double(), expected)
    else:
        gap = (images.double() - expected / 255).abs().max()
        assert float(gap) <= torch.finfo(dtype).eps
        assert images.min() == 0
        assert images.max() == 1


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_pixels_of_another_type(dtype):
    with pytest.raises(ValueError, match=r"dtype must be a floating-point type or torch\.uint8"):
        as_images(np.zeros(3, np.uint8), dtype)
