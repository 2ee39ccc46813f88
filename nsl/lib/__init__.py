"""Functions on tensors: adversarial neighbors, norm balls, distances, graph losses."""

from nsl.lib.abstract_gen_neighbor import GenNeighbor
from nsl.lib.adversarial_neighbor import gen_adv_neighbor
from nsl.lib.decay import decay_over_time
from nsl.lib.distances import (
    jensen_shannon_divergence,
    kl_divergence,
    pairwise_distance_wrapper,
)
from nsl.lib.feature_mask import apply_feature_mask
from nsl.lib.graph_losses import (
    neighbor_consistency_loss,
    neighbor_contrastive_loss,
    neighbor_mean_prediction,
)
from nsl.lib.interval_bounds import Interval, interval_bounds
from nsl.lib.neighbor_features import (
    replicate_embeddings,
    strip_neighbor_features,
    unpack_neighbor_features,
)
from nsl.lib.norms import (
    Norm,
    maximize_within_unit_norm,
    normalize,
    project_to_ball,
    random_in_norm_ball,
)
from nsl.lib.regularizer import adv_regularizer, virtual_adv_regularizer
from nsl.lib.targets import get_target_indices

__all__ = [
    "GenNeighbor",
    "Interval",
    "Norm",
    "adv_regularizer",
    "apply_feature_mask",
    "decay_over_time",
    "gen_adv_neighbor",
    "get_target_indices",
    "interval_bounds",
    "jensen_shannon_divergence",
    "kl_divergence",
    "maximize_within_unit_norm",
    "neighbor_consistency_loss",
    "neighbor_contrastive_loss",
    "neighbor_mean_prediction",
    "normalize",
    "pairwise_distance_wrapper",
    "project_to_ball",
    "random_in_norm_ball",
    "replicate_embeddings",
    "strip_neighbor_features",
    "unpack_neighbor_features",
    "virtual_adv_regularizer",
]
