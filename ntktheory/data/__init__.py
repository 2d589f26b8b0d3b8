"""Data sets."""

from ntktheory.data.arrays import load_array
from ntktheory.data.cifar import cifar10, cifar10_jpeg
from ntktheory.data.digits import digits
from ntktheory.data.download import download
from ntktheory.data.fashion_mnist import fashion_mnist
from ntktheory.data.image_folder import class_names, image_folder
from ntktheory.data.registry import DATA, load_data
from ntktheory.data.standardise import channel_statistics, standardise

__all__ = [
    "DATA",
    "channel_statistics",
    "cifar10",
    "cifar10_jpeg",
    "class_names",
    "digits",
    "download",
    "fashion_mnist",
    "image_folder",
    "load_array",
    "load_data",
    "standardise",
]
