"""Claims about No Free Prune's toy beside the order: sample sizes, the count of weights, PX."""

from collections.abc import Callable
from functools import cache
from typing import Any

from ntktheory.information.toy_data import ToyData, toy_data
from ntktheory.information.toy_masks import toy_masks
from ntktheory.information.toy_network import ToyNetwork, initial_weights
from ntktheory.models import mlp
from proofs_check.claim import Level, Outcome, Status, claim
from proofs_check.claims.mask_information import SPOT, Load, changed_record, numbers, recorded
from proofs_check.mask_curves import LR, Record
from proofs_check.record_claims import LEVEL, paired_interval

CHANGE = 0.1
"""Bits from which a curve "changes" from 1,000 to 32,000 samples."""

# --- F7.samples ---------------------------------------------------------------------------------------


def plug_in_changes(record: Record) -> dict[tuple[str, int], list[float]]:
    """Return the change of the plug-in estimate from 1,000 to 32,000 samples, in bits.

    Args:
        record: The record.

    Returns:
        (Pruner, k) -> for every init, the difference of the mean errors over the resamples.
    """
    errors: dict[tuple[str, int], dict[int, list[float]]] = {}
    for row in record["plug_in"]:
        by_size = errors.setdefault((row["method"], row["pruned"]), {})
        by_size[row["samples"]] = [mean for mean, _ in row["plug_in"]]
    return {
        key: [large - small for large, small in zip(by_size[32_000], by_size[1_000], strict=True)]
        for key, by_size in errors.items()
    }


def _errors_spoilt(change: Callable[[int, int, float], float]) -> Load:
    """Change every error: ``change(number of the init, samples, error)``."""

    def spoil(record: Record) -> None:
        for row in record["plug_in"]:
            row["plug_in"] = [
                [change(i, row["samples"], mean), deviation]
                for i, (mean, deviation) in enumerate(row["plug_in"])
            ]

    return changed_record(spoil)


@claim(
    "F7.samples",
    subjects={"load": recorded},
    mutants={
        "errors set to 0": {"load": _errors_spoilt(lambda i, n, error: 0.0)},
        "errors at 1,000 those at 32,000": {
            "load": _errors_spoilt(lambda i, n, error: error if n > 1_000 else error / 32)
        },
        "estimates that neither rise nor fall": {
            "load": _errors_spoilt(lambda i, n, error: error * (-1) ** i)
        },
        "eight bits of noise per init": {
            "load": _errors_spoilt(lambda i, n, error: error + 8 * (-1) ** i * (n == 1_000))
        },
    },
)
def check_samples(level: Level, load: Load) -> Outcome:
    """Return the verdict on "the graph does not change", read as: by less than a tenth of a bit."""
    record = load()
    changes = plug_in_changes(record)
    each = 1 - (1 - LEVEL) / len(changes)  # Bonferroni
    found = {key: paired_interval(values, each) for key, values in changes.items()}
    moved = [key for key, at in found.items() if at.low > CHANGE or at.high < -CHANGE]
    still = [key for key, at in found.items() if -CHANGE < at.low and at.high < CHANGE]
    status: Status = (
        "not-supported" if moved else "supported" if len(still) == len(found) else "inconclusive"
    )
    top = max(found, key=lambda key: abs(found[key].mean))
    return Outcome(
        status=status,
        kind="records",
        scope=f"Plug-in entropy of sampled data sets, mse, {len(changes[top])} inits, intervals of "
        f"{LEVEL:.0%} for all {len(found)} pruners and k together.",
        evidence={
            "change_bits": {
                f"{method}, k = {k}": numbers(at) for (method, k), at in found.items() if k in SPOT
            },
            "changed": [f"{method}, k = {k}" for method, k in moved],
            "unchanged": [f"{method}, k = {k}" for method, k in still],
            "mean_error_bits": errors_by_estimator(record),
            "interval_level": LEVEL,
        },
        counterexample=f"{top[0]}, k = {top[1]}: the estimate moves by {found[top].mean:+.2f} bits "
        f"[{found[top].low:.2f}, {found[top].high:.2f}] from 1,000 to 32,000 samples."
        if moved
        else None,
    )


