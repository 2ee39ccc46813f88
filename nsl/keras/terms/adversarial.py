"""A loss at the samples' adversarial neighbors."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from typing import Any

import attrs
import keras
import tensorflow as tf

from nsl.configs import AdvMode, AdvNeighborConfig, AdvObjective, AdvRegConfig, NormType
from nsl.keras.batches import perturbable
from nsl.keras.passes import CleanPass, Passes, PassOutputs, Point
from nsl.keras.replicas import replica_seed
from nsl.keras.schedules import at_step
from nsl.keras.terms.adversarial_objectives import (
    AdversarialObjective,
    AdversarialPasses,
)
from nsl.keras.terms.ascent_space import AscentSpace
from nsl.keras.terms.output_pair import output_pairs
from nsl.keras.terms.term import Term
from nsl.lib.adversarial_neighbor import (
    perturbation_box,
    projected_gradient_ascent,
)
from nsl.lib.features import is_perturbable
from nsl.lib.rows import joint_dtype

# Of a step: how far from a sample the divergence from it is first differentiated. At
# the sample itself its gradient is zero.
_PROBE = 0.01


class AdversarialTerm(Term):
    """A loss at the adversarial neighbor of each sample, by default the labeled one.

    The neighbor is found by gradient ascent on the labeled loss or, as the objective
    has it, on the divergence of the outputs. All gradients of the ascent are taken with
    `training=False` and leave no trace in the model's state, but for one: where the
    labeled loss is both climbed and minimized at samples and neighbors, the first is a
    by-product of the clean pass. With `mode='replace'` the neighbors go through the
    clean pass of a training step in the place of the samples.

    Args:
      config: Multiplier, objective and settings of the ascent.
      protected_keys: Features of these names are never perturbed.
      seed_generator: Gives the seeds of what is drawn; without it they are others each
        time.

    Raises:
      ValueError: If there is no objective of that name.
    """

    name = "adversarial"
    in_evaluation = True

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
        # Of a batch that is trained on several times: where its neighbors are now.
        self._climb: tuple[AscentSpace, Any] | None = None
        # What neighbors have replaced, where the objective is about samples.
        self._replaced: Any = None
        self.start_epoch = config.start_epoch
        self.needs_labels = not self._objective.climbs_divergence
        self._started: tf.Tensor | None = None
        self._active: tf.Tensor | None = None
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
        """Whether the ascent begins at random."""
        random_init = self.config.adv_neighbor_config.random_init
        return random_init or self._objective.climbs_divergence

    def at(self, step: Any, epoch: Any = None) -> AdversarialTerm:
        """Returns the term with the settings of a step.

        Before the start, and where a schedule gives a multiplier of 0, it makes no
        passes, unless `Passes.may_branch` forbids that.
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
        if not self._objective.bounds_outputs:
            return self._neighbors(passes, clean)
        self._replaced = clean.x
        term = copy.copy(self)
        # The multiplier is that of the bounds.
        term._active = self._started
        return term._neighbors(passes, clean)

    def prepare(self, passes: Passes, clean: CleanPass) -> Point:
        """Finds the adversarial neighbors, if the objective is about some."""
        if self._objective.bounds_outputs:
            return Point(clean.x if self._replaced is None else self._replaced, {})
        return self._neighbors(passes, clean)

    def perturb(
        self, passes: Passes, clean: CleanPass, config: AdvNeighborConfig
    ) -> Point:
        """Climbs from the samples of the clean pass.

        Args:
          passes: Runs the base model.
          clean: The clean pass, or what is known before it. Its input gradient is
            computed if it is not known.
          config: Settings of the ascent.

        Returns:
          The perturbed features, in the structure of `clean.x`, and what is added to
          the outputs of layers.
        """
        climbed = self._climbed(passes, clean)
        space = self._space(passes, clean, config)

        def gradient_fn(moved: Any) -> Any:
            gradients = passes.input_gradient(space.point(moved), clean, climbed)
            return space.gradients(*gradients)

        gradients, seed = None, None
        if config.random_init:
            seed = self._seed()
        elif climbed is not None:
            gradients = gradient_fn(_probe(space.start, space.config, self._seed()))
        elif clean.input_gradient is None and clean.layer_gradients is None:
            gradients = gradient_fn(space.start)
        else:
            gradients = space.gradients(clean.input_gradient, clean.layer_gradients)
        moved = projected_gradient_ascent(
            space.start,
            gradients,
            space.config,
            gradient_fn=gradient_fn,
            seed=seed,
            use_while_loop=True,
        )
        return space.point(moved)

    def loss(self, passes: Passes, clean: CleanPass, prepared: Any) -> tf.Tensor:
        """Computes the objective at the adversarial neighbors `prepared`."""
        labeled = clean.labeled_loss
        assert labeled is not None

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
            # The labeled loss may be one value a sample; other objectives are means.
            scalar = not self.needs_input_gradient
            return tf.zeros([] if scalar else tf.shape(labeled), labeled.dtype)

        return self._if_active(passes, objective, inactive)

    def _space(
        self, passes: Passes, clean: CleanPass, config: AdvNeighborConfig
    ) -> AscentSpace:
        tables = passes.tables() if config.clip_to_layer_range else {}
        centers = passes.centers(clean)
        return AscentSpace(config, clean.x, self._protected_keys, centers, tables)

    def _box(self, x: Any) -> tuple[Any, Any]:
        config = self.config.adv_neighbor_config
        space = AscentSpace(config, x, self._protected_keys, {}, {})
        lower, upper = perturbation_box(space.start, space.config)
        return space.point(lower).x, space.point(upper).x

    def _next_neighbors(self, passes: Passes, clean: CleanPass) -> Point:
        """Takes one step from where the weights were updated, by the same gradient."""
        if self._climb is None:
            config = self.config.adv_neighbor_config
            space = self._space(passes, clean, config)
            moved = space.start
            if config.random_init:
                moved = projected_gradient_ascent(
                    space.start,
                    None,
                    attrs.evolve(space.config, pgd_iterations=0),
                    gradient_fn=lambda _: None,
                    seed=self._seed(),
                )
        else:
            space, moved = self._climb
            moved = projected_gradient_ascent(
                space.start,
                space.gradients(clean.input_gradient, clean.layer_gradients),
                attrs.evolve(space.config, pgd_iterations=1),
                start=moved,
            )
        self._climb = space, moved
        return space.point(moved)

    def _neighbors(self, passes: Passes, clean: CleanPass) -> Point:
        config = self.config.adv_neighbor_config
        still = {
            name: [tf.zeros_like(center, joint_dtype([center])) for center in centers]
            for name, centers in passes.centers(clean).items()
        }
        point: Point = self._if_active(
            passes,
            lambda: self.perturb(passes, clean, config),
            lambda: Point(clean.x, still),
        )
        return point

    def _if_active(
        self,
        passes: Passes,
        active: Callable[[], Any],
        inactive: Callable[[], Any],
    ) -> Any:
        """Runs one of two functions, or both where a step must not branch."""
        if self._active is None:
            return active()
        if passes.may_branch:
            return tf.cond(self._active, active, inactive)
        return tf.nest.map_structure(
            lambda a, b: a if a is b else tf.where(self._active, a, b),
            active(),
            inactive(),
        )

    def _climbed(
        self, passes: Passes, clean: CleanPass
    ) -> Callable[[Any], tf.Tensor] | None:
        """Returns what the ascent climbs, a loss of outputs; None if the labeled."""
        if not self._objective.climbs_divergence:
            return None
        fixed = clean.y_pred
        if clean.training or fixed is None:
            # Dropout or batch statistics must not count as a divergence.
            fixed = passes.evaluate_samples(clean)
        if clean.y_pred is None:
            # Only after its first use does the compiled loss know of each output.
            passes.labeled_loss(clean.x, fixed, clean, training=False)
            clean.outputs = PassOutputs(fixed, {})

        def divergence_of(y_pred: Any) -> tf.Tensor:
            pairs = output_pairs(passes, clean, fixed, y_pred, self.config)
            return tf.add_n([tf.reduce_mean(pair.divergence()) for pair in pairs])

        return divergence_of

    def _seed(self) -> tf.Tensor:
        return replica_seed(self._seed_generator or keras.random.SeedGenerator())


def _probe(features: Any, config: AdvNeighborConfig, seed: tf.Tensor) -> Any:
    """Moves features a small way in a random direction that has all coordinates."""
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
