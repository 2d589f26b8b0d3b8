"""Hypothesis profiles (named by HYPOTHESIS_PROFILE), its torch seeding, and threads."""

import os

import hypothesis
import torch


class TorchRandom:
    """Lets Hypothesis seed and restore torch's global generator around every example."""

    def seed(self, a: int) -> None:
        torch.manual_seed(a)

    def getstate(self) -> torch.Tensor:
        return torch.get_rng_state()

    def setstate(self, state: torch.Tensor) -> None:
        torch.set_rng_state(state)


# Hypothesis keeps only a weak reference.
TORCH_RANDOM = TorchRandom()
hypothesis.register_random(TORCH_RANDOM)

hypothesis.settings.register_profile("dev", max_examples=50, deadline=None)
hypothesis.settings.register_profile("ci", max_examples=50, deadline=None, derandomize=True)
hypothesis.settings.register_profile("deep", max_examples=5000, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)
