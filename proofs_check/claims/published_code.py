"""P3.published_code: behind batch norm the scores of PX's published code are rounding noise."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ntktheory.pruning import score
from proofs_check.claim import Level, Outcome, claim
from proofs_check.compare import Worst, relative_gap

GOLDEN = Path(__file__).parents[1] / "golden" / "conv_bn.npz"
BEHIND, BESIDE = ("c1.weight", "c2.weight"), ("sc.weight", "head.weight")
NOISE = 1e-10  # absolute, in float64, where scores beside batch norm are in the hundreds
Scores = Callable[[nn.Module, Tensor], dict[str, Tensor]]


def px_repo(net: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return the scores of PX's published code."""
    return score(net, "px_repo", batch=x)


class BatchNormNet(nn.Module):
    """The network of the recorded scores: a block with batch norms, a shortcut without, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.n1 = nn.BatchNorm2d(6)
        self.c2 = nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False)
        self.n2 = nn.BatchNorm2d(8)
        self.sc = nn.Conv2d(3, 8, 1, stride=2, bias=False)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs [N, 5]."""
        h = self.n2(self.c2(F.relu(self.n1(self.c1(x)))))
        return self.head(F.relu(h + self.sc(x)).mean((2, 3)))


def recorded() -> tuple[nn.Module, Tensor, dict[str, Tensor]]:
    """Return the network and its inputs in float64, and the scores of the authors' code."""
    with np.load(GOLDEN) as file:
        tensors = {key: torch.as_tensor(value) for key, value in file.items()}
    net = BatchNormNet().double()
    state = {
        key.split("/", 1)[1]: value
        for key, value in tensors.items()
        if key.startswith(("param/", "buffer/"))
    }
    net.load_state_dict(state, strict=False)
    scores = {name: tensors[f"score/px_repo_head/{name}"] for name in (*BEHIND, *BESIDE)}
    return net.eval(), tensors["x"], scores


def _batch_norms_in_eval_mode(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Replace every batch norm by the affine map that it is in eval mode."""

    class Affine(nn.Module):
        def __init__(self, norm: nn.BatchNorm2d) -> None:
            super().__init__()
            self.weight, self.bias = norm.weight, norm.bias
            self.register_buffer("mean", norm.running_mean)
            self.register_buffer("variance", norm.running_var)

        def forward(self, h: Tensor) -> Tensor:
            mean, variance = self.get_buffer("mean"), self.get_buffer("variance")
            return F.batch_norm(h, mean, variance, self.weight, self.bias, False)

    net = BatchNormNet().double()
    net.load_state_dict(model.state_dict())
    net = net.to(x.dtype).eval()
    net.n1, net.n2 = Affine(net.n1), Affine(net.n2)  # type: ignore[assignment]
    return px_repo(net, x)


def _first_power(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    theta = dict(model.named_parameters())
    return {name: s / theta[name].detach().abs() for name, s in px_repo(model, x).items()}


@claim(
    "P3.published_code",
    subjects={"scores": px_repo},
    mutants={
        "keeps batch norms in eval mode": {"scores": _batch_norms_in_eval_mode},
        "multiplies by |θ|, not θ²": {"scores": _first_power},
        "uses the inputs as they are": {"scores": lambda net, x: px_repo(net, x.abs().sqrt())},
    },
)
def published_scores_are_noise(level: Level, scores: Scores) -> Outcome:
    """Recorded scores reproduced beside batch norm; behind it zero but for the type's rounding."""
    net, x, expected = recorded()
    double = scores(net, x)
    single = scores(net.float(), x.float())
    worst = Worst(1e-10)
    for name in BESIDE:
        worst.see(f"{name}, recorded", double[name], expected[name])
    evidence: dict[str, object] = {}
    for name in BEHIND:
        ours, theirs = float(double[name].max()), float(expected[name].max())
        coarse = float(single[name].max())
        worst.require(f"{name}: largest score {ours:.1e} in float64", max(ours, theirs) < NOISE)
        gap = relative_gap(double[name], expected[name])
        worst.require(f"{name}: two float64 programs agree to {gap:.1e}", gap > 0.1)
        worst.require(f"{name}: {coarse:.1e} in float32, no rounding", coarse > 1e4 * ours)
        evidence |= {
            f"{name}: largest score, float64": ours,
            f"{name}: largest score, float32": coarse,
            f"{name}: largest recorded score": theirs,
            f"{name}: gap between the two float64 programs": gap,
        }
    for name in BESIDE:
        gap = relative_gap(single[name].double(), double[name])
        worst.require(f"{name}: float32 agrees to {gap:.1e}", gap < 1e-4)
        evidence[f"{name}: float32 against float64"] = gap
        evidence[f"{name}: largest score, float64"] = float(double[name].max())
    return Outcome(
        "holds" if worst.holds else "refuted",
        "exact-numeric",
        "the network and the scores recorded from the authors' code of February 2025",
        worst.numbers() | evidence,
        None if worst.holds else worst.counterexample,
    )
