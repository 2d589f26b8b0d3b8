"""Full empirical NTK of an MLP 784-512-512-10 on 64 samples: this library and torch.func, in turn.

``python benchmarks/ntk.py [--pairs 9]`` prints a table and writes ``benchmarks/results/ntk_mlp.json``.
One thread, float32; the ratio counts only if both sides computed the same numbers.
"""

import argparse
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.func import functional_call, jacrev, vmap

from ntktheory import empirical_ntk
from ntktheory.models import mlp

RESULT = Path(__file__).parent / "results" / "ntk_mlp.json"
SAME = 1e-5


def by_vmap_jacrev(model: torch.nn.Module, x: Tensor) -> Tensor:
    """Contract per-sample Jacobians from ``vmap(jacrev)``, as torch.func's NTK tutorial explains."""
    params = {name: p.detach() for name, p in model.named_parameters()}

    def outputs(params: dict[str, Tensor], sample: Tensor) -> Tensor:
        return functional_call(model, params, (sample.unsqueeze(0),)).squeeze(0)

    rows = vmap(jacrev(outputs), (None, 0))(params, x)
    blocks = [j.flatten(2) for j in rows.values()]
    return torch.stack([torch.einsum("naf,mbf->nmab", j, j) for j in blocks]).sum(0)


def timed(function: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Return the seconds that one call took, and its result."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def commit() -> str:
    """Return the commit of this checkout."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def processor() -> str:
    """Return the processor's name."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines()
             if line.startswith("model name")] if info.exists() else []  # fmt: skip
    return names[0] if names else platform.processor()


def main() -> None:
    """Measure in alternation, check equality, print and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=9)
    pairs = parser.parse_args().pairs
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    model = mlp([784, 512, 512, 10], generator=generator)
    x = torch.randn(64, 784, generator=generator)
    sides = {
        "ntktheory": lambda: empirical_ntk(model, x),
        "vmap(jacrev)": lambda: by_vmap_jacrev(model, x),
    }
    results = {name: side() for name, side in sides.items()}
    ours, peer = results.values()
    gap = float((ours - peer).abs().max() / peer.abs().max())
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(pairs):
        for name, side in sides.items():
            seconds[name].append(timed(side)[0])
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = statistics.median(
        b / a for a, b in zip(seconds["ntktheory"], seconds["vmap(jacrev)"], strict=True)
    )
    record = {
        "work": "full NTK, MLP 784-512-512-10, N = 64, float32, one thread",
        "pairs": pairs,
        "median_s": medians,
        "min_s": {name: min(values) for name, values in seconds.items()},
        "max_s": {name: max(values) for name, values in seconds.items()},
        "median_ratio": ratio,
        "relative_difference": gap,
        "same_numbers": gap < SAME,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": processor(),
        "commit": commit(),
    }
    RESULT.write_text(json.dumps(record, indent=2) + "\n")
    for name, value in medians.items():
        print(f"{name:14} {value:9.4f} s")
    print(
        f"ratio {ratio:.0f}x, relative difference {gap:.1e}"
        + ("" if gap < SAME else ": NOT THE SAME")
    )


if __name__ == "__main__":
    main()
