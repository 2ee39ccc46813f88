"""Attacks: searches for adversarial examples."""

from nsl.attacks.attack import Attack, FixedRadius, MinimumNorm, State
from nsl.attacks.autopgd import AutoPGD
from nsl.attacks.fab import FAB
from nsl.attacks.fgsm import FGSM
from nsl.attacks.hopskipjump import HopSkipJump
from nsl.attacks.mifgsm import MIFGSM
from nsl.attacks.pgd import PGD
from nsl.attacks.problem import Problem
from nsl.attacks.square import Square
from nsl.attacks.substitution import Substitution, SubstitutionReport

__all__ = [
    "FAB",
    "FGSM",
    "MIFGSM",
    "PGD",
    "Attack",
    "AutoPGD",
    "FixedRadius",
    "HopSkipJump",
    "MinimumNorm",
    "Problem",
    "Square",
    "State",
    "Substitution",
    "SubstitutionReport",
]
