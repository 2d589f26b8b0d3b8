"""I(m; D | init) on No Free Prune's toy, exactly: every data set is enumerated."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, overload

from torch import Tensor

from ntktheory.checks import check_choice
from ntktheory.information.code_words import check_code_length
from ntktheory.information.effective_parameters import effective_parameter_count
from ntktheory.information.enumeration import MaskInformation, information_of_masks
from ntktheory.information.laws import Law
from ntktheory.information.toy_data import toy_data
from ntktheory.information.toy_learner import check_descent
from ntktheory.information.toy_masks import TRAINED, ToyMasks, toy_masks
from ntktheory.information.toy_network import ToyNetwork, initial_weights
from ntktheory.pruning.scorers import SCORERS


@dataclass(frozen=True)
class ToyInformation:
    """What the masks of one pruner from one init say about the data, for k = 0…P−1 pruned weights.

    Attributes:
        parameters: P.
        by_pruned: The information for each k, with its interval and the near-ties' weight.
        codes: The masks as code words, [P, N] int64.
        law: The law of the N data sets.
    """

    parameters: int
    by_pruned: tuple[MaskInformation, ...]
    codes: Tensor
    law: Law

    @property
    def bits(self) -> list[float]:
        """I(m; D | init) in bits, for each k."""
        return [found.bits for found in self.by_pruned]

    def effective_parameters(self, bits_per_weight: float = 1.0) -> list[float]:
        """Return ``p_eff = I(m; D | init) + (P − k) Λ`` in bits, for each k.

        That is the form for a finite class: with every kept weight one of 2^Λ values,
        ``E log2 N_m = (P − k) Λ``. The mask's size is k whatever the data.

        Args:
            bits_per_weight: Λ.

        Returns:
            One count per k.
        """
        return [
            effective_parameter_count(
                found.bits, expected_class_bits=(self.parameters - k) * bits_per_weight
            )
            for k, found in enumerate(self.by_pruned)
        ]


def by_pruned(masks: ToyMasks, data: Law) -> tuple[MaskInformation, ...]:
    """Return the information of masks for each number k of pruned weights, of C(P, k) possible masks."""
    size = len(masks.codes)
    return tuple(
        information_of_masks(codes, data, near, possible=math.comb(size, k))
        for k, (codes, near) in enumerate(
            zip(masks.codes.numpy(), masks.near_ties.numpy(), strict=True)
        )
    )


@overload
def exact_mask_information(
    method: str, *, loss: str = ..., width: int = ..., steps: int, lr: float, seed: int,
    init: str = ..., replacement: bool = ..., return_details: Literal[False] = ...,
    options: Mapping[str, Any] | None = ..., diverged: bool = ...,
) -> list[float]: ...  # fmt: skip


@overload
def exact_mask_information(
    method: str, *, loss: str = ..., width: int = ..., steps: int, lr: float, seed: int,
    init: str = ..., replacement: bool = ..., return_details: Literal[True],
    options: Mapping[str, Any] | None = ..., diverged: bool = ...,
) -> ToyInformation: ...  # fmt: skip


def exact_mask_information(
    method: str,
    *,
    loss: str = "mse",
    width: int = 4,
    steps: int,
    lr: float,
    seed: int,
    init: str = "kaiming_normal",
    replacement: bool = True,
    return_details: bool = False,
    options: Mapping[str, Any] | None = None,
    diverged: bool = False,
) -> list[float] | ToyInformation:
    """Return the information that a pruner's mask carries about six toy points, exactly.

    Six points (x, y) with x uniform on {±1}³ and y uniform on ±1, a one-hidden-layer ReLU network with
    biases, full-batch gradient descent on the mean loss over the six points. The network's P
    parameters, biases included, can all be pruned. A pruner that is deterministic given the init has
    ``I(m; D | init) = H(m | init)``, summed over all 54,264 multisets with multinomial weights.

    Args:
        method: ``imp`` (one weight per round, rewound to the init), ``magnitude_after``, or a key of
            ``SCORERS``, scored once at the init.
        loss: ``mse``, ``cross_entropy`` (two logits) or ``logistic`` (cross-entropy, one logit).
        width: Hidden units; P = 5·width + 1 with one output, 6·width + 2 with two.
        steps: Steps of gradient descent; of each round of ``imp``.
        lr: The learning rate.
        seed: Seed of the init, and of the scorers that draw.
        init: ``kaiming_normal`` (weights N(0, 2/fan_in), biases U(±1/√fan_in)) or ``uniform`` (both
            U(±1/√fan_in)).
        replacement: Whether an input can occur twice: 54,264 weighted data sets, or 1,792.
        return_details: Whether to return the masks, and the interval that near-ties allow, too.
        options: Options of the scorer, such as GraSP's ``temperature``.
        diverged: Whether training may diverge on some data sets; their masks are then left open, as
            those with a near-tie are.

    Returns:
        Bits for k = 0…P−1 pruned weights; or a ``ToyInformation``.

    Raises:
        ValueError: If a name or number is out of range, or P passes 62, the bits of a code word.
        NumericalError: If training diverges, and may not.

    Cost:
        1,000 steps of one training take about 10 s on a core; ``imp`` trains P − 1 times.

    Source:
        No Free Prune (arXiv 2402.01089), Fig. 4, which samples 32,000 data sets.

    Reference:
        ``reference_toy.py`` with ``reference_enumeration.py``: autograd and rationals, one at a time.

    Example:
        >>> bits = exact_mask_information("synflow_l2", steps=0, lr=0.1, seed=0)
        >>> len(bits), max(bits)  # looks at no data
        (21, 0.0)
        >>> bits = exact_mask_information("magnitude_after", steps=20, lr=0.1, seed=0,
        ...                               replacement=False)
        >>> bits[0], 0 < bits[8] < 10.9  # at most log2 1,792 = 10.8
        (0.0, True)
    """
    network = ToyNetwork(width=width, loss=loss)
    check_choice("method", method, [*TRAINED, *SCORERS])
    check_code_length(network.size)
    check_descent(steps, lr)
    start = initial_weights(network, seed, init)
    data = toy_data(replacement=replacement)
    found = toy_masks(
        method, data, network, start,
        steps=steps, lr=lr, seed=seed, options=options, diverged=diverged,
    )  # fmt: skip
    details = ToyInformation(network.size, by_pruned(found, data.law), found.codes, data.law)
    return details if return_details else details.bits
