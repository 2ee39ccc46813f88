"""Checks for known pitfalls of robustness evaluation, one function each.

A check returns None, or a `Finding` that says what was found and what to do. Thresholds
are given in the docstrings. Outputs have shape [examples, classes], gradients of the
loss [examples, coordinates], `correct` and `labels` [examples]. Most checks follow
Carlini et al. (2019), "On evaluating adversarial robustness",
https://arxiv.org/abs/1902.06705, and Athalye et al. (2018), "Obfuscated gradients give
a false sense of security", https://arxiv.org/abs/1802.00420.
"""

import sys
import types
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from nsl.attacks.model_adapter import ModelAdapter, are_probabilities
from nsl.robustness.report import Finding, RobustnessReport

_RANDOM_TOLERANCE = 1e-3
_BOUND_TOLERANCE = 1e-6
_ZERO_GRADIENT_SHARE = 0.05
_EXPLODING_CHANGE = 1e4
_BLACK_BOX_SHARE = 0.02
_BLACK_BOX_EXAMPLES = 2
_DEVIATIONS = 2.0


def wrong_kind_of_outputs(outputs: np.ndarray, from_logits: bool) -> Finding | None:
    """Warns if probabilities are treated as logits, or vice versa.

    Decided by `are_probabilities`. A single output per example in [0, 1] may be either.
    """
    probable = are_probabilities(outputs)
    if from_logits != probable or (from_logits and outputs.shape[1] == 1):
        return None
    sums = outputs.sum(axis=1)
    if from_logits:
        return Finding(
            "probabilities_as_logits",
            "The outputs are treated as logits (from_logits=True), but each row is "
            "non-negative and sums to 1: they are probabilities, and a second softmax "
            "masks gradients. Pass from_logits=False, or a model without softmax.",
        )
    return Finding(
        "logits_as_probabilities",
        "The outputs are treated as probabilities (from_logits=False), but they range "
        f"from {outputs.min():.4g} to {outputs.max():.4g} and their row sums from "
        f"{sums.min():.4g} to {sums.max():.4g}. Pass from_logits=True, or a "
        "model that ends in a softmax.",
    )


def guessed_outputs(guessed: bool, from_logits: bool) -> Finding | None:
    """Warns if the choice between logits and probabilities was a guess."""
    if not guessed:
        return None
    kind, other = ("logits", False) if from_logits else ("probabilities", True)
    return Finding(
        "guessed_outputs",
        f"The single output of each example is treated as {kind}, only because all "
        "that were checked lie in [0, 1]. If that is wrong, even the clean accuracy "
        f"is. Pass from_logits={from_logits} if it is right, from_logits={other} if "
        "not.",
    )


def are_saturated(logits: np.ndarray) -> np.ndarray:
    """Returns where probabilities, given as logarithms, round to 0 and 1.

    Only rounding errors are left of their gradients. A bool array of shape [examples].
    """
    return logits.max(axis=1) > -2 * np.finfo(logits.dtype).eps


def zero_gradients(gradients: np.ndarray) -> Finding | None:
    """Warns if the gradient of more than 5% of the examples is zero everywhere.

    White-box attacks then have no direction to follow. Causes are quantized inputs,
    saturated outputs and dead units.
    """
    share = float(np.mean(~np.any(gradients != 0.0, axis=1)))
    if share <= _ZERO_GRADIENT_SHARE:
        return None
    return Finding(
        "zero_gradients",
        f"The gradient of the loss is zero for {share:.1%} of the examples "
        f"(threshold {_ZERO_GRADIENT_SHARE:.0%}): white-box attacks cannot work on "
        "them, so their failure means nothing. Look for rounding, saturated outputs or "
        "hard thresholds in the model; rely on the black-box attack, or attack a "
        "smooth surrogate.",
    )


