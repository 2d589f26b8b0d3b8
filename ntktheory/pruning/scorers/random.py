"""Random: every mask of a given size is equally likely."""

from collections.abc import Sequence

import torch

from ntktheory.functional import Params


def random(params: Params, names: Sequence[str], generator: torch.Generator) -> Params:
    """Return independent scores, uniform on [0, 1).

    The highest k of them are a uniformly drawn set of k weights. ``erk_random`` is the same score
    under the budget of Erdős, Rényi and kernels: a density per layer.

    Args:
        params: The parameters; only shapes, types and devices matter.
        names: Those that are scored, in the order of drawing.
        generator: Source of randomness. Numbers are drawn on its device, then moved. One seeded like
            the one that drew the network repeats its numbers: pass another seed.

    Returns:
        Name -> score, shaped like the parameter, in its type, or in float32 if that is a half: the
        few numbers of half a type would tie.

    Cost:
        P random numbers; no pass.

    Example:
        >>> net, generator = nn.Linear(2, 1), torch.Generator().manual_seed(0)
        >>> random({"weight": net.weight}, ["weight"], generator)["weight"].shape
        torch.Size([1, 2])
    """
    drawn = {}
    for name in names:
        p = params[name]
        kind = torch.promote_types(p.dtype, torch.float32)
        uniform = torch.rand(p.shape, generator=generator, dtype=kind, device=generator.device)
        drawn[name] = uniform.to(p.device)
    return drawn
