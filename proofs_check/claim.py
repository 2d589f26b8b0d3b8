"""What a claim is to the machine: a check that computes a status, and mutants that it must reject."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Status = Literal[
    "holds", "refuted", "supported", "not-supported", "opposite", "inconclusive", "not-covered"
]
Kind = Literal[
    "proved", "proved-probabilistic", "exact-numeric", "property", "statistical", "records", "none"
]
PaperAxis = Literal["transcribed", "disputed"]
Level = Literal["quick", "full"]

STATUSES: tuple[str, ...] = get_args(Status)
KINDS: tuple[str, ...] = get_args(Kind)
PAPER_AXES: tuple[str, ...] = get_args(PaperAxis)
LEVELS: tuple[str, ...] = get_args(Level)


@dataclass(frozen=True)
class Outcome:
    """What one run of a check found.

    Attributes:
        status: The verdict, computed from the evidence.
        kind: The weakest kind of evidence that the verdict rests on.
        scope: On what it was checked, in one sentence.
        evidence: The numbers, JSON-able; units in the names.
        counterexample: The input that breaks the statement, readable by a person.
        false_alarm: The probability δ that a true claim would have failed here; 0 without chance.
    """

    status: Status
    kind: Kind
    scope: str
    evidence: dict[str, Any] = field(default_factory=dict)
    counterexample: str | None = None
    false_alarm: float = 0.0


Check = Callable[..., Outcome]


@dataclass(frozen=True)
class Claim:
    """A claim's check, what it checks, and the planted errors that it must reject.

    Attributes:
        id: The id in the ledger.
        check: ``check(level, **subjects) -> Outcome``; pure but for time.
        subjects: The functions under test, by the name of ``check``'s parameters.
        mutants: For each planted error, the subjects that it replaces.
    """

    id: str
    check: Check
    subjects: Mapping[str, Callable[..., Any]]
    mutants: Mapping[str, Mapping[str, Callable[..., Any]]]


CLAIMS: dict[str, Claim] = {}


def claim(
    id: str,
    *,
    subjects: Mapping[str, Callable[..., Any]],
    mutants: Mapping[str, Mapping[str, Callable[..., Any]]],
) -> Callable[[Check], Check]:
    """Register the decorated check under ``id``.

    The check is called as ``check(level, **subjects)``. For every mutant it is called again with
    those subjects replaced; the mutant is killed when the status then differs from the expected one.
    A check must therefore reach its verdict only through its subjects and independent references.

    Args:
        id: The id in ``ledger.toml``.
        subjects: The functions under test.
        mutants: Name of the planted error -> the subjects that it replaces. At least one.

    Returns:
        A decorator that returns the check unchanged.

    Raises:
        ValueError: If the id is taken, there is no mutant, or a mutant replaces an unknown subject.
    """

    def register(check: Check) -> Check:
        if id in CLAIMS:
            raise ValueError(f"claim id must be new, got {id!r} twice. Rename one of them.")
        if not mutants:
            raise ValueError(f"mutants must be given, got none for {id!r}. Plant an error.")
        for name, replaced in mutants.items():
            unknown = set(replaced) - set(subjects)
            if unknown or not replaced:
                raise ValueError(
                    f"mutant {name!r} of {id!r} must be replacing some of {sorted(subjects)}, "
                    f"got {sorted(replaced)}. Name the subject it breaks."
                )
        CLAIMS[id] = Claim(id, check, dict(subjects), dict(mutants))
        return check

    return register
