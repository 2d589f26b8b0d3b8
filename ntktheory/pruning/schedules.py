"""How the density falls from round to round."""

from typing import Literal

from ntktheory.checks import check_choice, complaint

Schedule = Literal["exponential", "linear", "inverse", "one_shot"]
SCHEDULES: tuple[Schedule, ...] = ("exponential", "linear", "inverse", "one_shot")


def densities(density: float, rounds: int, schedule: Schedule = "exponential") -> list[float]:
    """Return the density after each of T rounds; the last is ``density``, d.

    After round t: "exponential" ``d^(t/T)``; "linear" ``1 − (1−d) t/T``; "inverse"
    ``1 − (1−d)^(T/t)``; "one_shot" d in every round.

    Args:
        density: Fraction of weights kept in the end, in (0, 1].
        rounds: T.
        schedule: Which of the above.

    Returns:
        T densities, none larger than the one before.

    Raises:
        ValueError: If the density is not in (0, 1], there are no rounds, or the schedule is unknown.

    Example:
        >>> densities(0.25, 2)
        [0.5, 0.25]
    """
    check_choice("schedule", schedule, SCHEDULES)
    if not 0 < density <= 1:
        raise ValueError(
            complaint(
                "density", "a fraction in (0, 1]", density, "It is the fraction that is kept."
            )
        )
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        raise ValueError(
            complaint("rounds", "a positive integer", repr(rounds), "One round prunes at once.")
        )
    shares = [t / rounds for t in range(1, rounds)]
    if schedule == "exponential":
        before = [density**share for share in shares]
    elif schedule == "linear":
        before = [1 - (1 - density) * share for share in shares]
    elif schedule == "inverse":
        before = [1 - (1 - density) ** (1 / share) for share in shares]
    else:
        before = [density] * (rounds - 1)
    return [*before, density]
