"""Evaluation of robustness: robust accuracy, and checks of whether to trust it."""

from nsl.robustness.evaluate import evaluate_robustness
from nsl.robustness.gallery import GalleryExample
from nsl.robustness.report import (
    AttackResult,
    Finding,
    RobustnessReport,
    RobustnessWarning,
)
from nsl.robustness.tasks import ExactMatch, ShareRight, Within

__all__ = [
    "AttackResult",
    "ExactMatch",
    "Finding",
    "GalleryExample",
    "RobustnessReport",
    "RobustnessWarning",
    "ShareRight",
    "Within",
    "evaluate_robustness",
]
