"""An ``nn.Module`` as a pure function of its parameters."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrizations import _SpectralNorm

from ntktheory.checks import check_choice, check_finite, complaint

Params = dict[str, Tensor]
Masks = Mapping[str, Tensor]
ModelFn = Callable[..., Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]
Select = str | Iterable[str] | Callable[[str, Tensor], bool] | None


@dataclass(frozen=True)
class FunctionalModel:
    """A network as a pure function ``model_fn(params, x, buffers=None) -> [N, C]``.

    Attributes:
        model_fn: The function. It changes nothing; ``buffers=None`` means this model's own.
        params: Parameter name -> tensor, each tied parameter once, detached from any graph.
        buffers: Buffer name -> tensor.
        tied: For every second name of a tied parameter, the name that ``params`` holds.
        prunable: Names of the weights of Linear and convolution layers.
    """

    model_fn: ModelFn
    params: Params
    buffers: Params = field(default_factory=dict)
    tied: Mapping[str, str] = field(default_factory=dict)
    prunable: tuple[str, ...] = ()


def functional(model: nn.Module | FunctionalModel) -> FunctionalModel:
    """Turn a module into a pure function of its parameters.

    The module is neither copied nor changed, and the tensors share its storage.

    Args:
        model: A module in eval mode, or a FunctionalModel, which is returned as it is.

    Returns:
        The functional model.

    Raises:
        TypeError: If ``model`` is neither.
        ValueError: If a module would act differently in training, or it has no parameters.

    Example:
        >>> net = functional(nn.Linear(3, 2, bias=False))
        >>> net.model_fn(net.params, torch.ones(5, 3)).shape, net.prunable
        (torch.Size([5, 2]), ('weight',))
    """
    if isinstance(model, FunctionalModel):
        return model
    if not isinstance(model, nn.Module):
        raise TypeError(
            complaint(
                "model",
                "an nn.Module or a FunctionalModel",
                type(model).__name__,
                "Wrap a plain function as FunctionalModel(model_fn, params).",
            )
        )
    _check_eval_mode(model)
    return as_function(model)


def as_function(model: nn.Module) -> FunctionalModel:
    """Turn a module into a function of its parameters in whatever mode it is; see ``functional``.

    Args:
        model: A module that draws no random numbers and changes no buffer when it runs.

    Returns:
        The functional model.

    Raises:
        ValueError: If it has no parameters.
    """
    params = {name: p.detach() for name, p in model.named_parameters()}
    if not params:
        raise ValueError(complaint("model", "a network with parameters", "none", "Add a layer."))
    own_buffers = {name: b.detach() for name, b in model.named_buffers()}
    aliases = _aliases(model)

    def model_fn(params: Params, x: Any, buffers: Params | None = None) -> Tensor:
        state = params | (own_buffers if buffers is None else buffers)
        state |= {alias: state[first] for alias, first in aliases.items() if first in state}
        return torch.func.functional_call(model, state, (x,), tie_weights=False)

    return FunctionalModel(model_fn, params, own_buffers, _tied(model), _prunable(model))


def selected(model: FunctionalModel, select: Select) -> tuple[str, ...]:
    """Return the names of the selected parameters, in the model's order.

    Args:
        model: The functional model.
        select: None for all, ``"prunable"``, names, or ``predicate(name, tensor) -> bool``.

    Returns:
        The names.

    Raises:
        TypeError: If ``select`` is none of these, or a selected parameter is not made of real
            floating-point numbers.
        ValueError: If a name is unknown or nothing is selected.
    """
    names: set[str]
    if select is None:
        names = set(model.params)
    elif isinstance(select, str):
        check_choice("select", select, ["prunable"])
        names = set(model.prunable)
    elif callable(select):
        names = {name for name, p in model.params.items() if select(name, p)}
    elif isinstance(select, Iterable):
        names = {model.tied.get(name, name) for name in select}
    else:
        raise TypeError(
            complaint(
                "select",
                'None, "prunable", names or a predicate',
                type(select).__name__,
                "Pass a list of parameter names.",
            )
        )
    for name in names:
        check_choice("select", name, model.params)
    if not names and select is not None:
        raise ValueError(
            complaint(
                "select",
                "a choice of at least one parameter",
                "none",
                f"The parameters are {', '.join(model.params)}.",
            )
        )
    chosen = tuple(name for name in model.params if name in names)
    for name in chosen:
        if not model.params[name].is_floating_point():
            raise TypeError(
                complaint(
                    f"parameter {name!r}",
                    "made of real floating-point numbers",
                    str(model.params[name].dtype),
                    "Split complex ones into real and imaginary parts, or select other parameters.",
                )
            )
    return chosen


def masked(params: Mapping[str, Tensor], masks: Masks | None) -> Params:
    """Return θ⊙m, every parameter a tensor of its own.

    Float masks stay differentiable. A tensor that stands under two names is given a second view,
    because the engines know parameters by their tensors.

    Args:
        params: θ.
        masks: Parameter name -> mask; parameters without one stay as they are.

    Returns:
        Name -> tensor.
    """
    masks = masks or {}
    seen: set[int] = set()
    effective = {}
    for name, p in params.items():
        p = p * masks[name].to(p.dtype) if name in masks else p
        effective[name] = p.view_as(p) if id(p) in seen else p
        seen.add(id(p))
    return effective


def evaluate(model_fn: ModelFn, params: Params, x: Any, argument: str = "x") -> Tensor:
    """Run a network once and check what it returns.

    Args:
        model_fn: ``model_fn(params, x) -> [N, C]``.
        params: Its parameters.
        x: A batch, N samples first.
        argument: The name of ``x`` in error messages.

    Returns:
        The outputs, of shape [N, C].

    Raises:
        ValueError: If the network cannot take ``x`` or its outputs are not [N, C].
    """
    try:
        outputs = model_fn(params, x)
    except (RuntimeError, IndexError, ValueError) as error:
        raise ValueError(
            complaint(
                argument,
                "a batch that the model takes",
                describe(x),
                f"Give it the shape, dtype and device of the model's input ({error}).",
            )
        ) from error
    n = batch_size(x)
    shaped = isinstance(outputs, Tensor) and outputs.ndim == 2 and outputs.shape[0] == n
    if not shaped or outputs.shape[1] == 0:
        raise ValueError(
            complaint(
                "model",
                f"a network with outputs of shape [N, C], N = {n}",
                describe(outputs),
                "Flatten or squeeze its outputs.",
            )
        )
    check_finite(
        "model outputs",
        outputs,
        "The input was finite: look for overflow or non-finite parameters.",
    )
    return outputs


def check_network(model: FunctionalModel, params: Params, x: Tensor, argument: str = "x") -> Tensor:
    """Check that the network takes the batch, leaves it alone, and is a function of each sample.

    Args:
        model: The network.
        params: The parameters to run it with.
        x: The batch; only its first and last samples are used.
        argument: The name of ``x`` in error messages.

    Returns:
        The outputs on those two samples, or on the only one.

    Raises:
        ValueError: If it changes its input, a sample's outputs depend on the rest of the batch, or
            two runs differ.
    """
    first, ends = x[:1].clone(), torch.cat((x[:1], x[-1:]))
    alone = evaluate(model.model_fn, params, first, argument)
    if not torch.equal(first, x[:1]):
        raise ValueError(
            complaint(
                "model",
                "a network that leaves its input as it is",
                "one that writes into it",
                "Its first layer must not work in place.",
            )
        )
    singles = [alone, evaluate(model.model_fn, params, ends[1:], argument)]
    together = evaluate(model.model_fn, params, ends if x.shape[0] > 1 else first, argument)
    scale = float(together.abs().max()) or 1.0
    gap = max(
        float((row - single[0]).abs().max()) for row, single in zip(together, singles, strict=False)
    )
    if gap > scale * torch.finfo(alone.dtype).eps ** 0.5:
        raise ValueError(
            complaint(
                "model",
                "a function that treats samples independently and draws no random numbers",
                f"an output that moves by {gap / scale:.1e} of its scale from one run to another",
                "Remove batch statistics and randomness, or call model.eval().",
            )
        )
    return together


def batch_size(x: Any) -> int:
    """Return N, the length of the first axis of a batch (a tensor, or a tree of tensors)."""
    return torch.utils._pytree.tree_leaves(x)[0].shape[0]


def take(x: Any, start: int, stop: int) -> Any:
    """Return the samples ``start:stop`` of a batch (a tensor, or a tree of tensors)."""
    return torch.utils._pytree.tree_map(lambda leaf: leaf[start:stop], x)


def describe(x: Any) -> str:
    """Describe a value for an error message: shape and dtype of a tensor, else its type."""
    if isinstance(x, Tensor):
        return f"shape {list(x.shape)}, {x.dtype} on {x.device}"
    return type(x).__name__


def to_dtype(model: FunctionalModel, dtype: torch.dtype) -> FunctionalModel:
    """Return the model with floating-point parameters and buffers converted."""

    def convert(tensors: Params) -> Params:
        return {k: v.to(dtype) if v.is_floating_point() else v for k, v in tensors.items()}

    converted = convert(model.buffers)

    def model_fn(params: Params, x: Any, buffers: Params | None = None) -> Tensor:
        return model.model_fn(params, x, converted if buffers is None else buffers)

    return FunctionalModel(model_fn, convert(model.params), converted, model.tied, model.prunable)


def _check_eval_mode(model: nn.Module) -> None:
    for path, module in model.named_modules():
        where = f"{type(module).__name__} at {path or 'the top'!r}"
        if any(map(is_lazy, module.parameters(recurse=False))):
            raise ValueError(
                complaint(
                    "model", "initialised", f"lazy {where}", "Run it once on a batch of its inputs."
                )
            )
        if isinstance(module, _BatchNorm) and module.running_mean is None:
            raise ValueError(
                complaint(
                    "model",
                    "a network whose samples do not mix",
                    f"{where} without running statistics",
                    "Use track_running_stats=True and call model.eval().",
                )
            )
        if module.training and _depends_on_mode(module):
            raise ValueError(
                complaint(
                    "model", "in eval mode", f"train-mode {where}", "Call model.eval() first."
                )
            )


def _depends_on_mode(module: nn.Module) -> bool:
    """Say whether a module draws random numbers or changes its buffers in train mode."""
    if isinstance(module, _InstanceNorm):
        return module.track_running_stats
    dropout = getattr(module, "dropout", 0.0)
    return isinstance(module, _BatchNorm | _DropoutNd | nn.RReLU | _SpectralNorm) or (
        isinstance(dropout, float) and dropout > 0
    )


def _aliases(model: nn.Module) -> dict[str, str]:
    """Map each further name of a tensor to its first; a module registered twice is one place."""
    first: dict[int, str] = {}
    aliases = {}
    for path, module in model.named_modules():
        own = [
            *module.named_parameters(recurse=False, remove_duplicate=False),
            *module.named_buffers(recurse=False, remove_duplicate=False),
        ]
        for attribute, tensor in own:
            name = f"{path}.{attribute}" if path else attribute
            if first.setdefault(id(tensor), name) != name:
                aliases[name] = first[id(tensor)]
    return aliases


def _tied(model: nn.Module) -> dict[str, str]:
    first: dict[int, str] = {}
    tied = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        if first.setdefault(id(p), name) != name:
            tied[name] = first[id(p)]
    return tied


def computed_weight(model: nn.Module | FunctionalModel) -> tuple[str, str, str] | None:
    """Find a Linear or convolution layer whose weight is no parameter, so that it is not prunable.

    Args:
        model: The network; a FunctionalModel has no layers.

    Returns:
        None if there is no such layer; else the first one's path, what computes its weight, and how to
        do without.
    """
    if not isinstance(model, nn.Module):
        return None
    known = {id(p) for p in model.parameters()}
    for path, module, weight in _layer_weights(model):
        if id(weight) not in known:
            own = {name for name, _ in module.named_parameters()}
            if "weight_orig" in own and hasattr(module, "weight_mask"):
                remedy = (
                    "Take the masks by from_torch_prune, call torch.nn.utils.prune.remove, and put "
                )
                return path, "a mask of torch.nn.utils.prune", remedy + "them on by apply_masks."
            norms = (
                {"weight_g", "weight_v"},
                {f"parametrizations.weight.original{i}" for i in (0, 1)},
            )
            if any(norm <= own for norm in norms):
                remedy = "Remove weight_norm (torch.nn.utils.remove_weight_norm or parametrize."
                return path, "weight_norm", remedy + "remove_parametrizations)."
            return path, "a computed weight", "Make the weight a parameter of the layer."
    return None


def _layer_weights(model: nn.Module) -> Iterator[tuple[str, nn.Module, Any]]:
    """Yield path, layer and the tensor that its weight is or, parametrized, is made of."""
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear | _ConvNd):
            parametrized = getattr(module, "parametrizations", {})
            own = parametrized["weight"] if "weight" in parametrized else None
            yield path, module, module.weight if own is None else getattr(own, "original", None)


def _prunable(model: nn.Module) -> tuple[str, ...]:
    names = {id(p): name for name, p in model.named_parameters()}
    weights = [weight for _, _, weight in _layer_weights(model)]
    return tuple(dict.fromkeys(names[id(w)] for w in weights if id(w) in names))
