"""Path decomposition and the ladder of bounds on the trace of the NTK."""

from ntktheory.paths.bounds import PathBounds, path_bounds
from ntktheory.paths.mixed import mixed_gate_bounds, secant_gate_sum
from ntktheory.paths.path_kernel import path_kernel_rank, path_kernel_trace

__all__ = [
    "PathBounds",
    "mixed_gate_bounds",
    "path_bounds",
    "path_kernel_rank",
    "path_kernel_trace",
    "secant_gate_sum",
]
