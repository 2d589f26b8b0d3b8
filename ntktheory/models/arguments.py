"""Checks that the builders share."""

from ntktheory.checks import complaint


def check_positive(**numbers: int) -> None:
    """Check that every number is a positive integer.

    Raises:
        ValueError: If one is not; the message lists all of them.
    """
    if all(type(n) is int and n > 0 for n in numbers.values()):
        return
    raise ValueError(
        complaint(
            _listed(list(numbers)),
            "positive integers",
            _listed(list(map(repr, numbers.values()))),
            "CIFAR-10 has 10 outputs and 3 channels.",
        )
    )


def _listed(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else words[0]
