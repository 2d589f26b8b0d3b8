"""The Lipschitz constant of sparse networks that fit random signs, against the law of robustness.

``python experiments/law_of_robustness.py`` writes ``experiments/records/law_of_robustness.json`` and
``proofs_check/records/F1.scaling.json``; ``python figures/law_of_robustness.py`` draws the first. A cell
is one n and d. The first record has each finished cell at once, and a run leaves out what is there; it
gets its fits, and the second record is written, once no cell is missing.

Data: n covariates from N(0, I/d) (isoperimetric with c = 1, one component) and independent signs as
labels, so that σ² = 1. Network: two layers of ReLU without biases, ``kept`` weights. Two masks:

* ``random``: drawn without the data, hence I(m; D) = 0 and p_eff = ``kept`` at one bit per weight;
* ``magnitude``: the largest weights of the dense network after it was fitted, trained on from there.
  Of I(m; D) only a range is known, [0, n] bits beside ``kept``, as the signs have n bits (the
  covariates may tell more; the record says ``kept`` + n).

Training: full-batch Adam until the mean squared error is at most ``TARGET``, so that ε = 1 − TARGET.
A network that does not get there within ``STEPS`` is recorded and left out of the fits. Lipschitz
constant, between two numbers: the largest gradient found (at data, between pairs, and by climbing)
or slope of a pair, and the product of the spectral norms. Fits: ``log Lip = a + s·½ log(nd/p)``, and
with one exponent each for n, d and p; 95 % intervals by resampling cells (n, d, p) with their seeds.
Networks that did not fit are those with many data per weight, so leaving them out is not neutral.
"""

import argparse
import itertools
import json
import math
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.record import Record, commit, hardware, save  # noqa: E402
from ntktheory.information.law_of_robustness import (  # noqa: E402
    FORMS,
    robustness_lower_bound,
    samples_for_robustness,
)

RECORD = Path(__file__).parent / "records" / "law_of_robustness.json"
CLAIM = ROOT / "proofs_check" / "records" / "F1.scaling.json"
COLUMNS = ("n", "d", "kept", "seed", "fitted", "lipschitz_low", "lipschitz_high")
SAMPLES, DIMENSIONS, KEPT = (32, 64, 128), (8, 16, 32), (512, 1024, 2048)
MASKS = ("random", "magnitude")
WIDTH, TARGET, STEPS, RATE, DELTA, LEVEL = 256, 0.1, 3000, 3e-3, 0.5, 0.95
RESAMPLES, FACTORS = 2000, ("n", "d", "p")


class Nets(NamedTuple):
    """Two-layer networks of several seeds side by side, with their masks.

    Attributes:
        first: Weights of the hidden layers, [S, WIDTH, d].
        second: Weights of the outputs, [S, WIDTH].
        masks: What is kept of both.
    """

    first: Tensor
    second: Tensor
    masks: tuple[Tensor, Tensor]


