"""Settings of adversarial neighbors and adversarial regularization."""

import numbers
from collections.abc import Sequence
from typing import Any

import attrs

from nsl.configs import fields
from nsl.configs.choice import Choice
from nsl.configs.distance import DistanceConfig


class NormType(Choice):
    """The norm that measures a perturbation."""

    L1 = "l1"
    L2 = "l2"
    INFINITY = "infinity"


# Settings of `AdvNeighborConfig` that require `embedding_layer`.
_OF_LAYERS = ("perturb_features", "standardize_layers", "clip_to_layer_range")


def _to_names(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@attrs.define
class AdvNeighborConfig:
    """How to find the adversarial neighbor of a sample.

    `feature_mask`, the two clip values, the step size and the radius may each be a
    number, an array, or a structure of them keyed by feature. A feature without an
    entry is not masked or not bounded. In the wrappers of `nsl.keras`, step size and
    radius may also be schedules: callables from the number of optimizer updates to the
    value, such as those in `keras.optimizers.schedules`.

    One step is the fast gradient (sign) method of Goodfellow et al. (2015,
    https://arxiv.org/abs/1412.6572); several steps are projected gradient ascent as in
    Madry et al. (2018, https://arxiv.org/abs/1706.06083).

    Attributes:
      feature_mask: Factors in [0, 1] of the gradient, broadcastable to the features.
        None masks nothing.
      adv_step_size: The norm of each step.
      adv_grad_norm: The norm of the steps and of the ball, a `NormType` or its value.
      clip_value_min: The lower bound of the perturbed features. None or minus infinity
        sets no bound.
      clip_value_max: The upper bound of the perturbed features. None or infinity sets
        no bound.
      pgd_iterations: The number of ascent steps. With 0, a random start is returned as
        it is; without a random start, one step is taken, as in NSL 1.4.
      pgd_epsilon: The radius of the ball around the original features. None or infinity
        sets no bound.
      random_init: Whether to start at a random point of that ball instead of at the
        features. If `pgd_epsilon` is None, the radius of the start is `adv_step_size`.
      random_init_radius: The radius of random starts, if it differs from the above. One
        step of norm epsilon from a start within radius 2 epsilon, without
        `pgd_epsilon`, is N-FGSM (de Jorge et al., 2022,
        https://arxiv.org/abs/2202.01181); see `nsl.keras.presets.fast`.
      embedding_layer: The name of a layer, or several, whose outputs to perturb instead
        of the features. Layers may be nested in other models; if a name is ambiguous,
        prefix it with the nested model's, as in 'query_tower/embedding'. This perturbs
        models of token ids, strings or categories, which have no gradient (Miyato et
        al., 2017, https://arxiv.org/abs/1605.07725). The outputs must be dense floats
        of shape [batch, ...], or one-hot, multi-hot or count encodings. If a layer
        returns several rows per sample, such as one per sentence, each row has its own
        norm. Values per feature are then keyed by layer name. Padding, which the layer
        masks or a feature 'padding_mask' marks with 0, as in keras-hub, is not
        perturbed and does not count in the norm.
      perturb_features: Whether to perturb the features as well as the outputs of
        `embedding_layer`, in one joint norm.
      norm_per_position: Whether each position of a feature or output of shape
        [batch, ..., d], such as each token of a text, has its own norm and ball.
        Otherwise all positions of a sample have one joint norm.
      standardize_layers: Whether step size, radius and clip values of `embedding_layer`
        are in units of the standard deviation of its outputs, and clip values relative
        to their mean. Both are computed for each coordinate of the last axis, over all
        positions of the batch. The same settings then fit embeddings of any scale, and
        a model cannot evade the perturbation by growing its embeddings.
      clip_to_layer_range: Whether to clip perturbed outputs of `embedding_layer` to the
        range of each coordinate of the last axis: over all entries of an `Embedding`
        layer, 0 to 1 for one-hot and multi-hot encodings, over all positions of the
        batch for other layers.

    Raises:
      TypeError: If a value has the wrong type.
      ValueError: If a value is out of range, or settings contradict each other.
    """

    feature_mask: Any = attrs.field(
        default=None, validator=fields.per_feature(0, 1), eq=fields.comparable
    )
    adv_step_size: Any = attrs.field(
        default=0.001, validator=fields.per_feature(0), eq=fields.comparable
    )
    adv_grad_norm: NormType = attrs.field(default=NormType.L2, converter=NormType)
    clip_value_min: Any = attrs.field(
        default=None,
        validator=fields.per_feature(infinite=True),
        eq=fields.comparable,
    )
    clip_value_max: Any = attrs.field(
        default=None,
        validator=fields.per_feature(infinite=True),
        eq=fields.comparable,
    )
    pgd_iterations: int = attrs.field(default=1, validator=fields.integer(0))
    pgd_epsilon: Any = attrs.field(
        default=None,
        validator=fields.per_feature(0, infinite=True),
        eq=fields.comparable,
    )
    random_init: bool = attrs.field(default=False)
    random_init_radius: Any = attrs.field(
        default=None, validator=fields.per_feature(0), eq=fields.comparable
    )
    embedding_layer: str | tuple[str, ...] | None = attrs.field(
        default=None, converter=_to_names, validator=fields.names
    )
    perturb_features: bool = attrs.field(
        default=False, validator=fields.instance_of(bool)
    )
    norm_per_position: bool = attrs.field(
        default=False, validator=fields.instance_of(bool)
    )
    standardize_layers: bool = attrs.field(
        default=False, validator=fields.instance_of(bool)
    )
    clip_to_layer_range: bool = attrs.field(
        default=False, validator=fields.instance_of(bool)
    )

    def __attrs_post_init__(self) -> None:
        if not self.embedding_layer:
            for name in _OF_LAYERS:
                if getattr(self, name):
                    raise ValueError(
                        f"AdvNeighborConfig({name}=True) applies to the outputs of "
                        "embedding_layer, but received embedding_layer="
                        f"{self.embedding_layer!r}. Name a layer, or omit {name}."
                    )
        if self.random_init_radius is not None and not self.random_init:
            raise ValueError(
                "AdvNeighborConfig.random_init_radius is the radius of random starts, "
                f"but received {self.random_init_radius!r} and random_init=False. Set "
                "random_init=True, or omit the radius."
            )
        low, high = self.clip_value_min, self.clip_value_max
        plain = isinstance(low, numbers.Real) and isinstance(high, numbers.Real)
        if plain and low > high:
            raise ValueError(
                "AdvNeighborConfig.clip_value_min must not exceed clip_value_max, but "
                f"received {low!r} and {high!r}."
            )


class AdvMode(Choice):
    """How adversarial training uses the labeled loss at the clean samples.

    Attributes:
      ADD: Adds the adversarial loss to it (Goodfellow et al., 2015,
        https://arxiv.org/abs/1412.6572).
      REPLACE: Replaces it by the adversarial loss (Madry et al., 2018,
        https://arxiv.org/abs/1706.06083).
      FREE: Replaces it, and updates the weights after each ascent step, from the same
        backward pass (Shafahi et al., 2019, https://arxiv.org/abs/1904.12843).
    """

    ADD = "add"
    REPLACE = "replace"
    FREE = "free"


class AdvObjective(Choice):
    """The loss to minimize at the adversarial neighbors.

    Attributes:
      LABELED: The labeled loss.
      TRADES: The divergence between the predictions at the neighbors and at the samples
        (Zhang et al., 2019, https://arxiv.org/abs/1901.08573).
      MART: A crossentropy with a margin, plus the divergence weighted by the
        probability of misclassification (Wang et al., 2020,
        https://openreview.net/forum?id=rklOg6EFwS).
      LOGIT_PAIRING: The labeled loss, plus the distance between the logits (Kannan et
        al., 2018, https://arxiv.org/abs/1803.06373).
      VIRTUAL: The divergence, on unlabeled samples too (Miyato et al., 2018,
        https://arxiv.org/abs/1704.03976).
      INTERVAL_BOUNDS: The labeled loss at worst-case outputs over the whole ball,
        without a search for neighbors. It trains certified robustness (Gowal et al.,
        2018, https://arxiv.org/abs/1810.12715).
    """

    LABELED = "labeled"
    TRADES = "trades"
    MART = "mart"
    LOGIT_PAIRING = "logit_pairing"
    VIRTUAL = "virtual"
    INTERVAL_BOUNDS = "interval_bounds"


def _to_objective(value: Any) -> Any:
    return fields.to_choice(AdvObjective, value)


@attrs.define
class AdvRegConfig:
    """Settings of adversarial regularization.

    Attributes:
      multiplier: The factor of the adversarial loss in the total loss, at least 0, or a
        schedule: a callable from the number of optimizer updates to the factor. Ignored
        with `mode='replace'`, except by the objective 'interval_bounds'.
      adv_neighbor_config: How to find the adversarial neighbors.
      mode: An `AdvMode` or its value. With 'replace', training minimizes only the
        labeled loss at the adversarial neighbors, as in equation 2.1 of Madry et al.
        (2018, https://arxiv.org/abs/1706.06083), and a training step passes over the
        clean samples only to search the neighbors. It supports the objective 'labeled',
        and 'interval_bounds', which is then added to the labeled loss at the neighbors
        instead of the samples. The other objectives define their own clean term.
      objective: An `AdvObjective` or its value, or the name of an objective registered
        with `nsl.keras.AdversarialObjective`. All but 'labeled' need a model of class
        scores. 'interval_bounds' needs a sequential or functional model of common
        layers, see `nsl.lib.interval_bounds`, and a crossentropy, squared or absolute
        error as loss; it uses only the radius, masks and clip values of the neighbor
        settings. 'mart' and 'logit_pairing' replace the compiled loss by a labeled loss
        of their own.
      from_logits: Whether the model outputs logits instead of probabilities, for
        objectives that depend on it. None takes it from the compiled loss.
      start_epoch: The first epoch of `fit`, counted from 0, that uses the term. Earlier
        epochs train without it.
      weight_perturbation: The size of an adversarial weight perturbation, relative to
        the norm of each weight, or a schedule. Each weight of two axes or more moves by
        this factor times its norm along the gradient of the total loss. The gradient at
        the moved weights, with the same adversarial neighbors, updates the weights: Wu
        et al. (2020, https://arxiv.org/abs/2004.05884), who use 0.01 with PGD training
        and 0.005 with TRADES. Costs one more forward and backward pass; 0 disables it.

    Raises:
      TypeError: If a value has the wrong type.
      ValueError: If a value is out of range, or settings contradict each other.
    """

    multiplier: float | fields.Schedule = attrs.field(
        default=0.2, validator=fields.number(0, schedule=True)
    )
    adv_neighbor_config: AdvNeighborConfig = attrs.field(
        factory=AdvNeighborConfig, validator=fields.instance_of(AdvNeighborConfig)
    )
    mode: AdvMode = attrs.field(default=AdvMode.ADD, converter=AdvMode)
    objective: AdvObjective | str = attrs.field(
        default=AdvObjective.LABELED,
        converter=_to_objective,
        validator=fields.choice_or_name(AdvObjective),
    )
    from_logits: bool | None = attrs.field(
        default=None,
        validator=attrs.validators.optional(fields.instance_of(bool)),
    )
    start_epoch: int = attrs.field(default=0, validator=fields.integer(0))
    weight_perturbation: float | fields.Schedule = attrs.field(
        default=0.0, validator=fields.number(0, schedule=True)
    )

    def __attrs_post_init__(self) -> None:
        alone = self.objective is AdvObjective.LABELED
        if self.objective is AdvObjective.INTERVAL_BOUNDS:
            self._check_box()
            alone = self.mode is AdvMode.REPLACE
        if self.mode is not AdvMode.ADD and not alone:
            raise ValueError(
                f"AdvRegConfig(mode={self.mode.value!r}) trains only on the labeled "
                "loss at the adversarial neighbors, but received objective="
                f"{self.objective!r}, which defines its own clean term. Omit one of "
                "them."
            )
        if self.mode is AdvMode.FREE and self.start_epoch:
            raise ValueError(
                "AdvRegConfig(mode='free') trains on each batch several times from the "
                f"first epoch on, but received start_epoch={self.start_epoch!r}. Omit "
                "it, or set mode='replace'."
            )
        if self.mode is AdvMode.FREE and not self.adv_neighbor_config.pgd_iterations:
            raise ValueError(
                "AdvRegConfig(mode='free') trains pgd_iterations times on each batch, "
                "but received pgd_iterations=0. Set it to at least 1, such as 8."
            )

    def _check_box(self) -> None:
        """Checks that the settings describe a box of the features."""
        neighbor = self.adv_neighbor_config
        norm, layer = neighbor.adv_grad_norm, neighbor.embedding_layer
        if norm is not NormType.INFINITY or neighbor.pgd_epsilon is None or layer:
            raise ValueError(
                "AdvRegConfig(objective='interval_bounds') bounds the outputs over a "
                "box of the features: expected adv_grad_norm='infinity', pgd_epsilon "
                f"and no embedding_layer, but received {norm.value!r}, "
                f"{neighbor.pgd_epsilon!r} and {layer!r}."
            )


def make_adv_reg_config(
    multiplier: float | fields.Schedule = 0.2,
    feature_mask: Any = None,
    adv_step_size: Any = 0.001,
    adv_grad_norm: NormType | str = NormType.L2,
    clip_value_min: Any = None,
    clip_value_max: Any = None,
    pgd_iterations: int = 1,
    pgd_epsilon: Any = None,
    random_init: bool = False,
    mode: AdvMode | str = AdvMode.ADD,
    objective: AdvObjective | str = AdvObjective.LABELED,
    from_logits: bool | None = None,
    start_epoch: int = 0,
    embedding_layer: str | Sequence[str] | None = None,
    perturb_features: bool = False,
    norm_per_position: bool = False,
    standardize_layers: bool = False,
    clip_to_layer_range: bool = False,
    random_init_radius: Any = None,
    weight_perturbation: float | fields.Schedule = 0.0,
) -> AdvRegConfig:
    """Makes an `AdvRegConfig` from a flat list of settings.

    Args:
      multiplier: See `AdvRegConfig`.
      feature_mask: See `AdvNeighborConfig`, as for the next eight.
      adv_step_size: The norm of each step.
      adv_grad_norm: The norm of the steps and of the ball.
      clip_value_min: The lower bound of the perturbed features.
      clip_value_max: The upper bound of the perturbed features.
      pgd_iterations: The number of ascent steps.
      pgd_epsilon: The radius of the ball around the original features.
      random_init: Whether to start at a random point of that ball.
      mode: See `AdvRegConfig`, as for the next three.
      objective: The loss to minimize at the adversarial neighbors.
      from_logits: Whether the model outputs logits.
      start_epoch: The first epoch that uses the term.
      embedding_layer: See `AdvNeighborConfig`, as for the next five. The layer whose
        outputs to perturb, or several.
      perturb_features: Whether to perturb the features too.
      norm_per_position: Whether each position has its own norm.
      standardize_layers: Whether settings are in standard deviations of the outputs.
      clip_to_layer_range: Whether to clip perturbed outputs to their range.
      random_init_radius: The radius of random starts.
      weight_perturbation: See `AdvRegConfig`. The relative size of a weight
        perturbation.

    Returns:
      The config.

    Raises:
      TypeError: If a value has the wrong type.
      ValueError: If a value is out of range, or settings contradict each other.
    """
    return AdvRegConfig(
        multiplier=multiplier,
        adv_neighbor_config=AdvNeighborConfig(
            feature_mask=feature_mask,
            adv_step_size=adv_step_size,
            adv_grad_norm=adv_grad_norm,
            clip_value_min=clip_value_min,
            clip_value_max=clip_value_max,
            pgd_iterations=pgd_iterations,
            pgd_epsilon=pgd_epsilon,
            random_init=random_init,
            embedding_layer=embedding_layer,
            perturb_features=perturb_features,
            norm_per_position=norm_per_position,
            standardize_layers=standardize_layers,
            clip_to_layer_range=clip_to_layer_range,
            random_init_radius=random_init_radius,
        ),
        mode=AdvMode(mode),
        objective=objective,
        from_logits=from_logits,
        start_epoch=start_epoch,
        weight_perturbation=weight_perturbation,
    )


_SEED: float | None = 0.0


class AdvTargetType(Choice):
    """The target class of an attack."""

    SECOND = "second"
    LEAST = "least"
    RANDOM = "random"
    GROUND_TRUTH = "ground_truth"


@attrs.define
class AdvTargetConfig:
    """How to choose the target class of an attack.

    Attributes:
      target_method: The second most likely class, the least likely, a random one, or
        the true label; an `AdvTargetType` or its value.
      random_seed: The seed of the random choice. None leaves it to
        `tf.random.set_seed`; attacks use 0 instead of None.
    """

    target_method: AdvTargetType = attrs.field(
        default=AdvTargetType.GROUND_TRUTH, converter=AdvTargetType
    )
    random_seed: float | None = attrs.field(
        default=_SEED, validator=attrs.validators.optional(fields.number())
    )


@attrs.define
class VirtualAdvConfig:
    """Settings of virtual adversarial training.

    Miyato et al. (2018), https://arxiv.org/abs/1704.03976.

    Attributes:
      adv_neighbor_config: The norm, size and mask of the perturbation.
      distance_config: The distance between clean and perturbed outputs.
      num_approx_steps: The number of power iterations that approximate the direction of
        largest change. With 0 the direction stays random.
      approx_difference: The step of the finite difference that approximates products of
        the Hessian with vectors (xi in equation 12).
    """

    adv_neighbor_config: AdvNeighborConfig = attrs.field(
        factory=AdvNeighborConfig, validator=fields.instance_of(AdvNeighborConfig)
    )
    distance_config: DistanceConfig = attrs.field(
        factory=DistanceConfig, validator=fields.instance_of(DistanceConfig)
    )
    num_approx_steps: int = attrs.field(default=1, validator=fields.integer(0))
    approx_difference: float = attrs.field(
        default=1e-6, validator=fields.number(0, exclusive=True)
    )


DEFAULT_ADVERSARIAL_PARAMS: dict[str, Any] = attrs.asdict(AdvNeighborConfig())
