"""The health of masks by its definition: every path of a small network, one by one."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from ntktheory.paths.reference_graph import Parameter, list_paths
from ntktheory.paths.reference_rules import graph_of


def live_parameters(
    model: nn.Module, masks: Mapping[str, Tensor], input_shape: Sequence[int]
) -> tuple[int, set[Parameter]]:
    """Return the number of paths from an input to an output, and the parameters on one of them."""
    graph = graph_of(model, tuple(input_shape))
    alive = {
        (name, i)
        for name, p in model.named_parameters()
        for i in range(p.numel())
        if name not in masks or bool(masks[name].flatten()[i])
    }
    inputs = set(graph.inputs)
    paths = [p for p in list_paths(graph, alive) if p.start in inputs and p.coefficient != 0]
    return len(paths), {j for path in paths for j in path.parameters}
