"""No Free Prune's toy (Fig. 4), enumerated: what the masks of every pruner say about six points.

``python experiments/mask_information.py --cache FOLDER`` writes ``proofs_check/records/F7.json``;
``python figures/mask_information.py`` draws it. Per loss: mse with width 4 (P = 21), and cross-entropy
of two logits with width 3 (P = 20). Per run (loss, method, steps, init): ``I(m; D | init)`` in bits for
k = 0…P−1 pruned weights, exactly, with and without replacement; where near-ties leave it open, their
weight and the ends of the interval too.

A killed run resumes from the cache folder, which holds every finished run and its masks. The record is
written anew after each, from the cache alone: one that holds more is not replaced. ``--then`` adds what
follows from the masks:

* ``over_inits``: I(m; D) where the init is drawn too, uniform over the seeds;
* ``joint``: ``I((m, w); D | init)``, w the trained weights under the mask;
* ``rounding``: what an initial weight's last digit changes;
* ``sampled``: what estimators make of 1,000, 4,000 and 32,000 sampled data sets.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.record import commit, hardware  # noqa: E402
from ntktheory.information.entropy import ESTIMATORS, entropy_estimate  # noqa: E402
from ntktheory.information.enumeration import (  # noqa: E402
    information_over_inits,
    joint_information,
)
from ntktheory.information.laws import Array, Law, entropy_bits, pushed  # noqa: E402
from ntktheory.information.toy_data import ToyData, toy_data  # noqa: E402
from ntktheory.information.toy_information import by_pruned  # noqa: E402
from ntktheory.information.toy_learner import train  # noqa: E402
from ntktheory.information.toy_masks import ToyMasks, masks_by_rank, toy_masks  # noqa: E402
from ntktheory.information.toy_network import ToyNetwork, initial_weights  # noqa: E402
from proofs_check.runner import write_atomically  # noqa: E402

RECORD = ROOT / "proofs_check" / "records" / "F7.json"
WIDTHS = {"mse": 4, "cross_entropy": 3}
TRAINED = ("imp", "magnitude_after")
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "snip": ("snip", {}),
    "grasp": ("grasp", {}),
    "grasp T=1": ("grasp", {"temperature": 1.0}),
    "synflow": ("synflow", {}),
    "random": ("random", {}),
    "ntk_sap": ("ntk_sap", {}),
    "px": ("px", {}),
    "path_edge": ("path_edge", {}),
    "magnitude_after": ("magnitude_after", {}),
    "imp": ("imp", {}),
}
PAPER = ("imp", "magnitude_after", "snip", "grasp")
SEEDS, STEPS, LR = 20, 200, 0.1
LONG_SEEDS, LONG_STEPS = 3, 1000
INIT = "kaiming_normal"
SAMPLES, RESAMPLES = (1_000, 4_000, 32_000), 20
SOME_PRUNED = (1, 2, 4, 6, 8, 10, 12, 14, 16, 18, 19)
DIGITS = 4
SHORT = ("method", "seed", "pruned", "samples", "plug_in")

Record = dict[str, Any]


class Run(NamedTuple):
    """A learner and its init."""

    loss: str
    method: str
    steps: int = 0
    lr: float = LR
    init: str = INIT
    seed: int = 0
    replacement: bool = True

    @property
    def network(self) -> ToyNetwork:
        """Its network."""
        return ToyNetwork(width=WIDTHS[self.loss], loss=self.loss)


def main() -> None:
    """Compute what the record lacks."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--cache", type=Path, required=True, help="folder for masks, 4 MB per run")
    parser.add_argument("--only", action="append", choices=PARTS, help="some of the runs")
    parser.add_argument("--then", action="append", choices=THEN, default=[], help="after the runs")
    parser.add_argument("--record", type=Path, default=RECORD)
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    check_nothing_is_lost(options.record, options.cache)
    data = {replacement: toy_data(replacement=replacement) for replacement in (True, False)}
    for part in options.only or PARTS:
        for batch in PARTS[part]():
            measure(batch, data[batch[0].replacement], options.cache, options.record)
    for name in options.then:
        found = THEN[name](data[True], options.cache)
        save(load(options.cache) | {name: found}, options.cache, options.record)


def at_init() -> Iterator[list[Run]]:
    """Yield the pruners that score the initial weights."""
    for seed in range(SEEDS):
        for loss in WIDTHS:
            for method in METHODS:
                if method not in TRAINED:
                    yield [Run(loss, method, seed=seed)]


