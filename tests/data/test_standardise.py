"""Channels of mean 0 and standard deviation 1."""

import numpy as np
import pytest
import torch

from ntktheory import NumericalError
from ntktheory.data import channel_statistics, standardise


def images(*shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, generator=generator).to(dtype)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
@pytest.mark.parametrize("count", [1, 5, 1500])
def test_statistics(count, dtype):
    x = images(count, 3, 4, 5, dtype=dtype)
    x[:, 1] = 7
    mean, std = channel_statistics(x)
    array = x.double().numpy()
    assert np.allclose(mean.numpy(), array.mean((0, 2, 3)), rtol=1e-13, atol=0)
    assert np.allclose(std.numpy(), array.std((0, 2, 3)), rtol=1e-12, atol=0)
    assert std[1] == 0
    assert mean.dtype == std.dtype == torch.float64


def test_small_spread_around_a_large_mean():
    x = images(9, 2, 3, 3) * 1e-6 + 1e6
    assert np.allclose(channel_statistics(x)[1], x.numpy().std((0, 2, 3)), rtol=1e-9, atol=0)


def test_standardise():
    x = images(50, 3, 4, 4)
    mean, std = channel_statistics(x)
    y = standardise(x, mean, std)
    new_mean, new_std = channel_statistics(y)
    assert float(new_mean.abs().max()) <= 1e-14
    assert float((new_std - 1).abs().max()) <= 1e-14
    other = standardise(x.float(), [1.0, 2.0, 3.0], [2.0, 4.0, 8.0])
    assert other.dtype == torch.float32
    for c, (shift, scale) in enumerate([(1, 2), (2, 4), (3, 8)]):
        assert torch.equal(other[:, c], (x[:, c].float() - shift) / scale)


@pytest.mark.parametrize(
    ("x", "mean", "std"),
    [
        (images(2, 3, 4, 4), [0.0] * 3, [1.0, 0.0, 1.0]),
        (images(2, 3, 4, 4), [0.0] * 2, [1.0] * 2),
        (images(2, 3, 4, 4), [0.0] * 3, [1.0, -1.0, 1.0]),
        (images(2, 3, 4, 4, dtype=torch.uint8), [0.0] * 3, [1.0] * 3),
        (images(2, 3, 4, 4), 0.0, 1.0),
    ],
)
def test_what_does_not_fit(x, mean, std):
    with pytest.raises(ValueError, match="mean and std must be 3 numbers each, std positive"):
        standardise(x, mean, std)


def test_bad_images():
    for function in (channel_statistics, lambda x: standardise(x, [0.0], [1.0])):
        with pytest.raises(ValueError, match=r"images must be of shape \[N, channels"):
            function(images(2, 3))
        with pytest.raises(ValueError, match="images must be a non-empty batch"):
            function(images(0, 1, 2, 2))
        with pytest.raises(NumericalError, match="images must be finite"):
            function(torch.full((1, 1, 2, 2), torch.nan))
        with pytest.raises(TypeError, match=r"images must be a torch\.Tensor"):
            function([1.0])
