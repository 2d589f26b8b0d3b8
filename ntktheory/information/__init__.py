"""Information that a mask carries about its data, and what follows from it (No Free Prune)."""

from ntktheory.information.effective_parameter_bounds import (
    effective_parameter_range,
    expected_class_bits,
)
from ntktheory.information.effective_parameters import effective_parameter_count
from ntktheory.information.generalisation import generalisation_gap_bound, samples_for_gap
from ntktheory.information.law_of_robustness import (
    robustness_from_information,
    robustness_lower_bound,
    samples_for_robustness,
)
from ntktheory.information.mutual_information_bounds import (
    averaged_tail_constant,
    deviation_bound,
    information_lower_bound_nats,
)

__all__ = [
    "averaged_tail_constant",
    "deviation_bound",
    "effective_parameter_count",
    "effective_parameter_range",
    "expected_class_bits",
    "generalisation_gap_bound",
    "information_lower_bound_nats",
    "robustness_from_information",
    "robustness_lower_bound",
    "samples_for_gap",
    "samples_for_robustness",
]
