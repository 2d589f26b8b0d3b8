"""How well a classifier does."""

import torch
from torch import Tensor, nn

from ntktheory.functional import batch_size, take


def accuracy(model: nn.Module, inputs: Tensor, labels: Tensor, *, batch: int = 500) -> float:
    """Return the share of samples whose largest output is their label, in eval mode.

    The mode of every module is the same afterwards.

    Args:
        model: A classifier with outputs [N, C].
        inputs: N samples.
        labels: Their classes [N].
        batch: Samples at a time.

    Returns:
        A fraction between 0 and 1.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    hits = 0
    with torch.no_grad():
        for start in range(0, batch_size(inputs), batch):
            outputs = model(take(inputs, start, start + batch))
            hits += int((outputs.argmax(1) == labels[start : start + batch]).sum())
    for module, mode in modes.items():
        module.training = mode
    return hits / batch_size(inputs)
