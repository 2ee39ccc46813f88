"""Evaluation of robustness: accuracy under attack, and how far to believe it."""

from nsl.robustness.evaluate import evaluate_robustness
from nsl.robustness.findings import Finding, RobustnessWarning
from nsl.robustness.gallery import GalleryExample
from nsl.robustness.report import AttackResult, RobustnessReport

__all__ = [
    "AttackResult",
    "Finding",
    "GalleryExample",
    "RobustnessReport",
    "RobustnessWarning",
    "evaluate_robustness",
]
