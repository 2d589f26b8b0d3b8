"""PX as its authors' code of February 2025 computes it, which is not the published formula."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ntktheory.calls import Watch, call_name
from ntktheory.checks import complaint
from ntktheory.estimators.batch_norm_modes import with_batch_statistics
from ntktheory.functional import Masks, ModelFn, Params, masked
from ntktheory.pruning.scorers.gradients import gradient

UNTOUCHED = ("bn", "fc")  # parts of names whose parameters are neither squared nor set to one


def px_repo(
    model: nn.Module,
    model_fn: ModelFn,
    params: Params,
    masks: Masks | None,
    names: Sequence[str],
    x: Tensor,
) -> Params:
    """Return the scores ``θ_j² |∂Z/∂w_j|`` of the published code, ``w = θ²⊙m``.

    ``Z = Σ_{n,c} z1_nc z2_c`` as for ``px``. Departures from that formula: *both networks have batch
    norm in train mode*, so that it takes the statistics of ``x²`` and of an all-ones input; *parameters
    whose name contains "bn" or "fc" keep their values*, signs included, hence the absolute value; *ReLU
    is the only function with gates*, so max pooling stays a maximum. Dropout stays off here.

    The squared network's input is the same everywhere, and a train-mode batch norm subtracts the mean
    over positions. Behind global average pooling the exact gradient of every weight all of whose
    routes pass such a batch norm is therefore zero; what this returns for it is rounding noise.

    Under masks a pruned weight is zero in every network of that code, also where the others are one,
    and scores 0.

    Args:
        model: The module, in eval mode; it is copied for its batch norms, and not changed.
        model_fn: The same as a function; the gates are those of eval mode.
        params: Its parameters θ, unmasked.
        masks: Parameter name -> mask m.
        names: The parameters scored.
        x: The batch.

    Returns:
        Name -> score, shaped like the parameter. Vmap-able over ``params``, ``masks`` and ``x``.

    Raises:
        TypeError: If ``model`` is not an ``nn.Module``: a FunctionalModel has no modes; or if the inputs
            are not real-valued, so that their squares are no inputs.
        ValueError: If the batch has no variance for a batch norm, as a single sample may have none.

    Cost:
        Two forward passes on x, and one forward and backward pass on two samples (one has no statistics
        where a batch norm sees a single position).

    Source:
        PX, the authors' repository. Tested against scores made with it.
    """
    if not x.is_floating_point():
        raise TypeError(
            complaint("batch", "of real-valued inputs", str(x.dtype), "px_repo squares its inputs.")
        )
    train_fn = with_batch_statistics(model).model_fn
    gates: list[Tensor] = []

    def record(z: Tensor) -> Tensor:
        gates.append(z > 0)
        return torch.clamp(z, min=0)

    with torch.no_grad():
        _run(model_fn, masked(params, masks), x, record)
        remaining = iter(gates)
        ones = masked(_rewritten(params, torch.ones_like), masks)
        try:
            data = _run(train_fn, ones, x.square(), lambda z: z * next(remaining).to(z.dtype))
        except ValueError as error:
            raise ValueError(
                complaint(
                    "batch",
                    "one with a variance per channel",
                    f"shape {list(x.shape)}",
                    f"Batch norm is in train mode here: pass more samples ({error}).",
                )
            ) from error
        data = data.sum(0)
    squares = masked(_rewritten(params, torch.square), masks)

    def objective(weights: Params) -> Tensor:
        outputs = _run(train_fn, squares | weights, torch.ones_like(x[:2]), lambda z: z)
        return (outputs[0] * data).sum()

    slopes = gradient(objective, {name: squares[name] for name in names})
    effective = masked({name: params[name] for name in names}, masks)
    return {name: effective[name].square() * slopes[name].abs() for name in names}


def _rewritten(params: Params, rule: Callable[[Tensor], Tensor]) -> Params:
    """Return the parameters rewritten, except for some names."""
    return {
        name: p if any(part in name for part in UNTOUCHED) else rule(p)
        for name, p in params.items()
    }


def _run(
    model_fn: ModelFn, params: Params, x: Tensor, activation: Callable[[Tensor], Tensor]
) -> Tensor:
    """Run a network with another function in the place of ReLU."""

    def handle(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if call_name(func) not in ("relu", "relu_"):
            return func(*args, **kwargs)
        return activation(args[0] if args else kwargs["input"])

    with Watch(handle):
        return model_fn(params, x)
