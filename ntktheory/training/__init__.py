"""Training, for experiments on trained networks."""

from ntktheory.training.evaluate import accuracy
from ntktheory.training.loop import train

__all__ = ["accuracy", "train"]
