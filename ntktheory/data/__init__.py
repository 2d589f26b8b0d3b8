"""Data sets."""

from ntktheory.data.arrays import load_array
from ntktheory.data.digits import digits
from ntktheory.data.registry import DATA, load_data

__all__ = ["DATA", "digits", "load_array", "load_data"]