def trained() -> Iterator[list[Run]]:
    """Yield the pruners that train, a few inits at once."""
    for loss in WIDTHS:
        for method in TRAINED[::-1]:
            for first in range(0, SEEDS, 5):
                yield [Run(loss, method, STEPS, seed=seed) for seed in range(first, first + 5)]


def apart() -> Iterator[list[Run]]:
    """Yield those without replacement, trained for longer; all inits at once."""
    for loss in WIDTHS:
        for method in TRAINED:
            yield [
                Run(loss, method, LONG_STEPS, seed=seed, replacement=False) for seed in range(SEEDS)
            ]


def swept() -> Iterator[list[Run]]:
    """Yield those without replacement, with other learning rates, steps and laws of the init."""
    for loss in WIDTHS:
        for method in TRAINED:
            for lr, init in ((LR, INIT), (0.01, INIT), (0.5, INIT), (LR, "uniform")):
                yield [Run(loss, method, STEPS, lr, init, seed, False) for seed in range(SEEDS)]
        for method in ("snip", "grasp", "grasp T=1"):
            for seed in range(SEEDS):
                yield [Run(loss, method, 0, LR, "uniform", seed, False)]


def long() -> Iterator[list[Run]]:
    """Yield those with replacement, trained for longer."""
    for method in TRAINED[::-1]:
        for loss in WIDTHS:
            for seed in range(LONG_SEEDS):
                yield [Run(loss, method, LONG_STEPS, seed=seed)]


PARTS: dict[str, Callable[[], Iterator[list[Run]]]] = {
    "at_init": at_init,
    "apart": apart,
    "trained": trained,
    "swept": swept,
    "long": long,
}


def measure(runs: list[Run], data: ToyData, cache: Path, record_path: Path) -> None:
    """Compute runs that differ in their seeds, unless the cache has them, and save them."""
    rows = load(cache)["runs"]
    done = [tuple(row[field] for field in Run._fields) for row in rows]
    runs = [run for run in runs if tuple(run) not in done]
    if not runs:
        return
    begin = time.process_time()
    first, count = runs[0], len(runs)
    starts = [initial_weights(r.network, r.seed, r.init) for r in runs]
    start = starts[0]
    if count > 1:
        start = torch.stack(starts, 1).repeat_interleave(len(data), 1)
    scorer, options = METHODS[first.method]
    found = toy_masks(
        scorer, data.repeated(count) if count > 1 else data, first.network, start,
        steps=first.steps, lr=first.lr, seed=first.seed, options=options, diverged=True,
    )  # fmt: skip
    seconds = (time.process_time() - begin) / count
    record = load(cache)
    for i, run in enumerate(runs):
        part = slice(i * len(data), (i + 1) * len(data))
        masks = ToyMasks(found.codes[:, part], found.near_ties[:, part])
        keep(run, masks, cache)
        record["runs"].append(row_of(run, masks, data) | {"cpu_seconds": round(seconds, 1)})
    save(record, cache, record_path)
    print(*first, f"and {count - 1} more seeds, {seconds:.1f} s each", flush=True)


def row_of(run: Run, masks: ToyMasks, data: ToyData) -> Record:
    """Return what the record holds of a run."""
    exact = by_pruned(masks, data.law)
    row: Record = {**run._asdict(), "bits": [rounded(i.bits) for i in exact]}
    if run.replacement:
        distinct = without_replacement(data)
        row["bits_without_replacement"] = [
            rounded(entropy_bits(pushed(c, distinct))) for c in masks.codes.numpy()
        ]
    if masks.near_ties.any():
        row["near_tie_weight"] = [round(i.near_tie_weight, 6) for i in exact]
        row["low_bits"] = [rounded(i.low_bits) for i in exact]
        row["high_bits"] = [rounded(i.high_bits) for i in exact]
    return row


def keep(run: Run, masks: ToyMasks, cache: Path) -> None:
    """Store a run's masks."""
    near = np.packbits(masks.near_ties.numpy(), axis=1)
    np.savez(cache / file_name(run), codes=masks.codes.numpy().astype(np.int32), near=near)


def without_replacement(data: ToyData) -> Law:
    """Return the law of data sets with distinct inputs, on the list of all."""
    distinct = (data.counts.sum(0) <= 1).all(0).numpy()
    return Law(distinct.astype(np.int64), int(distinct.sum()))


def masks_of(run: Run, cache: Path) -> Array:
    """Return the code words of a run, [P, N]."""
    return np.load(cache / file_name(run))["codes"].astype(np.int64)


