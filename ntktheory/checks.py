"""One wording for every complaint about user input.

Every message reads ``<argument> must be <expected>, got <actual>. <What to do.>``.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class NumericalError(ValueError):
    """A number that should be finite is not."""


class UnsupportedModule(TypeError):
    """A module or function that the theory or the engine does not cover."""


def complaint(argument: str, expected: str, actual: Any, remedy: str) -> str:
    """Return the text of an error, in the one wording of this library."""
    return f"{argument} must be {expected}, got {actual}. {remedy}"


def check_choice(argument: str, value: Any, choices: Iterable[str]) -> None:
    """Check that ``value`` is one of ``choices``.

    Raises:
        ValueError: If it is not; the message lists the valid ones.
    """
    valid = sorted(choices)
    if value not in valid:
        names = ", ".join(repr(c) for c in valid)
        raise ValueError(complaint(argument, f"one of {names}", repr(value), "Choose one of them."))


def check_batch(argument: str, x: Any) -> None:
    """Check that ``x`` is a non-empty batch of finite numbers.

    Raises:
        TypeError: If ``x`` is not a tensor of real numbers.
        ValueError: If the batch is empty.
        NumericalError: If it holds NaN or Inf.
    """
    if not isinstance(x, Tensor):
        raise TypeError(
            complaint(
                argument, "a torch.Tensor", type(x).__name__, "Convert it with torch.as_tensor."
            )
        )
    if x.is_complex():
        raise TypeError(
            complaint(argument, "real", str(x.dtype), "Split real and imaginary parts.")
        )
    if x.ndim < 1 or x.numel() == 0:
        raise ValueError(
            complaint(
                argument,
                "a non-empty batch of shape [N, ...]",
                f"shape {list(x.shape)}",
                "Pass at least one sample, with the sample axis first.",
            )
        )
    check_finite(argument, x, "Clean the data: the input itself is already non-finite.")


def check_count(argument: str, value: int | None) -> None:
    """Check that ``value`` is None or a positive integer.

    Raises:
        ValueError: If it is not.
    """
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ValueError(
            complaint(
                argument,
                "a positive integer or None",
                repr(value),
                "Leave it out to let it be planned.",
            )
        )


def check_finite(argument: str, x: Tensor, remedy: str) -> None:
    """Check that every entry of ``x`` is finite.

    Raises:
        NumericalError: If an entry is NaN or Inf.
    """
    if _in_vmap(x) or bool(torch.isfinite(x.sum())):
        return
    bad = int((~torch.isfinite(x)).sum())
    if bad:
        raise NumericalError(
            complaint(argument, "finite", f"{bad} of {x.numel()} entries NaN or Inf", remedy)
        )


def check_generator(generator: Any) -> None:
    """Check that ``generator`` is a source of randomness.

    Raises:
        TypeError: If it is not.
    """
    if not isinstance(generator, torch.Generator):
        raise TypeError(
            complaint(
                "generator",
                "a torch.Generator",
                type(generator).__name__,
                "Pass torch.Generator().manual_seed(seed).",
            )
        )


def check_input_shape(shape: Any) -> None:
    """Check that ``shape`` is the shape of one input: positive integers, and not one of them alone.

    Raises:
        TypeError: If it is no sequence.
        ValueError: If an entry is not a positive integer.
    """
    if not isinstance(shape, Sequence) or isinstance(shape, str):
        raise TypeError(
            complaint(
                "input_shape",
                "a sequence of integers",
                repr(shape),
                "Pass the shape of one input, such as [3, 32, 32].",
            )
        )
    if any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in shape):
        raise ValueError(
            complaint(
                "input_shape",
                "made of positive integers",
                repr(list(shape)),
                "Pass the shape of one input, such as [3, 32, 32].",
            )
        )


def check_module(model: Any) -> None:
    """Check that ``model`` is a module, where a pure function does not do.

    Raises:
        TypeError: If it is not.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            complaint("model", "an nn.Module", type(model).__name__, "Only modules are copied.")
        )


def check_masks(
    masks: Mapping[str, Tensor] | None,
    params: Mapping[str, Tensor],
    *,
    binary: bool = False,
    optional: bool = True,
) -> None:
    """Check that every mask names a parameter and has its shape.

    Args:
        masks: Parameter name -> mask, or None.
        params: Parameter name -> tensor.
        binary: Whether every entry must be 0 or 1.
        optional: Whether None is as good as no masks.

    Raises:
        TypeError: If the masks are no mapping, or a mask is not a tensor.
        ValueError: If a name is unknown, a shape differs, or an entry is not 0 or 1 and must be.
    """
    if not isinstance(masks, Mapping) and not (masks is None and optional):
        raise TypeError(
            complaint(
                "masks",
                "a mapping from names to tensors",
                type(masks).__name__,
                "Pass a dictionary.",
            )
        )
    for name, mask in (masks or {}).items():
        if name not in params:
            raise ValueError(
                complaint(
                    "masks",
                    f"named like the parameters ({', '.join(params)})",
                    repr(name),
                    "Rename or drop that mask.",
                )
            )
        if not isinstance(mask, Tensor):
            raise TypeError(
                complaint(
                    f"masks[{name!r}]",
                    "a torch.Tensor",
                    type(mask).__name__,
                    "Convert it with torch.as_tensor.",
                )
            )
        if mask.shape != params[name].shape:
            raise ValueError(
                complaint(
                    f"masks[{name!r}]",
                    f"of shape {list(params[name].shape)}",
                    list(mask.shape),
                    "Give it the shape of its parameter.",
                )
            )
        if binary and not bool(((mask == 0) | (mask == 1)).all()):
            raise ValueError(
                complaint(
                    f"masks[{name!r}]",
                    "made of 0 and 1",
                    "other entries",
                    "A parameter is kept or not: threshold the mask first.",
                )
            )


def _in_vmap(x: Tensor) -> bool:
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(x))
