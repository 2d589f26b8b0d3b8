"""The scorers by name: what each is, what it asks for, and how its authors use it.

A scorer is a pure function whose parameters say what it needs. What stands in ``SUPPLIED`` is handed to
it by name; every other parameter is an option of its own and has a default.
"""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from ntktheory.checks import check_choice, complaint
from ntktheory.pruning.budgets import BUDGETS, NamedBudget
from ntktheory.pruning.schedules import SCHEDULES, Schedule

Function = Callable[..., Any]

SUPPLIED = {
    "model": "the module itself",
    "model_fn": "model_fn(params, x) -> outputs [N, C]",
    "params": "parameter name -> tensor, unmasked",
    "buffers": "buffer name -> tensor",
    "masks": "parameter name -> bool mask, or None",
    "names": "the prunable parameters' names",
    "x": "the inputs of the batch",
    "y": "its labels",
    "input_shape": "the shape of one input",
    "like": "one input of the right shape; its values do not matter",
    "loss_fn": "loss_fn(outputs, y) -> scalar",
    "generator": "a torch.Generator",
}
RESERVED = ("scorer", "batch")  # arguments of score itself


@dataclass(frozen=True)
class Scorer:
    """A scorer, and what its authors do with it.

    Attributes:
        name: Its key in ``SCORERS``.
        function: A function of parameters named in ``SUPPLIED``, and of options with defaults. It
            returns name -> score for the prunable parameters at least; larger = keep.
        summary: Its formula, in one line.
        paper: Where it is from.
        rounds: The published number of rounds.
        schedule: The published fall of the density.
        budget: The published budget.
        regrows: Whether a pruned weight may return in a later round.
        float64: Whether it runs in float64 whatever the model's type, against under- and overflow.
        batch_norm: Whether it takes the option ``bn``: "eval" (the model's running statistics) or
            "train" (those of the batch).
        cost: What one call costs, in forward and backward passes.
        needs: Which of ``SUPPLIED`` it cannot do without.
        takes: Which of ``SUPPLIED`` it asks for, if only by a parameter with a default.
        options: Its further parameters, and ``bn`` where it takes it, and their defaults.
    """

    name: str
    function: Function
    summary: str
    paper: str = ""
    rounds: int = 1
    schedule: Schedule = "exponential"
    budget: NamedBudget = "global"
    regrows: bool = False
    float64: bool = False
    batch_norm: bool = False
    cost: str = ""
    needs: frozenset[str] = field(init=False)
    takes: frozenset[str] = field(init=False)
    options: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        """Read the function's parameters."""
        takes, needs, options = _read_parameters(self.function)
        object.__setattr__(self, "takes", takes)
        object.__setattr__(self, "needs", needs)
        bn = {"bn": "eval"} if self.batch_norm else {}
        object.__setattr__(self, "options", options | bn)


SCORERS: dict[str, Scorer] = {}


def register_scorer(name: str, function: Function, summary: str, **published: Any) -> Scorer:
    """Add a scorer to ``SCORERS``.

    Args:
        name: Its name; a new one.
        function: A function of any of the parameters ``model``, ``model_fn``, ``params``, ``buffers``,
            ``masks``, ``names``, ``x``, ``y``, ``input_shape``, ``like``, ``loss_fn``, ``generator``
            (see ``SUPPLIED``), and of options with defaults. It returns name -> score for every prunable
            weight; larger = keep. To run under ``vmap`` it must be pure, and leave ``model`` alone.
        summary: Its formula, in one line.
        **published: Further attributes of ``Scorer``: ``paper``, ``rounds``, ``schedule``, ``budget``,
            ``regrows``, ``float64``, ``batch_norm``, ``cost``.

    Returns:
        The entry.

    Raises:
        TypeError: If the function cannot be called.
        ValueError: If the name is taken, an attribute is unknown or out of range, or a parameter of
            the function is neither supplied nor has a default, or cannot be given by its name.

    Example:
        >>> def smallest(params, masks, names):
        ...     return {name: -params[name].abs() for name in names}
        >>> sorted(register_scorer("smallest", smallest, "-|w|").needs)
        ['masks', 'names', 'params']
        >>> del SCORERS["smallest"]
    """
    if name in SCORERS:
        raise ValueError(
            complaint("name", "a new scorer's", repr(name), "It is taken: choose another.")
        )
    if not callable(function):
        raise TypeError(
            complaint("function", "a function", type(function).__name__, "Pass it uncalled.")
        )
    known = {f for f in Scorer.__dataclass_fields__ if f not in ("needs", "takes", "options")}
    for attribute in published:
        check_choice("published attribute", attribute, known - {"name", "function", "summary"})
    entry = Scorer(name, function, summary, **published)
    check_choice("schedule", entry.schedule, SCHEDULES)
    check_choice("budget", entry.budget, BUDGETS)
    if isinstance(entry.rounds, bool) or not isinstance(entry.rounds, int) or entry.rounds < 1:
        raise ValueError(
            complaint("rounds", "a positive integer", repr(entry.rounds), "One prunes at once.")
        )
    SCORERS[name] = entry
    return entry


def find_scorer(scorer: str) -> Scorer:
    """Return a scorer by its name.

    Raises:
        ValueError: If there is none; the message lists them.
    """
    check_choice("scorer", scorer, SCORERS)
    return SCORERS[scorer]


def check_options(argument: str, entry: Scorer, names: Iterable[str]) -> None:
    """Check that a scorer has options of these names.

    Raises:
        ValueError: If it has not; the message lists those that it has.
    """
    argument = f"{argument} of {entry.name!r}"
    for name in names:
        if not entry.options:
            raise ValueError(complaint(argument, "left out", repr(name), "It has no options."))
        check_choice(argument, name, entry.options)


def _read_parameters(
    function: Function,
) -> tuple[frozenset[str], frozenset[str], dict[str, Any]]:
    """Return what is supplied, what of it must be there, and the options with their defaults."""
    takes, needs, options = set(), set(), {}
    for name, parameter in inspect.signature(function).parameters.items():
        required = parameter.default is inspect.Parameter.empty
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY or name in RESERVED:
            raise ValueError(
                complaint(
                    "function",
                    "one whose parameters can be given by name in score(…)",
                    repr(name),
                    f"Drop the '/', and name no option {' or '.join(RESERVED)}.",
                )
            )
        if name in SUPPLIED:
            takes.add(name)
            if required:
                needs.add(name)
        elif required:
            raise ValueError(
                complaint(
                    "function",
                    f"one of parameters named {', '.join(SUPPLIED)}, or with defaults",
                    repr(name),
                    "Rename it, or give it a default.",
                )
            )
        else:
            options[name] = parameter.default
    return frozenset(takes), frozenset(needs), options