def file_name(run: Run) -> str:
    """Return where a run's masks are in the cache."""
    return "_".join(map(str, run)).replace(" ", "") + ".npz"


def over_inits(data: ToyData, cache: Path) -> list[Record]:
    """Return I(m; D) over the uniform mixture of the seeds, beside the mean of I(m; D | init)."""
    rows = []
    for loss in WIDTHS:
        for method in PAPER:
            runs = [
                r for batch in (*at_init(), *trained()) for r in batch if r[:2] == (loss, method)
            ]
            codes = np.stack([masks_of(run, cache) for run in runs], axis=1)  # [P, I, N]
            given = [[entropy_bits(pushed(c, data.law)) for c in k] for k in codes]
            rows.append({
                "loss": loss, "method": method, "inits": len(runs),
                "bits": [rounded(information_over_inits(c, data.law)) for c in codes],
                "mean_bits_given_init": [rounded(float(np.mean(v))) for v in given],
            })  # fmt: skip
            print("over inits", loss, method, flush=True)
    return rows


def joint(data: ToyData, cache: Path) -> list[Record]:
    """Return I((m, w); D | init), magnitude after training, weights not trained again."""
    rows = []
    for loss in WIDTHS:
        for seed in range(LONG_SEEDS):
            run = Run(loss, "magnitude_after", STEPS, seed=seed)
            start = initial_weights(run.network, seed)
            trained = train(data, run.network, start, steps=STEPS, lr=LR)
            codes = masks_by_rank(trained.abs()).codes
            bits = []
            for row in codes:
                kept = (row >> torch.arange(len(trained)).unsqueeze(1) & 1).double()
                bits.append(rounded(joint_information(row, trained * kept, data.law)))
            rows.append(
                {"loss": loss, "seed": seed, "bits": bits, "data_bits": entropy_bits(data.law)}
            )
            print("joint", loss, seed, flush=True)
    return rows


def rounding(data: ToyData, cache: Path) -> list[Record]:
    """Return how masks change when every initial weight moves to the next larger number.

    ``bits``: the largest change over k; ``weight``: of the data sets whose mask changes, for each k.
    Without replacement, where masks after long training hang most on rounding.
    """
    data = toy_data(replacement=False)
    rows = []
    for loss in WIDTHS:
        for steps in (STEPS, LONG_STEPS):
            for method in TRAINED:
                run = Run(loss, method, steps)
                start = initial_weights(run.network, run.seed)
                next_up = torch.nextafter(start, torch.full_like(start, torch.inf))
                codes = [
                    toy_masks(
                        method, data, run.network, s, steps=steps, lr=LR, diverged=True
                    ).codes.numpy()
                    for s in (start, next_up)
                ]
                bits = [[entropy_bits(pushed(k, data.law)) for k in each] for each in codes]
                changed = [float((a != b).mean()) for a, b in zip(*codes, strict=True)]
                rows.append({
                    "loss": loss, "method": method, "steps": steps,
                    "weight": [round(w, 6) for w in changed],
                    "bits": max(abs(a - b) for a, b in zip(*bits, strict=True)),
                })  # fmt: skip
                print("rounding", loss, method, steps, rows[-1]["bits"], flush=True)
    return rows


def sampled(data: ToyData, cache: Path) -> list[Record]:
    """Return the mean error of every estimator, in bits, and its standard deviation over resamples."""
    rows = []
    for run in (run for batch in (*at_init(), *trained()) for run in batch):
        if run.loss != "mse" or run.method not in PAPER:
            continue
        generator = np.random.default_rng([run.seed, PAPER.index(run.method)])
        codes = masks_of(run, cache)
        names = ESTIMATORS if run.seed < LONG_SEEDS else ("plug_in",)
        for k in SOME_PRUNED:
            possible = math.comb(run.network.size, k)
            masks = pushed(codes[k], data.law)
            truth = entropy_bits(masks)
            for n in SAMPLES:
                drawn = generator.multinomial(n, masks.numerators / masks.total, size=RESAMPLES)
                row: Record = {"method": run.method, "seed": run.seed, "pruned": k, "samples": n}
                for name in names:
                    found = [entropy_estimate(c, name, classes=possible).bits for c in drawn]
                    error, deviation = np.mean(found) - truth, np.std(found, ddof=1)
                    row[name] = [round(float(error), DIGITS), round(float(deviation), DIGITS)]
                rows.append(row)
        print("sampled", run.method, run.seed, flush=True)
    return rows


