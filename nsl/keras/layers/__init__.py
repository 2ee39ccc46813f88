"""Layers for custom graph regularization in functional models."""

from nsl.keras.layers.neighbor_features import (
    NeighborFeatures,
    make_missing_neighbor_inputs,
)
from nsl.keras.layers.pairwise_distance import PairwiseDistance

__all__ = ["NeighborFeatures", "PairwiseDistance", "make_missing_neighbor_inputs"]
