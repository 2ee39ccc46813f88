"""Functions on tensors: adversarial neighbors, norm balls, distances, neighbors."""

from nsl.lib.abstract_gen_neighbor import GenNeighbor
from nsl.lib.adversarial_neighbor import gen_adv_neighbor
from nsl.lib.feature_mask import apply_feature_mask
from nsl.lib.norms import (
    maximize_within_unit_norm,
    normalize,
    project_to_ball,
    random_in_norm_ball,
)

__all__ = [
    "GenNeighbor",
    "apply_feature_mask",
    "gen_adv_neighbor",
    "maximize_within_unit_norm",
    "normalize",
    "project_to_ball",
    "random_in_norm_ball",
]
