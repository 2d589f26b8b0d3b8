"""Correlation of trained students with their labels' noise (No Free Prune, Figs. 2 and 3).

``python experiments/noise_correlation.py --seeds 25`` writes ``proofs_check/records/F9.json``;
``python figures/noise_correlation.py`` draws it. Students of five layers of 100, teachers of three of
50, n = 1000, d = 50, noise of variance 1 in the labels (outside of the theorem's |y| ≤ 1), Adam. Parts:

* ``pruning`` (Fig. 2a, and 3 with ``--epochs 1400``): 20 % of the remaining weights go every 100 epochs;
* ``rates`` (Fig. 2b): five learning rates, 100 epochs;
* ``noise absolute``, ``noise relative`` (Fig. 2c): noise on gradients in two units, 100 epochs. Size 0
  is the rate 1e-3 of ``rates``: same seeds, same order of samples.

A cell is a part on a chunk of seeds. It is in the record at once, and a run leaves out what is there.
The record is read again before a cell is begun or added, so that runs of different cells can share it.
Values have 6 digits. ``error``: the largest standard error from estimating E_μ f.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.record import commit, hardware  # noqa: E402
from experiments.memorization import note_run, save_compact  # noqa: E402
from ntktheory.information.noise_correlation import student_teacher, track_noise  # noqa: E402

RECORD = ROOT / "proofs_check" / "records" / "F9.json"
CHUNK = 5
RATES = (1e-4, 2.5e-4, 5e-4, 7.5e-4, 1e-3)
SIZES = (0.1, 0.2, 0.3, 0.5)
PARTS = ("pruning", "rates", "noise absolute", "noise relative")
TASK = {
    "samples": 1000, "dim": 50, "student": [100] * 4, "teacher": [50] * 2, "noise_variance": 1.0,
    "fresh": 1000, "init": "torch",
}  # fmt: skip
Record = dict[str, Any]


def main() -> None:
    """Run the cells that the record lacks."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--seeds", type=int, default=25)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=500, help="of the part pruning")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--go-on", default="weights", choices=["weights", "init"])
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--record", type=Path, default=RECORD)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for part in options.parts:
        name, described = describe(part, options)
        held = read_record(options.record)["parts"].get(name, described)
        if any(held[key] != value for key, value in described.items()):
            raise SystemExit(f"{name} is recorded with other settings: move the record away")
        for first in range(options.first_seed, options.seeds, CHUNK):
            done = read_record(options.record)["parts"].get(name, {"curves": {}})["curves"]
            seeds = [s for s in range(first, min(first + CHUNK, options.seeds))]
            seeds = [s for s in seeds if str(s) not in done]
            if not seeds:
                continue
            start = time.perf_counter(), time.process_time()
            found = measure(part, seeds, described)
            seconds = time.perf_counter() - start[0], time.process_time() - start[1]
            add(options.record, name, described, found, seconds)
            print(f"{name} {seeds[0]}…{seeds[-1]}: {seconds[0]:.0f} s, "
                  f"{seconds[1]:.0f} s of processor", flush=True)  # fmt: skip


def describe(part: str, options: argparse.Namespace) -> tuple[str, Record]:
    """Return a part's name in the record, and its settings."""
    training: Record = {"optimizer": "adam", "batch": options.batch, "every": options.every}
    name = part if options.batch == 64 else f"{part}, batch {options.batch}"
    if part == "pruning":
        training |= {"epochs": options.epochs, "lr": 1e-3, "prune_every": 100, "drop": 0.2,
                     "go_on": options.go_on}  # fmt: skip
        name += "" if options.epochs == 500 else f", {options.epochs} epochs"
        name += "" if options.go_on == "weights" else f", from {options.go_on}"
        return name, {"task": TASK, "training": training, "settings": [0.0]}
    training["epochs"] = 100
    if part == "rates":
        return name, {"task": TASK, "training": training, "settings": list(RATES)}
    training |= {"lr": 1e-3, "noise_unit": part.split()[1]}
    return name, {"task": TASK, "training": training, "settings": list(SIZES)}


def measure(part: str, seeds: list[int], described: Record) -> Record:
    """Run a part on some seeds, one setting after the other.

    Returns:
        seed -> curves, what all seeds share, the largest error, and every setting's last loss.
    """
    curves: dict[str, list[list[float]]] = {str(seed): [] for seed in seeds}
    found: Record = {"curves": curves, "error": 0.0, "last_loss": []}
    task = student_teacher(seeds, **described["task"])
    for setting in described["settings"]:
        options = dict(described["training"])
        if part == "rates":
            options["lr"] = setting
        elif part != "pruning":
            options["gradient_noise"] = setting
        curve = track_noise(task, **options)
        for i, seed in enumerate(seeds):
            curves[str(seed)].append(curve.values[:, i].tolist())
        found |= {"epochs": list(curve.epochs), "densities": list(curve.densities),
                  "prunings": list(curve.prunings)}  # fmt: skip
        found["error"] = max(found["error"], float(curve.errors.max()))
        found["last_loss"].append(float(curve.losses[-1].mean()))
    return found


def add(
    path: Path, name: str, described: Record, found: Record, seconds: tuple[float, float]
) -> None:
    """Add a cell to the record as it is now, with time and command, and write it whole."""
    record = read_record(path)
    part = record["parts"].setdefault(name, described | {"curves": {}})
    shared = {key: found[key] for key in ("epochs", "densities", "prunings")}
    part |= shared | {
        "curves": part["curves"] | found["curves"],
        "error": max(part.get("error", 0.0), found["error"]),
        "last_loss": [*part.get("last_loss", []), *found["last_loss"]],
    }
    note_run(record, "python experiments/noise_correlation.py", seconds)
    save_compact(path, record)


def read_record(path: Path) -> Record:
    """Return the record so far, or an empty one."""
    if path.exists():
        return json.loads(path.read_text())
    return {
        "command": [],
        "commit": commit(),
        "hardware": hardware(),
        "versions": {m.__name__: m.__version__ for m in (torch, np)},
        "seeds": "keys of the curves; a seed draws teacher, data and student",
        "seconds": 0.0,
        "processor_seconds": 0.0,
        "parts": {},
    }


if __name__ == "__main__":
    main()
