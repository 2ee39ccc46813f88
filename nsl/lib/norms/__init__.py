"""Geometry of norm balls: steepest steps, projections and uniform samples.

Every function takes a structure of tensors whose first axis is the batch, and measures
all tensors of one example together: the norm is that of their concatenation. A new
norm is one new subclass of `Norm`, in a file of its own.
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
