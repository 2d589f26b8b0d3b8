"""What each scorer keeps: against the exact NTK, over densities, networks, data and seeds.

``python experiments/fidelity.py [--cells mlp:digits …] [--seeds 10]`` writes
``proofs_check/records/fidelity.json`` after every network, and goes on where a record of the same
settings ends; ``python figures/fidelity.py`` draws it. Networks get He weights, and batch norms the
statistics of 512 images. One-shot scorers score once; the others prune 20 % of what is left per round
(published numbers of rounds differ: see ``SCORERS``), and the masks after six of these rounds are
judged. Every scorer gets the same images, on which the kernels are taken too. On ResNet-20 the oracles
score once, and correlations are taken at one density.

Per mask, against the dense network: trace and R_edge, the distance of the two spectra (``l2``,
``l2_normalised``; ``log_rms``: root mean square of log10 μ/λ, eigenvalues cut off below 1e-6 of the
largest dense one; ``log_top``, ``log_rest``: mean |log10 μ/λ| of the largest tenth and of the lower
half), units with a path by layer, Spearman correlation of the score with the exact oracles over the kept
weights, overlap of the mask with theirs, and on small networks the distance of outputs along training.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.record import commit, hardware, save_table  # noqa: E402
from experiments.tightness import calibrate  # noqa: E402
from ntktheory import empirical_ntk, functional, linearized_predict, path_bounds  # noqa: E402
from ntktheory.checks import NumericalError, UnsupportedModule  # noqa: E402
from ntktheory.data import channel_statistics, load_data, standardise  # noqa: E402
from ntktheory.information.streams import stream  # noqa: E402
from ntktheory.models import build_model  # noqa: E402
from ntktheory.ntk.comparison import descent, relative_distance  # noqa: E402
from ntktheory.ntk.spectrum import spectral_distance  # noqa: E402
from ntktheory.pruning import SCORERS, score  # noqa: E402
from ntktheory.pruning.budgets import keep_by_budget  # noqa: E402
from ntktheory.pruning.health import mask_health  # noqa: E402
from ntktheory.pruning.topk import kept_count  # noqa: E402
from proofs_check.record_claims import rows_of  # noqa: E402

RECORD = ROOT / "proofs_check" / "records" / "fidelity.json"
SEEDS = 10
DROP, ROUNDS = 0.8, (2, 4, 8, 12, 15, 18)
CELLS: dict[str, dict[str, Any]] = {
    "mlp:digits": {"images": 32, "small": True, "hidden": [64, 64]},
    "convnet:digits": {"images": 32, "small": True, "channels": [8, 16, 16], "stride": [1, 2, 1]},
    "mlp:cifar10-jpeg": {"images": 32, "small": True, "hidden": [64, 64]},
    "convnet:cifar10-jpeg": {
        "images": 32, "small": True, "channels": [8, 16, 16], "stride": [2, 2, 2],
    },
    "resnet20:cifar10-jpeg": {"images": 8, "small": False},
}  # fmt: skip
ORACLES = ("ntk_trace", "ntk_trace_saliency")
OPTIONS: dict[str, dict[str, Any]] = {"ntk_sap": {"realizations": 1}}
STEPS = (1, 2, 5, 10, 20, 50, 100)
FLOOR = 1e-6

Masks = dict[str, Tensor]
Row = dict[str, Any]


def main() -> None:
    """Judge every scorer in every cell, and record after each network."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--cells", nargs="+", default=list(CELLS), choices=list(CELLS))
    parser.add_argument("--scorers", nargs="+", default=list(SCORERS), choices=list(SCORERS))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--record", type=Path, default=RECORD)
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = {"drop": DROP, "rounds": list(ROUNDS), "cells": CELLS, "options": OPTIONS}
    record = resumed(options.record, settings)
    done = {(r["cell"], r["seed"], r["scorer"]) for r in record["rows"]}
    for cell in options.cells:
        for seed in range(options.seeds):
            wanted = [s for s in options.scorers if (cell, seed, s) not in done]
            if not wanted:
                continue
            start = time.process_time()
            rows = judge(cell, seed, wanted, options.data_dir)
            record = resumed(options.record, settings)  # other cells may have run meanwhile
            record["rows"] += rows
            seconds = round(time.process_time() - start, 1)
            record["cpu_seconds"][cell] = record["cpu_seconds"].get(cell, 0.0) + seconds
            save_table(options.record, record, digits=4)
            print(f"{cell} seed {seed}: {seconds:.0f} s of processor", flush=True)


