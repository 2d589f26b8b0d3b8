"""At which density does each scorer first empty a layer? In many rounds, and at once.

``python experiments/collapse.py [--seeds 0 1 2] [--scorers px snip …]`` writes
``proofs_check/records/P3.collapse.json``; rows of other runs with the same networks stay.
``python figures/collapse.py`` draws it, and the claim P3.collapse judges it.

Every network is pruned down to its critical density: as many weights as layers, L of P. In rounds, the
density falls exponentially. At once, one vector of scores is cut at every count. A layer is *emptied*
when it loses its last weight; the network is *cut* when no path of kept weights joins inputs to outputs,
which shortcuts can put off; a scorer is *silent* when all scores of the weights left are 0, so that ties
decide. Networks have He weights, batch norms at their start, and no biases; 16 digits; float64.
"""

import argparse
import math
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.record import Record, commit, save  # noqa: E402
from ntktheory import functional  # noqa: E402
from ntktheory.data import digits  # noqa: E402
from ntktheory.models import cifar_resnet, convnet, mlp  # noqa: E402
from ntktheory.pruning import SCORERS, score  # noqa: E402
from ntktheory.pruning.budgets import keep_by_budget  # noqa: E402
from ntktheory.pruning.schedules import densities  # noqa: E402
from ntktheory.pruning.topk import kept_count  # noqa: E402

RECORD = ROOT / "proofs_check" / "records" / "P3.collapse.json"
ROUNDS = {"mlp": 100, "vgg-like": 100, "resnet20": 30}
SAMPLES = 16
DOUBLE = torch.float64

Masks = dict[str, Tensor]


def main() -> None:
    """Prune every network by every scorer, and record after each."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--scorers", nargs="+", default=list(SCORERS), choices=list(SCORERS))
    parser.add_argument("--out", type=Path, default=RECORD)
    options = parser.parse_args()
    record = started(options.out)
    for seed in options.seeds:
        for network in options.networks:
            for scorer in options.scorers:
                row = measure(network, seed, scorer)
                print({k: v for k, v in row.items() if k != "densities"}, flush=True)
                same = [key(r) == key(row) for r in record["rows"]]
                record["rows"] = [r for r, s in zip(record["rows"], same, strict=True) if not s]
                record["rows"].append(row)
                record["seeds"] = sorted({r["seed"] for r in record["rows"]})
                save(options.out, record, digits=6)


def started(path: Path) -> Record:
    """Return the record to go on with: an old one's rows, under this run's heading."""
    import json

    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    return {
        "command": "python experiments/collapse.py", "commit": commit(), "versions": versions,
        "seeds": [], "samples": SAMPLES, "rows": rows,
    }  # fmt: skip


def key(row: Record) -> tuple[Any, ...]:
    """Return what names a row."""
    return row["network"], row["seed"], row["scorer"]


# --- networks --------------------------------------------------------------------------------------


def build_mlp(g: torch.Generator) -> nn.Module:
    """Return an MLP with six weight layers."""
    return mlp([64, 32, 32, 32, 32, 32, 10], generator=g, dtype=DOUBLE)


def build_vgg(g: torch.Generator) -> nn.Module:
    """Return six convolutions, wider where the map shrinks, average pooling and a head."""
    return convnet(
        [1, 4, 4, 8, 8, 16, 16], 10, image_size=8, stride=[1, 1, 2, 1, 2, 1], head="average",
        generator=g, dtype=DOUBLE,
    )  # fmt: skip


def build_resnet(g: torch.Generator) -> nn.Module:
    """Return ResNet-20 of width 4 without a head bias."""
    net = cifar_resnet(20, 10, width=4, channels=1, generator=g, dtype=DOUBLE)
    with torch.no_grad():
        net.get_parameter("head.bias").zero_()
    return net


NETWORKS: dict[str, Callable[[torch.Generator], nn.Module]] = {
    "mlp": build_mlp, "vgg-like": build_vgg, "resnet20": build_resnet,
}  # fmt: skip


# --- pruning ---------------------------------------------------------------------------------------


def measure(network: str, seed: int, scorer: str) -> Record:
    """Return one row: a scorer on a network, in rounds and at once."""
    start = time.process_time()
    g = torch.Generator().manual_seed(1000 + seed)
    net = NETWORKS[network](g)
    x, y = digits()
    chosen = torch.randperm(len(x), generator=g)[:SAMPLES]
    batch = (x[chosen].to(DOUBLE), y[chosen])
    f = functional(net)
    total, layers = sum(f.params[n].numel() for n in f.prunable), len(f.prunable)
    draws = (torch.Generator().manual_seed(seed) for _ in range(2))
    rounds = in_rounds(net, scorer, batch, densities(layers / total, ROUNDS[network]), next(draws))
    once = at_once(net, scorer, batch, (layers, total), next(draws))
    return {
        "network": network, "seed": seed, "scorer": scorer, "weights": total, "layers": layers,
        "rounds": ROUNDS[network], "in_rounds": rounds, "at_once": once,
        "cpu_s": time.process_time() - start,
    }  # fmt: skip


def scores_of(
    net: nn.Module, scorer: str, batch: Any, masks: Masks | None, g: torch.Generator
) -> Masks:
    """Return a scorer's scores, with its own defaults."""
    options: dict[str, Any] = {"samples": SAMPLES} if scorer == "ntk_sap" else {}
    return score(net, scorer, batch=batch, masks=masks, generator=g, **options)


