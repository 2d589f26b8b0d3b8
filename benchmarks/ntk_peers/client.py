"""The other end of a worker: starts the process, asks, waits, gives up."""

import json
import select
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.ntk_peers.environments import ROOT, Environment

Answer = dict[str, Any]


class Client:
    """One worker process, started at the first question and again after one that it did not survive."""

    def __init__(self, environment: Environment, folder: Path, limit_s: float) -> None:
        self.environment = environment
        self._folder, self._limit_s = folder, limit_s
        self._process: subprocess.Popen[str] | None = None

    def ask(self, op: str, **request: Any) -> Answer:
        """Return the worker's answer, or {"error": reason}."""
        process = self._process or self._start()
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("a worker must have pipes")
        process.stdin.write(json.dumps({"op": op} | request) + "\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], self._limit_s)
        line = process.stdout.readline() if ready else ""
        if line:
            return json.loads(line)
        self.close()
        return {"error": "the process died" if ready else f"took longer than {self._limit_s:.0f} s"}

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _start(self) -> "subprocess.Popen[str]":
        python, module = self.environment.python(), self.environment.module
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.ntk_peers.worker", module, self._folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(self._folder / f"{module}.log").open("a"),
            env=self.environment.variables(),
            cwd=ROOT,
            text=True,
        )
        return self._process


def fresh(environment: Environment, folder: Path, limit_s: float, **request: Any) -> Answer:
    """Ask a process that has done nothing else."""
    client = Client(environment, folder, limit_s)
    try:
        return client.ask(**request)
    finally:
        client.close()
