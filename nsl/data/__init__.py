"""In-memory graphs, and datasets of samples with their neighbors."""

from nsl.data.graph import Graph
from nsl.data.neighbor_dataset import neighbor_dataset
from nsl.data.propagation import propagate
from nsl.data.sampling import Sampling

__all__ = ["Graph", "Sampling", "neighbor_dataset", "propagate"]
