"""Claims about the information of masks on No Free Prune's toy: F7, and F11 there, from a record."""

import copy
import math
from collections.abc import Callable
from functools import cache
from typing import Any

from ntktheory.information.effective_parameters import effective_parameter_count
from ntktheory.information.toy_information import exact_mask_information
from ntktheory.information.toy_network import ToyNetwork
from proofs_check.claim import Level, Outcome, Status, claim
from proofs_check.mask_curves import (
    AGNOSTIC,
    AT_INIT,
    LEARNED,
    LR,
    PAIRS,
    STEPS,
    Differences,
    Pair,
    Record,
    by_sign,
    curves,
    decided,
    differences,
)
from proofs_check.record_claims import (
    LEVEL,
    Interval,
    decisions,
    load_record,
    paired_interval,
    status_of,
)

TOLERANCE = 1e-4
"""Bits by which a run on another machine may differ from the record, beyond near-ties."""
SPOT = (4, 8, 12)
"""Numbers of pruned weights that the evidence quotes."""

BITS = {"bits", "low_bits", "high_bits", "bits_without_replacement"}

Load = Callable[[], Record]
Signs = Callable[..., dict[tuple[Pair, int], int]]


@cache
def recorded() -> Record:
    """Return the record of F7."""
    return load_record("F7")


# --- does the code still give the record? -------------------------------------------------------------


@cache
def _again(method: str, loss: str, width: int, steps: int, seed: int, temperature: float) -> Any:
    """Run a pruner again on the data sets without replacement: 1,792 of them take a moment."""
    return exact_mask_information(
        method, loss=loss, width=width, steps=steps, lr=LR, seed=seed, replacement=False,
        return_details=True, diverged=True,
        options={"temperature": temperature} if temperature else None,
    )  # fmt: skip


def largest_deviation(record: Record, level: Level, loss: str) -> float:
    """Return by how many bits the record leaves what the code gives, beyond near-ties.

    The runs compared are those on data sets without replacement, which the record holds beside those
    with it. Quick: SNIP, GraSP and magnitude after training, one seed. Full: all pruners, three seeds,
    the trained ones after their 200 and their 1,000 steps.
    """
    worst, quick = 0.0, level == "quick"
    for seed in range(1 if quick else 3):
        for method, (scorer, options) in record["methods"].items():
            if quick and scorer not in ("snip", "grasp", "magnitude_after"):
                continue
            long = () if quick else (1000,)
            for steps in (STEPS, *long) if scorer in LEARNED else (0,):
                row = curves(record, loss, method, steps=steps, replacement=False)[seed]
                found = _again(scorer, loss, record["widths"][loss], steps, seed,
                               options.get("temperature", 0.0))  # fmt: skip
                worst = max(worst, _outside(row["bits"], found.by_pruned))
    return worst


def _outside(bits: list[float], found: Any) -> float:
    return max(
        max(each.low_bits - own, own - each.high_bits, 0.0)
        for own, each in zip(bits, found, strict=True)
    )


# --- planted errors -----------------------------------------------------------------------------------


def changed_record(change: Callable[[Record], None]) -> Load:
    """Return what loads the record with a change."""

    def load() -> Record:
        record = copy.deepcopy(recorded())
        change(record)
        return record

    return cache(load)


def _shrink(methods: tuple[str, ...]) -> Callable[[Record], None]:
    """Divide the information of some pruners by 10,000."""

    def change(record: Record) -> None:
        for group in record["curves"]:
            if group["method"] in methods:
                for key in BITS & group.keys():
                    group[key] = [row and [bits / 1e4 for bits in row] for row in group[key]]

    return change


def _trained_less(record: Record) -> None:
    """Take a tenth of a bit from what every trained mask carries; the claims' signs stay."""
    for group in record["curves"]:
        if group["method"] in LEARNED:
            for key in BITS & group.keys():
                group[key] = [row and [max(0.0, b - 0.1) for b in row] for row in group[key]]


def _two_seeds(record: Record) -> None:
    for group in record["curves"]:
        for key in BITS & group.keys() | {"seed"}:
            group[key] = group[key][:2]


def _as_computed(record: Record) -> None:
    for group in record["curves"]:
        for key in {"low_bits", "high_bits"} & group.keys():
            del group[key]


def _one_wrong_number(record: Record) -> None:
    for group in record["curves"]:
        if group["method"] == "snip" and group["replacement"]:
            group["bits_without_replacement"][0][8] += 0.1


def _signs_of_means(record: Record, loss: str, **which: Any) -> dict[tuple[Pair, int], int]:
    """Take the sign of every mean for decided, whatever its interval."""
    found = differences(record, loss, PAIRS, **which)
    return {key: int(math.copysign(1, at.mean)) for key, at in found.items()}