def resumed(path: Path, settings: Row) -> Row:
    """Return the record so far, or a new one; one with other settings is refused."""
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    new = {"command": "python experiments/fidelity.py", "seeds": SEEDS, "versions": versions,
           "commit": commit(), "hardware": hardware(), "settings": settings,
           "cpu_seconds": {}, "rows": []}  # fmt: skip
    if not path.exists():
        return new
    old = json.loads(path.read_text())
    if old["settings"] != settings:
        raise SystemExit(f"{path} was made with other settings: move it away, or name another")
    return {"cpu_seconds": {}} | old | {"rows": rows_of(old)}


def judge(cell: str, seed: int, scorers: list[str], folder: Path | None) -> list[Row]:
    """Return the rows of one network: every scorer at every density."""
    network, data = cell.split(":")
    own = {k: v for k, v in CELLS[cell].items() if k not in ("images", "small")}
    generator = torch.Generator().manual_seed(seed)
    inputs, labels = load(data, folder)
    net = build_model(network, inputs.shape[1:], generator=generator, **own)
    calibrate(net, inputs[:512])
    pick = torch.randperm(len(inputs), generator=generator)[: CELLS[cell]["images"]]
    case = Case(net, inputs[pick], labels[pick], CELLS[cell]["small"], seed)
    best = {oracle: dict(trajectory(case, oracle)) for oracle in ORACLES}
    rows = []
    for scorer in scorers:
        try:
            for density, masks in trajectory(case, scorer):
                row = {"cell": cell, "seed": seed, "scorer": scorer, "density": density}
                rows.append(
                    row | case.judged(scorer, masks, {o: best[o][density] for o in ORACLES})
                )
        except (UnsupportedModule, NumericalError) as error:
            rows.append({"cell": cell, "seed": seed, "scorer": scorer, "refused": str(error)})
    return rows


def load(data: str, folder: Path | None) -> tuple[Tensor, Tensor]:
    """Return inputs, standardised per channel, and labels."""
    if data == "digits":
        return load_data(data)
    x, y = load_data(data, 5_000, data_dir=folder, split="train")
    return standardise(x, *channel_statistics(x)), y


def trajectory(case: "Case", scorer: str) -> Iterator[tuple[float, Masks]]:
    """Yield density and masks after each of the judged rounds; what is drawn is new in every round."""
    entry, draws = SCORERS[scorer], stream(case.seed, f"rounds of {scorer}")
    masks = {name: torch.ones_like(p, dtype=torch.bool) for name, p in case.prunable.items()}
    total = sum(m.numel() for m in masks.values())
    once = entry.rounds == 1 or (scorer in ORACLES and not case.small)
    scores = case.scores(scorer, None, draws) if once else None
    for t in range(1, max(ROUNDS) + 1):
        if not once:
            scores = case.scores(scorer, masks, draws)
        count, candidates = kept_count(DROP**t, total), None if entry.regrows else masks
        masks = keep_by_budget(scores or {}, count, entry.budget, candidates=candidates)
        if t in ROUNDS:
            yield round(DROP**t, 4), masks


