"""The networks of the golden scores, with their parameters, data and scores."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

FOLDER = Path(__file__).parents[1] / "golden"


class Dense(nn.Module):
    """The MLPs."""

    def __init__(self, bias):
        super().__init__()
        self.l1 = nn.Linear(12, 16, bias)
        self.l2 = nn.Linear(16, 16, bias)
        self.l3 = nn.Linear(16, 5, bias)

    def forward(self, x):
        return self.l3(F.relu(self.l2(F.relu(self.l1(x.flatten(1))))))


class Conv(nn.Module):
    """The CNN."""

    def __init__(self):
        super().__init__()
        self.c1 = nn.Conv2d(3, 6, 3, padding=1)
        self.c2 = nn.Conv2d(6, 8, 3, 2, 1, bias=False)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(F.relu(self.c2(F.relu(self.c1(x)))).mean((2, 3)))


class ConvBN(nn.Module):
    """The residual CNN with batch norm."""

    def __init__(self):
        super().__init__()
        self.c1 = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.n1 = nn.BatchNorm2d(6)
        self.c2 = nn.Conv2d(6, 8, 3, 2, 1, bias=False)
        self.n2 = nn.BatchNorm2d(8)
        self.sc = nn.Conv2d(3, 8, 1, 2, bias=False)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        branch = self.n2(self.c2(F.relu(self.n1(self.c1(x)))))
        return self.head(F.relu(branch + self.sc(x)).mean((2, 3)))


BUILDERS = {
    "mlp": lambda: Dense(False),
    "mlp_bias": lambda: Dense(True),
    "conv": Conv,
    "conv_bn": ConvBN,
}


class Golden:
    """One file: the network, the batch, the recorded draws, and scores by key and name."""

    def __init__(self, name):
        with np.load(FOLDER / f"{name}.npz") as arrays:
            self.record = {key: torch.from_numpy(array) for key, array in arrays.items()}
        self.model = BUILDERS[name]().double().eval()
        state = self.under("param/") | self.under("buffer/")
        missing, unexpected = self.model.load_state_dict(state, strict=False)
        assert not unexpected
        assert all("num_batches" in key for key in missing)
        self.batch = self.record["x"], self.record["y"]
        self.draws = [
            (
                self.under(f"ntk_sap/{r}/param/"),
                self.record[f"ntk_sap/{r}/x"],
                self.under(f"ntk_sap/{r}/unit_noise/"),
            )
            for r in (0, 1)
        ]

    def under(self, prefix):
        """Return the arrays below a prefix, by the rest of their names."""
        return {
            key.removeprefix(prefix): t for key, t in self.record.items() if key.startswith(prefix)
        }

    @property
    def keys(self):
        """The scorers of the file."""
        return {key.split("/")[1] for key in self.record if key.startswith("score/")}