THEN: dict[str, Callable[[ToyData, Path], list[Record]]] = {
    "over_inits": over_inits,
    "joint": joint,
    "rounding": rounding,
    "sampled": sampled,
}


def rounded(bits: float) -> float:
    """Return bits to 4 digits, 0.0 only for exactly 0."""
    return max(round(bits, DIGITS), 10.0**-DIGITS) if bits > 0 else round(bits, DIGITS)


def load(cache: Path) -> Record:
    """Return all that was computed, one row per run, or the head of it."""
    done = cache / "runs.json"
    if done.exists():
        return json.loads(done.read_text(encoding="utf-8"))
    return {
        "command": "python experiments/mask_information.py --cache FOLDER "
        + " ".join(f"--then {name}" for name in THEN),
        "commit": commit(),
        "hardware": hardware(),
        "versions": {m.__name__: m.__version__ for m in (torch, np, scipy)},
        "seeds": list(range(SEEDS)),
        "samples": 6,
        "data_sets": 54_264,
        "widths": WIDTHS,
        "methods": {name: list(entry) for name, entry in METHODS.items()},
        "resamples": RESAMPLES,
        "runs": [],
    }


def check_nothing_is_lost(path: Path, cache: Path) -> None:
    """Refuse to write a record from a cache that holds less than it.

    Raises:
        SystemExit: If the record has runs, or what follows from them, that the cache lacks.
    """
    if not path.exists():
        return
    held, done = json.loads(path.read_text(encoding="utf-8")), load(cache)
    there = {tuple(row[field] for field in Run._fields) for row in done["runs"]}
    lost = [run for run in recorded_runs(held) if run not in there]
    parts = {name: "plug_in" if name == "sampled" else name for name in THEN}
    gone = [name for name, key in parts.items() if key in held and name not in done]
    if lost or gone:
        what = [f"{len(lost)} runs"] * bool(lost) + gone
        raise SystemExit(
            f"{path} holds {', '.join(what)} that the cache {cache} lacks: pass the cache that it was "
            "written from, or another file as --record"
        )


def recorded_runs(record: Record) -> Iterator[Run]:
    """Yield the runs of a record's curves."""
    for row in record["curves"]:
        for seed in row["seed"]:
            yield Run(**{field: row[field] for field in Run._fields if field != "seed"}, seed=seed)


def save(done: Record, cache: Path, path: Path) -> None:
    """Keep all that was computed in the cache, and write the record."""
    write_atomically(cache / "runs.json", json.dumps(done))
    record = {key: value for key, value in done.items() if key not in ("runs", "sampled")}
    record["curves"] = packed(done["runs"], ("seed", "cpu_seconds"))
    if "sampled" in done:
        plug_in = [{k: v for k, v in row.items() if k in SHORT} for row in done["sampled"]]
        record["plug_in"] = packed(plug_in, ("seed", "plug_in"))
        record["estimators"] = averaged(done["sampled"])
    write_atomically(path, lines(record))


def packed(rows: list[Record], along: tuple[str, ...]) -> list[Record]:
    """Return one row for those that differ in a few fields only, with lists of these."""
    groups: dict[str, Record] = {}
    for row in rows:
        lists = {k: v for k, v in row.items() if k in along or isinstance(v, list)}
        rest = {k: v for k, v in row.items() if k not in lists}
        group = groups.setdefault(json.dumps(rest), rest | {"seed": []})
        for key in lists:
            group.setdefault(key, [None] * len(group["seed"]))
        for key in group.keys() - rest.keys():
            group[key].append(lists.get(key))
    return list(groups.values())


def averaged(rows: list[Record]) -> list[Record]:
    """Return every estimator's mean error and deviation, over the seeds that have them all."""
    groups: dict[tuple, list[Record]] = {}
    for row in rows:
        if all(name in row for name in ESTIMATORS):
            key = row["method"], row["pruned"], row["samples"]
            groups.setdefault(key, []).append(row)
    return [
        dict(zip(("method", "pruned", "samples"), key, strict=True))
        | {
            name: [round(sum(r[name][i] for r in group) / len(group), 4) for i in (0, 1)]
            for name in ESTIMATORS
        }
        for key, group in groups.items()
    ]


def lines(record: Record) -> str:
    """Return JSON with one line per row."""
    parts = []
    for key, value in record.items():
        rows = isinstance(value, list) and value and isinstance(value[0], dict)
        text = ",\n  ".join(map(json.dumps, value)) if rows else ""
        text = f"[\n  {text}\n ]" if rows else json.dumps(value, ensure_ascii=False)
        parts.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    main()