class Case:
    """A network with its batch, and what the dense one gives."""

    def __init__(self, net: nn.Module, x: Tensor, y: Tensor, small: bool, seed: int) -> None:
        self.net, self.x, self.y, self.small, self.seed = net, x, y, small, seed
        f = functional(net)
        self.prunable = {name: f.params[name] for name in f.prunable}
        self.spectrum = self.eigenvalues(None)
        self.trace = float(self.spectrum.sum())
        self.edge = path_bounds(net, x, names=["edge"]).upper["edge"]
        self.rate = 1.0 / float(self.spectrum[0])
        self.correlated = kept_count(DROP**12, sum(p.numel() for p in self.prunable.values()))
        self.course, self.flow = self.outputs(None) if small else (None, None)

    def scores(self, scorer: str, masks: Masks | None, generator: torch.Generator) -> Masks:
        """Return the scores under masks."""
        return score(
            self.net, scorer, batch=(self.x, self.y), masks=masks, generator=generator,
            **OPTIONS.get(scorer, {}),
        )  # fmt: skip

    def eigenvalues(self, masks: Masks | None) -> Tensor:
        """Return the kernel's eigenvalues, descending, float64."""
        theta = empirical_ntk(self.net, self.x, masks=masks).double()
        n, _, c, _ = theta.shape
        matrix = theta.permute(0, 2, 1, 3).reshape(n * c, n * c)
        return torch.linalg.eigvalsh(matrix).flip(0).clamp(min=0)

    def outputs(self, masks: Masks | None) -> tuple[Tensor, Tensor]:
        """Return the outputs along gradient descent, and along that of the linearised network."""
        f = functional(self.net)
        target = nn.functional.one_hot(self.y, 10).to(self.x.dtype)
        path = descent(f.model_fn, f.params, masks, self.x, target, tuple(f.params), self.rate)
        states = zip(range(STEPS[-1] + 1), path, strict=False)
        course = torch.stack([found for step, (_, found) in states if step in STEPS])
        flow = linearized_predict(
            self.net, self.x, target, steps=list(STEPS), learning_rate=self.rate, masks=masks
        ).train
        return course, flow

    def judged(self, scorer: str, masks: Masks, best: dict[str, Masks]) -> Row:
        """Return what one mask keeps."""
        values = self.eigenvalues(masks)
        count = sum(int(m.sum()) for m in masks.values())
        health = mask_health(self.net, masks, input_shape=self.x.shape[1:])
        row: Row = {
            "kept": count,
            "empty_layers": sum(not bool(m.any()) for m in masks.values()),
            "trace_ratio": float(values.sum()) / self.trace,
            "edge_ratio": path_bounds(self.net, self.x, names=["edge"], masks=masks).upper["edge"]
            / self.edge,
            **self.distances(values),
            "effective_density": health.effective_density,
            "widths": [1 - own.dead_outputs / own.outputs for own in health.layers.values()],
            "overlap": {o: overlap(masks, best[o], count) for o in best},
        }
        if self.small or count == self.correlated:
            row["spearman"] = self.correlations(scorer, masks)
        if self.small:
            row |= self.training(masks)
        return row

    def distances(self, values: Tensor) -> Row:
        """Return the distances of the spectrum from the dense one."""
        dense, floor = self.spectrum, FLOOR * float(self.spectrum[0])
        ratios = (values.clamp(min=floor) / dense.clamp(min=floor)).log10()
        found: Row = {
            "l2": float(spectral_distance(dense, values)),
            "log_rms": float(ratios.square().mean().sqrt()),
            "log_top": float(ratios[: len(ratios) // 10].abs().mean()),
            "log_rest": float(ratios[len(ratios) // 2 :].abs().mean()),
            "l2_normalised": None,
        }
        if float(values.sum()) > 0:
            normal = spectral_distance(dense, values, norm="l2_normalised")
            found["l2_normalised"] = float(normal)
        return found

    def correlations(self, scorer: str, masks: Masks) -> Row:
        """Return Spearman's correlation with the oracles over the kept weights, under the masks."""
        from scipy.stats import spearmanr

        def flat(scores: Masks) -> Tensor:
            return torch.cat([scores[name][m] for name, m in masks.items()])

        draws = stream(self.seed, f"correlation of {scorer}")
        mine = flat(self.scores(scorer, masks, draws))
        found: Row = {}
        for oracle in ORACLES if self.small else ORACLES[:1]:
            value = spearmanr(mine, flat(self.scores(oracle, masks, draws))).statistic
            found[oracle] = None if value != value else float(value)
        return found

    def training(self, masks: Masks) -> Row:
        """Return the mean relative distance of outputs from the dense network's along training."""
        if self.course is None or self.flow is None:
            return {}
        try:
            course, flow = self.outputs(masks)
        except (NumericalError, ValueError, torch.linalg.LinAlgError):  # a too long step
            return {"trained_distance": None, "linearised_distance": None}
        apart = float(relative_distance(course, self.course).mean())
        return {
            "trained_distance": apart if apart < float("inf") else None,
            "linearised_distance": float(relative_distance(flow, self.flow).mean()),
        }


def overlap(a: Masks, b: Masks, count: int) -> float:
    """Return the share of kept weights that both masks keep."""
    return sum(int((a[name] & b[name]).sum()) for name in a) / count


if __name__ == "__main__":
    main()
