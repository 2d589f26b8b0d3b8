"""The exact kernel and its trace: this library and its peers, side by side.

``make bench-ntk`` (or ``python benchmarks/ntk.py``) prints a table and writes
``benchmarks/results/ntk.json``. One thread, float32. Peers that need other packages run in
environments of their own, made on first use. A ratio is given only where a side computes the numbers
that this library computes, to 1e-5 of the largest; the sides take turns, one call each per round.
"""

import argparse
import json
import math
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.ntk_peers.client import Client, fresh  # noqa: E402
from benchmarks.ntk_peers.environments import ENVIRONMENTS  # noqa: E402
from benchmarks.record import Record, commit, hardware, save  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "ntk.json"
SAME = 1e-5
OURS = "ntktheory"
WORKS = {
    "mlp": "MLP 784-512-512-10, N = 64",
    "conv": "3 convolutions of 32 channels, 32×32, N = 32, C = 10",
    "resnet20": "ResNet-20, eval mode, 32×32, N = 32, C = 10",
}
QUANTITIES = ("full", "trace")
SIDES = {
    "sides_torch_func": (OURS, "torch.func vmap(jacrev)", "torch.func ntk_vp"),
    "sides_neural_tangents": ("neural-tangents structured", "neural-tangents jacobian"),
    "sides_torch_libraries": (
        "curvlinops", "BackPACK first order", "BackPACK second order", "NNGeometry",
    ),
}  # fmt: skip

Clients = dict[str, Client]


