"""Data sets."""

from ntktheory.data.digits import digits

__all__ = ["digits"]