def exploding_gradients(gradients: np.ndarray, epsilon: float) -> Finding | None:
    """Warns if gradients are not finite or extremely large.

    Extremely large means that moving one coordinate by the largest epsilon would change
    the cross-entropy by more than 10,000.
    """
    infinite = ~np.all(np.isfinite(gradients), axis=1)
    large = np.max(np.abs(np.nan_to_num(gradients)), axis=1) * epsilon
    large = large > _EXPLODING_CHANGE
    if not np.any(infinite | large):
        return None
    return Finding(
        "exploding_gradients",
        f"The gradient of the loss is not finite for {np.mean(infinite):.1%} of the "
        "examples, and for "
        f"{np.mean(large & ~infinite):.1%} so large that moving one coordinate by "
        f"epsilon = {epsilon:g} would change the loss by more than "
        f"{_EXPLODING_CHANGE:g}. Such gradients mislead attacks. Look for divisions "
        "by nearly zero, roots and logarithms at zero, and very long recurrences.",
    )


def random_model(first: np.ndarray, second: np.ndarray) -> Finding | None:
    """Warns if two forward passes differ by more than 1e-3 of the largest output.

    Adversarial examples for one random draw may fail on the next, which is not
    robustness.
    """
    return _differ(
        "random_model",
        first,
        second,
        "Two forward passes over the same examples differ by {}: the model is random, "
        "and attacks fail that would succeed on the average of many passes. Disable "
        "the randomness, pass a model that averages over it, or use attacks='rand'.",
    )


def batch_dependent(first: np.ndarray, second: np.ndarray) -> Finding | None:
    """Warns if outputs change with the batch by more than 1e-3 of the largest output.

    An attack on one batch then says nothing about another.
    """
    return _differ(
        "batch_dependent",
        first,
        second,
        "The outputs for the same examples in different batches differ by {}: the "
        "prediction for an example depends on the rest of its batch. Look for batch "
        "statistics, such as BatchNormalization with training=True.",
    )


