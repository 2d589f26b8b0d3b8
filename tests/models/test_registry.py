"""Networks by name."""

import pytest
import torch

from ntktheory.models import MODELS, build_model, mlp

SHAPE = (3, 32, 32)


@pytest.mark.parametrize("name", MODELS)
def test_defaults_make_a_network_in_eval_mode(name):
    net = build_model(name, SHAPE, dtype=torch.float64)
    assert not net.training
    assert net(torch.ones(3, *SHAPE, dtype=torch.float64)).shape == (3, 10)


def test_every_option_is_used():
    generator = torch.Generator().manual_seed(0)
    net = build_model("mlp", [4], hidden=5, outputs=2, bias=True, generator=generator)
    same = mlp([4, 5, 2], bias=True, generator=torch.Generator().manual_seed(0))
    for p, q in zip(net.parameters(), same.parameters(), strict=True):
        assert torch.equal(p, q)
    conv = build_model("convnet", [3, 6, 6], channels=[4], stride=2, head="average", outputs=7)
    assert conv(torch.ones(2, 3, 6, 6)).shape == (2, 7)
    linear = build_model("mlp", [4], hidden=[])
    assert len(list(linear.parameters())) == 1


@pytest.mark.parametrize(
    ("text", "name", "shape", "options"),
    [
        (r"model must be one of 'convnet', 'mlp', .*got 'vgg'", "vgg", [4], {}),
        (r"option of the model mlp must be one of .*, got 'width'", "mlp", [4], {"width": 3}),
        (
            r"hidden must be positive integers, got .*Its default is 64,64",
            "mlp",
            [4],
            {"hidden": "x"},
        ),
        (r"hidden must be positive integers", "mlp", [4], {"hidden": [3, 0]}),
        (r"outputs must be a positive integer, got True", "mlp", [4], {"outputs": True}),
        (r"bias must be true or false, got 1. Its default is false", "mlp", [4], {"bias": 1}),
        (r"head must be a text", "convnet", [1, 8, 8], {"head": 3}),
        (r"inputs of a convnet must be square images", "convnet", [64], {}),
    ],
)
def test_bad_input(text, name, shape, options):
    with pytest.raises(ValueError, match=text):
        build_model(name, shape, **options)