def errors_by_estimator(record: Record) -> dict[str, dict[str, float]]:
    """Return every estimator's mean error in bits at each number of samples, over pruners and k."""
    names = [name for name, value in record["estimators"][0].items() if isinstance(value, list)]
    sizes = sorted({row["samples"] for row in record["estimators"]})
    found: dict[str, dict[str, float]] = {}
    for name in names:
        for n in sizes:
            errors = [row[name][0] for row in record["estimators"] if row["samples"] == n]
            found.setdefault(name, {})[str(n)] = round(sum(errors) / len(errors), 4)
    return found


# --- F7.parameters, F7.px -----------------------------------------------------------------------------


def parameters(width: int, loss: str) -> int:
    """Return how many parameters the toy's network has."""
    return ToyNetwork(width=width, loss=loss).size


@claim(
    "F7.parameters",
    subjects={"count": parameters},
    mutants={
        "width 4 in place of 3": {"count": lambda width, loss: parameters(max(width, 4), "mse")},
        "output biases left out": {"count": lambda width, loss: parameters(width, loss) - 1},
    },
)
def check_parameters(level: Level, count: Callable[[int, str], int]) -> Outcome:
    """Return the verdict on the second toy's "total of 21 parameters"."""
    found = {loss: count(3, loss) for loss in ("cross_entropy", "logistic")}
    modules = {
        loss: sum(p.numel() for p in mlp([3, 3, outputs], bias=True).parameters())
        for loss, outputs in (("cross_entropy", 2), ("logistic", 1))
    }
    first = count(4, "mse") == sum(p.numel() for p in mlp([3, 4, 1], bias=True).parameters()) == 21
    status: Status = "holds" if 21 in found.values() else "refuted"
    if found != modules and status == "refuted":
        status = "inconclusive"
    return Outcome(
        status=status,
        kind="exact-numeric",
        scope="Counting the weights and biases of 3-3-2 and 3-3-1 networks.",
        evidence={"two_logits": found["cross_entropy"], "one_logit": found["logistic"],
                  "first_toy_is_21": first},
        counterexample="3·3 + 3 + 3·2 + 2 = 20 with two logits, 3·3 + 3 + 3·1 + 1 = 16 with one; 21 is "
        "the first toy's number, of width 4."
        if status == "refuted"
        else None,
    )  # fmt: skip


@cache
def _toy(replacement: bool) -> ToyData:
    return toy_data(replacement=replacement)


def masks_that_occur(scorer: str, loss: str, width: int, seed: int, replacement: bool) -> int:
    """Return the largest number of masks, over k, that a scorer gives from one init."""
    network, data = ToyNetwork(width=width, loss=loss), _toy(replacement)
    start = initial_weights(network, seed)
    codes = toy_masks(scorer, data, network, start, steps=0, lr=LR).codes
    return max(len(row.unique()) for row in codes)


def px_masks(*which: Any) -> int:
    """Return how many masks PX gives from one init."""
    return masks_that_occur("px", *which)


@claim(
    "F7.px",
    subjects={"masks": px_masks},
    mutants={
        "path_edge in its place": {"masks": lambda *which: masks_that_occur("path_edge", *which)},
        "SNIP in its place": {"masks": lambda *which: masks_that_occur("snip", *which)},
    },
)
def check_px(level: Level, masks: Callable[..., int]) -> Outcome:
    """Return the verdict on PX: one mask whatever the data."""
    seeds = range(3 if level == "quick" else 20)
    cases = [
        (loss, width, seed, level == "full")
        for loss, width in (("mse", 4), ("cross_entropy", 3))
        for seed in seeds
    ]
    broken = [case for case in cases if masks(*case) != 1]
    return Outcome(
        status="refuted" if broken else "holds",
        kind="exact-numeric",
        scope=f"Both toys, {len(seeds)} inits, every k, all "
        f"{'54,264' if level == 'full' else '1,792'} data sets; equality of masks.",
        evidence={"cases": len(cases), "with_more_than_one_mask": len(broken)},
        counterexample=f"loss, width, init: {broken[0][:3]}" if broken else None,
    )
