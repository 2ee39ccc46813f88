"""Evaluation of robustness: accuracy under attack, and how far to believe it."""

from nsl.robustness.evaluate import evaluate_robustness
from nsl.robustness.findings import Finding, RobustnessWarning
from nsl.robustness.gallery import GalleryExample
from nsl.robustness.report import AttackResult, RobustnessReport
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