def main() -> None:
    """Run the sweep, fit, and record."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--minutes", type=float, default=8.0, help="no new cell starts later")
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    check_nothing_is_lost(options.seeds)
    for n, d in missing(read_record(options.seeds)):
        begin = time.perf_counter()
        if begin - start > 60 * options.minutes:
            break
        add(cell(n, d, options.seeds), options.seeds, begin)
        print(n, d, f"{time.perf_counter() - start:.0f} s", flush=True)
    conclude(options.seeds)


def settings(seeds: int) -> Record:
    """Return all that a run depends on."""
    return {
        "width": WIDTH, "target_loss": TARGET, "steps": STEPS, "learning_rate": RATE,
        "seeds": seeds, "delta": DELTA, "interval_level": LEVEL,
        "samples": list(SAMPLES), "dimensions": list(DIMENSIONS), "kept": list(KEPT),
        "dtype": "float32",
    }  # fmt: skip


def read_record(seeds: int) -> Record:
    """Return the record so far, or an empty one.

    Raises:
        SystemExit: If it has other settings.
    """
    if RECORD.exists():
        record = json.loads(RECORD.read_text())
        if record["settings"] != settings(seeds):
            raise SystemExit(f"{RECORD} has other settings or seeds: move it away")
        return record
    return {
        "command": " ".join(["python experiments/law_of_robustness.py", *sys.argv[1:]]),
        "commit": commit(),
        "hardware": hardware(),
        "versions": {m.__name__: m.__version__ for m in (torch, np)},
        "settings": settings(seeds),
        "bound_needs_samples": {
            form: samples_for_robustness(1 - TARGET, DELTA, form=form) for form in FORMS
        },
        "runs": [],
        "seconds": 0.0,
    }


def check_nothing_is_lost(seeds: int) -> None:
    """Refuse to replace a claim's record by one with less.

    Raises:
        SystemExit: If it has runs of other n, d, kept or seeds.
    """
    if CLAIM.exists():
        held = {
            tuple(row[:4])
            for rows in json.loads(CLAIM.read_text())["runs"].values()
            for row in rows
        }
        if held - set(itertools.product(SAMPLES, DIMENSIONS, KEPT, range(seeds))):
            raise SystemExit(f"{CLAIM} holds runs that this one would not repeat: move it away")


def missing(record: Record) -> list[tuple[int, int]]:
    """Return the cells that a record lacks."""
    done = {(r["n"], r["d"]) for r in record["runs"]}
    return [c for c in itertools.product(SAMPLES, DIMENSIONS) if c not in done]


def add(found: list[Record], seeds: int, begin: float) -> None:
    """Add a cell's runs to the record as it is now, in order, and write it whole."""
    record = read_record(seeds)
    cells = list(itertools.product(SAMPLES, DIMENSIONS))
    runs = sorted([*record["runs"], *found], key=lambda r: cells.index((r["n"], r["d"])))
    record |= {"runs": runs, "seconds": record["seconds"] + time.perf_counter() - begin}
    record["cells_not_started"] = missing(record)
    save(RECORD, record, digits=6)


def conclude(seeds: int) -> None:
    """Add what follows from all cells, if all are there, and write the claim's record."""
    record = read_record(seeds)
    if missing(record):
        print("cells that are missing:", *missing(record), flush=True)
        return
    if "fits" not in record:
        record["fits"] = {
            f"{mask}, {end}": fit(record["runs"], mask, end)
            for mask in MASKS
            for end in ("lipschitz_low", "lipschitz_high")
        }
        record["bound_at_largest"] = bounds(record["runs"])
        save(RECORD, record, digits=6)
    if not CLAIM.exists() or json.loads(CLAIM.read_text()) != claim_record(record):
        save(CLAIM, claim_record(record), digits=6)


def claim_record(record: Record) -> Record:
    """Return what the claim F1.scaling is judged from: the runs of each mask, a row each."""
    return {
        "command": record["command"],
        "commit": record["commit"],
        "versions": record["versions"],
        "seeds": list(range(record["settings"]["seeds"])),
        "columns": list(COLUMNS),
        "runs": {
            mask: [[r[c] for c in COLUMNS] for r in record["runs"] if r["mask"] == mask]
            for mask in MASKS
        },
    }


def cell(n: int, d: int, seeds: int) -> list[Record]:
    """Return the runs of all masks, sizes and seeds for one n and d; the data are the seed's."""
    x, y = data(n, d, seeds)
    dense, _ = train(start_nets(d, seeds), x, y)
    found = []
    for mask, kept in itertools.product(MASKS, KEPT):
        if kept >= (d + 1) * WIDTH:
            continue
        nets = randomly_masked(d, seeds, kept) if mask == "random" else largest_of(dense, kept)
        nets, losses = train(nets, x, y)
        low, high = lipschitz_low(nets, x, y, seeds), lipschitz_high(nets)
        for s in range(seeds):
            found.append(
                {
                    "n": n, "d": d, "mask": mask, "kept": kept, "seed": s,
                    "loss": float(losses[s]), "fitted": bool(losses[s] <= TARGET),
                    "lipschitz_low": float(low[s]), "lipschitz_high": float(high[s]),
                }
            )  # fmt: skip
    return found


def seeded(*labels: int) -> torch.Generator:
    """Return a generator of its own stream for each tuple of small labels."""
    return torch.Generator().manual_seed(sum(v * 1009**i for i, v in enumerate(labels)))


def data(n: int, d: int, seeds: int) -> tuple[Tensor, Tensor]:
    """Return covariates [S, n, d] from N(0, I/d) and random signs [S, n]."""
    xs, ys = [], []
    for s in range(seeds):
        generator = seeded(1, s, d, n)
        xs.append(torch.randn(n, d, generator=generator) / math.sqrt(d))
        ys.append(2.0 * torch.randint(2, (n,), generator=generator) - 1)
    return torch.stack(xs), torch.stack(ys)


