"""PHEW: paths with higher edge weights, found by biased random walks."""

import torch
from torch import Tensor

from ntktheory.checks import check_count, complaint
from ntktheory.functional import Masks, ModelFn, Params, masked
from ntktheory.pruning.scorers.walk_graph import Layer, read_graph
from ntktheory.pruning.scorers.walks import Steps, Walker, expected_visits, plan_steps

BATCH = 1 << 14
WALKS_PER_WEIGHT = 16


def phew(
    model_fn: ModelFn,
    params: Params,
    masks: Masks | None,
    names: tuple[str, ...],
    like: Tensor,
    generator: torch.Generator,
    *,
    coverage: float = 0.5,
    walks: int | None = None,
) -> Params:
    """Return minus the place of each weight in the order in which random walks first visit them.

    Walks start at the inputs and at the outputs in turn, at each end unit by unit in turn, and cross the
    network; a step takes an edge with probability ∝ |w| among those that leave the unit (forwards) or
    enter it (backwards). So the k highest scores are the weights of the first walks until k are
    reached: PHEW's mask, with the last walk cut where the count is full.

    A unit is a feature of a Linear or a channel of a convolution, whose edges are the entries of its
    kernels. Where units are used by several blocks, or are sums of two, the walk picks one alike; so it
    takes a shortcut half of the time, with a convolution in it or not. (The published code draws so
    for shortcuts with a convolution, and has no others.)

    Walks end when the fraction ``coverage`` of the weights has been visited. All other weights follow in
    the order of their mean number of visits per walk, which is computed; weights on no path come last,
    and among equals the smaller index goes first.

    Args:
        model_fn: The network.
        params: Its parameters, unmasked.
        masks: Parameter name -> mask; walks avoid dropped weights.
        names: The parameters to score.
        like: An input or a batch of the right shape; its values do not matter.
        generator: Source of randomness.
        coverage: Fraction of weights, in [0, 1], up to which the order is that of the walks: at least
            the density of the mask.
        walks: The most walks; None means 16 per weight of the largest layer.

    Returns:
        Name -> score 0, −1, −2, …, shaped like the parameter, float64. In float32 neighbours beyond the
        first 2²⁴ are equal, and kept by index. Not for ``vmap``: walks depend on the values. Cost: no
        pass but one to read the network; one table of cumulative |w| per layer and direction.

    Raises:
        ValueError: If ``coverage`` is not in [0, 1] or ``walks`` no positive integer.
        UnsupportedModule: If a walk cannot cross a call of the network.

    Source:
        PHEW (Patil and Dovrolis 2021), §4. Laws of the steps tested against all paths of small nets.

    Example:
        >>> weight = {"weight": torch.tensor([[1.0, 0.0], [0.0, 2.0]])}
        >>> linear = lambda params, x: torch.nn.functional.linear(x, params["weight"])
        >>> generator = torch.Generator().manual_seed(0)
        >>> phew(linear, weight, None, ("weight",), torch.ones(1, 2), generator)
        {'weight': tensor([[ 0., -2.],
                [-3., -1.]], dtype=torch.float64)}
    """
    check_count("walks", walks)
    if not isinstance(coverage, int | float) or not 0 <= coverage <= 1:
        raise ValueError(
            complaint(
                "coverage", "a fraction in [0, 1]", repr(coverage), "Pass the density of the mask."
            )
        )
    graph = read_graph(model_fn, masked(params, masks), like)
    sizes = {name: params[name].numel() for name in names}
    most = walks or WALKS_PER_WEIGHT * max(sizes.values())
    steps = [plan_steps(graph, forward) for forward in (True, False)]
    first = _first_visits(steps, sizes, round(coverage * sum(sizes.values())), most, generator)
    means = [expected_visits(each, params) for each in steps]
    zero = torch.zeros((), dtype=torch.float64)
    rates = torch.cat(
        [
            sum((m[name].flatten() for m in means if name in m), zero).expand(size)
            for name, size in sizes.items()
        ]
    )
    by_rate = rates.argsort(descending=True, stable=True)
    order = by_rate[first[by_rate].argsort(stable=True)]
    places = torch.empty_like(order)
    places[order] = torch.arange(len(order))
    parts = places.split(list(sizes.values()))
    return {
        name: (0 - part).double().view(params[name].shape).to(params[name].device)
        for name, part in zip(names, parts, strict=True)
    }


def _first_visits(
    steps: list[Steps], sizes: dict[str, int], wanted: int, most: int, generator: torch.Generator
) -> Tensor:
    """Walk until so many weights are visited; return the time of each one's first visit."""
    offsets = dict(zip(sizes, torch.tensor([0, *sizes.values()]).cumsum(0).tolist(), strict=False))
    never = torch.iinfo(torch.int64).max
    first = torch.full((sum(sizes.values()),), never)
    walkers = [Walker.of(each) for each in steps]
    if any(not len(each.starts) for each in steps):
        return first
    blocks = steps[0].graph.blocks
    count = len(blocks)
    done = 0
    while done < most and int((first < never).sum()) < wanted:
        batch = min(BATCH, most - done)
        numbers = torch.arange(done, done + batch)
        for walker in walkers:
            own = numbers[numbers % 2 == (0 if walker.steps.forward else 1)]
            starts = walker.steps.starts
            for i, here, edge in walker.walk(starts[own // 2 % len(starts)], generator):
                block = blocks[i]
                if isinstance(block, Layer) and block.weight in offsets:
                    step = i if walker.steps.forward else count - 1 - i
                    time = own[here] * count + step
                    first.scatter_reduce_(0, offsets[block.weight] + edge, time, "amin")
        done += batch
    return first
