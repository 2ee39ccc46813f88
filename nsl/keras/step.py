"""One step: the losses of a batch, and their gradients."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from nsl.keras.clean_pass import CleanPass
from nsl.keras.passes import Passes
from nsl.keras.terms.term import Term


class Step:
    """Runs the passes of one batch and collects their losses.

    Attributes:
      losses: All losses whose sum is minimized.
      term_losses: By term name, the loss of each term times its multiplier.
      prepared: By term name, what `Term.prepare` returned.

    Args:
      terms: The terms that take part.
      passes: Runs the base model.
      clean: The samples. Receives the results of the clean pass.
      prepared: The `prepared` of an earlier step with the same batch, to reuse.
    """

    def __init__(
        self,
        terms: Sequence[Term],
        passes: Passes,
        clean: CleanPass,
        prepared: dict[str, Any] | None = None,
    ) -> None:
        self._terms = terms
        self._passes = passes
        self._clean = clean
        self.losses: list[tf.Tensor] = []
        self.term_losses: dict[str, tf.Tensor] = {}
        self.prepared = {} if prepared is None else prepared

    def gradients(self, perturbed: list[tf.Tensor] | None = None) -> list[Any]:
        """Runs all passes of a training step and differentiates the sum of losses.

        Args:
          perturbed: Values that replace the trainable weights, to differentiate with
            respect to. The adversarial neighbors are then those in `prepared`.

        Returns:
          The gradient of each trainable weight, or None, scaled as the optimizer
          expects it.
        """
        passes, clean = self._passes, self._clean
        attacked = not perturbed and any(t.needs_input_gradient for t in self._terms)
        # The loss that is attacked comes first, here that of a term that replaces the
        # samples. Terms that need its gradient come after all others.
        terms = sorted(self._terms, key=lambda term: not term.replaces_samples)
        after = [t for t in terms if t.needs_input_gradient and not t.replaces_samples]
        with tf.GradientTape(persistent=attacked) as tape:
            tape.watch(perturbed or [])
            passes.run_samples(clean, tape if attacked else None)
            own = passes.own_losses()
            if not any(term.replaces_labeled_loss for term in terms):
                self.losses.append(clean.labeled_loss)
            for term in terms:
                if term not in after:
                    self.add(term, tape)
            self.losses += own
            targets = [passes.scaled(loss) for loss in self.losses]
        # The clean pass may have built the model.
        weights = perturbed or passes.trainable_weights
        if attacked:
            # One backward pass yields the gradients for the weights and the attack,
            # which maximizes the labeled loss alone.
            found: Any = tape.gradient(
                targets[0], (weights, passes.attacked_inputs(clean))
            )
            gradients, of_inputs = found
            passes.set_gradients(clean, of_inputs)
            if targets[1:]:
                gradients = _sum_gradients(
                    gradients, tape.gradient(targets[1:], weights)
                )
        else:
            gradients = tape.gradient(targets, weights)
        del tape
        for term in after:
            with tf.GradientTape() as tape:
                tape.watch(perturbed or [])
                target = passes.scaled(self.add(term, tape))
            gradients = _sum_gradients(gradients, tape.gradient(target, weights))
        return gradients

    def run_samples(self, attacked: bool) -> None:
        """Runs the clean pass, without gradients for the weights.

        Args:
          attacked: Whether terms use the gradient of the labeled loss.
        """
        passes, clean = self._passes, self._clean
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            passes.run_samples(clean, tape if attacked else None)
            target: Any = passes.scaled(clean.labeled_loss) if attacked else None
        if attacked:
            of_inputs: Any = tape.gradient(target, passes.attacked_inputs(clean))
            passes.set_gradients(clean, of_inputs)

    def evaluate(self) -> None:
        """Runs all passes of an evaluation step."""
        passes, clean = self._passes, self._clean
        self.run_samples(attacked=bool(self._terms))
        self.losses += [clean.labeled_loss, *passes.own_losses()]
        if any(term.replaces_labeled_loss for term in self._terms):
            # What remains is what an overridden compute_loss adds to the labeled loss.
            self.losses[0] -= passes.labeled_loss(clean.x, clean.y_pred, clean)
        self.add_terms()

    def add_terms(self) -> None:
        """Computes the losses of all terms."""
        for term in self._terms:
            self.add(term)

    def add(self, term: Term, tape: tf.GradientTape | None = None) -> tf.Tensor:
        """Computes the loss of a term times its multiplier.

        Args:
          term: The term.
          tape: The tape that records the loss, but not the work of `Term.prepare`.

        Returns:
          The loss, which is added to `losses` and `term_losses`.
        """
        passes, clean = self._passes, self._clean
        if term.replaces_samples and clean.training:
            loss = clean.labeled_loss
        else:
            if term.name not in self.prepared:
                with tape.stop_recording() if tape else contextlib.nullcontext():
                    self.prepared[term.name] = term.prepare(passes, clean)
            prepared = self.prepared[term.name]
            loss = term.multiplier * term.loss(passes, clean, prepared)
        self.losses.append(loss)
        self.term_losses[term.name] = loss
        return loss


def _sum_gradients(left: list[Any], right: list[Any]) -> list[Any]:
    """Adds gradients of the same variables. None counts as zero.

    The sum of two `tf.IndexedSlices`, such as those of embeddings, stays sparse.
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