def start_nets(d: int, seeds: int) -> Nets:
    """Return dense networks with He weights for covariates of norm about 1."""
    firsts, seconds = [], []
    for s in range(seeds):
        generator = seeded(2, s, d)
        firsts.append(torch.randn(WIDTH, d, generator=generator) * math.sqrt(2 / WIDTH))
        seconds.append(torch.randn(WIDTH, generator=generator))
    first, second = torch.stack(firsts), torch.stack(seconds)
    return Nets(first, second, (torch.ones_like(first), torch.ones_like(second)))


def randomly_masked(d: int, seeds: int, kept: int) -> Nets:
    """Return networks at initialisation with uniformly drawn masks, rescaled to the dense scale."""
    nets = start_nets(d, seeds)
    share = kept / ((d + 1) * WIDTH)
    scores = torch.stack(
        [torch.rand((d + 1) * WIDTH, generator=seeded(3, s, d, kept)) for s in range(seeds)]
    )
    masks = masks_of_largest(scores, kept, d)
    first, second = nets.first * share**-0.5, nets.second * share**-0.5
    return Nets(first, second, masks)


def largest_of(dense: Nets, kept: int) -> Nets:
    """Return the dense networks with their largest weights kept."""
    scores = torch.cat([dense.first.flatten(1), dense.second], dim=1).abs()
    masks = masks_of_largest(scores, kept, dense.first.shape[2])
    return Nets(dense.first, dense.second, masks)


def masks_of_largest(scores: Tensor, kept: int, d: int) -> tuple[Tensor, Tensor]:
    """Return both layers' masks of the ``kept`` largest scores of each seed."""
    flat = torch.zeros_like(scores).scatter_(1, scores.topk(kept, dim=1).indices, 1.0)
    return flat[:, : WIDTH * d].view(-1, WIDTH, d), flat[:, WIDTH * d :]


def outputs(first: Tensor, second: Tensor, x: Tensor) -> Tensor:
    """Return the networks' values, [S, N]."""
    return torch.bmm(torch.relu(torch.bmm(x, first.mT)), second.unsqueeze(2)).squeeze(2)


def train(nets: Nets, x: Tensor, y: Tensor) -> tuple[Nets, Tensor]:
    """Train every seed until its loss is at most TARGET; its weights are those of that step."""
    first, second = (w.clone().requires_grad_() for w in (nets.first, nets.second))
    optimiser = torch.optim.Adam([first, second], lr=RATE)
    best = torch.full((len(x),), math.inf)
    kept = [(first * nets.masks[0]).detach(), (second * nets.masks[1]).detach()]
    for _ in range(STEPS):
        weights = (first * nets.masks[0], second * nets.masks[1])
        losses = (outputs(*weights, x) - y).square().mean(1)
        with torch.no_grad():
            better = (losses < best) & (best > TARGET)
            best = torch.where(better, losses, best)
            for held, weight in zip(kept, weights, strict=True):
                held[better] = weight.detach()[better]
        if bool((best <= TARGET).all()):
            break
        optimiser.zero_grad()
        losses.sum().backward()
        optimiser.step()
    return Nets(kept[0], kept[1], nets.masks), best


def lipschitz_high(nets: Nets) -> Tensor:
    """Return the product of spectral norms, [S]: ReLU is 1-Lipschitz."""
    return torch.linalg.matrix_norm(nets.first.double(), 2) * nets.second.double().norm(dim=1)


