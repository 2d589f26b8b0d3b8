"""How much masked networks memorise (No Free Prune, Fig. 1), by method and density, with many seeds.

``python experiments/memorization.py random-labels --seeds 20`` writes ``proofs_check/records/F8.json``;
``python figures/memorization.py`` draws it. A cell is one method on one chunk of seeds of one setting,
at all densities. Each finished cell is in the record at once, and a run leaves out what is there: a
killed one resumes, and one with more seeds adds the rest. The record is read again before a cell is
begun or added, so that runs of different cells can share it. Per density and seed the record holds how
many samples have a loss of at most (log 2)/10 after training under the mask from the initialisation, and
in the second experiment how many are classified right. Methods are compared on the same networks and
data.

* ``random-labels`` (Fig. 1a): n = d = 30, two hidden layers of 100 (width, init and optimiser are not
  stated in the paper: see ``SETTINGS``), learning rate 1e-2, 1,000 full-batch steps.
* ``noisy-images`` (Fig. 1b): images under N(0, 3) noise with true labels, 200-200, Adam 1e-3, batch 64,
  until the loss is within 0.01 (of zero: "level"; of the look before: "change"). FashionMNIST with
  ``--data fashion_mnist --data-dir FOLDER``. The paper also stops once the accuracy is the same for
  three of its epochs, of 938 steps each; with few images an epoch has few steps, and the rule would
  end training at its start: ``--patience`` and ``--look-every`` set it.

Methods "… uniform" compare trained weights within layers, the same density in each.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.record import commit, hardware  # noqa: E402
from ntktheory.data import load_data  # noqa: E402
from ntktheory.information.memorization import (  # noqa: E402
    THRESHOLD_NATS,
    Budget,
    Pack,
    Training,
    masks_of,
    memorised,
    noisy_image_pack,
    random_label_pack,
)
from ntktheory.training.checkpoint import write_whole  # noqa: E402

RECORD = ROOT / "proofs_check" / "records" / "F8.json"
CHUNK = 20
METHODS = (
    "imp", "magnitude_after", "snip", "grasp", "synflow", "random", "px", "path_edge",
    "imp uniform", "magnitude_after uniform", "ntk_sap",
)  # fmt: skip
LABEL_DENSITIES = (0.1, 0.07, 0.05, 0.04, 0.03, 0.02, 0.015, 0.01)
IMAGE_DENSITIES = (0.1, 0.03, 0.02, 0.015, 0.01)
SETTINGS: dict[str, dict[str, Any]] = {
    "torch adam": {"init": "torch", "optimizer": "adam"},
    "he sgd": {"init": "he", "optimizer": "sgd"},
}
Build = Callable[[list[int]], Pack]
Record = dict[str, Any]


def main() -> None:
    """Run the cells that the record lacks."""
    options = arguments()
    torch.set_num_threads(1)
    for name, experiment in experiments(options):
        held = read_record(options.record)["experiments"].get(name, experiment["described"])
        if {k: v for k, v in held.items() if k != "cells"} != experiment["described"]:
            raise SystemExit(f"{name} is recorded with other settings: move {options.record} away")
        for first in range(0, options.seeds, CHUNK):
            seeds = list(range(first, min(first + CHUNK, options.seeds)))
            for method in options.methods:
                held = read_record(options.record)["experiments"].get(name, {"cells": {}})
                done = held["cells"].get(method, {})
                missing = [s for s in seeds if str(s) not in done]
                if missing:
                    start = time.perf_counter(), time.process_time()
                    found = measure(method, missing, experiment)
                    seconds = time.perf_counter() - start[0], time.process_time() - start[1]
                    add(options.record, name, experiment["described"], method, found, seconds)
                    print(f"{name} {method} {missing[0]}…{missing[-1]}: {seconds[0]:.0f} s, "
                          f"{seconds[1]:.0f} s of processor", flush=True)  # fmt: skip


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("experiment", choices=["random-labels", "noisy-images"])
    parser.add_argument("--seeds", type=int, default=250)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--setting", default="torch adam", choices=list(SETTINGS))
    parser.add_argument("--width", type=int, default=100)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--data", default="digits", help="digits, cifar10-jpeg or fashion_mnist")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--images", type=int, default=200, help="training images used")
    parser.add_argument("--noise-variance", type=float, default=3.0)
    parser.add_argument("--stop", default="level", choices=["level", "change"])
    parser.add_argument("--epochs", type=int, default=300, help="at most, for noisy-images")
    parser.add_argument("--look-every", type=int, default=1, help="epochs between looks")
    parser.add_argument("--patience", type=int, help="looks of one accuracy; none by default")
    parser.add_argument("--record", type=Path, default=RECORD)
    return parser.parse_args()


def experiments(options: argparse.Namespace) -> Iterator[tuple[str, Record]]:
    """Yield the experiment asked for: its name, what it is, and how a pack is built."""
    if options.experiment == "random-labels":
        setting = SETTINGS[options.setting]
        training = Training(optimizer=setting["optimizer"], lr=1e-2, epochs=options.steps)
        shape = {"samples": 30, "dim": 30, "width": options.width, "hidden_layers": 2,
                 "init": setting["init"]}  # fmt: skip
        described = {"pack": shape, "training": asdict(training), "samples": 30,
                     "densities": list(LABEL_DENSITIES)}  # fmt: skip
        other = [f"width {options.width}"] * (options.width != 100)
        other += [f"{options.steps} steps"] * (options.steps != 1000)
        yield (
            "random labels, " + ", ".join([options.setting, *other]),
            {
                "described": described,
                "build": lambda seeds: random_label_pack(seeds, **shape),
                "training": training,
            },
        )
        return
    images, labels = load_data(options.data, options.images, data_dir=options.data_dir)
    training = Training(
        lr=1e-3, batch=64, epochs=options.epochs, stop=options.stop, patience=options.patience,
        look_every=options.look_every,
    )  # fmt: skip
    noise = {"noise_variance": options.noise_variance, "widths": [200, 200], "init": "torch"}
    described = {"pack": noise | {"data": options.data}, "training": asdict(training),
                 "samples": len(images), "densities": list(IMAGE_DENSITIES)}  # fmt: skip
    yield (
        f"noisy images, {options.data}, {options.stop}",
        {
            "described": described,
            "build": lambda seeds: noisy_image_pack(images, labels, seeds, **noise),
            "training": training,
        },
    )


def measure(method: str, seeds: list[int], experiment: Record) -> Record:
    """Return seed -> what each density memorises, for one method."""
    name, _, budget = method.partition(" ")
    densities, training = experiment["described"]["densities"], experiment["training"]
    pack = experiment["build"](seeds)
    compare: Budget = "uniform" if budget else "global"
    masks = masks_of(pack, name, densities, training, budget=compare)
    found = [memorised(pack, masks[density], training) for density in densities]
    return {
        str(seed): {
            "memorised": [int(one.counts[i]) for one in found],
            "correct": [int(one.correct[i]) for one in found],
            **(
                {}
                if training.stop == "steps"
                else {"epochs": [int(one.epochs[i]) for one in found]}
            ),
        }
        for i, seed in enumerate(seeds)
    }


def read_record(path: Path) -> Record:
    """Return the record so far, or an empty one."""
    if path.exists():
        return json.loads(path.read_text())
    return {
        "command": [],
        "commit": commit(),
        "hardware": hardware(),
        "versions": {m.__name__: m.__version__ for m in (torch, np)},
        "seeds": "keys of the cells; a seed draws network and data",
        "threshold_nats": THRESHOLD_NATS,
        "drop": 0.2,
        "seconds": 0.0,
        "processor_seconds": 0.0,
        "experiments": {},
    }


def add(
    path: Path,
    name: str,
    described: Record,
    method: str,
    found: Record,
    seconds: tuple[float, float],
) -> None:
    """Add a cell to the record as it is now, with time and command, and write it whole."""
    record = read_record(path)
    cells = record["experiments"].setdefault(name, described | {"cells": {}})["cells"]
    cells.setdefault(method, {}).update(found)
    note_run(record, "python experiments/memorization.py", seconds)
    save_compact(path, record)


def note_run(record: Record, script: str, seconds: tuple[float, float]) -> None:
    """Note the command, and the seconds on the clock and of the processor."""
    command = " ".join([script, *sys.argv[1:]])
    if command not in record["command"]:
        record["command"].append(command)
    record["seconds"] += seconds[0]
    record["processor_seconds"] += seconds[1]


def save_compact(path: Path, record: Record) -> None:
    """Write a record whole, with lists of numbers on one line and 6 digits."""
    rounded = json.loads(json.dumps(record), parse_float=lambda text: float(f"{float(text):.6g}"))
    text = json.dumps(rounded, indent=1, ensure_ascii=False)
    flat = re.sub(r"\[[^][{}\"]*\]", lambda found: " ".join(found[0].split()), text)
    path.parent.mkdir(exist_ok=True)
    write_whole(path, (flat + "\n").encode())


if __name__ == "__main__":
    main()
