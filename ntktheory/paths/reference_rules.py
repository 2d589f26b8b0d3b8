"""How each module is written out as units and edges: a table from types to rules.

A rule is ``rule(graph, units, module) -> units``: it takes the numbers of the units that hold one
sample's activation, in the activation's shape without the sample axis, adds the module's units to the
graph, and returns theirs. ``RULES[Type] = rule`` adds one. A module that is in no table and is not of
``torch.nn`` is traced by ``torch.fx``, and its calls are looked up in ``RULES`` and ``CALLS``: so that a
residual block needs no rule of its own.
"""

import operator
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import product
from math import prod
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn

from ntktheory.checks import UnsupportedModule, complaint
from ntktheory.paths.reference_graph import Edge, Gates, Graph, Number

Rule = Callable[[Graph, np.ndarray, Any], np.ndarray]


def graph_of(model: nn.Module, shape: tuple[int, ...]) -> Graph:
    """Write a network out as a graph of units.

    Args:
        model: A network of the modules in ``RULES`` and the functions in ``CALLS``, nested as you like.
        shape: Shape of one input.

    Returns:
        The graph. Its outputs are those of the network in row-major order.

    Raises:
        UnsupportedModule: If it holds another module, or one in a mode without a rule.
    """
    graph = Graph(names={id(p): name for name, p in model.named_parameters()})
    graph.places = {id(m): name for name, m in model.named_modules()}
    units = np.empty(shape, dtype=int)
    for index in np.ndindex(*shape):
        units[index] = graph.unit([])
    graph.inputs = [int(u) for u in units.flat]
    graph.outputs = [int(u) for u in apply_rule(graph, units, model).flat]
    return graph


def apply_rule(graph: Graph, units: np.ndarray, module: nn.Module) -> np.ndarray:
    """Add one module to the graph, and return its units; refuse it if it has no rule."""
    rule = RULES.get(type(module))
    if rule is not None:
        return rule(graph, units, module)
    if type(module).__module__.startswith("torch.nn"):
        raise _refusal(graph, module, type(module).__name__)
    return _traced(graph, units, module)


def _refusal(graph: Graph, module: nn.Module, what: str) -> UnsupportedModule:
    return UnsupportedModule(
        complaint(
            "model",
            "made of Linear, convolutions, (leaky) ReLU, eval-mode BatchNorm, max pooling, "
            "AvgPool2d and Flatten, padded by numbers of zeros",
            f"{what} at {graph.places.get(id(module), '')!r}",
            "Enumerate a simpler network.",
        )
    )


def _require(graph: Graph, module: nn.Module, condition: bool, what: str) -> None:
    if not condition:
        raise _refusal(graph, module, f"{type(module).__name__} with {what}")


# --- containers -----------------------------------------------------------------------------------


def _sequential(graph: Graph, units: np.ndarray, module: nn.Sequential) -> np.ndarray:
    for child in module._modules.values():  # children() drops repeated modules
        if child is not None:
            units = apply_rule(graph, units, child)
    return units


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        return type(module) in RULES or type(module).__module__.startswith("torch.nn")


def _traced(graph: Graph, units: np.ndarray, module: nn.Module) -> np.ndarray:
    """Follow the calls of a module's forward, as torch.fx records them."""
    try:
        nodes = _Tracer().trace(module).nodes
    except (TypeError, RuntimeError, ValueError) as error:
        raise _refusal(graph, module, f"{type(module).__name__} ({error})") from error
    found: dict[str, Any] = {}
    for node in nodes:
        args: Any = fx.map_arg(node.args, lambda n: found[n.name])
        kwargs: Any = fx.map_arg(node.kwargs, lambda n: found[n.name])
        if node.op == "output":
            return args[0]
        if node.op == "placeholder":
            found[node.name] = units
        elif node.op == "call_module":
            given = next(iter([*args, *kwargs.values()]))
            found[node.name] = apply_rule(graph, given, module.get_submodule(str(node.target)))
        elif node.op == "get_attr":
            raise _refusal(graph, module, f"the tensor {str(node.target)!r}")
        elif node.target in CALLS:
            found[node.name] = CALLS[node.target](graph, *args, **kwargs)
        else:
            raise _refusal(graph, module, f"{getattr(node.target, '__name__', node.target)}()")
    raise _refusal(graph, module, f"{type(module).__name__} without a result")


# --- layers with parameters -----------------------------------------------------------------------


def _linear(graph: Graph, units: np.ndarray, module: nn.Linear) -> np.ndarray:
    n_out, n_in = module.weight.shape
    result = np.empty((*units.shape[:-1], n_out), dtype=int)
    for *place, o in np.ndindex(*result.shape):
        sources = units[tuple(place)]
        edges = [
            Edge(int(sources[i]), (graph.names[id(module.weight)], o * n_in + i))
            for i in range(n_in)
        ]
        result[(*place, o)] = graph.unit(edges + _bias(graph, module, o))
    return result


def _bias(graph: Graph, module: Any, index: int) -> list[Edge]:
    return [] if module.bias is None else [Edge(0, (graph.names[id(module.bias)], index))]