def main() -> None:
    """Set up, measure every work, record after each, print the table."""
    options = _options()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        clients, absent = start(folder, options.limit_s, [OURS, *options.sides])
        record = kept_record(options.works) | {
            "options": {"runs": options.runs, "slow_s": options.slow_s, "limit_s": options.limit_s},
            "hardware": hardware(),
            "versions": {c.environment.module: c.ask("versions") for c in clients.values()},
            "absent": absent,
        }
        for work in options.works:
            for quantity in QUANTITIES:
                entry = compare(clients, work, quantity, options, folder) | {"commit": commit()}
                record["works"].append(entry)
                save(RESULT, record)
                print(table(entry), flush=True)
        if options.slopes:
            points = clients[OURS].ask("slopes", repeats=max(3, options.runs // 3))
            record["growth"] = growth(points.get("points", []))
            record["growth_commit"] = commit()
            save(RESULT, record)
            print(growth_table(record["growth"]))
        for client in clients.values():
            client.close()
    print(f"\nRecorded in {RESULT.relative_to(ROOT)}; the plot: python figures/ntk_speed.py")


def kept_record(again: list[str]) -> Record:
    """Return what the record on disk has of this hardware, without the works to measure again."""
    if not RESULT.exists():
        return {"works": []}
    old = json.loads(RESULT.read_text())
    if old["hardware"] != hardware():
        return {"works": []}
    kept = [entry for entry in old["works"] if entry["work"] not in again]
    return {"works": kept} | {k: old[k] for k in ("growth", "growth_commit") if k in old}


def start(folder: Path, limit_s: float, wanted: list[str]) -> tuple[Clients, dict[str, str]]:
    """Create the environments; return a worker for every side, and why others have none."""
    clients, absent = {}, {}
    for environment in ENVIRONMENTS:
        if not set(SIDES[environment.module]) & set(wanted):
            continue
        reason = environment.create()
        for side in filter(wanted.__contains__, SIDES[environment.module]):
            if reason is None:
                clients[side] = Client(environment, folder, limit_s)
            else:
                absent[side] = reason
    answer = clients[OURS].ask("export")
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return clients, absent


def compare(
    clients: Clients, work: str, quantity: str, options: argparse.Namespace, folder: Path
) -> Record:
    """Check that the sides agree, then time them in turn, then weigh each in a fresh process."""
    what = {"work": work, "quantity": quantity}
    first = {s: client.ask("prepare", side=s, **what) for s, client in clients.items()}
    exact = _numbers(clients[OURS].ask("prepare", side="float64", **what), folder)
    numbers = {side: _numbers(answer, folder) for side, answer in first.items()}
    ready = [side for side in clients if numbers[side] is not None]
    rounds = {
        side: options.runs if first[side]["seconds"] <= options.slow_s else options.slow_runs
        for side in ready
    }
    turns = take_turns(clients, what, rounds)
    sides = {}
    for side in clients:
        if side not in ready:
            sides[side] = {"error": first[side]["error"]}
            continue
        weighed = {} if not options.memory else fresh(
            clients[side].environment, folder, options.limit_s, op="memory", side=side, **what
        )  # fmt: skip
        sides[side] = (
            summary(turns[side], turns[OURS])
            | {
                "difference": _gap(numbers[side], numbers[OURS]),
                "error_in_float32": _gap(numbers[side], exact),
            }
            | weighed
        )
    for client in clients.values():
        client.ask("forget")
    return {"name": WORKS[work], **what, "sides": sides}


def take_turns(
    clients: Clients, what: dict[str, str], rounds: dict[str, int]
) -> dict[str, list[Record]]:
    """Call every side once per round, starting with another one each round."""
    turns: dict[str, list[Record]] = {side: [] for side in rounds}
    order = list(rounds)
    for i in range(max(rounds.values())):
        for side in order[i % len(order) :] + order[: i % len(order)]:
            if i < rounds[side]:
                turns[side].append(clients[side].ask("time", side=side, **what))
    return turns


def summary(turns: list[Record], ours: list[Record]) -> Record:
    """Return median, extremes, count, processor share, and the median ratio to our call of a round."""
    failed = [turn["error"] for turn in turns if "error" in turn]
    if failed:
        return {"error": failed[0]}
    seconds = [turn["seconds"] for turn in turns]
    ratios = [t["seconds"] / o["seconds"] for t, o in zip(turns, ours, strict=False)]
    return {
        "median_s": statistics.median(seconds),
        "min_s": min(seconds),
        "max_s": max(seconds),
        "runs": len(seconds),
        "processor_share": statistics.median(t["cpu_seconds"] / t["seconds"] for t in turns),
        "ratio": statistics.median(ratios),
    }


def growth(points: list[Record]) -> list[Record]:
    """Fit ``seconds ∝ size^slope`` for every network, quantity and size."""
    keys = dict.fromkeys((p["work"], p["quantity"], p["axis"]) for p in points)
    fits = []
    for key in keys:
        rows = [p for p in points if (p["work"], p["quantity"], p["axis"]) == key]
        values, seconds = [p["value"] for p in rows], [p["median_s"] for p in rows]
        slope = float(np.polyfit(np.log(values), np.log(seconds), 1)[0])
        last = math.log(seconds[-1] / seconds[-2]) / math.log(values[-1] / values[-2])
        fits.append(
            dict(zip(("work", "quantity", "axis"), key, strict=True))
            | {"values": values, "median_s": seconds, "slope": slope, "last_slope": last}
        )
    return fits


def table(entry: Record) -> str:
    """Lay out one work: seconds, ratio to ours, memory, agreement."""
    head = f"{'side':28} {'median s':>9} {'min':>8} {'max':>8} {'runs':>4} {'ratio':>7} "
    lines = [f"\n{entry['quantity']}: {entry['name']}", head + f"{'call MiB':>9}  difference"]
    for side, s in entry["sides"].items():
        if "median_s" not in s:
            lines.append(f"{side:28} {s['error'][:90]}")
            continue
        same = s["difference"] is not None and s["difference"] <= SAME
        ratio = f"{s['ratio']:7.2f}" if same else "      –"
        mib = f"{s['call_extra_bytes'] / 2**20:9.0f}" if "call_extra_bytes" in s else f"{'–':>9}"
        lines.append(
            f"{side:28} {s['median_s']:9.4f} {s['min_s']:8.4f} {s['max_s']:8.4f} {s['runs']:4d} "
            f"{ratio} {mib}  {s['difference']:.1e}{'' if same else ': NOT THE SAME'}"
        )
    return "\n".join(lines)


def growth_table(fits: list[Record]) -> str:
    """Lay out the slopes."""
    lines = ["\nseconds ∝ size^slope, over all sizes (between the last two)"]
    lines += [
        f"{f['work']:5} {f['quantity']:6} {f['axis']:6} {f['slope']:6.2f} ({f['last_slope']:.2f})"
        f"  {f['values'][0]} to {f['values'][-1]}"
        for f in fits
    ]
    return "\n".join(lines)


def _numbers(answer: Record, folder: Path) -> np.ndarray | None:
    return np.load(folder / answer["file"]) if "file" in answer else None


def _gap(a: np.ndarray | None, b: np.ndarray | None) -> float | None:
    if a is None or b is None or a.shape != b.shape:
        return None
    return float(np.abs(a - b).max() / np.abs(b).max())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=int, default=9, help="calls of every side")
    parser.add_argument(
        "--slow-s", type=float, default=20, help="a slower first call counts as slow"
    )
    parser.add_argument("--slow-runs", type=int, default=3, help="calls of a slow side")
    parser.add_argument("--limit-s", type=float, default=600, help="give up on an answer after")
    parser.add_argument("--works", nargs="+", default=list(WORKS), choices=list(WORKS))
    peers = [side for sides in SIDES.values() for side in sides if side != OURS]
    parser.add_argument("--sides", nargs="+", default=peers, choices=peers)
    parser.add_argument("--no-memory", dest="memory", action="store_false")
    parser.add_argument("--no-slopes", dest="slopes", action="store_false")
    return parser.parse_args()


if __name__ == "__main__":
    main()
