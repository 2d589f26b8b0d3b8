"""Refusals that name the module, the function and the reason."""

import sys
from collections.abc import Iterator
from itertools import pairwise
from types import CodeType, FrameType

from torch import nn

from ntktheory.calls import caller
from ntktheory.checks import complaint


class Refusal(Exception):
    """Carries a refusal out of the network: operators would swallow a TypeError."""


def refuse(what: str, entry: CodeType, why: str = "") -> None:
    """Refuse a call.

    Args:
        what: The function, and what is wrong with this call of it.
        entry: The code of the function that runs the network; frames outside of it are not the model's.
        why: Why it has no rule.

    Raises:
        Refusal: Always.
    """
    raise Refusal(
        complaint(
            "model" + module_path(entry),
            "made of functions with a path rule",
            f"{what} at {caller()}",
            "Replace it; "
            + (f"{why[0].lower()}{why[1:]}. The" if why else "the")
            + " rules cover Linear, convolution, ReLU, max and average pooling, eval-mode batch "
            "norm, sums, fixed factors and reshaping.",
        )
    )


def module_path(entry: CodeType) -> str:
    """Return `` at 'layer2.0.act' (GELU)`` for the innermost module that is running, or nothing."""
    modules = list(_running_modules(entry))
    if len(modules) < 2:
        return ""
    names = [_name_in(parent, child) for parent, child in pairwise(modules)]
    return f" at {'.'.join(names)!r} ({type(modules[-1]).__name__})"


def _running_modules(entry: CodeType) -> Iterator[nn.Module]:
    """Yield the modules whose methods are on the stack, outermost first, without repetition."""
    frames: list[FrameType] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not entry:
        frames.append(frame)
        frame = frame.f_back
    last: nn.Module | None = None
    for frame in reversed(frames):
        module = frame.f_locals.get("self")
        if isinstance(module, nn.Module) and module is not last:
            yield module
            last = module


def _name_in(parent: nn.Module, child: nn.Module) -> str:
    return next((name for name, m in parent.named_modules() if m is child), type(child).__name__)
