"""The adversarial loss as a term."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from contextlib import nullcontext
from typing import Any

import attrs
import keras
import tensorflow as tf

from nsl.configs import AdvMode, AdvNeighborConfig, AdvObjective, AdvRegConfig, NormType
from nsl.keras.batches import perturbable
from nsl.keras.clean_pass import CleanPass, PassOutputs, Point
from nsl.keras.passes import Passes
from nsl.keras.replicas import replica_seed
from nsl.keras.schedules import at_step
from nsl.keras.terms.adversarial_objectives import (
    AdversarialObjective,
    AdversarialPasses,
)
from nsl.keras.terms.ascent_space import AscentSpace
from nsl.keras.terms.output_pair import output_pairs
from nsl.keras.terms.term import Term
from nsl.lib.adversarial_neighbor import perturbation_box, projected_gradient_ascent
from nsl.lib.features import is_perturbable
from nsl.lib.rows import joint_dtype

# The divergence from a sample has gradient 0 at the sample itself. Its first gradient
# is taken at this distance, in units of the step size.
_PROBE = 0.01


class AdversarialTerm(Term):
    """A loss at the adversarial neighbor of each sample, by default the labeled loss.

    Gradient ascent on the labeled loss, or on the divergence of the outputs if the
    objective says so, finds the neighbors. Its passes run with `training=False` and
    change no state. One pass is saved if the samples' labeled loss is both minimized
    and attacked: the first gradient of the ascent then comes from the clean pass. With
    `mode='replace'`, the neighbors replace the samples in the clean pass of a training
    step.

    Args:
      config: The multiplier, the objective and the settings of the attack.
      protected_keys: Names of features that are never perturbed.
      seed_generator: The generator of seeds for random starts. With None, seeds differ
        from call to call.

    Raises:
      ValueError: If the objective is not registered.
    """

    name = "adversarial"
    in_evaluation = True
    needs_loss = True

    def __init__(
        self,
        config: AdvRegConfig,
        protected_keys: Collection[str | None] = (),
        seed_generator: keras.random.SeedGenerator | None = None,
    ) -> None:
        self._objective = AdversarialObjective.of(config.objective)
        self.config = config
        bounds = self._objective.bounds_outputs
        self.replaces_samples = config.mode is not AdvMode.ADD and not bounds
        self.replaces_labeled_loss = (
            self.replaces_samples or self._objective.replaces_labeled_loss
        )
        self.multiplier: Any = 1.0 if self.replaces_labeled_loss else config.multiplier
        self.weight_perturbation = config.weight_perturbation
        if config.mode is AdvMode.FREE:
            self.updates = config.adv_neighbor_config.pgd_iterations
        self.start_epoch = config.start_epoch
        self.needs_labels = not self._objective.climbs_divergence
        # Set by `at` for one step: whether the start epoch is reached, and whether the
        # multiplier is positive as well. None for terms that are always active.
        self._started: tf.Tensor | None = None
        self._active: tf.Tensor | None = None
        # In free training, the neighbors of the last update with the current batch.
        self._ascent: tuple[AscentSpace, Any] | None = None
        self.needs_input_gradient = (
            config.objective is AdvObjective.LABELED
            and config.mode is not AdvMode.REPLACE
        )
        neighbor = config.adv_neighbor_config
        layers = neighbor.embedding_layer or ()
        self.perturbed_layers = (layers,) if isinstance(layers, str) else layers
        self.perturbs_features = not layers or neighbor.perturb_features
        self._protected_keys = frozenset(protected_keys)
        self._seed_generator = seed_generator

    @property
    def draws(self) -> bool:
        """Whether the ascent starts from a random point."""
        random_init = self.config.adv_neighbor_config.random_init
        return random_init or self._objective.climbs_divergence

    @property
    def update_setting(self) -> str | None:
        """The setting that changes how weights are updated; None for plain updates."""
        free = self.config.mode is AdvMode.FREE
        return "mode='free'" if free else super().update_setting

    def at(self, step: Any, epoch: Any = None) -> AdversarialTerm:
        """Resolves schedules and the start epoch for one step.

        Before the start epoch, and while a scheduled multiplier is 0, the term makes no
        passes if `Passes.can_branch`.
        """
        term = copy.copy(self)
        term.config = at_step(self.config, step)
        term.weight_perturbation = term.config.weight_perturbation
        if not self.replaces_labeled_loss:
            term.multiplier = term.config.multiplier
            if callable(self.config.multiplier):
                term._active = term.multiplier > 0
        if epoch is not None and self.start_epoch:
            term._started = started = epoch >= self.start_epoch
            term._active = started if term._active is None else started & term._active
            if term.perturbs_weights:
                term.weight_perturbation *= tf.cast(started, tf.float32)
        return term

    def samples(self, passes: Passes, clean: CleanPass) -> Point:
        """Returns the adversarial neighbors if they replace the samples."""
        if self.config.mode is AdvMode.ADD:
            return super().samples(passes, clean)
        if self.config.mode is AdvMode.FREE:
            return self._next_neighbors(passes, clean)
        return self._neighbors(passes, clean, self._started)

    def prepare(self, passes: Passes, clean: CleanPass) -> Point:
        """Finds the adversarial neighbors; for interval bounds returns the samples."""
        if self._objective.bounds_outputs:
            return Point(clean.samples, {})
        return self._neighbors(passes, clean, self._active)

    def perturb(
        self, passes: Passes, clean: CleanPass, config: AdvNeighborConfig
    ) -> Point:
        """Finds the adversarial neighbors of the samples.

        Args:
          passes: Runs the base model.
          clean: The samples, before or after their clean pass. Its input gradient, if
            known, is the first gradient of the ascent.
          config: The settings of the ascent.

        Returns:
          The perturbed features, in the structure of `clean.x`, and the perturbations
          of layers.
        """
        divergence = self._divergence(passes, clean)
        space = self._space(passes, clean, config)

        def gradient_fn(coordinates: Any) -> Any:
            point = space.point(coordinates)
            gradients = passes.input_gradient(point, clean, divergence)
            return space.gradients(*gradients)

        gradients, seed = None, None
        several = config.pgd_iterations > 1
        with passes.sharing_side_branches(clean) if several else nullcontext():
            if config.random_init:
                seed = self._seed()
            elif divergence is not None:
                gradients = gradient_fn(_probe(space.start, space.config, self._seed()))
            elif clean.input_gradient is None and clean.layer_gradients is None:
                gradients = gradient_fn(space.start)
            else:
                gradients = space.gradients(clean.input_gradient, clean.layer_gradients)
            coordinates = projected_gradient_ascent(
                space.start,
                gradients,
                space.config,
                gradient_fn=gradient_fn,
                seed=seed,
                use_while_loop=True,
            )
        return space.point(coordinates)

    def loss(self, passes: Passes, clean: CleanPass, prepared: Any) -> tf.Tensor:
        """Computes the objective at the adversarial neighbors."""
        labeled = clean.labeled_loss

        def objective() -> tf.Tensor:
            if self._objective.bounds_outputs:
                box = self._box(prepared.x)
                y_pred = passes.worst_outputs(*box, clean)
            else:
                y_pred = passes.run_perturbed(prepared, clean)
            pair = AdversarialPasses(passes, clean, prepared.x, y_pred, self.config)
            return tf.cast(self._objective(pair, self.config), labeled.dtype)

        def inactive() -> tf.Tensor:
            if self.replaces_labeled_loss:
                return labeled
            # The labeled loss may have one value per sample; other objectives are
            # scalars.
            scalar = not self.needs_input_gradient
            return tf.zeros([] if scalar else tf.shape(labeled), labeled.dtype)

        return _run_if(self._active, passes, objective, inactive)

    def _space(
        self, passes: Passes, clean: CleanPass, config: AdvNeighborConfig
    ) -> AscentSpace:
        tables = passes.tables() if config.clip_to_layer_range else {}
        centers = passes.centers(clean)
        return AscentSpace(config, clean.x, self._protected_keys, centers, tables)

    def _box(self, x: Any) -> tuple[Any, Any]:
        """Returns the lower and upper bounds of the features within the ball."""
        config = self.config.adv_neighbor_config
        space = AscentSpace(config, x, self._protected_keys, {}, {})
        lower, upper = perturbation_box(space.start, space.config)
        return space.point(lower).x, space.point(upper).x

    def _next_neighbors(self, passes: Passes, clean: CleanPass) -> Point:
        """Takes one step of free training, by the gradient of the last update."""
        if self._ascent is None:
            config = self.config.adv_neighbor_config
            space = self._space(passes, clean, config)
            coordinates = space.start
            if config.random_init:
                coordinates = projected_gradient_ascent(
                    space.start,
                    None,
                    attrs.evolve(space.config, pgd_iterations=0),
                    gradient_fn=lambda _: None,
                    seed=self._seed(),
                )
        else:
            space, coordinates = self._ascent
            coordinates = projected_gradient_ascent(
                space.start,
                space.gradients(clean.input_gradient, clean.layer_gradients),
                attrs.evolve(space.config, pgd_iterations=1),
                start=coordinates,
            )
        self._ascent = space, coordinates
        return space.point(coordinates)

    def _neighbors(
        self, passes: Passes, clean: CleanPass, active: tf.Tensor | None
    ) -> Point:
        """Finds the adversarial neighbors, or returns the samples if not active."""
        config = self.config.adv_neighbor_config
        zeros = {
            name: [tf.zeros_like(center, joint_dtype([center])) for center in centers]
            for name, centers in passes.centers(clean).items()
        }
        point: Point = _run_if(
            active,
            passes,
            lambda: self.perturb(passes, clean, config),
            lambda: Point(clean.x, zeros),
        )
        return point

    def _divergence(
        self, passes: Passes, clean: CleanPass
    ) -> Callable[[Any], tf.Tensor] | None:
        """Returns the divergence from the samples as a loss of outputs.

        None if the attack maximizes the labeled loss.
        """
        if not self._objective.climbs_divergence:
            return None
        fixed = clean.y_pred
        if clean.training or fixed is None:
            # Dropout and batch statistics would add to the divergence.
            fixed = passes.evaluate_samples(clean)
        if clean.y_pred is None:
            # The first call of the compiled loss assigns losses to outputs.
            passes.labeled_loss(clean.x, fixed, clean, training=False)
            clean.outputs = PassOutputs(fixed, {})

        def divergence_of(y_pred: Any) -> tf.Tensor:
            pairs = output_pairs(passes, clean, fixed, y_pred, self.config)
            return tf.add_n([tf.reduce_mean(pair.divergence()) for pair in pairs])

        return divergence_of

    def _seed(self) -> tf.Tensor:
        return replica_seed(self._seed_generator or keras.random.SeedGenerator())


def _run_if(
    condition: tf.Tensor | None,
    passes: Passes,
    active: Callable[[], Any],
    inactive: Callable[[], Any],
) -> Any:
    """Runs one of two functions, or both and selects if the step cannot branch.

    A condition of None counts as true.
    """
    if condition is None:
        return active()
    if passes.can_branch:
        return tf.cond(condition, active, inactive)
    return tf.nest.map_structure(
        lambda a, b: a if a is b else tf.where(condition, a, b), active(), inactive()
    )


def _probe(features: Any, config: AdvNeighborConfig, seed: tf.Tensor) -> Any:
    """Takes a small step in a random direction in which no coordinate is zero."""
    signs = config.adv_grad_norm is NormType.INFINITY
    small = attrs.evolve(
        config,
        pgd_iterations=1,
        adv_grad_norm=NormType.INFINITY if signs else NormType.L2,
        adv_step_size=keras.tree.map_structure(
            lambda step: None if step is None else _PROBE * step, config.adv_step_size
        ),
    )
    seeds = iter(tf.unstack(tf.random.split(seed, max(1, len(perturbable(features))))))
    noise = tf.nest.map_structure(
        lambda f: (
            tf.random.stateless_normal(tf.shape(f), next(seeds))
            if is_perturbable(f)
            else None
        ),
        features,
    )
    return projected_gradient_ascent(features, noise, small)
