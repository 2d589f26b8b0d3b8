"""Labels: one for each sample, and for cross-entropy classes that the network has."""

from typing import Any

from torch import Tensor

from ntktheory.checks import check_finite, complaint


def check_labels(x: Tensor, y: Any) -> None:
    """Check that there is one label for each sample.

    Raises:
        ValueError: If there is not.
        NumericalError: If a label is NaN or Inf.
    """
    if not isinstance(y, Tensor) or y.ndim == 0 or y.shape[0] != x.shape[0]:
        raise ValueError(
            complaint(
                "batch",
                f"(x, y) with one label for each of {x.shape[0]} samples",
                f"labels of shape {list(y.shape)}" if isinstance(y, Tensor) else type(y).__name__,
                "Pass as many labels as inputs.",
            )
        )
    if y.is_floating_point():
        check_finite("labels", y, "Clean the data: the labels themselves are non-finite.")


def check_class_labels(y: Tensor, outputs: Tensor) -> Tensor:
    """Check that cross-entropy takes the labels: classes [N] from 0 to C − 1, or probabilities [N, C].

    Args:
        y: The labels, one for each sample.
        outputs: Outputs of the network on some samples, [·, C].

    Returns:
        The labels in the type that cross-entropy asks for.

    Raises:
        TypeError: If they are neither integers nor floating-point numbers of that shape.
        ValueError: If they are integers of another shape, or one is no class of the network.
    """
    classes = outputs.shape[1]
    if y.is_floating_point() and y.shape[1:] == outputs.shape[1:]:
        return y.to(outputs.dtype)
    kind = str(y.dtype)
    if y.is_floating_point() or y.is_complex() or kind == "torch.bool":
        raise TypeError(
            complaint(
                "labels",
                f"integers [N], or probabilities [N, {classes}], for cross-entropy",
                f"{kind} of shape {list(y.shape)}",
                "Convert them with .long(), or pass a loss_fn of your own.",
            )
        )
    if y.ndim != 1:
        raise ValueError(
            complaint("labels", "of shape [N]", list(y.shape), "Give one class for each sample.")
        )
    lowest, highest = int(y.min()), int(y.max())
    if lowest < 0 or highest >= classes:
        raise ValueError(
            complaint(
                "labels",
                f"classes from 0 to {classes - 1}, one for each output",
                f"{lowest if lowest < 0 else highest}",
                "Renumber the classes, or give the network as many outputs as there are.",
            )
        )
    return y.long()