def in_rounds(
    net: nn.Module, scorer: str, batch: Any, falling: list[float], g: torch.Generator
) -> Record:
    """Prune in rounds; return the counts at which a layer was emptied, and the network cut."""
    entry, f = SCORERS[scorer], functional(net)
    masks = {n: torch.ones_like(f.params[n], dtype=torch.bool) for n in f.prunable}
    found: Record = dict.fromkeys(("emptied_at", "layer", "cut_at", "silent_at", "steepest_round"))
    total = sum(m.numel() for m in masks.values())
    for density in falling:
        kept, count = sum(int(m.sum()) for m in masks.values()), kept_count(density, total)
        scores = scores_of(net, scorer, batch, masks, g)
        candidates = {n: torch.ones_like(m) for n, m in masks.items()} if entry.regrows else masks
        if found["silent_at"] is None and not any(
            bool(scores[n][m].any()) for n, m in masks.items()
        ):
            found["silent_at"] = kept
        masks = keep_by_budget(scores, count, entry.budget, candidates=candidates)
        found["steepest_round"] = min(found["steepest_round"] or 1.0, count / kept)
        if found["emptied_at"] is None:
            empty = [n for n, m in masks.items() if not m.any()]
            if empty:
                found |= {"emptied_at": count, "layer": empty[0]}
        if found["cut_at"] is None and not connected(net, masks):
            found["cut_at"] = count
        if found["emptied_at"] is not None and found["cut_at"] is not None:
            break
    return found


def at_once(
    net: nn.Module, scorer: str, batch: Any, counts: tuple[int, int], g: torch.Generator
) -> Record:
    """Score once; return the largest counts that empty a layer and that cut the network."""
    scores = scores_of(net, scorer, batch, None, g)
    budget = SCORERS[scorer].budget
    whole = {n: torch.ones_like(s, dtype=torch.bool) for n, s in scores.items()}

    def masks(count: int) -> Masks:
        return keep_by_budget(scores, count, budget, candidates=whole)

    def full(count: int) -> bool:
        return all(bool(m.any()) for m in masks(count).values())

    emptied = last_failure(full, *counts)
    layer = None
    if emptied is not None:
        layer = next(n for n, m in masks(emptied).items() if not m.any())
    cut = last_failure(lambda count: connected(net, masks(count)), *counts)
    return {"emptied_at": emptied, "layer": layer, "cut_at": cut}


def last_failure(holds: Callable[[int], bool], low: int, high: int) -> int | None:
    """Return the largest count in [low, high) that fails; None if ``low`` holds. By bisection."""
    if holds(low):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return low


def connected(net: nn.Module, masks: Masks) -> bool:
    """Return whether a path of kept weights joins inputs and outputs: 1s as weights, on ones."""
    f = functional(net)
    ones = {n: m.to(DOUBLE) for n, m in masks.items()}
    with torch.no_grad():
        flow = float(f.model_fn({**f.params, **ones}, torch.ones(1, 1, 8, 8, dtype=DOUBLE)).sum())
    return flow > 0 and math.isfinite(flow)


if __name__ == "__main__":
    main()