# A record that no longer agrees with the code is no evidence. The first two are the two orders.
FIRST_SMALL = {"information of trained masks shrunk": {"load": changed_record(_shrink(LEARNED))}}
SECOND_SMALL = {"information of SNIP and GraSP shrunk": {"load": changed_record(_shrink(AT_INIT))}}
NO_NEAR_TIES: dict[str, Any] = {
    "near-ties left out of the record": {"load": changed_record(_as_computed)}
}
UNDECIDED: dict[str, Any] = {"intervals left out": {"signs_of": _signs_of_means}}
SPOILT = {
    "two initialisations": {"load": changed_record(_two_seeds)},
    "a number of the record a tenth of a bit off": {"load": changed_record(_one_wrong_number)},
    "trained masks a tenth of a bit poorer": {"load": changed_record(_trained_less)},
}


# --- F7: the order ------------------------------------------------------------------------------------

PAPER_PAIRS: tuple[Pair, ...] = tuple((a, b) for a in LEARNED for b in ("snip", "grasp"))


def order_outcome(
    level: Level,
    load: Load,
    loss: str,
    pairs: tuple[Pair, ...],
    *,
    most: int | None = None,
    signs_of: Signs = decided,
    **which: Any,
) -> Outcome:
    """Return the verdict on "the first of each pair carries more information, at k = 1…most".

    Differences over seeds have 95 % intervals; their signs are decided with Holm's correction over
    all pairs (PAIRS) and k of the loss, whichever of them the claim is about.
    """
    record = load()
    deviation = largest_deviation(record, level, loss)
    signs = {
        (pair, k): sign
        for (pair, k), sign in signs_of(record, loss, **which).items()
        if pair in pairs and (most is None or k <= most)
    }
    found = differences(record, loss, pairs, **which)
    status: Status = status_of(signs.values()) if deviation <= TOLERANCE else "inconclusive"
    against = [(pair, k) for (pair, k), sign in signs.items() if sign < 0]
    worst = min(against, key=lambda key: found[key].mean, default=None)
    return Outcome(
        status=status,
        kind="records",
        scope=f"{_setting(record, loss, **which)}; near-ties resolved against every decision.",
        evidence={
            "decided": by_sign(signs),
            "difference_bits": {
                f"{a} − {b}, k = {k}": numbers(found[(a, b), k]) for a, b in pairs for k in SPOT
            },
            "interval_level": LEVEL,
            "inits": found[pairs[0], 1].n,
            "deviation_from_code_bits": deviation,
        },
        counterexample=_counter(worst, found) if status in ("not-supported", "opposite") else None,
    )


def _setting(record: Record, loss: str, steps: int = STEPS, replacement: bool = True) -> str:
    width = record["widths"][loss]
    sets = "54,264 weighted data sets" if replacement else "1,792 data sets with distinct inputs"
    return (
        f"{loss}, width {width}, P = {ToyNetwork(width=width, loss=loss).size}, all {sets}, "
        f"{steps} steps of {LR}, {len(record['seeds'])} inits"
    )


def numbers(found: Interval) -> list[float]:
    """Return mean, low and high, rounded."""
    return [round(x, 3) for x in (found.mean, found.low, found.high)]


def _counter(worst: tuple[Pair, int] | None, found: Differences) -> str:
    if worst is None:
        return "none"
    (first, second), k = worst
    at = found[worst]
    return (
        f"k = {k}: {first} carries {-at.mean:.2f} bits [{-at.high:.2f}, {-at.low:.2f}] less than "
        f"{second}, over {at.n} inits."
    )


@claim("F7", subjects={"load": recorded}, mutants=FIRST_SMALL | SECOND_SMALL | SPOILT)
def check_order(level: Level, load: Load) -> Outcome:
    """Return the verdict on F7: the order of Fig. 4, for every k and all four pairs."""
    return order_outcome(level, load, "mse", PAPER_PAIRS)


@claim("F7.imp_snip", subjects={"load": recorded}, mutants=FIRST_SMALL | SECOND_SMALL | SPOILT)
def check_imp_snip(level: Level, load: Load) -> Outcome:
    """Return the verdict on IMP above SNIP."""
    return order_outcome(level, load, "mse", (("imp", "snip"),))


@claim("F7.imp_grasp", subjects={"load": recorded}, mutants=FIRST_SMALL | SECOND_SMALL | SPOILT)
def check_imp_grasp(level: Level, load: Load) -> Outcome:
    """Return the verdict on IMP above GraSP."""
    return order_outcome(level, load, "mse", (("imp", "grasp"),))


@claim(
    "F7.after_snip",
    subjects={"load": recorded, "signs_of": decided},
    mutants=UNDECIDED,
)
def check_after_snip(level: Level, load: Load, signs_of: Signs) -> Outcome:
    """Return the verdict on magnitude after training above SNIP."""
    return order_outcome(level, load, "mse", (("magnitude_after", "snip"),), signs_of=signs_of)