def _convolution(graph: Graph, units: np.ndarray, module: Any) -> np.ndarray:
    padded = isinstance(module.padding, str) or module.padding_mode != "zeros"
    _require(graph, module, not padded, f"padding {module.padding!r}, {module.padding_mode!r}")
    n_out, per_group, *kernel = module.weight.shape
    geometry = (kernel, module.stride, module.padding, module.dilation)
    size = _output_size(units.shape[1:], *geometry)
    result = np.empty((n_out, *size), dtype=int)
    for o, *place in np.ndindex(*result.shape):
        first = o // (n_out // module.groups) * per_group
        edges = [
            Edge(
                int(units[(first + d, *source)]),
                (graph.names[id(module.weight)], (o * per_group + d) * prod(kernel) + tap),
            )
            for d in range(per_group)
            for tap, source in _window(place, units.shape[1:], *geometry)
        ]
        result[(o, *place)] = graph.unit(edges + _bias(graph, module, o))
    return result


def _output_size(
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> list[int]:
    axes = zip(size, kernel, stride, padding, dilation, strict=True)
    return [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes]


def _window(
    place: Sequence[int],
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield (flat index in the kernel, source) of the sources that are not padding, row by row."""
    for tap, offset in enumerate(product(*map(range, kernel))):
        axes = zip(place, offset, stride, padding, dilation, strict=True)
        source = tuple(y * s - p + i * d for y, i, s, p, d in axes)
        if all(0 <= y < n for y, n in zip(source, size, strict=True)):
            yield tap, source


def _batch_norm(graph: Graph, units: np.ndarray, module: Any) -> np.ndarray:
    """Write ``γ·(x/σ − μ/σ) + β``, with ``1/σ`` and ``−μ/σ`` as fixed edges."""
    # 1/σ = 1/√(running_var + eps) is irrational: its float64 is read as the rational that it is.
    _require(graph, module, not module.training, "the statistics of the batch (train mode)")
    _require(graph, module, module.running_mean is not None, "no running statistics")
    inverse = (module.running_var.double() + module.eps).sqrt().reciprocal().tolist()
    result = np.empty(units.shape, dtype=int)
    for channel, *place in np.ndindex(*units.shape):
        scale = Fraction(inverse[channel])
        mean = Fraction(float(module.running_mean[channel]))
        edges = [Edge(int(units[(channel, *place)]), None, scale)]
        if mean:
            edges.append(Edge(0, None, -mean * scale))
        unit = graph.unit(edges)
        if module.affine:
            gamma = Edge(unit, (graph.names[id(module.weight)], channel))
            unit = graph.unit([gamma, *_bias(graph, module, channel)])
        result[(channel, *place)] = unit
    return result


# --- gates ----------------------------------------------------------------------------------------


def _gate_each(graph: Graph, units: np.ndarray, gates: Gates) -> np.ndarray:
    gated = [graph.unit([Edge(int(u))], gates) for u in units.flat]
    return np.array(gated, dtype=int).reshape(units.shape)


def _relu(graph: Graph, units: np.ndarray, *_: Any, **__: Any) -> np.ndarray:
    return _gate_each(graph, units, lambda z: [int(z[0] > 0)])


def _leaky_relu(graph: Graph, units: np.ndarray, module: nn.LeakyReLU) -> np.ndarray:
    slope = Fraction(module.negative_slope)
    return _gate_each(graph, units, lambda z: [1 if z[0] > 0 else slope])


def _first_largest(values: Sequence[Number]) -> list[int]:
    """Return 1 for the first of the largest entries, as PyTorch picks it, and 0 for the others."""
    largest = max(range(len(values)), key=lambda i: values[i])
    return [int(i == largest) for i in range(len(values))]


# --- pooling --------------------------------------------------------------------------------------


def _axes(value: int | Sequence[int], dimensions: int) -> list[int]:
    return [value] * dimensions if isinstance(value, int) else list(value)


def _max_pool(graph: Graph, units: np.ndarray, module: Any) -> np.ndarray:
    """Gate the window: the largest entry decides, per sample. Padding is no entry at all."""
    _require(graph, module, not (module.ceil_mode or module.return_indices), "ceil_mode or indices")
    return _pool(
        graph, units, module, module.dilation, lambda edges: graph.unit(edges, _first_largest)
    )


def _average_pool(graph: Graph, units: np.ndarray, module: Any) -> np.ndarray:
    plain = not (module.ceil_mode or getattr(module, "divisor_override", None))
    plain &= not any(_axes(module.padding, units.ndim - 1))
    _require(graph, module, plain, "padding, ceil_mode or a divisor")
    return _pool(graph, units, module, 1, lambda edges: _mean(graph, [e.source for e in edges]))


def _pool(
    graph: Graph,
    units: np.ndarray,
    module: Any,
    dilation: int | Sequence[int],
    unit: Callable[[list[Edge]], int],
) -> np.ndarray:
    given = (module.kernel_size, module.stride, module.padding, dilation)
    geometry = [_axes(value, units.ndim - 1) for value in given]
    size = _output_size(units.shape[1:], *geometry)
    result = np.empty((len(units), *size), dtype=int)
    for c, *place in np.ndindex(*result.shape):
        window = _window(place, units.shape[1:], *geometry)
        result[(c, *place)] = unit([Edge(int(units[(c, *source)])) for _, source in window])
    return result


def _adaptive_average(graph: Graph, units: np.ndarray, module: Any) -> np.ndarray:
    """Average over the rows ``⌊i·n/m⌋ … ⌈(i+1)·n/m⌉ − 1`` of n for output i of m."""
    sizes = zip(_axes(module.output_size, units.ndim - 1), units.shape[1:], strict=True)
    size = [n if m is None else m for m, n in sizes]
    result = np.empty((len(units), *size), dtype=int)
    for c, *place in np.ndindex(*result.shape):
        window = tuple(
            slice(i * n // m, -(-(i + 1) * n // m))
            for i, m, n in zip(place, size, units.shape[1:], strict=True)
        )
        result[(c, *place)] = _mean(graph, units[(c, *window)].flat)
    return result


def _mean(graph: Graph, sources: Any) -> int:
    sources = [int(u) for u in sources]
    return graph.unit([Edge(u, None, Fraction(1, len(sources))) for u in sources])


# --- shapes ---------------------------------------------------------------------------------------


def _flatten(graph: Graph, units: np.ndarray, module: nn.Flatten) -> np.ndarray:
    plain = (module.start_dim, module.end_dim) == (1, -1)
    _require(graph, module, plain, "the sample axis or a part of the axes")
    return units.reshape(-1)


def _unflatten(graph: Graph, units: np.ndarray, module: nn.Unflatten) -> np.ndarray:
    _require(graph, module, module.dim == 1 and units.ndim == 1, "an axis other than 1")
    return units.reshape(tuple(module.unflattened_size))


def _same(graph: Graph, units: np.ndarray, module: nn.Module) -> np.ndarray:
    return units


def _dropout(graph: Graph, units: np.ndarray, module: nn.Module) -> np.ndarray:
    _require(graph, module, not module.training, "train mode")
    return units


RULES: dict[type, Rule] = {
    nn.Sequential: _sequential,
    nn.Linear: _linear,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.ReLU: _relu,
    nn.LeakyReLU: _leaky_relu,
    nn.MaxPool1d: _max_pool,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool1d: _average_pool,
    nn.AvgPool2d: _average_pool,
    nn.AdaptiveAvgPool1d: _adaptive_average,
    nn.AdaptiveAvgPool2d: _adaptive_average,
    nn.Flatten: _flatten,
    nn.Unflatten: _unflatten,
    nn.Identity: _same,
    nn.Dropout: _dropout,
    nn.Dropout2d: _dropout,
}


# --- calls inside a traced forward ----------------------------------------------------------------


def _add(graph: Graph, left: Any, right: Any) -> np.ndarray:
    """Join two activations by edges of weight 1: a shortcut."""
    shapes = [getattr(term, "shape", term) for term in (left, right)]
    if not isinstance(left, np.ndarray) or shapes[0] != shapes[1]:
        raise UnsupportedModule(
            complaint("a sum", "of two activations of one shape", shapes, "Use a bias or reshape.")
        )
    pairs = zip(left.flat, right.flat, strict=True)
    joined = [graph.unit([Edge(int(a)), Edge(int(b))]) for a, b in pairs]
    return np.array(joined, dtype=int).reshape(left.shape)


def _flatten_call(graph: Graph, units: np.ndarray, start_dim: int = 0) -> np.ndarray:
    if start_dim != 1:
        raise UnsupportedModule(
            complaint("start_dim", "1", start_dim, "Keep the sample axis when flattening.")
        )
    return units.reshape(-1)


def _concatenate(graph: Graph, parts: Sequence[np.ndarray], dim: int = 0) -> np.ndarray:
    return np.concatenate(parts, _axis(dim))


def _mean_call(graph: Graph, units: np.ndarray, dim: int | Sequence[int]) -> np.ndarray:
    axes = tuple(_axis(d) for d in _axes(dim, 1))
    moved = np.moveaxis(units, axes, range(-len(axes), 0))
    kept = moved.shape[: moved.ndim - len(axes)]
    rows = moved.reshape(prod(kept), -1)
    return np.array([_mean(graph, row) for row in rows], dtype=int).reshape(kept)


def _axis(dim: int) -> int:
    """Return the axis of the units for an axis of the batch, which has one more in front."""
    if dim == 0:
        raise UnsupportedModule(
            complaint("dim", "other than 0", dim, "Samples must not be mixed with each other.")
        )
    return dim - 1 if dim > 0 else dim


CALLS: dict[Any, Callable[..., np.ndarray]] = {
    operator.add: _add,
    operator.iadd: _add,
    torch.add: _add,
    "add": _add,
    torch.relu: _relu,
    F.relu: _relu,
    "relu": _relu,
    torch.flatten: _flatten_call,
    "flatten": _flatten_call,
    torch.cat: _concatenate,
    "mean": _mean_call,
    torch.mean: _mean_call,
}
