"""Ranks within groups, such as the neighbors of each node."""

from typing import Any

import numpy as np
import numpy.typing as npt


def ranks_in_groups(groups: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Numbers the members of each group from 0, in order.

    Args:
      groups: The group of each member, of shape [members]; the members of a group are
        contiguous.

    Returns:
      The number of members of the same group before each member, shape [members].
    """
    starts = np.flatnonzero(np.append(True, groups[1:] != groups[:-1])[: len(groups)])
    sizes = np.diff(starts, append=len(groups))
    return np.arange(len(groups)) - np.repeat(starts, sizes)