def optimizes(model: ModelAdapter, features: Any) -> Finding | None:
    """Warns if the model calls `tf.GradientTape.gradient` or `tf.gradients`.

    A model that optimizes at inference, such as by purifying its input, is not
    evaluated by attacks that follow its gradient: Croce et al. (2022),
    https://arxiv.org/abs/2202.13711.
    """
    watched = {tf.GradientTape.gradient.__code__, tf.gradients.__code__}
    found = []

    def profile(frame: types.FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code in watched:
            found.append(frame.f_code)

    before, eagerly = sys.getprofile(), tf.config.functions_run_eagerly()
    with model.state_kept():
        # Functions that are already traced would run no Python.
        tf.config.run_functions_eagerly(True)
        sys.setprofile(profile)
        try:
            model.call_uncounted(features)
        finally:
            sys.setprofile(before)
            tf.config.run_functions_eagerly(eagerly)
    if not found:
        return None
    return Finding(
        "optimizes",
        "The model computes gradients at inference. Standard attacks are known to "
        "overestimate such defenses: use an adaptive attack (Croce et al., 2022), and "
        "do not publish this result.",
    )


def inputs_out_of_bounds(excess: float, bounds: object) -> Finding | None:
    """Warns if examples lie outside the bounds by more than 1e-6.

    The bounds or epsilon may then be in other units than the examples.
    """
    if excess <= _BOUND_TOLERANCE:
        return None
    return Finding(
        "inputs_out_of_bounds",
        f"Examples lie up to {excess:.4g} outside bounds={bounds!r}. Specify bounds "
        "and epsilon in the units of the model's inputs.",
    )


def model_at_chance(correct: np.ndarray, labels: np.ndarray) -> Finding | None:
    """Warns if the model is hardly better than always predicting one label.

    This means a clean accuracy of at most 2 standard deviations above the share of the
    most frequent label, unless there is only one label or no error. Labels may be
    shuffled, or examples scaled differently than in training.
    """
    frequent = float(np.max(np.bincount(labels))) / len(labels)
    deviation = float(np.sqrt(frequent * (1.0 - frequent) / len(labels)))
    accuracy = float(np.mean(correct))
    if 1.0 in (frequent, accuracy) or accuracy > frequent + _DEVIATIONS * deviation:
        return None
    return Finding(
        "model_at_chance",
        f"The clean accuracy is {accuracy:.1%}, while always predicting the most "
        f"frequent label gives {frequent:.1%}. Check that the labels match the "
        "examples, and that the examples are scaled as in training.",
    )


def too_few_classes(num_classes: int, attacks: Sequence[str]) -> Finding | None:
    """Warns if attacks on the difference of logits ratio (DLR) had to be replaced.

    The ratio needs 3 classes, its targeted form 4: Croce and Hein (2020),
    https://arxiv.org/abs/2003.01690, equations 6 and 7.
    """
    if not attacks:
        return None
    return Finding(
        "too_few_classes",
        f"{', '.join(attacks)} needs at least 4 classes, but the model has "
        f"{num_classes}; the attack that replaced it is weaker if the loss saturates.",
    )


def certificate_broken(report: RobustnessReport) -> Finding | None:
    """Warns if an attack fooled the model on a certified example."""
    if report.certified is None:
        return None
    broken = report.certified & ~report.robust
    if not broken.any():
        return None
    return Finding(
        "certificate_broken",
        f"An attack succeeded on {broken.any(axis=0).sum()} examples that interval "
        "bounds certify as robust. The certificate relies on the interval_bounds of "
        "custom layers: check them. Trust the attack.",
    )


def black_box_beats_white_box(report: RobustnessReport) -> Finding | None:
    """Warns if a black-box attack succeeds where white-box attacks failed.

    An attack that uses gradients should beat one that does not, unless the gradients
    mislead. Found if, at some epsilon, this holds for more than 2% of the examples and
    for more than 2 examples, which may be chance. In a cascade, only attacks that ran
    before count.
    """
    worst = 0.0, "", 0.0
    robust = np.tile(report.correct, (len(report.epsilons), 1))
    white_box_ran = False
    white_boxes = [r.robust for r in report.results.values() if not r.black_box]
    if white_boxes and not report.cascade:
        robust = np.logical_and.reduce(white_boxes)
        white_box_ran = True
    for name, result in report.results.items():
        if result.black_box and white_box_ran:
            shares = np.mean(robust & ~result.robust, axis=1)
            at = int(np.argmax(shares))
            worst = max(worst, (float(shares[at]), name, report.epsilons[at]))
        white_box_ran |= not result.black_box
        if report.cascade:
            robust = robust & result.robust
    share, name, epsilon = worst
    if share <= max(_BLACK_BOX_SHARE, _BLACK_BOX_EXAMPLES / report.num_examples):
        return None
    return Finding(
        "black_box_beats_white_box",
        f"{name}, which uses only outputs, fools the model on {share:.1%} of the "
        f"examples at epsilon {epsilon:g} on which white-box attacks failed (threshold "
        f"{_BLACK_BOX_SHARE:.0%}). The gradients mislead (gradient masking), and the "
        "true robust accuracy is probably even lower. Find what breaks the gradients, "
        "or give the white-box attacks more steps and restarts.",
    )


def robust_at_huge_epsilon(
    accuracy: float, num_classes: int, epsilon: float
) -> Finding | None:
    """Warns if more than 1 / classes of the examples are robust at a huge radius.

    At a radius that reaches from any example to any other, a working attack brings the
    accuracy down to almost nothing.
    """
    if accuracy <= 1.0 / num_classes:
        return None
    return Finding(
        "robust_at_huge_epsilon",
        f"At epsilon = {epsilon:g}, where an example may become any other, "
        f"{accuracy:.1%} are still robust (chance is {1.0 / num_classes:.1%}). No "
        "model can be, so the attack does not work on this one.",
    )


def left_the_ball(name: str, share: float, epsilon: float) -> Finding | None:
    """Warns if an attack returned points outside the ball or the bounds.

    The tolerance is 1e-4 of the radius plus 1e-5.
    """
    if not share:
        return None
    return Finding(
        "left_the_ball",
        f"{share:.1%} of the points that {name} returned are outside the ball of "
        f"radius {epsilon:g}, outside the bounds, or not finite; these do not count as "
        "successes. The attack has a bug, or a different notion of epsilon.",
    )


def _differ(
    name: str, first: np.ndarray, second: np.ndarray, message: str
) -> Finding | None:
    scale = max(float(np.max(np.abs(first))), 1e-12)
    difference = float(np.max(np.abs(first - second))) / scale
    if not difference > _RANDOM_TOLERANCE:
        return None
    threshold = f"(threshold {_RANDOM_TOLERANCE:g})"
    return Finding(
        name, message.format(f"{difference:.2g} of the largest output {threshold}")
    )
