"""The cost of path scores and bounds, in forward and backward passes: ResNet-20, and ResNet-50 at 224².

``make bench-paths`` (or ``python benchmarks/path_scores.py``) prints a table and writes
``benchmarks/results/path_scores.json``. On ResNet-20 with 100 images of 3×32×32, on one thread, every
score is timed in turn with one forward and backward pass of the network in the same type; the ratio is
the median of the ratios of a round. On ResNet-50 every bound that is affordable is computed once on two
threads, in a fresh process, with its peak memory.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
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
from ntktheory import functional, ntk_sap_objective, path_bounds  # noqa: E402
from ntktheory.models import cifar_resnet, resnet50  # noqa: E402
from ntktheory.probes import sample_gaussian  # noqa: E402
from ntktheory.pruning.scorers import path_edge, px, synflow_l2, t_sq  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "path_scores.json"
LARGE = ("px", "edge", "half", "t_sq", "last_layer")
Call = Callable[[], Any]


def main() -> None:
    """Time, print, record."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--large", action="store_true", help="only ResNet-50, in this process")
    options = parser.parse_args()
    if options.large:
        print(json.dumps(large()))
        return
    torch.set_num_threads(1)
    record = {"commit": commit(), "torch": torch.__version__, "python": platform.python_version(),
              "hardware": hardware(), "runs": options.runs, "resnet20": {}}  # fmt: skip
    for dtype in (torch.float32, torch.float64):
        name = str(dtype).removeprefix("torch.")
        record["resnet20"][name] = table = small(dtype, options.runs)
        print(f"ResNet-20, 100 images, {name}")
        for call, row in table.items():
            print(f"  {call:28} {row['median_s']:8.3f} s  {row['ratio']:5.2f} × forward+backward")
    answer = subprocess.run(
        [sys.executable, __file__, "--large"], capture_output=True, text=True, check=True
    )
    record["resnet50"] = json.loads(answer.stdout)
    print("ResNet-50, 8 images of 224²:", record["resnet50"])
    save(RESULT, record)


def small(dtype: torch.dtype, runs: int) -> dict[str, dict[str, float]]:
    """Time every score of ResNet-20 next to one forward and backward pass."""
    generator = torch.Generator().manual_seed(0)
    net = cifar_resnet(20, 10, generator=generator, dtype=dtype)
    x = torch.randn(100, 3, 32, 32, generator=generator, dtype=dtype)
    calls = scores(net, x)
    for call in calls.values():
        call()
    turns: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for i in range(runs):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            start = time.perf_counter()
            calls[name]()
            turns[name].append(time.perf_counter() - start)
    unit = turns["forward+backward"]
    return {
        name: {
            "median_s": statistics.median(seconds),
            "ratio": statistics.median(s / u for s, u in zip(seconds, unit, strict=True)),
        }
        for name, seconds in turns.items()
    }


def scores(net: nn.Module, x: Tensor) -> dict[str, Call]:
    """Return the calls to time."""
    f = functional(net)
    params = [p.requires_grad_() for p in net.parameters()]
    labels = torch.arange(len(x)) % 10
    generator = torch.Generator().manual_seed(1)
    probe = sample_gaussian({n: f.params[n] for n in f.prunable}, 1, generator=generator)

    def step() -> None:
        loss = nn.functional.cross_entropy(net(x), labels)
        torch.autograd.grad(loss, params)

    def objective(form: str) -> Call:
        """Return the gradient of NTK-SAP's objective with respect to the masks, one realisation."""
        ones = {n: torch.ones_like(f.params[n]) for n in f.prunable}

        def total(masks: dict[str, Tensor]) -> Tensor:
            return ntk_sap_objective(
                f, x, sigma=0.01, probes=probe, form=form, masks=masks  # type: ignore[arg-type]
            ).sum()  # fmt: skip

        return lambda: torch.func.grad(total)(ones)

    calls: dict[str, Call] = {
        "forward+backward": step,
        "score px": lambda: px(f.model_fn, f.params, None, x),
        "score path_edge": lambda: path_edge(f.model_fn, f.params, None, x),
        "score t_sq": lambda: t_sq(f.model_fn, f.params, None, x),
        "score synflow_l2": lambda: synflow_l2(f.model_fn, f.params, None, x),
        "NTK-SAP, JVP": objective("jvp"),
        "NTK-SAP, finite difference": objective("finite_difference"),
    }
    if x.dtype is torch.float64:
        calls["path_bounds px"] = lambda: path_bounds(net, x, names=["px"])
        calls["path_bounds edge"] = lambda: path_bounds(net, x, names=["edge"])
    return calls


def large() -> dict[str, Any]:
    """Compute the bounds of ResNet-50 once."""
    torch.set_num_threads(2)
    generator = torch.Generator().manual_seed(0)
    net = resnet50(1000, generator=generator)
    x = torch.randn(8, 3, 224, 224, generator=generator)
    start = time.perf_counter()
    bounds = path_bounds(net, x, names=LARGE)
    return {
        "wall_s": time.perf_counter() - start,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "seconds": dict(bounds.seconds),
        "upper": dict(bounds.upper),
        "lower": dict(bounds.lower),
        "t_sq": bounds.t_sq,
    }


if __name__ == "__main__":
    main()
