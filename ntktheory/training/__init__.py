"""Training, for experiments on trained networks."""

from ntktheory.training.evaluate import accuracy
from ntktheory.training.imp import (
    iterative_magnitude_pruning,
    magnitude_after,
    training_on,
)
from ntktheory.training.loop import train
from ntktheory.training.packed import stack_models, train_packed

__all__ = [
    "accuracy",
    "iterative_magnitude_pruning",
    "magnitude_after",
    "stack_models",
    "train",
    "train_packed",
    "training_on",
]
