"""Full-batch gradient descent on every data set at once, with the data-set axis last.

Data sets with the same inputs form a block, whose pre-activations are one small matrix product. What is
not needed is mostly left out: inputs that a data set lacks, and hidden units that are *inert* on it (all
outgoing weights dropped, or active on none of its inputs at the start). An inert unit stays inert and
keeps its weights: its gradients are 0, but for those of dropped weights. A step is

    a = max(0, X w),  f = b + Σ_u v_u a_u,  r = ∂ℓ/∂f,
    b ← b − η Σ_x r,  v ← v − η Σ_x r a,  w ← w − η Xᵀ(r v [a > 0]),

in place, in buffers, with η the learning rate times the mask. Two logits under cross-entropy depend
on their difference only, whose weights move by the sum of the two masks, and each logit by its own.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from ntktheory.checks import complaint
from ntktheory.information.toy_data import ToyData
from ntktheory.information.toy_network import ToyNetwork

CHUNK = 48_000
"""Hidden activations trained together: a few arrays of this size stay in the caches."""
WASTE, SMALL = 1.5, 12_000
"""A block may be padded by this factor, or up to this size, where the calls cost more than the work."""


class Weights(NamedTuple):
    """The network of one output, data sets last: w [U, d + 1, N], v [U, N], b [N]."""

    w: Tensor
    v: Tensor
    b: Tensor


class Group(NamedTuple):
    """Data sets with the same inputs: how many there are and which (as bits); units to train."""

    inputs: int
    live: int
    support: int
    sets: Tensor

    @property
    def size(self) -> int:
        """The hidden activations."""
        return self.inputs * max(self.live, 1) * len(self.sets)


class Block(NamedTuple):
    """Data sets trained together: s groups of B.

    ``sets`` [s, B] are the data sets, ``inputs`` [s, j] the inputs of each group, ``live`` how many
    hidden units are trained: at least those that are not inert.
    """

    sets: Tensor
    inputs: Tensor
    live: int


def train(
    data: ToyData,
    network: ToyNetwork,
    start: Tensor,
    kept: Tensor | None = None,
    *,
    steps: int,
    lr: float,
    chunk: int = CHUNK,
) -> Tensor:
    """Return the parameters after gradient descent on each data set, under each data set's mask.

    Args:
        data: The data sets.
        network: The network and its loss, the mean over a data set's points.
        start: The initial parameters, [P] float64, or those of each data set, [P, N].
        kept: Masks [P, N] bool; None keeps all. Dropped weights are 0 and stay 0.
        steps: How many steps.
        lr: The learning rate.
        chunk: Hidden activations trained together.

    Returns:
        The trained parameters, [P, N] float64.

    Raises:
        ValueError: If the number of steps is negative, the learning rate is not positive and finite,
            or start or masks have another shape.

    Cost:
        Per step, about 10 passes over N times (inputs per data set, 4 on average) times (units).
        As many threads as torch has.

    Reference:
        ``reference_toy.py``: autograd on one data set's points at a time.
    """
    _check(data, network, start, kept, steps, lr)
    masks = torch.ones(network.size, len(data), dtype=torch.bool) if kept is None else kept
    with _own_threads() as pool:
        full = network.split((start.unsqueeze(1) if start.ndim == 1 else start) * masks)
        gates = {name: mask.to(start.dtype) for name, mask in network.split(masks).items()}
        theta, rates = _one_output(full), _one_output(gates, rates=True)
        first = Weights(*(t.clone() for t in theta))
        used = data.counts.sum(0) > 0
        live = _live(data.inputs, used, theta.w, rates.v > 0)
        scale = lr / data.samples

        def run(block: Block) -> None:
            _train_block(block, data, network.loss, theta, rates, live, scale, steps)

        list(pool.map(run, _blocks(used, live, chunk)))
        return _all_outputs(network, full, gates, first, theta, rates)


@contextmanager
def _own_threads() -> Iterator[ThreadPoolExecutor]:
    """Give as many threads as torch has, and leave it one in each: its own wait by spinning."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)


def _check(
    data: ToyData, network: ToyNetwork, start: Tensor, kept: Tensor | None, steps: int, lr: float
) -> None:
    check_descent(steps, lr)
    wanted = (network.size, len(data))
    if start.shape not in (wanted[:1], wanted):
        expected = f"of shape {list(wanted[:1])} or {list(wanted)}"
        raise ValueError(complaint("start", expected, list(start.shape), "One per weight."))
    if kept is not None and kept.shape != wanted:
        raise ValueError(
            complaint(
                "kept", f"of shape {list(wanted)}", list(kept.shape), "One mask per data set."
            )
        )


