"""A process that computes on demand: one JSON request per line of input, one answer per line.

``python -m benchmarks.ntk_peers.worker MODULE FOLDER``; requests have an "op":

* "prepare" (side, work, quantity): build the call, make it once, save its result in the folder;
* "time" (side, work, quantity): make the call again, return its seconds;
* "memory" (side, work, quantity): in a fresh process, make the call once, return bytes;
* "forget": drop what was prepared; "export": write the workloads; "versions"; "slopes".
"""

import gc
import importlib
import importlib.metadata
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = (
    "torch", "numpy", "neural-tangents", "jax", "jaxlib", "scipy", "tensorflow",
    "curvlinops-for-pytorch", "backpack-for-pytorch", "nngeometry",
)  # fmt: skip
MEMORY_SHARE = 0.85
Request = dict[str, Any]


class Worker:
    """The calls that this process has prepared."""

    def __init__(self, module: str, folder: Path) -> None:
        if module != "sides_neural_tangents":
            import torch

            torch.set_num_threads(1)
        self._sides = importlib.import_module(f"benchmarks.ntk_peers.{module}").SIDES
        self._folder = folder
        self._calls: dict[tuple[str, ...], Callable[[], Any]] = {}

    def answer(self, request: Request) -> Request:
        """Carry out one request; an error becomes the answer's reason."""
        try:
            return getattr(self, request.pop("op"))(**request)
        except Exception as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            return {"error": f"{type(error).__name__}: {' '.join(lines)[:300]}"}

    def prepare(self, side: str, work: str, quantity: str) -> Request:
        """Build a call, make it once, and save what it returned."""
        key = (side, work, quantity)
        self._calls[key] = self._sides[side](work, quantity, self._folder)
        (seconds, _), result = timed(self._calls[key])
        np.save(self._folder / "-".join(key), np.asarray(result))
        return {"seconds": seconds, "file": f"{'-'.join(key)}.npy"}

    def time(self, side: str, work: str, quantity: str) -> Request:
        """Make a prepared call again."""
        (seconds, cpu_seconds), _ = timed(self._calls[side, work, quantity])
        return {"seconds": seconds, "cpu_seconds": cpu_seconds}

    def memory(self, side: str, work: str, quantity: str) -> Request:
        """Make a call once and return the peak of the process, and what the call added to it."""
        call = self._sides[side](work, quantity, self._folder)
        gc.collect()
        before = status_bytes("VmRSS")
        restart_peak()
        call()
        peak = status_bytes("VmHWM")
        whole = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {"peak_bytes": whole, "call_peak_bytes": peak, "call_extra_bytes": peak - before}

    def forget(self) -> Request:
        """Drop every prepared call."""
        self._calls.clear()
        gc.collect()
        return {}

    def export(self) -> Request:
        """Write the workloads for peers that do not use torch."""
        from benchmarks.ntk_peers.workloads import export

        export(self._folder)
        return {}

    def slopes(self, repeats: int) -> Request:
        """Time this library while one size grows."""
        from benchmarks.ntk_peers.growth import measure

        return {"points": measure(repeats)}

    def versions(self) -> Request:
        """Return the versions of the peers that are installed here."""
        found = {}
        for package in PACKAGES:
            try:
                found[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                continue
        return found


def timed(call: Callable[[], Any]) -> tuple[tuple[float, float], Any]:
    """Return the seconds and the processor seconds that one call took, and its result."""
    gc.collect()
    start, cpu = time.perf_counter(), time.process_time()
    result = call()
    return (time.perf_counter() - start, time.process_time() - cpu), result


def status_bytes(field: str) -> int:
    """Return a memory figure of this process from the kernel's table."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def restart_peak() -> None:
    """Make "VmHWM" start again from what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


def limit_memory() -> None:
    """Let an allocation beyond most of this machine's memory fail, rather than the machine."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = int(total * MEMORY_SHARE)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def stay_on_one_core() -> None:
    """Keep every thread on one core, also those that no setting turns off."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def main() -> None:
    """Answer requests until the input ends; whatever libraries print goes to the error stream."""
    limit_memory()
    stay_on_one_core()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker(sys.argv[1], Path(sys.argv[2]))
    for line in sys.stdin:
        answers.write(json.dumps(worker.answer(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
