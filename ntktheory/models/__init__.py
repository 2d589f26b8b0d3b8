"""Network builders."""

from ntktheory.models.convnet import convnet
from ntktheory.models.mlp import mlp
from ntktheory.models.registry import MODELS, build_model
from ntktheory.models.resnet import cifar_resnet

__all__ = ["MODELS", "build_model", "cifar_resnet", "convnet", "mlp"]
