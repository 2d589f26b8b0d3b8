"""Information that a mask carries about its data, and what follows from it (No Free Prune)."""

from ntktheory.information.effective_parameter_bounds import (
    effective_parameter_range,
    expected_class_bits,
)
from ntktheory.information.effective_parameters import effective_parameter_count
from ntktheory.information.entropy import EntropyEstimate, entropy_estimate
from ntktheory.information.enumeration import (
    MaskInformation,
    information_over_inits,
    joint_information,
    mask_information,
)
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
from ntktheory.information.toy_information import ToyInformation, exact_mask_information

__all__ = [
    "EntropyEstimate",
    "MaskInformation",
    "ToyInformation",
    "averaged_tail_constant",
    "deviation_bound",
    "effective_parameter_count",
    "effective_parameter_range",
    "entropy_estimate",
    "exact_mask_information",
    "expected_class_bits",
    "generalisation_gap_bound",
    "information_lower_bound_nats",
    "information_over_inits",
    "joint_information",
    "mask_information",
    "robustness_from_information",
    "robustness_lower_bound",
    "samples_for_gap",
    "samples_for_robustness",
]
