"""How NTK-SAP's score and its mask settle as realisations are averaged.

``python experiments/ntk_sap_realizations.py [--seeds 6]`` writes
``experiments/records/ntk_sap_realizations.json``; ``python figures/ntk_sap_realizations.py`` draws it.
Two dense networks for digits, N(0, I) inputs, Gaussian perturbations, one round, float64; both forms
see the same draws. Every seed has two independent sets of ``MOST`` realisations; with fixed weights both
sets have the weights of that seed. Per R:

* ``relative_variance``: variance of the mean of R signed realisations over the squared expected score,
  of which the squared mean of all realisations, less the variance of that mean, is an estimate (where
  that is not positive, the ratio counts as infinite). Its level is the median over weights at R = 1. Its
  decay is the mean over weights of the variance of means of R (disjoint groups) over that of one
  realisation: a mean, because a variance of few groups is unbiased, but its median over weights is not.
* ``variance_of_one``: that median at R = 1, layer by layer. A gate that flips between both networks of a
  finite difference makes the score jump in the layers before it, not in the head.
* ``overlap``: share of kept weights that the masks of the first R realisations of both sets have in
  common; a mask keeps the largest ``|mean|``.
* ``overlap_equal_layers``: what is expected if each layer's kept weights were drawn at random, as many
  as in these masks. Two random masks are expected to overlap in the density.

Intervals are Student's, 95 %, over seeds.
"""

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy
import torch
from scipy.stats import t as student
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.record import Record, commit, hardware, save  # noqa: E402
from ntktheory.estimators.ntk_sap import FORMS, Form  # noqa: E402
from ntktheory.estimators.ntk_sap_draws import Weights, sample_draws  # noqa: E402
from ntktheory.estimators.ntk_sap_score import realization_scores  # noqa: E402
from ntktheory.estimators.stability import mask_overlap, top_mask  # noqa: E402
from ntktheory.models import convnet, mlp  # noqa: E402

RECORD = Path(__file__).parent / "records" / "ntk_sap_realizations.json"
DENSITY, SIGMA = 0.2, 0.01
PUBLISHED = 5
COUNTS = (1, 2, 4, PUBLISHED, 8, 16, 32, 64, 128, 256)
MOST = COUNTS[-1]
LEVEL = 0.95

Scores = dict[str, Tensor]  # parameter name -> [MOST, *shape], signed


class Case(NamedTuple):
    """A network, built from a generator, and the shape of one input."""

    name: str
    build: Callable[[torch.Generator], nn.Sequential]
    input_shape: list[int]


