"""The toy by definition: one data set at a time, its points in a list, autograd, weight by weight."""

import torch
from torch import Tensor

from ntktheory.information.toy_network import ToyNetwork


def train_one(
    network: ToyNetwork, start: Tensor, x: Tensor, y: Tensor, kept: Tensor, steps: int, lr: float
) -> Tensor:
    """Return the parameters after gradient descent on the points (x [n, d], y [n] of ±1), [P]."""
    net = network.model(start)
    theta = start * kept
    for _ in range(steps):
        leaf = theta.clone().requires_grad_()
        loss = network.loss_fn(net.model_fn(network.split(leaf), x), network.labels(y))
        (slope,) = torch.autograd.grad(loss, leaf, allow_unused=True)
        theta = theta - lr * slope * kept
    return theta


def prune_lowest(scores: list[float], kept: list[bool], count: int) -> list[bool]:
    """Drop ``count`` of the kept weights with the lowest scores, of equals the one of higher index."""
    kept = list(kept)
    for _ in range(count):
        candidates = [j for j, there in enumerate(kept) if there]
        kept[min(candidates, key=lambda j: (scores[j], -j))] = False
    return kept


def magnitude_after(
    network: ToyNetwork, start: Tensor, x: Tensor, y: Tensor, steps: int, lr: float
) -> list[list[bool]]:
    """Return the masks for k = 0…P−1 pruned by magnitude after training once."""
    everything = [True] * network.size
    trained = train_one(network, start, x, y, torch.ones(network.size), steps, lr)
    return [prune_lowest(trained.abs().tolist(), everything, k) for k in range(network.size)]


def imp(
    network: ToyNetwork, start: Tensor, x: Tensor, y: Tensor, steps: int, lr: float
) -> list[list[bool]]:
    """Return the masks for k = 0…P−1 pruned one weight per round, rewound to the start."""
    masks = [[True] * network.size]
    while len(masks) < network.size:
        kept = torch.tensor(masks[-1], dtype=start.dtype)
        trained = train_one(network, start, x, y, kept, steps, lr)
        masks.append(prune_lowest(trained.abs().tolist(), masks[-1], 1))
    return masks
