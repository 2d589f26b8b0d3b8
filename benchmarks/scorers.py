"""The cost of every scorer, in forward and backward passes, and of keeping the highest scores.

``python benchmarks/scorers.py`` prints two tables and writes ``benchmarks/results/scorers.json``. On
ResNet-20 with 100 images of 3×32×32, float32, on one thread, every scorer of ``SCORERS`` is timed in
turn with one forward and backward pass of the network over the batch, and with one over a single
sample, in the scorer's own type: float64 for those that always run in it. Its ``count`` is what its
formula needs, ``batch`` such passes and ``single`` ones; the ratio is its time over that of its count.
Seconds are those of the processor, so that other work on the machine counts less.
"""

import argparse
import platform
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

from benchmarks.record import commit, hardware, save  # noqa: E402
from ntktheory.models import cifar_resnet  # noqa: E402
from ntktheory.pruning import SCORERS, score  # noqa: E402
from ntktheory.pruning.topk import keep_highest  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "scorers.json"
LIMIT = 1.2
OUTPUTS, IMAGES, SCORES = 10, 100, 25_000_000
# Passes on the batch and on a single sample; a forward pass is a third of a forward and backward pass.
COUNTS: dict[str, tuple[float, float]] = {
    "random": (0, 0),
    "erk_random": (0, 0),
    "magnitude": (0, 0),
    "phew": (0, 0),
    "snip": (1, 0),
    "iter_snip": (1, 0),
    "force": (1, 0),
    "grasp": (3, 0),
    "prospr": (10, 0),
    "synflow": (0, 1),
    "synflow_repo": (0, 1),
    "synflow_l2": (0, 1),
    "synflow_l2_repo": (0, 1),
    "ntk_sap": (3, 0),
    "px": (2 / 3, 1),
    "px_bound": (2 / 3, 3),
    "px_repo": (2 / 3, 2),
    "path_edge": (4 / 3, 1),
    "t_sq": (4 / 3, 0),
    "ntk_trace": ((1 + 2 * OUTPUTS) / 3, 0),
    "ntk_trace_saliency": (2 * OUTPUTS + 1, 0),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "ntk_sap": {"realizations": 1, "samples": IMAGES},
    "prospr": {"lr": 1e-4},  # its steps diverge on this network otherwise
}
Call = Callable[[], Any]


def main() -> None:
    """Time, print, record."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="only these scorers, without a record")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = options.only or list(SCORERS)
    table = {}
    for name in names:
        table[name] = row = scorer(name, options.runs)
        ratio = "no pass" if row["ratio"] is None else f"{row['ratio']:.2f} × its count"
        print(
            f"{name:20} {row['median_s']:9.3f} s  {row['passes']:6.2f} passes  {ratio}", flush=True
        )
    kept = highest(options.runs)
    print("keep_highest of 25 million:", kept)
    if not options.only:
        record = {"commit": commit(), "torch": torch.__version__,
                  "python": platform.python_version(), "hardware": hardware(),
                  "runs": options.runs, "limit": LIMIT, "network": "ResNet-20, 10 outputs",
                  "images": IMAGES, "scorers": table, "keep_highest": kept}  # fmt: skip
        save(RESULT, record, digits=4)


def scorer(name: str, runs: int) -> dict[str, Any]:
    """Time one scorer, in turn with forward and backward passes in its type."""
    entry = SCORERS[name]
    net, x, y = problem(torch.float32)
    pass_net, pass_x, _ = problem(torch.float64 if entry.float64 else torch.float32)

    def run() -> None:
        generator = torch.Generator().manual_seed(1)
        shape = list(x.shape[1:])
        score(net, name, batch=(x, y), input_shape=shape, generator=generator,
              **OPTIONS.get(name, {}))  # fmt: skip

    calls: list[Call] = [
        lambda: step(pass_net, pass_x, y),
        lambda: step(pass_net, pass_x[:1], y[:1]),
        run,
    ]
    for call in calls:
        call()
    rounds = [[seconds(call) for call in calls] for _ in range(runs)]
    batch, single = COUNTS.get(name, (0.0, 0.0))
    counted = batch or single
    ratios = [own / (batch * a + single * b) for a, b, own in rounds] if counted else []
    return {
        "median_s": statistics.median(r[2] for r in rounds),
        "pass_s": statistics.median(r[0] for r in rounds),
        "single_pass_s": statistics.median(r[1] for r in rounds),
        "dtype": "float64" if entry.float64 else "float32",
        "passes": statistics.median(r[2] / r[0] for r in rounds),
        "cost": entry.cost,
        "count": {"batch": batch, "single": single},
        "ratio": statistics.median(ratios) if counted else None,
        "within": statistics.median(ratios) <= LIMIT if counted else None,
    }


def problem(dtype: torch.dtype) -> tuple[nn.Module, Tensor, Tensor]:
    """Return ResNet-20, images and labels."""
    generator = torch.Generator().manual_seed(0)
    net = cifar_resnet(20, OUTPUTS, generator=generator, dtype=dtype)
    x = torch.randn(IMAGES, 3, 32, 32, generator=generator, dtype=dtype)
    return net, x, torch.arange(IMAGES) % OUTPUTS


def step(net: nn.Module, x: Tensor, y: Tensor) -> None:
    """Run one forward and backward pass."""
    loss = nn.functional.cross_entropy(net(x), y)
    torch.autograd.grad(loss, [p.requires_grad_() for p in net.parameters()])


def highest(runs: int) -> dict[str, float]:
    """Time keeping a tenth of 25 million float32 scores, in one tensor and in 60."""
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(SCORES, generator=generator)
    parts = one.split(-(-SCORES // 60))
    cases = {"one tensor": [one], "60 tensors": parts, "all equal": [torch.zeros(SCORES)]}
    found = {}
    for name, tensors in cases.items():
        scores = {str(i): tensor for i, tensor in enumerate(tensors)}
        times = [seconds(lambda s=scores: keep_highest(s, SCORES // 10)) for _ in range(runs)]  # type: ignore[misc]
        found[f"{name}, median_s"] = statistics.median(times)
    return found


def seconds(call: Call) -> float:
    """Return the processor seconds of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


if __name__ == "__main__":
    main()
