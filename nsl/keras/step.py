"""What a step minimizes: the losses of samples and terms, and their gradients."""

from __future__ import annotations

import contextlib
from typing import Any

import tensorflow as tf

from nsl.keras.passes import CleanPass, Passes
from nsl.keras.terms.term import Term


class StepLosses:
    """The losses of a step.

    Attributes:
      all: All that are minimized.
      of_terms: Those of terms, by name.
      prepared: What terms prepared for theirs, by name.

    Args:
      prepared: What was prepared before, if losses are computed again.
    """

    def __init__(self, prepared: dict[str, Any] | None = None) -> None:
        self.all: list[tf.Tensor] = []
        self.of_terms: dict[str, tf.Tensor] = {}
        self.prepared = {} if prepared is None else prepared

    def add(
        self,
        term: Term,
        passes: Passes,
        clean: CleanPass,
        tape: tf.GradientTape | None = None,
    ) -> tf.Tensor:
        """Computes the loss of a term, times its multiplier."""
        if term.replaces_samples and clean.training:
            loss = clean.labeled_loss
        else:
            if term.name not in self.prepared:
                with tape.stop_recording() if tape else contextlib.nullcontext():
                    self.prepared[term.name] = term.prepare(passes, clean)
            prepared = self.prepared[term.name]
            loss = term.multiplier * term.loss(passes, clean, prepared)
        self.all.append(loss)
        self.of_terms[term.name] = loss
        return loss


def summed_gradients(left: list[Any], right: list[Any]) -> list[Any]:
    """Adds gradients of the same variables; None counts as zero.

    The sums of two `tf.IndexedSlices`, as of embeddings, stay sparse.
    """
    total = []
    for a, b in zip(left, right, strict=True):
        if a is None or b is None:
            total.append(b if a is None else a)
        elif isinstance(a, tf.IndexedSlices) and isinstance(b, tf.IndexedSlices):
            values = tf.concat([a.values, b.values], 0)
            indices = tf.concat([a.indices, b.indices], 0)
            total.append(tf.IndexedSlices(values, indices, a.dense_shape))
        else:
            total.append(tf.convert_to_tensor(a) + tf.convert_to_tensor(b))
    return total