@claim("F7.after_grasp", subjects={"load": recorded}, mutants=FIRST_SMALL | SECOND_SMALL | SPOILT)
def check_after_grasp(level: Level, load: Load) -> Outcome:
    """Return the verdict on magnitude after training above GraSP."""
    return order_outcome(level, load, "mse", (("magnitude_after", "grasp"),))


@claim("F7.few", subjects={"load": recorded}, mutants=FIRST_SMALL | SPOILT)
def check_few(level: Level, load: Load) -> Outcome:
    """Return the verdict where few weights are pruned, with GraSP at temperature 1."""
    pairs = tuple((a, b) for a in LEARNED for b in ("snip", "grasp T=1"))
    return order_outcome(level, load, "mse", pairs, most=8)


@claim(
    "F7.cross_entropy",
    subjects={"load": recorded, "signs_of": decided},
    mutants=UNDECIDED,
)
def check_cross_entropy(level: Level, load: Load, signs_of: Signs) -> Outcome:
    """Return the verdict on the second toy."""
    return order_outcome(level, load, "cross_entropy", PAPER_PAIRS, signs_of=signs_of)


@claim(
    "F7.distinct",
    subjects={"load": recorded, "signs_of": decided},
    mutants=UNDECIDED | NO_NEAR_TIES,
)
def check_distinct(level: Level, load: Load, signs_of: Signs) -> Outcome:
    """Return the verdict without replacement, after 1,000 steps."""
    return order_outcome(
        level, load, "mse", PAPER_PAIRS, steps=1000, replacement=False, signs_of=signs_of
    )


@claim("F7.distinct_cross_entropy", subjects={"load": recorded}, mutants=FIRST_SMALL | SPOILT)
def check_distinct_cross_entropy(level: Level, load: Load) -> Outcome:
    """Return the verdict on the second toy without replacement, after 1,000 steps."""
    return order_outcome(level, load, "cross_entropy", PAPER_PAIRS, steps=1000, replacement=False)


# --- F11 on the toy -----------------------------------------------------------------------------------

AGNOSTIC_PAIRS: tuple[Pair, ...] = tuple((a, b) for a in LEARNED for b in AGNOSTIC)


def counts_of(record: Record, loss: str, count: Callable[..., float]) -> Differences:
    """Return intervals of p_eff(learned) − p_eff(data-agnostic) in bits, one bit per kept weight.

    p_eff with I(m; D | init): at equal k it is the difference of these.
    """
    found: Differences = {}
    for first, second in AGNOSTIC_PAIRS:
        a, b = curves(record, loss, first), curves(record, loss, second)
        size = len(next(iter(a.values()))["bits"])
        for k in range(1, size):
            values = [
                count(a[s]["low_bits"][k], expected_class_bits=float(size - k))
                - count(b[s]["high_bits"][k], expected_class_bits=float(size - k))
                for s in sorted(a.keys() & b.keys())
            ]
            found[(f"{loss}: {first}", second), k] = paired_interval(values)
    return found


def _without_information(bits: float, expected_class_bits: float) -> float:
    return effective_parameter_count(0.0, expected_class_bits=expected_class_bits)


@claim(
    "F11.toy",
    subjects={"load": recorded, "count": effective_parameter_count},
    mutants=SPOILT
    | {
        "information left out of the count": {"count": _without_information},
        "information subtracted": {
            "count": lambda bits, expected_class_bits: expected_class_bits - bits
        },
    },
)
def check_headline(level: Level, load: Load, count: Callable[..., float]) -> Outcome:
    """Return the verdict on F11 on both toys: learned masks against data-agnostic ones."""
    record = load()
    deviation = max(largest_deviation(record, level, loss) for loss in record["widths"])
    found: Differences = {}
    for loss in record["widths"]:
        found |= counts_of(record, loss, count)
    signs = decisions(found)
    smallest = min(found, key=lambda key: found[key].mean)
    status = status_of(signs.values()) if deviation <= TOLERANCE else "inconclusive"
    return Outcome(
        status=status,
        kind="records",
        scope=f"{' and '.join(_setting(record, loss) for loss in record['widths'])}; Λ = 1 bit per "
        "kept weight, near-ties resolved against the claim.",
        evidence={
            "decided": by_sign(signs),
            "smallest_difference_bits": {
                f"{smallest[0]}, k = {smallest[1]}": numbers(found[smallest])
            },
            "difference_bits": {
                f"{a} − {b}, k = {k}": numbers(at)
                for ((a, b), k), at in found.items()
                if k in SPOT and b == "synflow"
            },
            "information_with_drawn_init_bits": {
                f"{row['loss']}: {row['method']}, k = {k}": row["bits"][k]
                for row in record["over_inits"]
                if row["method"] in LEARNED
                for k in SPOT
            },
            "interval_level": LEVEL,
            "deviation_from_code_bits": deviation,
        },
    )
