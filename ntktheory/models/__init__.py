"""Network builders."""

from ntktheory.models.convnet import convnet
from ntktheory.models.imagenet_resnet import resnet18, resnet50
from ntktheory.models.mlp import mlp
from ntktheory.models.registry import MODELS, build_model
from ntktheory.models.resnet import cifar_resnet
from ntktheory.models.vgg import vgg

__all__ = [
    "MODELS",
    "build_model",
    "cifar_resnet",
    "convnet",
    "mlp",
    "resnet18",
    "resnet50",
    "vgg",
]
