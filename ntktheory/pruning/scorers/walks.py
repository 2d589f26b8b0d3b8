"""Random walks from inputs to outputs and back, many at a time, with steps in proportion to |w|.

Forwards, a walker at a unit first picks one of the blocks that use it, all alike, then one of the places
at which that block does (a channel that was flattened has one per position), all alike, then an edge
with probability ∝ |w|. Backwards it picks an edge into its unit ∝ |w|, and at a sum one of the two
terms, alike. It never enters a unit from which it could not go on to the end: where no weight is 0 that
is no condition.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ntktheory.functional import Params
from ntktheory.pruning.scorers.walk_graph import Graph, Layer


@dataclass(frozen=True)
class Choice:
    """One of several items for every unit, all alike: those of unit u start at ``first[u]``."""

    first: Tensor
    count: Tensor
    items: Tensor

    @classmethod
    def of(cls, units: Tensor, items: Tensor, size: int) -> "Choice":
        """Collect items by the unit to which each belongs."""
        order = units.argsort(stable=True)
        count = torch.bincount(units, minlength=size)
        return cls(count.cumsum(0) - count, count, items[order])

    def draw(self, units: Tensor, generator: torch.Generator) -> Tensor:
        """Pick an item for every unit, −1 where there is none."""
        count = self.count[units]
        u = torch.rand(units.shape, generator=generator, dtype=torch.float64)
        pick = torch.minimum((u * count).long(), count - 1).clamp(min=0) + self.first[units]
        return torch.where(count > 0, self.items[pick.clamp(max=len(self.items) - 1)], -1)


@dataclass(frozen=True)
class Steps:
    """What a walk in one direction does.

    Attributes:
        graph: The graph.
        forward: The direction.
        alive: Which units a walk may enter, by number.
        starts: The units at which walks start.
        shares: For every layer the probability of each edge, given the place at which it starts,
            [places, edges]; None for sums.
        ports: For every block, where it uses a unit (forwards only).
        ways: Which blocks use a unit (forwards only).
    """

    graph: Graph
    forward: bool
    alive: Tensor
    starts: Tensor
    shares: tuple[Tensor | None, ...]
    ports: tuple[Choice, ...]
    ways: Choice | None


def plan_steps(graph: Graph, forward: bool) -> Steps:
    """Prepare the walks of one direction."""
    alive = _alive(graph, forward)
    own = torch.arange(1, 1 + graph.inputs) if forward else graph.outputs
    shares = tuple(
        _shares(block, alive, forward) if isinstance(block, Layer) else None
        for block in graph.blocks
    )
    ports = tuple(_ports(graph, alive, shares)) if forward else ()
    ways = None
    if forward:
        used = [torch.nonzero(p.count).flatten() for p in ports]
        blocks = [torch.full_like(u, i) for i, u in enumerate(used)]
        ways = Choice.of(torch.cat(used), torch.cat(blocks), graph.size) if used else None
    return Steps(graph, forward, alive, own[alive[own]], shares, ports, ways)


@dataclass(frozen=True)
class Walker:
    """Walks in one direction, with the tables that draw their edges."""

    steps: Steps
    tables: tuple[Tensor | None, ...]

    @classmethod
    def of(cls, steps: Steps) -> "Walker":
        """Make the tables: row r of a layer's cumulative shares rises from r to r + 1."""
        tables: list[Tensor | None] = []
        for shares in steps.shares:
            if shares is None:
                tables.append(None)
                continue
            sums = shares.cumsum(1)
            sums = sums / sums[:, -1:].clamp(min=torch.finfo(torch.float64).tiny)
            tables.append((sums + torch.arange(len(sums)).unsqueeze(1)).flatten())
        return cls(steps, tuple(tables))

    def walk(
        self, start: Tensor, generator: torch.Generator
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Let one walker start at each of these units.

        Args:
            start: Numbers of units, [walkers].
            generator: Source of randomness.

        Yields:
            The place of a layer among the blocks, which walkers cross it, and the edge that each takes
            as its place in the weight; in the order of the walk.
        """
        yield from (self._forwards if self.steps.forward else self._backwards)(start, generator)

    def _forwards(
        self, start: Tensor, generator: torch.Generator
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        ways = self.steps.ways
        if ways is None:
            return
        at, target = start.clone(), ways.draw(start, generator)
        for i, block in enumerate(self.steps.graph.blocks):
            here = torch.nonzero(target == i).flatten()
            if not len(here):
                continue
            port = self.steps.ports[i].draw(at[here], generator)
            if isinstance(block, Layer):
                _, size, outputs, kernel = block.strengths.shape
                place = self._draw(i, port, generator)
                group, unit = port // size, place // kernel
                yield i, here, block.index[group, port % size, unit, place % kernel]
                at[here] = block.start + group * outputs + unit
            else:
                at[here] = block.start + port
            target[here] = ways.draw(at[here], generator)

    def _backwards(
        self, start: Tensor, generator: torch.Generator
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        at = start.clone()
        for i, block in reversed(list(enumerate(self.steps.graph.blocks))):
            here = torch.nonzero((at >= block.start) & (at < block.start + block.count)).flatten()
            if not len(here):
                continue
            unit = at[here] - block.start
            if isinstance(block, Layer):
                _, size, outputs, kernel = block.strengths.shape
                place = self._draw(i, unit, generator)
                group, entry = unit // outputs, place // kernel
                yield i, here, block.index[group, entry, unit % outputs, place % kernel]
                at[here] = block.sources[group * size + entry]
            else:
                terms = block.sources[unit]
                pick = torch.multinomial(self.steps.alive[terms].double(), 1, generator=generator)
                at[here] = terms.gather(1, pick).squeeze(1)

    def _draw(self, i: int, rows: Tensor, generator: torch.Generator) -> Tensor:
        table, shares = self.tables[i], self.steps.shares[i]
        if table is None or shares is None:
            raise TypeError("a layer must have a table")
        u = torch.rand(rows.shape, generator=generator, dtype=torch.float64)
        below = torch.nextafter(rows + 1.0, rows.double())  # r + u may round up to r + 1
        found = torch.searchsorted(table, torch.minimum(rows + u, below), right=True)
        return found - rows * shares.shape[1]


def expected_visits(steps: Steps, params: Params) -> Params:
    """Return how often one walk visits each weight on average, shaped like it, in float64.

    Args:
        steps: The steps of one direction.
        params: The parameters, for their shapes.

    Returns:
        Name -> mean number of visits, for the weights of all layers of the graph.
    """
    graph = steps.graph
    mass = torch.zeros(graph.size, dtype=torch.float64)
    mass[steps.starts] = 1 / max(1, len(steps.starts))
    visits = {
        block.weight: torch.zeros(params[block.weight].numel(), dtype=torch.float64)
        for block in graph.blocks
        if isinstance(block, Layer)
    }
    order = list(enumerate(graph.blocks))
    for i, block in order if steps.forward else reversed(order):
        own = torch.arange(block.start, block.start + block.count)
        if steps.forward:
            ports = steps.ports[i]
            alike = mass / (steps.ways.count * ports.count).clamp(min=1)  # type: ignore[union-attr]
            places = torch.zeros(len(block.sources), dtype=torch.float64)
            units = torch.repeat_interleave(torch.arange(graph.size), ports.count)
            places.index_add_(0, ports.items, alike[units])
        else:
            places = mass[own]
        shares = steps.shares[i]
        if not isinstance(block, Layer) or shares is None:
            if steps.forward:
                mass[own] += places
            else:
                ways = steps.alive[block.sources].double()
                ways = ways / ways.sum(1, keepdim=True).clamp(min=1) * places.unsqueeze(1)
                mass.index_add_(0, block.sources.flatten(), ways.flatten())
            continue
        groups, size, outputs, kernel = block.strengths.shape
        edges = shares * places.unsqueeze(1)
        if steps.forward:
            edges = edges.view(groups, size, outputs, kernel)
            mass[own] += edges.sum((1, 3)).flatten()
        else:
            edges = edges.view(groups, outputs, size, kernel).transpose(1, 2)
            mass.index_add_(0, block.sources, edges.sum((2, 3)).flatten())
        visits[block.weight].index_add_(0, block.index.flatten(), edges.flatten())
    return {name: v.view(params[name].shape) for name, v in visits.items()}


def _alive(graph: Graph, forward: bool) -> Tensor:
    """Return which units reach an output (forwards), or are reached by an input (backwards)."""
    alive = torch.zeros(graph.size, dtype=torch.bool)
    alive[graph.outputs if forward else torch.arange(1, 1 + graph.inputs)] = True
    for block in reversed(graph.blocks) if forward else graph.blocks:
        own = torch.arange(block.start, block.start + block.count)
        if isinstance(block, Layer):
            open_edges = (block.strengths > 0) & _enterable(block, alive, forward)
            reached = open_edges.any(3).any(2 if forward else 1).flatten()
        else:
            reached = alive[own] if forward else alive[block.sources].any(1)
        if forward:
            sources = block.sources[reached]
            alive[sources.flatten()] = True
            alive[0] = False
        else:
            alive[own] = reached
    return alive


def _enterable(block: Layer, alive: Tensor, forward: bool) -> Tensor:
    """Return which edges lead to a unit that may be entered, to be broadcast over the strengths."""
    groups, size, outputs, _ = block.strengths.shape
    if forward:
        own = torch.arange(block.start, block.start + block.count)
        return alive[own].view(groups, 1, outputs, 1)
    return alive[block.sources].view(groups, size, 1, 1)


def _shares(block: Layer, alive: Tensor, forward: bool) -> Tensor:
    strengths = block.strengths * _enterable(block, alive, forward)
    rows = (strengths if forward else strengths.transpose(1, 2)).flatten(2).flatten(0, 1)
    rows = rows / rows.amax(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    return rows / rows.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)


def _ports(graph: Graph, alive: Tensor, shares: tuple[Tensor | None, ...]) -> Iterator[Choice]:
    """Yield for every block the places at which it uses each unit and lets a walk go on."""
    for block, rows in zip(graph.blocks, shares, strict=True):
        if rows is not None:
            places = torch.nonzero((rows > 0).any(1)).flatten()
            yield Choice.of(block.sources[places], places, graph.size)
        else:
            own = torch.arange(block.start, block.start + block.count)
            places = torch.nonzero(alive[own]).flatten()
            sources = block.sources[places]
            yield Choice.of(sources.flatten(), places.repeat_interleave(2), graph.size)
