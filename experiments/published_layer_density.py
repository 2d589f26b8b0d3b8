"""How much of every layer scorers keep at initialisation, against published numbers.

``python experiments/published_layer_density.py --data-dir DIR`` writes
``experiments/records/published_layer_density.json``. VGG-16 with batch norm for 3×32×32 images and 100
outputs, pruned to a tenth before training; ``experiments/numbers/published_layer_density.csv`` has the
published densities of 14 layers in three runs (CIFAR-100).

* ``magnitude`` shows the initialisation: at a threshold t the kept share of layer l is ``2Q(t/σ_l)``, so
  that the expected densities follow from the variances alone. ``expected_fan_in`` has σ² = 2/fan_in,
  ``expected_fan_out`` σ² = 2/fan_out.
* ``snip`` needs data, batch norm in eval mode. CIFAR-100 is not at hand: images are CIFAR-10's,
  recompressed as JPEG, ten per output as is usual; labels are drawn from all 100, for at initialisation
  a label only says which output is wanted. With the ten labels of CIFAR-10, of which 90 outputs see
  none, the head keeps another share.
* ``synflow`` takes 100 exponential rounds, in float64; the others one round.

Per layer: the mean of our initialisations, the published mean and standard deviation (divided by 2 for
three runs), ``z`` = difference / published standard deviation, and ``z_binomial`` = difference of the
means / its standard deviation if each weight of the layer were kept independently: three runs that agree
by chance have a standard deviation that is too small, and ``z`` is then large for no other reason.
"""

import argparse
import csv
import json
import math
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from scipy.optimize import brentq
from scipy.stats import norm
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.record import commit, hardware, save  # noqa: E402
from ntktheory.data.registry import load_data  # noqa: E402
from ntktheory.data.standardise import channel_statistics, standardise  # noqa: E402
from ntktheory.functional import functional, to_dtype  # noqa: E402
from ntktheory.models import vgg  # noqa: E402
from ntktheory.pruning import SCORERS, score  # noqa: E402
from ntktheory.pruning.schedules import densities  # noqa: E402
from ntktheory.pruning.scorers.synflow import synflow  # noqa: E402
from ntktheory.pruning.topk import keep_highest, kept_count  # noqa: E402

HERE = Path(__file__).parent
RECORD = HERE / "records" / "published_layer_density.json"
PUBLISHED = HERE / "numbers" / "published_layer_density.csv"
NAMES = ("magnitude", "random", "snip", "synflow")
DENSITY, SEEDS, OUTPUTS, IMAGES = 0.1, 3, 100, 1000

Record = dict[str, Any]


