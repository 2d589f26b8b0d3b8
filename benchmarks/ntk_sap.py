"""The cost of NTK-SAP's score per realisation, of the e-process, and of the quick evidence for S1 to S5.

``make bench-ntk-sap`` (or ``python benchmarks/ntk_sap.py``) prints tables and writes
``benchmarks/results/ntk_sap.json``. Seconds are CPU time of one thread; sides take turns, and a ratio is
the median of the ratios of a round.

* ``score``: one realisation on ResNet-20, 100 inputs of 3×32×32, float32: the JVP form, the finite
  difference, and one forward and backward pass of the network.
* ``e_process``: ``check_mean_sequential`` beside the sampling of the objective on the same network.
* ``evidence``: one quick run of the check of every claim S1 to S5, and of all its mutants.

Why the JVP form costs 1.5 finite differences where products rule. A finite difference is two evaluations
of the network and of its backward pass: per layer two products forwards, two for inputs and two for
weights. The JVP form computes with dual numbers x + εẋ, ε² = 0, and ``(W + εẆ)(x + εẋ)`` takes three
products, ``Wx``, ``Wẋ`` and ``Ẇx``; so do both products of the backward pass. Two do not suffice:
multiplication in F[ε]/(ε²) has bilinear rank 3 (Alder and Strassen 1981: 2·2 − 1, one maximal ideal).
Its *border* rank is 2, and the approximation by two products is the finite difference itself.
Measured: 1.54 (``results/ntk_sap.json``); by torch's profiler convolutions take 82 % of the JVP form's
time and 88 % of the finite difference's. Joining Wẋ + Ẇx into one
convolution of [ẋ; x] by [W, Ẇ], or Wx and Wẋ into one batch, does not pay: the kernels are bound by
arithmetic, not by memory.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from benchmarks.record import Record, commit, hardware, save  # noqa: E402
from ntktheory import empirical_ntk, functional, ntk_sap_objective  # noqa: E402
from ntktheory.estimators.evidence import check_mean_sequential  # noqa: E402
from ntktheory.estimators.ntk_sap_score import score_of_realization  # noqa: E402
from ntktheory.models import cifar_resnet  # noqa: E402
from ntktheory.probes import sample_gaussian  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "ntk_sap.json"
IMAGES, SIGMA = 100, 0.01
CLAIMS = ("S1", "S2", "S3", "S4", "S5")
PROBES, BATCH, FEW_IMAGES = 100, 50, 4
Call = Callable[[], Any]


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    torch.set_num_threads(1)
    calls = score_calls()
    record: Record = {
        "command": " ".join(["python benchmarks/ntk_sap.py", *sys.argv[1:]]),
        "commit": commit(),
        "hardware": hardware(),
        "versions": {"torch": torch.__version__},
        "runs": runs,
        "score": turns(calls, runs, "finite difference"),
    }
    for call, row in record["score"].items():
        print(f"{call:20} {row['median_s']:8.3f} s  {row['ratio']:5.2f} × finite difference")
    record["e_process"] = e_process(runs)
    print(record["e_process"], flush=True)
    record["evidence"] = evidence()
    for name, total in record["evidence"]["total"].items():
        print(f"quick evidence, {name}: {total:.1f} s")
    save(RESULT, record, digits=6)


def turns(calls: dict[str, Call], runs: int, unit: str) -> dict[str, dict[str, float]]:
    """Return the median CPU seconds of every call, and of its ratio to the unit, in turn."""
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for i in range(runs):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            seconds[name].append(timed(calls[name]))
    return {
        name: {
            "median_s": statistics.median(own),
            "ratio": statistics.median(s / u for s, u in zip(own, seconds[unit], strict=True)),
        }
        for name, own in seconds.items()
    }


def timed(call: Call) -> float:
    """Return the CPU seconds of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def score_calls() -> dict[str, Call]:
    """Return one realisation in both forms, and one forward and backward pass."""
    net, x, generator = network(IMAGES)
    f = functional(net)
    probe = sample_gaussian(f.params, 1, generator=generator, names=f.prunable)
    params = [p.requires_grad_() for p in net.parameters()]
    labels = torch.arange(IMAGES) % 10

    def step() -> None:
        torch.autograd.grad(nn.functional.cross_entropy(net(x), labels), params)

    def score(form: Any) -> Call:
        args = (f.model_fn, f.params, None, x, probe, f.prunable)
        return lambda: score_of_realization(*args, sigma=SIGMA, form=form)

    return {
        "forward+backward": step,
        "JVP": score("jvp"),
        "finite difference": score("finite_difference"),
    }


def network(images: int) -> tuple[nn.Module, Tensor, torch.Generator]:
    """Return ResNet-20 with He weights, and N(0, I) inputs."""
    generator = torch.Generator().manual_seed(0)
    net = cifar_resnet(20, 10, generator=generator)
    return net, torch.randn(images, 3, 32, 32, generator=generator), generator


def e_process(runs: int) -> Record:
    """Return the CPU seconds of the e-process beside those of sampling the objective."""
    net, x, generator = network(FEW_IMAGES)
    params = functional(net).params
    theta = empirical_ntk(net, x).double().permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
    expected = SIGMA**2 * float(theta.trace())
    variance = 2 * SIGMA**4 * float(theta.square().sum())
    drawing = 0.0

    def draw(count: int) -> Tensor:
        nonlocal drawing
        start = time.process_time()
        probes = sample_gaussian(params, count, generator=generator)
        values = ntk_sap_objective(net, x, sigma=SIGMA, probes=probes)
        drawing += time.process_time() - start
        return values

    shares = []
    for _ in range(runs + 1):  # the first warms up
        drawing, start = 0.0, time.process_time()
        verdict = check_mean_sequential(
            draw,
            expected,
            variance,
            delta=1e-9,
            max_samples=PROBES,
            batch=BATCH,
            atol=1e-4 * expected,
        )
        shares.append((time.process_time() - start - drawing) / drawing)
    return {
        "images": FEW_IMAGES,
        "probes": PROBES,
        "batch": BATCH,
        "share_of_sampling": statistics.median(shares[1:]),
        "largest_share": max(shares[1:]),
        "verdict": verdict.summary,
    }


def evidence() -> Record:
    """Return the CPU seconds of one quick run per claim: of its check, and of all its mutants."""
    from proofs_check.claim import CLAIMS as REGISTERED
    from proofs_check.runner import import_claims

    import_claims()
    rows: dict[str, dict[str, float]] = {}
    for name in sorted(REGISTERED):
        if name.partition(".")[0] in CLAIMS:
            claim = REGISTERED[name]
            check = timed(lambda claim=claim: claim.check("quick", **claim.subjects))
            mutants = [
                timed(lambda c=claim, m=m: c.check("quick", **{**c.subjects, **m}))
                for m in claim.mutants.values()
            ]
            rows[name] = {"check_s": check, "mutants_s": sum(mutants)}
    own = [row for name, row in rows.items() if name in CLAIMS]
    return {
        "rows": rows,
        "total": {
            "S1 to S5": sum(row["check_s"] for row in own),
            "with sub-claims": sum(row["check_s"] for row in rows.values()),
            "with sub-claims and mutants": sum(sum(row.values()) for row in rows.values()),
        },
    }


if __name__ == "__main__":
    main()
