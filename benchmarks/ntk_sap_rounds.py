"""NTK-SAP in rounds on VGG-16: its time, and the share of the device's float32 rate that it reaches.

``python benchmarks/ntk_sap_rounds.py --device cuda`` prunes VGG-16 with batch norm, 3×32×32 and 100
outputs, in 100 rounds of one realisation and writes ``benchmarks/results/ntk_sap_rounds.json``, one
entry per kind of device. Products are counted by torch's flop counter during one score, the same in
every round; the device's rate is that of its best of several square matrix products of ``--size``,
float32, TF32 off. On the CPU one thread is used; take few rounds there.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from benchmarks.record import Record, commit, hardware, save  # noqa: E402
from ntktheory.models import vgg  # noqa: E402
from ntktheory.pruning import prune, score  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "ntk_sap_rounds.json"
SHAPE, OUTPUTS, DENSITY = [3, 32, 32], 100, 0.01


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--samples", type=int, default=256, help="inputs of a realisation")
    parser.add_argument("--width", type=int, default=64, help="channels of the first stage")
    parser.add_argument("--size", type=int, default=4096, help="of the matrix product")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    row = measure(
        options.device, options.rounds, options.samples, width=options.width, size=options.size
    )
    for name, value in row.items():
        print(f"{name:24} {value}")
    earlier = json.loads(options.out.read_text()) if options.out.exists() else {}
    save(options.out, earlier | {torch.device(options.device).type: row}, digits=4)


def measure(device: str, rounds: int, samples: int, *, width: int, size: int) -> Record:
    """Return time, products and rates of one run."""
    net = vgg(16, OUTPUTS, batch_norm=True, width=width).to(device)
    options: dict[str, Any] = {"input_shape": SHAPE, "samples": samples, "realizations": 1}
    products = flops(net, device, options)
    rate = best_rate(device, size)
    generator = torch.Generator(device).manual_seed(0)
    seconds = timed(
        lambda: prune(net, "ntk_sap", DENSITY, rounds=rounds, generator=generator, **options),
        device,
    )
    reached = rounds * products / seconds
    return {
        "command": " ".join(["python benchmarks/ntk_sap_rounds.py", *sys.argv[1:]]),
        "commit": commit(), "hardware": hardware(), "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else "one CPU thread",
        "network": f"VGG-16 with batch norm, width {width}", "rounds": rounds, "samples": samples,
        "seconds": seconds, "flop_per_round": products, "flop_per_s": reached,
        "device_flop_per_s": rate, "fraction": reached / rate,
    }  # fmt: skip


def flops(net: nn.Module, device: str, options: dict[str, Any]) -> int:
    """Return the floating-point operations of the products in one score; it also warms up."""
    generator = torch.Generator(device).manual_seed(0)
    with FlopCounterMode(display=False) as counter:
        score(net, "ntk_sap", generator=generator, **options)
    return counter.get_total_flops()


def best_rate(device: str, size: int, runs: int = 5) -> float:
    """Return the operations per second of the fastest of several matrix products."""
    a = torch.ones(size, size, device=device)
    a @ a
    return 2 * size**3 / min(timed(lambda: a @ a, device) for _ in range(runs))


def timed(call: Callable[[], Any], device: str) -> float:
    """Return the seconds of a call: of the clock on a GPU, of the processor otherwise."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        return time.perf_counter() - start
    start = time.process_time()
    call()
    return time.process_time() - start


if __name__ == "__main__":
    main()