def main() -> None:
    """Prune, compare, record and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data-dir", help="the folder that holds cifar10_jpeg.tar.xz")
    parser.add_argument("--scorers", nargs="+", default=NAMES, choices=NAMES)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    earlier = json.loads(RECORD.read_text()) if RECORD.exists() else {"layers": [], "seconds": {}}
    record: Record = {
        "command": "python experiments/published_layer_density.py --data-dir DIR",
        "commit": commit(),
        "hardware": hardware(),
        "torch": torch.__version__,
        "density": DENSITY,
        "seeds": SEEDS,
        "images": IMAGES,
        "data": "CIFAR-10 recompressed as JPEG, labels drawn from 100 (published: CIFAR-100)",
        "weights": "N(0, 2/fan_in); biases U(-1/sqrt(fan_in), 1/sqrt(fan_in))",
        "layers": [r for r in earlier["layers"] if r["scorer"] not in arguments.scorers],
        "seconds": earlier["seconds"],
    }
    for scorer in arguments.scorers:
        start = time.perf_counter()
        runs = [layer_densities(scorer, seed, arguments.data_dir) for seed in range(SEEDS)]
        record["seconds"][scorer] = round(time.perf_counter() - start, 1)
        record["layers"] += compare(scorer, runs)
        save(RECORD, record, digits=6)
        print(table([row for row in record["layers"] if row["scorer"] == scorer]), flush=True)


def network(seed: int) -> nn.Module:
    """Return VGG-16 with batch norm, freshly drawn; its last pooling averages, as published."""
    net = vgg(16, OUTPUTS, batch_norm=True, generator=torch.Generator().manual_seed(seed))
    net.get_submodule("stage5").add_module("pool", nn.AvgPool2d(2))
    return net


def layer_densities(scorer: str, seed: int, data_dir: str | None) -> list[float]:
    """Return the density of every layer after pruning to ``DENSITY``, in the published rounds."""
    model, generator = network(seed), torch.Generator().manual_seed(100 + seed)
    batch = images(seed, data_dir) if scorer == "snip" else None
    net = to_dtype(functional(model), torch.float64)  # once, not in every round
    like = torch.ones(1, 3, 32, 32, dtype=torch.float64)

    def scores(masks: dict[str, Tensor]) -> dict[str, Tensor]:
        if scorer == "synflow":
            return synflow(net.model_fn, net.params, masks, net.prunable, like)
        return score(model, scorer, batch=batch, generator=generator)

    masks = {n: torch.ones_like(net.params[n], dtype=torch.bool) for n in net.prunable}
    total = sum(mask.numel() for mask in masks.values())
    for density in densities(DENSITY, SCORERS[scorer].rounds):
        found = {n: s.masked_fill(~masks[n], -math.inf) for n, s in scores(masks).items()}
        masks = keep_highest(found, kept_count(density, total))
    return [float(mask.double().mean()) for mask in masks.values()]


def images(seed: int, data_dir: str | None) -> tuple[Tensor, Tensor]:
    """Return standardised training images, and labels drawn for them."""
    generator = torch.Generator().manual_seed(200 + seed)
    x, _ = load_data("cifar10-jpeg", IMAGES, generator=generator, data_dir=data_dir, split="train")
    labels = torch.randint(OUTPUTS, (IMAGES,), generator=generator)
    return standardise(x, *channel_statistics(x)), labels


def expected_densities(variances: list[float], sizes: list[int], density: float) -> list[float]:
    """Return the density per layer that magnitude is expected to leave: ``2Q(t/σ_l)``."""

    def kept(t: float) -> list[float]:
        return [2 * norm.sf(t / math.sqrt(v)) for v in variances]

    def excess(t: float) -> float:
        return sum(n * k for n, k in zip(sizes, kept(t), strict=True)) - density * sum(sizes)

    return kept(brentq(excess, 0, 10 * max(variances) ** 0.5, xtol=1e-14))


def compare(scorer: str, runs: list[list[float]]) -> list[Record]:
    """Return one row per layer: ours, the published numbers, and how far they are apart."""
    params = functional(network(0))
    shapes = [params.params[name].shape for name in params.prunable]
    sizes, rows = [shape.numel() for shape in shapes], []
    fans = {
        "expected_fan_in": [2 / shape[1:].numel() for shape in shapes],
        "expected_fan_out": [2 * shape[1] / shape.numel() for shape in shapes],
    }
    expected = {key: expected_densities(v, sizes, DENSITY) for key, v in fans.items()}
    for i, (layer, size, theirs) in enumerate(published(scorer)):
        if size != sizes[i]:
            raise ValueError(
                f"{layer} must have {size} weights, got {sizes[i]}. Check the network."
            )
        ours, mean = statistics.mean(run[i] for run in runs), statistics.mean(theirs)
        spread = statistics.stdev(theirs)
        chance = math.sqrt(mean * (1 - mean) / size * (1 / len(runs) + 1 / len(theirs)))
        row = {
            "scorer": scorer,
            "layer": layer,
            "size": size,
            "ours": ours,
            "our_runs": [run[i] for run in runs],
            "published": mean,
            "published_deviation": spread,
            "z": (ours - mean) / spread if spread else None,
            "z_binomial": (ours - mean) / chance,
        }
        if scorer == "magnitude":
            row |= {key: values[i] for key, values in expected.items()}
        rows.append(row)
    return rows


def published(scorer: str) -> list[tuple[str, int, list[float]]]:
    """Return layer, size and the published densities, in the order of the network."""
    found: dict[tuple[str, int], list[float]] = {}
    with PUBLISHED.open() as file:
        for row in csv.DictReader(file):
            if row["scorer"] == scorer:
                key = (row["layer"], int(row["size"]))
                found.setdefault(key, []).append(float(row["density"]))
    return [(layer, size, theirs) for (layer, size), theirs in found.items()]


def table(rows: list[Record]) -> str:
    """Return a table of one scorer's layers."""
    lines = [f"{'scorer':10} {'layer':16} {'ours':>8} {'published':>18} {'z':>7} {'z bin.':>7}"]
    for r in rows:
        z = "–" if r["z"] is None else f"{r['z']:+.1f}"
        found = f"{r['published']:.4f} ± {r['published_deviation']:.4f}"
        lines.append(
            f"{r['scorer']:10} {r['layer']:16} {r['ours']:8.4f} {found:>18} {z:>7} "
            f"{r['z_binomial']:+7.1f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
