"""The digits: 1,797 images in [0, 1], in a fixed or a seeded order."""

import pytest
import torch

from ntktheory.data import digits


def test_all_of_them():
    images, labels = digits()
    assert images.shape == (1797, 1, 8, 8)
    assert labels.shape == (1797,)
    assert images.dtype == torch.float32
    assert labels.unique().tolist() == list(range(10))
    assert labels.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_pixels_are_sixteenths_from_0_to_1():
    images, _ = digits(dtype=torch.float64)
    assert images.dtype == torch.float64
    assert images.min() == 0
    assert images.max() == 1
    assert torch.equal((16 * images).round(), 16 * images)


@pytest.mark.parametrize("count", [1, 7, 1797])
def test_the_first_ones_without_a_generator(count):
    images, labels = digits(count)
    everything, every_label = digits()
    assert torch.equal(images, everything[:count])
    assert torch.equal(labels, every_label[:count])


def test_first_image_is_a_zero():
    images, labels = digits(1)
    assert labels.tolist() == [0]
    assert (16 * images[0, 0, 0]).tolist() == [0, 0, 5, 13, 9, 1, 0, 0]


def test_a_generator_draws_without_replacement():
    images, labels = digits(generator=torch.Generator().manual_seed(0))
    everything, every_label = digits()
    assert not torch.equal(labels, every_label)
    rows = torch.cat([images.flatten(1), labels[:, None]], 1)
    expected = torch.cat([everything.flatten(1), every_label[:, None]], 1)
    assert sorted(rows.tolist()) == sorted(expected.tolist())


def test_same_seed_same_images():
    one, two, other = (digits(50, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    assert not torch.equal(one[0], other[0])


def test_a_smaller_draw_is_the_start_of_a_larger_one():
    small, large = (digits(n, generator=torch.Generator().manual_seed(5)) for n in (10, 100))
    assert torch.equal(small[0], large[0][:10])
    assert torch.equal(small[1], large[1][:10])


def test_torchs_own_seed_is_untouched():
    before = torch.get_rng_state()
    digits(10, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)