def gradient_norms(nets: Nets, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of the outputs with respect to x, [S, N, d], and their norms."""
    gates = (torch.bmm(x, nets.first.mT) > 0).to(x.dtype)
    gradients = torch.bmm(gates * nets.second.unsqueeze(1), nets.first)
    return gradients, gradients.norm(dim=2)


def lipschitz_low(nets: Nets, x: Tensor, y: Tensor, seeds: int) -> Tensor:
    """Return the largest slope found, [S]: at data, at points between opposite pairs, or climbing.

    The network is homogeneous, so its gradient depends on the direction of x alone. Climbing moves
    every point along its gradient, which opens gates that the gradient agrees with.
    """
    net = Nets(nets.first.double(), nets.second.double(), nets.masks)
    x = x.double()
    values = outputs(net.first, net.second, x)
    distances = torch.cdist(x, x) + torch.eye(x.shape[1], dtype=x.dtype)
    slopes = (values.unsqueeze(2) - values.unsqueeze(1)).abs() / distances
    best = slopes.flatten(1).amax(1)
    order = distances.argsort(dim=2)[:, :, :4]  # the nearest few
    points = [x]
    for j in range(order.shape[2]):
        other = torch.gather(x, 1, order[:, :, j : j + 1].expand(-1, -1, x.shape[2]))
        points.append((x + other) / 2)
    generator = seeded(4, seeds, x.shape[1], x.shape[2])
    points.append(torch.randn(1, 256, x.shape[2], generator=generator).expand(len(x), -1, -1))
    at = torch.cat(points, dim=1)
    for _ in range(20):
        gradients, norms = gradient_norms(net, at)
        best = torch.maximum(best, norms.amax(1))
        sign = torch.bmm(at, gradients.mT).diagonal(dim1=1, dim2=2).sign().unsqueeze(2)
        at = at / at.norm(dim=2, keepdim=True) + 0.3 * sign * gradients / (
            norms.unsqueeze(2) + 1e-12
        )
    return best


def fit(runs: list[Record], mask: str, end: str) -> Record:
    """Return the slope against ``½ log(nd/kept)`` and the exponents of n, d and p, with intervals."""
    chosen = [r for r in runs if r["mask"] == mask and r["fitted"]]
    table = np.array([[r["n"], r["d"], r["kept"], r[end]] for r in chosen], dtype=float)
    logs = np.log(table)
    cells = np.unique(table[:, :3], axis=0, return_inverse=True)[1].ravel()
    together = 0.5 * (logs[:, 0] + logs[:, 1] - logs[:, 2])
    slope = regress(together[:, None], logs[:, 3], cells)
    exponents = regress(logs[:, :3], logs[:, 3], cells)
    return {
        "runs": len(chosen),
        "left_out": sum(r["mask"] == mask for r in runs) - len(chosen),
        "slope": dict(zip(("value", "low", "high"), slope[0], strict=True)),
        "exponents": {
            name: dict(zip(("value", "low", "high"), row, strict=True))
            for name, row in zip(FACTORS, exponents, strict=True)
        },
        "predicted": {"slope": 1.0, "n": 0.5, "d": 0.5, "p": -0.5},
    }


def regress(
    columns: np.ndarray, target: np.ndarray, cells: np.ndarray
) -> list[tuple[float, float, float]]:
    """Return least-squares coefficients without the constant, with intervals over cells."""
    design = np.column_stack([np.ones(len(target)), columns])
    rows_of = [np.flatnonzero(cells == cell) for cell in range(cells.max() + 1)]
    rng = np.random.default_rng(0)

    def solve(rows: np.ndarray) -> np.ndarray:
        return np.linalg.lstsq(design[rows], target[rows], rcond=None)[0][1:]

    def resampled() -> np.ndarray:
        return np.concatenate([rows_of[i] for i in rng.integers(0, len(rows_of), len(rows_of))])

    centre = solve(np.arange(len(target)))
    draws = np.array([solve(resampled()) for _ in range(RESAMPLES)])
    ends = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return [(float(c), float(a), float(b)) for c, a, b in zip(centre, *ends, strict=True)]


def bounds(runs: list[Record]) -> list[Record]:
    """Return what the theorem would force if its smallest n were met, and what was found.

    Data are taken as often as the theorem asks (the condition on n is not met by any run here), at
    one bit per kept weight; the ratio to √(nd/p) is the theorem's constant, whatever n is.
    """
    found = []
    for d, kept in itertools.product(DIMENSIONS, KEPT):
        here = [r for r in runs if (r["d"], r["kept"]) == (d, kept) and r["fitted"]]
        entry: Record = {"d": d, "kept": kept, "forms": {}}
        for form in FORMS:
            n = samples_for_robustness(1 - TARGET, DELTA, form=form)
            value = robustness_lower_bound(
                float(kept), samples=n, dimension=d, epsilon=1 - TARGET, delta=DELTA, form=form
            )
            entry["forms"][form] = {
                "n": n,
                "bound": value,
                "per_root": value / math.sqrt(n * d / kept),
            }
        entry["smallest_found_per_root"] = min(
            (r["lipschitz_low"] / math.sqrt(r["n"] * d / kept) for r in here), default=None
        )
        found.append(entry)
    return found


if __name__ == "__main__":
    main()
