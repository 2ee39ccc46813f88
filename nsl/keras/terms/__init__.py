"""Regularization terms of a `RegularizedModel`."""

from nsl.keras.terms.adversarial import AdversarialTerm
from nsl.keras.terms.adversarial_objectives import (
    AdversarialObjective,
    AdversarialPasses,
)
from nsl.keras.terms.graph import GraphTerm
from nsl.keras.terms.graph_losses import GraphLoss, NeighborOutputs
from nsl.keras.terms.output_pair import OutputPair
from nsl.keras.terms.term import Term

__all__ = [
    "AdversarialObjective",
    "AdversarialPasses",
    "AdversarialTerm",
    "GraphLoss",
    "GraphTerm",
    "NeighborOutputs",
    "OutputPair",
    "Term",
]
