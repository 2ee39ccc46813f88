"""Geometry of norm balls: steepest-ascent steps, projections and uniform samples.

Every function takes a structure of tensors of shape [batch, ...] and uses the joint
norm of each example: the norm of all its tensors, concatenated. A new norm is a new
subclass of `Norm` in its own file.
"""

from nsl.lib.norms.infinity import Infinity
from nsl.lib.norms.l1 import L1
from nsl.lib.norms.l2 import L2
from nsl.lib.norms.norm import Norm
from nsl.lib.norms.structures import (
    maximize_within_unit_norm,
    normalize,
    project_to_ball,
    random_in_norm_ball,
)

__all__ = [
    "L1",
    "L2",
    "Infinity",
    "Norm",
    "maximize_within_unit_norm",
    "normalize",
    "project_to_ball",
    "random_in_norm_ball",
]
