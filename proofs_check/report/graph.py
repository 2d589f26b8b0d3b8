"""The graph of claims, laid out in layers from left to right.

A claim stands one layer to the right of the last claim it builds on; links that follow from other
links are left out; links over several layers pass through empty places, so that none runs behind a
claim; places within a layer are ordered by the mean place of their neighbours (Sugiyama's method).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

NODE_WIDTH, NODE_HEIGHT = 144.0, 30.0
COLUMN_GAP, ROW_GAP, VIA_HEIGHT = 50.0, 10.0, 8.0
SWEEPS = 8

Via = tuple[str, str, int]  # the place of the link (from, to) in one of the layers between
Place = str | Via


@dataclass(frozen=True)
class Node:
    """A claim's box: its id and its left upper corner in pixels."""

    id: str
    x: float
    y: float


@dataclass(frozen=True)
class Edge:
    """A link from the claim that is built on to the one that builds on it, as an SVG path."""

    start: str
    end: str
    path: str


@dataclass(frozen=True)
class Graph:
    """A laid-out graph: size in pixels, boxes, links, and the claims without any link."""

    width: float
    height: float
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    alone: tuple[str, ...]


def layout(claims: Iterable[Mapping[str, Any]]) -> Graph:
    """Lay out the graph of claims.

    Args:
        claims: Entries with ``id`` and ``depends``; links to claims outside them are left out.

    Returns:
        The graph; each connected part stands on its own, below the larger ones.
    """
    entries = list(claims)
    ids = {entry["id"] for entry in entries}
    parents = {
        entry["id"]: tuple(p for p in entry["depends"] if p in ids and p != entry["id"])
        for entry in entries
    }
    linked = [part for part in components(parents) if len(part) > 1]
    alone = tuple(part[0] for part in components(parents) if len(part) == 1)
    nodes: list[Node] = []
    edges: list[Edge] = []
    width = height = 0.0
    for part in sorted(linked, key=len, reverse=True):
        top = height + (2 * ROW_GAP if height else 0.0)
        placed = _layout_part(reduce_links({id_: parents[id_] for id_ in part}), top)
        nodes += placed.nodes
        edges += placed.edges
        width, height = max(width, placed.width), placed.height
    return Graph(width, height, tuple(nodes), tuple(edges), alone)


