"""``score``: a scorer on a model, with its input checked and its output presentable."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ntktheory.checks import (
    NumericalError,
    check_batch,
    check_choice,
    check_generator,
    check_input_shape,
    check_masks,
    complaint,
)
from ntktheory.estimators.batch_norm_modes import with_batch_statistics
from ntktheory.functional import (
    FunctionalModel,
    Loss,
    Masks,
    Params,
    computed_weight,
    describe,
    evaluate,
    functional,
    masked,
    to_dtype,
)
from ntktheory.pruning.inference_mode import ordinary, ordinary_model, outside_inference_mode
from ntktheory.pruning.labels import check_class_labels, check_labels
from ntktheory.pruning.masks import without_masks
from ntktheory.pruning.scorers.registry import SUPPLIED, Scorer, check_options, find_scorer
from ntktheory.pruning.topk import check_real


@outside_inference_mode
def score(
    model: nn.Module | FunctionalModel,
    scorer: str,
    *,
    batch: Any = None,
    loss_fn: Loss | None = None,
    masks: Masks | None = None,
    input_shape: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
    **options: Any,
) -> Params:
    """Score every prunable weight of a model; larger = keep.

    The model is not changed: weights, buffers, modes, gradients and torch's random state stay as they
    are. Neither ``torch.no_grad`` nor ``torch.inference_mode`` changes a score.

    Args:
        model: A module in eval mode, or a FunctionalModel.
        scorer: A key of ``SCORERS``.
        batch: ``(x, y)``, or only ``x`` for scorers without labels; ignored by those without data.
        loss_fn: ``loss_fn(outputs, y) -> scalar``; None means mean cross-entropy, for which y holds
            classes from 0 to C − 1, or their probabilities [N, C].
        masks: Name -> bool mask of prunable parameters; scores are those of f(θ⊙m). A model made by
            ``apply_masks`` scores like the dense one under its masks, and keeps at most those.
        input_shape: Shape of one input, for scorers that only need to know it; None takes it from the
            batch.
        generator: Source of randomness of the scorers that draw.
        **options: Options of the scorer; and ``bn="eval" | "train"`` where it has a loss: which
            statistics its batch norms use, the model's own or the batch's.

    Returns:
        Name -> score for the prunable parameters, shaped like them, in the model's dtype, or in
        float32 if that is a half: in the few numbers of half a type different scores would tie. Where
        the largest score does not fit, all are divided by one power of two.

    Raises:
        TypeError: If the batch, the labels, the loss, ``input_shape``, a mask, the generator or a score
            is of another type, or ``bn="train"`` has no ``nn.Module``.
        ValueError: If the scorer, an option or a mask is unknown or does not fit, labels or
            ``input_shape`` do not fit, the loss is no scalar, something that the scorer needs is
            missing, nothing is prunable, a layer's weight is computed from other parameters, or the
            model is in train mode.
        NumericalError: If the batch or a score is not finite; the message names the layer.

    Cost:
        That of the scorer, see ``SCORERS[scorer].cost``.

    Example:
        >>> net = nn.Linear(2, 1, bias=False)
        >>> torch.equal(score(net, "magnitude")["weight"], net.weight.abs())
        True
    """
    entry = find_scorer(scorer)
    model = ordinary_model(model)
    batch, masks, options = ordinary(batch), ordinary(masks), ordinary(options)
    own = functional(model)
    check_own_weights(model)
    check_prunable(own)
    check_masks(masks, {name: own.params[name] for name in own.prunable}, binary=True)
    model, masks = _bare(model, own, masks)
    own = functional(model)
    if input_shape is not None:
        check_input_shape(input_shape)
    check_options("option", entry, options)
    net = _with_batch_norm(model, own, entry, options)
    if entry.float64:
        net = to_dtype(net, torch.float64)
    supplied: dict[str, Any] = {
        "model": model,
        "model_fn": net.model_fn,
        "params": net.params,
        "buffers": net.buffers,
        "masks": masks,
        "names": net.prunable,
        "loss_fn": _checked_loss(loss_fn),
        "generator": generator,
        **_inputs(entry, net, masks, batch, input_shape, loss_fn),
    }
    _check_needs(entry, supplied)
    given = {name: value for name, value in supplied.items() if name in entry.takes}
    found = _call(entry, net, masks, given | options, supplied["like"])
    return _presentable(entry, found, {name: own.params[name] for name in own.prunable})


def check_prunable(net: FunctionalModel) -> None:
    """Check that a network has prunable weights.

    Raises:
        ValueError: If it has none.
    """
    if not sum(net.params[name].numel() for name in net.prunable):
        raise ValueError(
            complaint(
                "model",
                "a network with prunable weights",
                "none",
                "Only weights of Linear and convolution layers are scored.",
            )
        )


def check_own_weights(model: nn.Module | FunctionalModel) -> None:
    """Check that no Linear or convolution layer computes its weight from other parameters.

    Such a layer is no obstacle to a kernel, but pruning would silently leave it dense.

    Raises:
        ValueError: If one does; the message names it, and says what to do about it.
    """
    path, cause, remedy = computed_weight(model) or ("", "", "")
    if path:
        raise ValueError(
            complaint(
                "model", "one whose layers hold their weights", f"{path!r} with {cause}", remedy
            )
        )


def _bare(
    model: nn.Module | FunctionalModel, own: FunctionalModel, masks: Masks | None
) -> tuple[nn.Module | FunctionalModel, Masks | None]:
    """Return a model less the masks that it carries, and what these and the given ones keep."""
    bare, carried = without_masks(model, own.prunable)
    if not carried:
        return model, masks
    given = dict(masks or {})
    both = {n: m & given[n].to(m.device).bool() if n in given else m for n, m in carried.items()}
    return bare, given | both


def _with_batch_norm(
    model: nn.Module | FunctionalModel,
    own: FunctionalModel,
    entry: Scorer,
    options: dict[str, Any],
) -> FunctionalModel:
    """Take ``bn`` out of the options of a scorer that leaves it to us."""
    if not entry.batch_norm:
        return own
    mode = options.pop("bn", "eval")
    check_choice("bn", mode, ("eval", "train"))
    return own if mode == "eval" else with_batch_statistics(model)


def _inputs(
    entry: Scorer,
    net: FunctionalModel,
    masks: Masks | None,
    batch: Any,
    input_shape: Sequence[int] | None,
    loss_fn: Loss | None,
) -> dict[str, Any]:
    """Return x, y, like and input_shape, checked where the scorer takes them."""
    x, y = batch if isinstance(batch, tuple | list) and len(batch) == 2 else (batch, None)
    if not entry.takes & {"x", "y", "like"}:
        return {"x": None, "y": None, "like": None, "input_shape": input_shape}
    outputs = None
    if x is not None:
        check_batch("batch", x)
        p = net.params[net.prunable[0]]
        x = x.to(p.dtype) if entry.float64 and x.is_floating_point() else x
        if "x" in entry.takes:  # two samples, for batch norms that take the statistics of the batch
            outputs = evaluate(net.model_fn, masked(net.params, masks), x[:2], "batch")
    like = None
    if input_shape is not None:
        p = net.params[net.prunable[0]]
        like = torch.zeros(1, *input_shape, dtype=p.dtype, device=p.device)
    elif x is not None:
        like, input_shape = x[:1], x.shape[1:]
    if "y" in entry.takes and x is not None and y is not None:
        check_labels(x, y)
        if "loss_fn" in entry.takes and loss_fn is None and outputs is not None:
            y = check_class_labels(y, outputs)
    return {"x": x, "y": y, "like": like, "input_shape": input_shape}


def _checked_loss(loss_fn: Loss | None) -> Loss:
    """Return a loss that says so if a value of it is no scalar; None means cross-entropy."""
    if loss_fn is None:
        return F.cross_entropy
    if not callable(loss_fn):
        raise TypeError(
            complaint(
                "loss_fn",
                "a function of outputs and labels",
                repr(loss_fn),
                "Pass torch.nn.functional.mse_loss, say; None means mean cross-entropy.",
            )
        )

    def loss(outputs: Tensor, y: Tensor) -> Tensor:
        value = loss_fn(outputs, y)
        if not isinstance(value, Tensor) or value.ndim:
            raise ValueError(
                complaint(
                    "loss_fn",
                    "a function that returns a scalar tensor",
                    describe(value),
                    "Return the mean over the batch.",
                )
            )
        return value

    return loss


def _check_needs(entry: Scorer, supplied: Mapping[str, Any]) -> None:
    """Check that what the scorer cannot do without is there, and of the right type."""
    remedy = {
        "x": ("batch", "Pass batch=(x, y), or batch=x for a scorer without labels."),
        "y": ("batch", "Pass batch=(x, y): this scorer has a loss."),
        "like": ("input_shape", "Pass input_shape=[…] without the sample axis, or a batch."),
        "input_shape": ("input_shape", "Pass it without the sample axis, or a batch."),
        "generator": ("generator", "Pass torch.Generator().manual_seed(seed)."),
    }
    for name, (argument, text) in remedy.items():
        if name in entry.needs and supplied[name] is None:
            what = "labels" if name == "y" else SUPPLIED[name]
            raise ValueError(
                complaint(argument, f"given for {entry.name!r}", f"none ({what})", text)
            )
    generator = supplied["generator"]
    if generator is not None:
        check_generator(generator)


def _call(
    entry: Scorer,
    net: FunctionalModel,
    masks: Masks | None,
    arguments: dict[str, Any],
    like: Tensor | None,
) -> Any:
    """Run the scorer; if it fails on an input that was not tried out, to save a pass, say so."""
    try:
        return entry.function(**arguments)
    except (RuntimeError, IndexError, ValueError):
        if "x" not in arguments and like is not None:
            evaluate(net.model_fn, masked(net.params, masks), like, "input_shape")
        raise


def _presentable(entry: Scorer, found: Any, own: Params) -> Params:
    """Return the scores of the prunable parameters, checked, in the model's dtype."""
    scores = {}
    for name, p in own.items():
        s = found.get(name) if isinstance(found, Mapping) else None
        if not isinstance(s, Tensor) or s.shape != p.shape:
            raise ValueError(
                complaint(
                    f"scorer {entry.name!r}",
                    f"a function that returns a score of shape {list(p.shape)} for {name!r}",
                    list(s.shape) if isinstance(s, Tensor) else type(s).__name__,
                    "Return name -> tensor for every prunable parameter.",
                )
            )
        check_real(name, s)
        scores[name] = s.detach()
        bad = int((~torch.isfinite(s)).sum())
        if bad:
            raise NumericalError(
                complaint(
                    f"score of {name!r} by {entry.name!r}",
                    "finite",
                    f"{bad} of {s.numel()} entries NaN or Inf",
                    "The input was finite: look at the weights, rescale them, or use float64.",
                )
            )
    return _fitting(scores, own)


def _fitting(scores: Params, own: Params) -> Params:
    """Convert to the parameters' types; if the largest does not fit, divide all by a power of two."""
    # float32 at least: in the few numbers of half a type different scores would tie
    types = {name: torch.promote_types(p.dtype, torch.float32) for name, p in own.items()}
    largest = max((float(s.abs().max()) for s in scores.values() if s.numel()), default=0.0)
    room = min(torch.finfo(kind).max for kind in types.values())
    if largest > room**0.75 or 0 < largest < room**-0.75:
        shift = -math.frexp(largest)[1]
        half = shift // 2
        scores = {name: s * 2.0**half * 2.0 ** (shift - half) for name, s in scores.items()}
    return {name: s.to(dtype=types[name], device=own[name].device) for name, s in scores.items()}
