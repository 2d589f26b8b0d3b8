"""Information that a mask carries about its data, and what follows from it (No Free Prune)."""

from ntktheory.information.effective_parameters import effective_parameter_count

__all__ = ["effective_parameter_count"]