def check_descent(steps: int, lr: float) -> None:
    """Check the settings of gradient descent.

    Raises:
        ValueError: If the number of steps is no int or negative, or the rate not positive and finite.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise ValueError(complaint("steps", "a non-negative integer", repr(steps), "200 is usual."))
    if not 0 < lr < float("inf"):
        raise ValueError(complaint("lr", "positive and finite", lr, "0.1 is usual."))


def _one_output(params: dict[str, Tensor], *, rates: bool = False) -> Weights:
    """Return the weights of the output, or of the difference of the two; masks add as rates."""
    w = torch.cat([params["layer1.weight"], params["layer1.bias"].unsqueeze(1)], 1)
    v, b = params["layer2.weight"], params["layer2.bias"]
    if len(v) == 1:
        return Weights(w, v[0], b[0])
    return Weights(w, v[1] + v[0], b[1] + b[0]) if rates else Weights(w, v[1] - v[0], b[1] - b[0])


def _all_outputs(
    network: ToyNetwork,
    start: dict[str, Tensor],
    gates: dict[str, Tensor],
    first: Weights,
    last: Weights,
    rates: Weights,
) -> Tensor:
    """Return the parameters of all outputs, [P, N]: each logit has moved by its own mask's share."""
    if network.outputs == 1:
        v, b = last.v.unsqueeze(0), last.b.unsqueeze(0)
    else:
        moved_v = (last.v - first.v) / rates.v.clamp(min=1)
        moved_b = (last.b - first.b) / rates.b.clamp(min=1)
        signs = torch.tensor([-1.0, 1.0], dtype=moved_b.dtype)
        v = start["layer2.weight"] + signs[:, None, None] * gates["layer2.weight"] * moved_v
        b = start["layer2.bias"] + signs[:, None] * gates["layer2.bias"] * moved_b
    w = last.w
    parts = (w[:, :-1].flatten(0, 1), w[:, -1], v.flatten(0, 1), b)
    return torch.cat(parts)


def _live(inputs: Tensor, used: Tensor, w: Tensor, kept: Tensor) -> Tensor:
    """Return which units can move or matter, [U, N]: active on an input, an outgoing weight kept.

    That weight may be 0, or as large as the other logit's: it moves in the first step.
    """
    active = torch.zeros_like(kept)
    for x, there in zip(inputs, used, strict=True):
        h = w[:, -1] + torch.einsum("c,ucn->un", x, w[:, :-1])
        active |= (h > 0) & there
    return active & kept


