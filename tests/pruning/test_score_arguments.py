"""What ``score`` is given besides the batch: the loss, the shape of an input, the generator."""

import pytest
import torch
import torch.nn.functional as F

from ntktheory.models import mlp
from ntktheory.pruning import prune, score

SCORERS_WITH_A_LOSS = ("snip", "grasp", "prospr")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


NET = mlp([3, 4, 2], generator=seeded(), dtype=torch.float64)
X, Y = torch.randn(5, 3, generator=seeded(1), dtype=torch.float64), torch.arange(5) % 2


@pytest.mark.parametrize("scorer", SCORERS_WITH_A_LOSS)
@pytest.mark.parametrize(
    ("loss_fn", "text"),
    [
        (lambda z, y: F.cross_entropy(z, y, reduction="none"), r"got shape \[5\], torch\.float64"),
        (lambda z, y: F.cross_entropy(z, y)[None], r"got shape \[1\]"),
        (lambda z, y: 0.5, "got float"),
        (lambda z, y: None, "got NoneType"),
    ],
)
def test_a_loss_that_is_no_scalar(scorer, loss_fn, text):
    with pytest.raises(ValueError, match="loss_fn must be a function that returns a scalar tensor"):
        score(NET, scorer, batch=(X, Y), loss_fn=loss_fn)
    with pytest.raises(ValueError, match=text):
        prune(NET, scorer, 0.5, rounds=1, batch=(X, Y), loss_fn=loss_fn)


@pytest.mark.parametrize("scorer", [*SCORERS_WITH_A_LOSS, "magnitude"])
def test_a_loss_that_is_no_function(scorer):
    with pytest.raises(
        TypeError, match="loss_fn must be a function of outputs and labels, got 'mse"
    ):
        score(NET, scorer, batch=(X, Y), loss_fn="mse")


@pytest.mark.parametrize("scorer", SCORERS_WITH_A_LOSS)
def test_a_loss_spelled_out_is_the_default(scorer):
    default = score(NET, scorer, batch=(X, Y))
    spelled = score(NET, scorer, batch=(X, Y), loss_fn=torch.nn.CrossEntropyLoss())
    assert all(torch.equal(default[name], s) for name, s in spelled.items())


@pytest.mark.parametrize("scorer", ["synflow", "phew", "ntk_sap", "magnitude"])
def test_an_input_shape_that_is_none(scorer):
    given = {"generator": seeded()}
    for shape in ([-4], [0], [3.0], [True], ["3"]):
        with pytest.raises(ValueError, match="input_shape must be made of positive integers"):
            score(NET, scorer, input_shape=shape, **given)
    for shape in (3, "3"):
        with pytest.raises(TypeError, match="input_shape must be a sequence of integers, got"):
            score(NET, scorer, input_shape=shape, **given)


@pytest.mark.parametrize("shape", [[3], (3,), torch.Size([3])])
def test_input_shapes_of_every_kind(shape):
    expected = score(NET, "synflow", batch=X)
    found = score(NET, "synflow", input_shape=shape)
    assert all(torch.equal(expected[name], s) for name, s in found.items())


def test_a_generator_that_is_none():
    for generator in (0, "0"):
        with pytest.raises(TypeError, match=r"generator must be a torch\.Generator, got"):
            score(NET, "random", generator=generator)
