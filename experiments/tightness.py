"""How far each bound is from the trace: at initialisation, pruned, trained, and pruned then trained.

``python experiments/tightness.py [--data digits cifar10-jpeg] [--seeds 3]`` writes
``experiments/records/tightness.json``; ``python figures/tightness.py`` draws it. Networks get He
weights; batch norms get the statistics of 512 images first. "Pruned" keeps 10 % of the weights by PX in
20 exponential rounds. Bounds and trace are summed over 16 images, in float64.
"""

import argparse
import copy
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.record import commit, save  # noqa: E402
from ntktheory import apply_masks, path_bounds  # noqa: E402
from ntktheory.data import channel_statistics, load_data, standardise  # noqa: E402
from ntktheory.models import build_model  # noqa: E402
from ntktheory.pruning import prune  # noqa: E402
from ntktheory.training import accuracy, train  # noqa: E402

RECORD = Path(__file__).parent / "records" / "tightness.json"
NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": [128, 128]},
    "convnet": {"channels": [16, 32], "stride": [1, 2]},
    "resnet20": {},
}
DENSITY, ROUNDS, IMAGES = 0.1, 20, 16
STEPS, BATCH, LR = 300, 128, 0.05

Masks = dict[str, Tensor]
Row = dict[str, Any]


def main() -> None:
    """Measure every network on every data set, and record after each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data", nargs="+", default=["digits", "cifar10-jpeg"])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args()
    record: Row = {"commit": commit(), "torch": torch.__version__, "python": platform.python_version(),
                   "density": DENSITY, "rounds": ROUNDS, "images": IMAGES, "steps": STEPS,
                   "batch": BATCH, "lr": LR, "rows": []}  # fmt: skip
    for data in options.data:
        inputs, labels, tests = load(data, options.data_dir)
        for network in options.networks:
            for seed in range(options.seeds):
                start = time.perf_counter()
                record["rows"] += measure(network, data, seed, inputs, labels, tests)
                save(RECORD, record)
                print(
                    f"{network} {data} seed {seed}: {time.perf_counter() - start:.0f} s", flush=True
                )


def load(data: str, folder: Path | None) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Return training inputs, training labels and a test set, standardised per channel."""
    if data == "digits":
        x, y = load_data(data)
        return x[:1500], y[:1500], (x[1500:], y[1500:])
    x, y = load_data(data, 10_000, data_dir=folder, split="train")
    tests = load_data(data, 2_000, data_dir=folder, split="test")
    statistics = channel_statistics(x)
    return standardise(x, *statistics), y, (standardise(tests[0], *statistics), tests[1])


def measure(
    network: str, data: str, seed: int, x: Tensor, y: Tensor, tests: tuple[Tensor, Tensor]
) -> list[Row]:
    """Return one row per state of one network."""
    generator = torch.Generator().manual_seed(seed)
    net = build_model(network, x.shape[1:], generator=generator, **NETWORKS[network])
    calibrate(net, x[:512])
    images = x[torch.randperm(len(x), generator=generator)[:IMAGES]]
    masks = pruned(net, images)
    head = {"network": network, "data": data, "seed": seed}
    rows = []
    for state, kept in (("init", None), ("pruned", masks)):
        rows.append(head | {"state": state} | bounds(net, images, kept))
    for state, kept in (("trained", None), ("pruned, trained", masks)):
        model = copy.deepcopy(net) if kept is None else apply_masks(net, kept)
        losses = train(model, x, y, steps=STEPS, batch=BATCH, lr=LR, generator=generator)
        values = bounds(weights_of(model, net, kept), images, kept)
        outcome = {"loss": losses[-1], "accuracy": accuracy(model, *tests)}
        rows.append(head | {"state": state} | values | outcome)
    return rows


def calibrate(net: nn.Module, x: Tensor) -> None:
    """Give batch norms the statistics of a batch."""
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = None  # running statistics become those of all batches seen: this one
    net.train()
    with torch.no_grad():
        net(x)
    net.eval()
    for norm in norms:
        norm.momentum = 0.1


def pruned(net: nn.Module, images: Tensor) -> Masks:
    """Return PX's masks."""
    return prune(net, "px", DENSITY, rounds=ROUNDS, batch=images).masks


def weights_of(model: nn.Module, net: nn.Module, masks: Masks | None) -> nn.Module:
    """Return a network like ``net`` with a trained model's weights; masks stay apart."""
    if masks is None:
        return model
    plain = copy.deepcopy(net)
    state = {
        name.replace("parametrizations.", "").removesuffix(".original"): tensor
        for name, tensor in model.state_dict().items()
        if not name.endswith(".0.mask")
    }
    plain.load_state_dict(state)
    return plain.eval()


def bounds(net: nn.Module, images: Tensor, masks: Masks | None) -> Row:
    """Return the trace, every bound that is defined, and seconds."""
    values = path_bounds(net, images, masks=masks)
    start = time.perf_counter()
    trace = values.trace
    seconds = dict(values.seconds) | {"trace": time.perf_counter() - start}
    return {
        "trace": trace,
        "upper": dict(values.upper),
        "lower": dict(values.lower),
        "t_sq": values.t_sq,
        "seconds": seconds,
    }


if __name__ == "__main__":
    main()
