"""Typed settings of every part of nsl."""

from nsl.configs.adversarial import (
    DEFAULT_ADVERSARIAL_PARAMS,
    AdvMode,
    AdvNeighborConfig,
    AdvObjective,
    AdvRegConfig,
    AdvTargetConfig,
    AdvTargetType,
    NormType,
    VirtualAdvConfig,
    make_adv_reg_config,
)
from nsl.configs.decay import DecayConfig, DecayType
from nsl.configs.distance import (
    DEFAULT_DISTANCE_PARAMS,
    DistanceConfig,
    DistanceType,
    TransformType,
)
from nsl.configs.graph import (
    GraphNeighborConfig,
    GraphObjective,
    GraphRegConfig,
    make_graph_reg_config,
)
from nsl.configs.graph_builder import GraphBuilderConfig, SearchIndex
from nsl.configs.integration import IntegrationConfig, IntegrationType

__all__ = [
    "DEFAULT_ADVERSARIAL_PARAMS",
    "DEFAULT_DISTANCE_PARAMS",
    "AdvMode",
    "AdvNeighborConfig",
    "AdvObjective",
    "AdvRegConfig",
    "AdvTargetConfig",
    "AdvTargetType",
    "DecayConfig",
    "DecayType",
    "DistanceConfig",
    "DistanceType",
    "GraphBuilderConfig",
    "GraphNeighborConfig",
    "GraphObjective",
    "GraphRegConfig",
    "IntegrationConfig",
    "IntegrationType",
    "NormType",
    "SearchIndex",
    "TransformType",
    "VirtualAdvConfig",
    "make_adv_reg_config",
    "make_graph_reg_config",
]
