"""Network builders."""

from ntktheory.models.convnet import convnet
from ntktheory.models.mlp import mlp

__all__ = ["convnet", "mlp"]
