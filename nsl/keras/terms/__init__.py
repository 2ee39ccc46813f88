"""The regularization terms that a `RegularizedModel` adds to its labeled loss."""

from nsl.keras.terms.adversarial import AdversarialTerm
from nsl.keras.terms.graph import GraphTerm
from nsl.keras.terms.graph_loss import GraphLoss, NeighborOutputs
from nsl.keras.terms.objectives import (
    AdversarialObjective,
    AdversarialPasses,
    OutputPair,
)
from nsl.keras.terms.term import CleanPass, Neighbors, PassOutputs, Term

__all__ = [
    "AdversarialObjective",
    "AdversarialPasses",
    "AdversarialTerm",
    "CleanPass",
    "GraphLoss",
    "GraphTerm",
    "NeighborOutputs",
    "Neighbors",
    "OutputPair",
    "PassOutputs",
    "Term",
]