def components(parents: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Return the connected parts of a graph, each in the given order."""
    part = {id_: {id_} for id_ in parents}
    for id_, above in parents.items():
        for parent in above:
            merged = part[id_] | part[parent]
            part.update(dict.fromkeys(merged, merged))
    seen: set[str] = set()
    result = []
    for id_ in parents:
        if id_ not in seen:
            seen |= part[id_]
            result.append([member for member in parents if member in part[id_]])
    return result


def layers(parents: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Return each claim's layer: 0 without parents, else one more than its last parent's."""
    depth: dict[str, int] = {}

    def visit(id_: str) -> int:
        if id_ not in depth:
            depth[id_] = 1 + max((visit(parent) for parent in parents[id_]), default=-1)
        return depth[id_]

    for id_ in parents:
        visit(id_)
    return depth


def reduce_links(parents: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Return the links without those that follow from others."""

    def ancestors(id_: str) -> set[str]:
        return set(parents[id_]).union(*(ancestors(parent) for parent in parents[id_]))

    return {
        id_: tuple(p for p in above if not any(p in ancestors(q) for q in above if q != p))
        for id_, above in parents.items()
    }


def _layout_part(parents: Mapping[str, Sequence[str]], top: float) -> Graph:
    depth = layers(parents)
    columns: list[list[Place]] = [[] for _ in range(max(depth.values()) + 1)]
    for id_ in parents:
        columns[depth[id_]].append(id_)
    chains: dict[tuple[str, str], list[Place]] = {}
    for id_, above in parents.items():
        for parent in above:
            between: list[Place] = [(parent, id_, k) for k in range(depth[parent] + 1, depth[id_])]
            for k, place in enumerate(between, start=depth[parent] + 1):
                columns[k].append(place)
            chains[parent, id_] = [parent, *between, id_]
    _order(columns, list(chains.values()))
    middle, bottom = _middles(columns, list(chains.values()), top)
    x = {
        place: k * (NODE_WIDTH + COLUMN_GAP) for k, column in enumerate(columns) for place in column
    }
    nodes = tuple(Node(id_, x[id_], middle[id_] - NODE_HEIGHT / 2) for id_ in parents)
    edges = tuple(
        Edge(start, end, _path([(x[place], middle[place]) for place in chain]))
        for (start, end), chain in chains.items()
    )
    return Graph(len(columns) * (NODE_WIDTH + COLUMN_GAP) - COLUMN_GAP, bottom, nodes, edges, ())


def _neighbours(chains: Sequence[Sequence[Place]]) -> tuple[dict, dict]:
    before: dict[Place, list[Place]] = {}
    after: dict[Place, list[Place]] = {}
    for chain in chains:
        for left, right in pairwise(chain):
            after.setdefault(left, []).append(right)
            before.setdefault(right, []).append(left)
    return before, after


def _order(columns: list[list[Place]], chains: Sequence[Sequence[Place]]) -> None:
    """Sort every column by the mean rank of its neighbours; keep the order that crosses least."""
    before, after = _neighbours(chains)
    best, fewest = [list(column) for column in columns], crossings(columns, chains)
    for sweep in range(SWEEPS):
        forward = sweep % 2 == 0
        for column in columns[1:] if forward else columns[-2::-1]:
            _sort_by_neighbours(column, columns, before if forward else after)
        _swap_neighbours(columns, chains)
        if (count := crossings(columns, chains)) < fewest:
            best, fewest = [list(column) for column in columns], count
    columns[:] = best


def _sort_by_neighbours(
    column: list[Place], columns: Sequence[Sequence[Place]], near: Mapping[Place, Sequence[Place]]
) -> None:
    rank = {place: k / len(c) for c in columns for k, place in enumerate(c, start=1)}
    mean = {place: _mean([rank[q] for q in near.get(place, [place])]) for place in column}
    column.sort(key=mean.__getitem__)


def _swap_neighbours(columns: list[list[Place]], chains: Sequence[Sequence[Place]]) -> None:
    """Swap neighbours within a column wherever that makes links cross less often."""
    fewest = crossings(columns, chains)
    for column in columns:
        for k in range(len(column) - 1):
            column[k], column[k + 1] = column[k + 1], column[k]
            if (count := crossings(columns, chains)) < fewest:
                fewest = count
            else:
                column[k], column[k + 1] = column[k + 1], column[k]


def crossings(columns: Sequence[Sequence[Place]], chains: Sequence[Sequence[Place]]) -> int:
    """Return how often links between neighbouring columns cross."""
    rank = {place: k for column in columns for k, place in enumerate(column)}
    layer = {place: k for k, column in enumerate(columns) for place in column}
    segments: dict[int, list[tuple[int, int]]] = {}
    for chain in chains:
        for left, right in pairwise(chain):
            segments.setdefault(layer[left], []).append((rank[left], rank[right]))
    return sum(
        (a - c) * (b - d) < 0
        for pairs in segments.values()
        for (a, b), (c, d) in combinations(pairs, 2)
    )


def _middles(
    columns: list[list[Place]], chains: Sequence[Sequence[Place]], top: float
) -> tuple[dict[Place, float], float]:
    """Return every place's middle: as near to its neighbours' mean as the order allows."""
    before, after = _neighbours(chains)
    middle: dict[Place, float] = {}
    for column in columns:
        middle.update(_stack(column, {place: 0.0 for place in column}))
    for sweep in range(2 * SWEEPS):
        near = before if sweep % 2 else after
        for column in columns:
            wish = {p: _mean([middle[q] for q in near.get(p, [p])]) for p in column}
            middle.update(_stack(column, wish))
    shift = top - min(middle[p] - _half(p) for p in middle)
    bottom = shift + max(middle[p] + _half(p) for p in middle)
    return {place: y + shift for place, y in middle.items()}, bottom


def _stack(column: Sequence[Place], wish: Mapping[Place, float]) -> dict[Place, float]:
    """Return the middles of a column without overlaps, nearest to the wishes in squares.

    With y_i = u_i + offset_i the order constraint is that u never falls: isotonic regression, by
    pooling adjacent violators.
    """
    offset, offsets = 0.0, []
    for k, place in enumerate(column):
        if k:
            offset += _half(column[k - 1]) + _half(place) + ROW_GAP
        offsets.append(offset)
    pools: list[tuple[float, int]] = []
    for place, o in zip(column, offsets, strict=True):
        mean, size = wish[place] - o, 1
        while pools and pools[-1][0] > mean:
            last, count = pools.pop()
            mean, size = (last * count + mean * size) / (count + size), count + size
        pools.append((mean, size))
    levels = [mean for mean, size in pools for _ in range(size)]
    return {p: u + o for p, u, o in zip(column, levels, offsets, strict=True)}


def _half(place: Place) -> float:
    return (NODE_HEIGHT if isinstance(place, str) else VIA_HEIGHT) / 2


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _path(points: Sequence[tuple[float, float]]) -> str:
    """Return a smooth path from the right side of the first place to the left side of the last."""
    parts = []
    for k, ((x0, y0), (x1, y1)) in enumerate(pairwise(points)):
        left, bend = x0 + NODE_WIDTH, COLUMN_GAP / 2
        parts.append(f"M{left:.1f} {y0:.1f}" if k == 0 else f"L{left:.1f} {y0:.1f}")
        parts.append(f"C{left + bend:.1f} {y0:.1f} {x1 - bend:.1f} {y1:.1f} {x1:.1f} {y1:.1f}")
    return "".join(parts)