def _blocks(used: Tensor, live: Tensor, chunk: int) -> Iterator[Block]:
    """Yield blocks of groups: data sets with the same inputs and equally many live units.

    Groups of unlike sizes share a block where that wastes little. They are padded with inputs that they
    lack, which weigh 0, with inert units, and with their first data set, which is then stored again.
    """
    number, most = len(used), live.shape[0] + 1
    support = (used.long() << torch.arange(number).unsqueeze(1)).sum(0)
    units = ((live.sum(0) + 1) // 2 * 2).clamp(max=live.shape[0])  # in pairs: larger groups
    key = (used.sum(0) * most + units) << number | support
    order = torch.argsort(key, stable=True)
    names, counts = torch.unique_consecutive(key[order], return_counts=True)
    groups = [
        Group((name >> number) // most, (name >> number) % most, name % 2**number, sets)
        for name, sets in zip(names.tolist(), order.split(counts.tolist()), strict=True)
    ]
    groups.sort(key=lambda group: (group.inputs, group.live, len(group.sets)))
    block: list[Group] = []
    needed = 0
    for group in groups:
        padded = _padded([*block, group])
        needed += group.size
        if block and (padded > chunk or padded > max(WASTE * needed, SMALL)):
            yield _block(block, number)
            block, needed = [], group.size
        block.append(group)
    yield _block(block, number)


def _padded(groups: Sequence[Group]) -> int:
    """Return the hidden activations of a block, padding included."""
    longest = max(len(group.sets) for group in groups)
    inputs, live = max(g.inputs for g in groups), max(g.live for g in groups)
    return len(groups) * inputs * max(live, 1) * longest


def _block(groups: Sequence[Group], number: int) -> Block:
    longest = max(len(group.sets) for group in groups)
    most = max(group.inputs for group in groups)
    sets = [torch.cat([g.sets, g.sets[:1].expand(longest - len(g.sets))]) for g in groups]
    inputs = []
    for group in groups:
        own = [i for i in range(number) if group.support >> i & 1]
        lacking = [i for i in range(number) if not group.support >> i & 1]
        inputs.append(own + lacking[: most - len(own)])
    return Block(torch.stack(sets), torch.tensor(inputs), max(group.live for group in groups))


def _train_block(
    block: Block,
    data: ToyData,
    loss: str,
    theta: Weights,
    rates: Weights,
    live: Tensor,
    scale: float,
    steps: int,
) -> None:
    """Train one block and write its weights back; the threads' data sets are distinct."""
    index, flat = block.sets, block.sets.flatten()
    groups, size = index.shape
    units = torch.argsort(~live[:, flat], dim=0, stable=True)[: block.live]  # [L, sB], live first
    rows = units.unsqueeze(1).expand(-1, theta.w.shape[1], -1)

    def gather(of: Weights) -> Weights:
        w = of.w[:, :, flat].gather(0, rows)  # [L, d + 1, sB]
        w = w.view(*w.shape[:2], groups, size).permute(2, 1, 0, 3).contiguous()
        v = of.v[:, flat].gather(0, units).view(-1, groups, size).transpose(0, 1).contiguous()
        return Weights(w, v, of.b[index])

    x = torch.cat([data.inputs, torch.ones_like(data.inputs[:, :1])], 1)[block.inputs]
    counts = data.counts[:, block.inputs.unsqueeze(-1), index.unsqueeze(1)].to(x.dtype)  # [2,s,j,B]
    now, eta = gather(theta), gather(rates)
    _descend(now, eta, x, counts, loss, scale, steps)
    w = now.w.permute(2, 1, 0, 3).reshape(*rows.shape)
    theta.w[units.unsqueeze(1), torch.arange(rows.shape[1]).view(1, -1, 1), flat] = w
    theta.v[units, flat] = now.v.transpose(0, 1).reshape(units.shape)
    theta.b[flat] = now.b.flatten()


def _descend(
    now: Weights, masks: Weights, x: Tensor, counts: Tensor, loss: str, scale: float, steps: int
) -> None:
    """Run the steps in place: w [s, d + 1, L, B], v [s, L, B], b [s, B], x [s, j, d + 1].

    r comes out times lr: of the squared error ``2(n f − n₊ + n₋)/samples``, of the logistic loss
    ``(n σ(f) − n₊)/samples``, with n₊ and n₋ the points of either label at an input, n their sum.
    """
    (s, j, k), (_, live, size) = x.shape, now.v.shape
    minus, plus = counts
    squared = loss == "mse"
    n = (minus + plus) * (scale * (2 if squared else 1))
    target = (minus - plus) * (2 * scale) if squared else plus * -scale
    w, v, b = now.w.view(s, k, live * size), now.v.unsqueeze(1), now.b.unsqueeze(1)
    mask_w, mask_v, mask_b = masks.w.view_as(w), masks.v.unsqueeze(1), masks.b.unsqueeze(1)
    xt = x.transpose(1, 2).contiguous()
    a, g = x.new_empty(s, j, live * size), x.new_empty(s, j, live * size)
    a4, g4 = a.view(s, j, live, size), g.view(s, j, live, size)
    f, r = x.new_empty(s, j, size), x.new_empty(s, j, size)
    grad_v, grad_b = torch.empty_like(v), torch.empty_like(b)
    pairs = list(zip(a4.unbind(2), v.unbind(2), strict=True))
    r4 = r.unsqueeze(2)
    gate = torch.ops.aten.threshold_backward.grad_input
    for _ in range(steps):
        if live:
            torch.bmm(x, w, out=a)
            a.clamp_(min=0)
            torch.addcmul(b, *pairs[0], out=f)
            for unit, out in pairs[1:]:
                f.addcmul_(unit, out)
        else:
            f.copy_(b.expand_as(f))
        torch.addcmul(target, f if squared else f.sigmoid_(), n, out=r)
        torch.sum(r, 1, keepdim=True, out=grad_b)
        if live:
            torch.mul(a4, r4, out=g4)
            torch.sum(g4, 1, keepdim=True, out=grad_v)
            torch.mul(v, r4, out=g4)
            gate(g, a, 0, grad_input=g)
            w.baddbmm_(xt, g, alpha=-1).mul_(mask_w)  # dropped weights are back at 0
            v.addcmul_(grad_v, mask_v, value=-1)
        b.addcmul_(grad_b, mask_b, value=-1)
