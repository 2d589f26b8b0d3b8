"""What the plan says is what happens, and is the cheaper way."""

import torch
from torch import nn

from ntktheory.ntk.explain import explain_ntk
from proofs_check import cases


def plans(net, x, **options):
    return {plan.name: plan for plan in explain_ntk(net, x, **options)}


def test_contraction_follows_the_count():
    small_map = nn.Sequential(nn.Conv2d(8, 16, 3), nn.Flatten(), nn.Linear(16, 4)).double()
    large_map = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 4)).double()
    ghost = plans(small_map, torch.randn(2, 8, 3, 3).double())["0.weight"]
    direct = plans(large_map, torch.randn(2, 1, 8, 8).double())["0.weight"]
    assert (ghost.contraction, direct.contraction) == ("ghost", "direct")
    # One position: 72 + 16·16; blocks: 16·16·72. 36 positions: 36²·(9 + 16·2); blocks: 16·2·9.
    assert ghost.flops_per_pair == 72 + 16 * 16 < ghost.alternatives["direct"] == 16 * 16 * 72
    assert (
        direct.flops_per_pair == 16 * 2 * 9 < direct.alternatives["ghost"] == 36**2 * (9 + 16 * 2)
    )


def test_masks_exclude_the_ghost_rule():
    net = nn.Sequential(nn.Conv2d(8, 16, 3), nn.Flatten(), nn.Linear(16, 4)).double()
    masks = {name: torch.ones_like(p, dtype=torch.bool) for name, p in net.named_parameters()}
    found = plans(net, torch.randn(2, 8, 3, 3).double(), masks=masks)
    assert [p.contraction for p in found.values()] == ["direct", "direct", "masked", "direct"]


def test_engines():
    net = cases.network("weight used outside its layer")
    found = plans(net.model, net.x)
    assert found["inner.weight"].engine == "jacobian"
    assert found["head.weight"].engine == "layerwise"
    assert found["unused.weight"].engine == "unused"
    assert {p.engine for p in explain_ntk(net.model, net.x, engine="ntk_vp")} == {"ntk_vp"}
