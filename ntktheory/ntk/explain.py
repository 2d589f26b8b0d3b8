"""What ``empirical_ntk`` does with each parameter, and what that costs."""

from dataclasses import dataclass

from torch import Tensor, nn

from ntktheory.functional import FunctionalModel, Masks, Select
from ntktheory.ntk.contractions import Output, flops
from ntktheory.ntk.problem import Engine, prepare


@dataclass(frozen=True)
class ParameterPlan:
    """How one parameter enters the kernel.

    Attributes:
        name: The parameter.
        engine: "layerwise", "jacobian" or "ntk_vp"; "unused" if the network does not use it.
        rule: The layer rule ("matrix", "convolution", …), or "" outside of the layerwise engine.
        contraction: "factored" (no block is made), "masked" (a factored sum over output units),
            "ghost" (products over pairs of positions), "direct" (explicit blocks), or "rows".
        flops_per_pair: Multiplications per pair of samples of that contraction.
        alternatives: The same for the contractions that were not chosen.
    """

    name: str
    engine: str
    rule: str
    contraction: str
    flops_per_pair: int
    alternatives: dict[str, int]


def explain_ntk(
    model: nn.Module | FunctionalModel,
    x1: Tensor,
    x2: Tensor | None = None,
    *,
    output: Output = "full",
    select: Select = None,
    masks: Masks | None = None,
    engine: Engine = "auto",
) -> list[ParameterPlan]:
    """Say which engine, rule and contraction ``empirical_ntk`` would use for every parameter.

    Args:
        model: As for ``empirical_ntk``.
        x1: The samples; only the first two and the last are run.
        x2: The samples of the columns, or None.
        output: "full", "trace" or "diagonal".
        select: Which parameters.
        masks: Parameter name -> mask.
        engine: Which engine.

    Returns:
        One plan per selected parameter, in order. Cost: a few forward passes of at most two samples.

    Raises:
        ValueError: As for ``empirical_ntk``.
        UnsupportedModule: If ``engine="layerwise"`` and a selected parameter has no layer rule.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 3, bias=False), nn.ReLU(), nn.Linear(3, 2, bias=False))
        >>> [(p.name, p.contraction) for p in explain_ntk(net, torch.ones(5, 4))]
        [('0.weight', 'factored'), ('2.weight', 'factored')]
    """
    problem = prepare(model, x1, x2, output, select, masks, engine, None, None)
    plans: dict[str, ParameterPlan] = {}
    pairs = problem.c**2 if output == "full" else problem.c
    params = problem.model.params
    for call in problem.layers.calls:
        for name in set(call.names()) & set(problem.layerwise):
            if name != call.weight:
                size = params[name].numel() * pairs
                plans[name] = ParameterPlan(name, "layerwise", call.kind, "direct", size, {})
                continue
            chosen = problem.contraction(call) or "direct"
            possible = {chosen, "direct"}
            if chosen == "ghost" or (chosen == "direct" and call.kind in ("matrix", "convolution")):
                possible |= {"ghost"}
            costs = {str(c): flops(call, c, problem.c, output) for c in sorted(possible)}
            masked = chosen == "factored" and name in problem.masks
            plans[name] = ParameterPlan(
                name,
                "layerwise",
                call.kind,
                "masked" if masked else chosen,
                costs.pop(chosen),
                costs,
            )
    for name in problem.jacobian:
        kind = "ntk_vp" if problem.by_products else "jacobian"
        plans[name] = ParameterPlan(name, kind, "", "rows", params[name].numel() * pairs, {})
    unused = [name for name in problem.names if name not in plans]
    plans |= {name: ParameterPlan(name, "unused", "", "", 0, {}) for name in unused}
    return [plans[name] for name in problem.names]
