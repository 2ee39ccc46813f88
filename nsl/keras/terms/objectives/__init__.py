"""What adversarial regularization can minimize: one class and one file for each."""

from nsl.keras.terms.objectives.labeled import LabeledLoss
from nsl.keras.terms.objectives.logit_pairing import LogitPairing
from nsl.keras.terms.objectives.mart import Mart
from nsl.keras.terms.objectives.objective import AdversarialObjective, AdversarialPasses
from nsl.keras.terms.objectives.output_pair import OutputPair
from nsl.keras.terms.objectives.trades import Trades
from nsl.keras.terms.objectives.virtual import VirtualAdversarial

__all__ = [
    "AdversarialObjective",
    "AdversarialPasses",
    "LabeledLoss",
    "LogitPairing",
    "Mart",
    "OutputPair",
    "Trades",
    "VirtualAdversarial",
]