def main() -> None:
    """Measure every network, record and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--seeds", type=int, default=6)
    seeds = parser.parse_args().seeds
    torch.set_num_threads(1)
    start = time.perf_counter()
    record: Record = {
        "command": " ".join(["python experiments/ntk_sap_realizations.py", *sys.argv[1:]]),
        "commit": commit(),
        "hardware": hardware(),
        "versions": {m.__name__: m.__version__ for m in (torch, np, scipy)},
        "seeds": list(range(seeds)),
        "generators": "network: seed; sets: 1000 + 2·seed and 1001 + 2·seed",
        "density": DENSITY,
        "sigma": SIGMA,
        "inputs": "100 new ones from N(0, I) per realisation",
        "sign": "abs_of_mean",
        "published_R": PUBLISHED,
        "interval_level": LEVEL,
        "networks": [],
    }
    for case in cases():
        begin = time.perf_counter()
        record["networks"].append(measure(case, seeds))
        print(f"{case.name}: {time.perf_counter() - begin:.0f} s", flush=True)
    record["seconds"] = time.perf_counter() - start
    save(RECORD, record, digits=6)


def cases() -> list[Case]:
    """Return both networks."""
    kind: Record = {"dtype": torch.float64}
    image: Record = kind | {"image_size": 8, "stride": [1, 2]}
    return [
        Case("MLP 64-32-32-10", lambda g: mlp([64, 32, 32, 10], generator=g, **kind), [64]),
        Case(
            "CNN 1-4-8, linear head",
            lambda g: convnet([1, 4, 8], 10, generator=g, **image),
            [1, 8, 8],
        ),
    ]


def measure(case: Case, seeds: int) -> Record:
    """Return the curves of one network, one per form and kind of weights."""
    kinds: tuple[Weights, ...] = ("new", "fixed")
    curves = []
    for weights in kinds:
        for form in FORMS:
            begin = time.perf_counter()
            curve = curve_of(case, form, weights, seeds)
            curves.append(curve | {"seconds": time.perf_counter() - begin})
    net = case.build(seeded(0))
    shapes = {name: list(p.shape) for name, p in net.named_parameters()}
    return {"name": case.name, "shapes": shapes, "curves": curves}


def curve_of(case: Case, form: Form, weights: Weights, seeds: int) -> Record:
    """Return all points of one form and kind of weights."""
    runs, layers = [], []
    for seed in range(seeds):
        sets = both_sets(case, form, weights, seed)
        runs.append(points(*sets))
        layers.append({n: typical_variance(both(sets, [n])) for n in sets[0]})
    return {
        "weights": weights,
        "form": form,
        "variance_of_one": {n: interval([seed[n] for seed in layers]) for n in layers[0]},
        "points": [joined(list(p)) for p in zip(*runs, strict=True)],
    }


def both_sets(case: Case, form: Form, weights: Weights, seed: int) -> tuple[Scores, Scores]:
    """Return two independent sets of realisations of one network."""
    net = case.build(seeded(seed))
    sets = []
    for which in range(2):
        draws = sample_draws(
            net,
            realizations=MOST,
            generator=seeded(1000 + 2 * seed + which),
            input_shape=case.input_shape,
            weights=weights,
        )
        scores = list(realization_scores(net, draws, sigma=SIGMA, form=form))
        sets.append({name: torch.stack([s[name] for s in scores]) for name in scores[0]})
    return sets[0], sets[1]


def points(first: Scores, second: Scores) -> list[Record]:
    """Return variance and overlaps of one seed by R."""
    variances = relative_variances(first, second)
    return [
        {"R": count, "relative_variance": variances[count], **overlaps(first, second, count)}
        for count in COUNTS
    ]


def relative_variances(first: Scores, second: Scores) -> dict[int, float]:
    """Return the relative variance of the mean by R, from both sets together."""
    flat = both((first, second), list(first))
    one, level = flat.var(0), typical_variance(flat)
    alive = one > 0
    return {
        count: level * float((group_means(flat, count).var(0) / one)[alive].mean())
        for count in COUNTS
    }


def both(sets: tuple[Scores, Scores], names: list[str]) -> Tensor:
    """Return the realisations of both sets, [2·MOST, number of weights named]."""
    return torch.cat([torch.cat([s[n].flatten(1) for n in names], 1) for s in sets])


def typical_variance(flat: Tensor) -> float:
    """Return the median over weights of variance over squared expectation; weights of variance 0 out."""
    one = flat.var(0)
    squared = flat.mean(0).square() - one / len(flat)
    return float(torch.where(squared > 0, one / squared, torch.inf)[one > 0].median())


def group_means(flat: Tensor, count: int) -> Tensor:
    """Return the means of disjoint groups of ``count`` rows; rows left over are not used."""
    groups = len(flat) // count
    return flat[: groups * count].view(groups, count, -1).mean(1)


def overlaps(first: Scores, second: Scores, count: int) -> Record:
    """Return the overlap of both masks of ``count`` realisations, and that of equal layers."""
    a, b = (
        top_mask({name: s[:count].mean(0).abs() for name, s in scores.items()}, DENSITY)
        for scores in (first, second)
    )
    kept = sum(int(m.sum()) for m in a.values())
    common = sum(int(a[n].sum()) * int(b[n].sum()) / a[n].numel() for n in a)
    return {
        "overlap": mask_overlap(a, b),
        "overlap_equal_layers": common / kept,
        "kept": {name: float(m.double().mean()) for name, m in a.items()},
    }


def joined(seeds: list[Record]) -> Record:
    """Join one R's numbers of all seeds."""
    names = seeds[0]["kept"]
    return {
        "R": seeds[0]["R"],
        **{
            key: interval([s[key] for s in seeds])
            for key in ("relative_variance", "overlap", "overlap_equal_layers")
        },
        "kept": {name: statistics.fmean(s["kept"][name] for s in seeds) for name in names},
    }


def interval(values: list[float]) -> Record:
    """Return the mean with Student's interval, and the values."""
    mean = statistics.fmean(values)
    error = statistics.stdev(values) / math.sqrt(len(values))
    half = float(student.ppf((1 + LEVEL) / 2, len(values) - 1)) * error
    return {"mean": mean, "low": mean - half, "high": mean + half, "by_seed": values}


def seeded(seed: int) -> torch.Generator:
    """Return a generator with this seed."""
    return torch.Generator().manual_seed(seed)


if __name__ == "__main__":
    main()
