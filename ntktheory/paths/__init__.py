"""Path decomposition and the ladder of bounds on the trace of the NTK."""

from ntktheory.paths.bounds import PathBounds, path_bounds

__all__ = ["PathBounds", "path_bounds"]
