"""Settings of adversarial neighbors and of the losses built on them."""

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


# Settings of `AdvNeighborConfig` that need `embedding_layer`.
_OF_LAYERS = ("perturb_features", "standardize_layers", "clip_to_layer_range")


def _to_names(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@attrs.define
class AdvNeighborConfig:
    """How the adversarial neighbor of a sample is found.

    `feature_mask`, the two clip values, the step size and the radius may each be a
    number, an array, or a structure of them keyed by feature; a feature without an
    entry is left unmasked or unbounded. In the wrappers of `nsl.keras`, step size and
    radius may also be a schedule: a callable from the number of optimizer updates to
    the value, as those in `keras.optimizers.schedules`.

    One step is the fast gradient (sign) method of Goodfellow et al. (2015,
    https://arxiv.org/abs/1412.6572); several are projected gradient ascent as in
    Madry et al. (2018, https://arxiv.org/abs/1706.06083).

    Attributes:
      feature_mask: Factors in [0, 1] of the gradient, broadcastable to the features.
        None masks nothing.
      adv_step_size: The norm of the perturbation that one step adds.
      adv_grad_norm: The norm of the step and of the ball, a `NormType` or its value.
      clip_value_min: Lower bound of the perturbed features. None sets no bound, as
        minus infinity does.
      clip_value_max: Upper bound of the perturbed features. None sets no bound, as
        infinity does.
      pgd_iterations: The number of ascent steps. With 0 a random start is all that
        perturbs the features; without one, the first step is taken even so, as in NSL
        1.4.
      pgd_epsilon: The radius of the ball around the original features that the
        perturbed ones stay in. None sets no bound, as infinity does.
      random_init: Whether the ascent starts at a random point of that ball, of radius
        `adv_step_size` where `pgd_epsilon` is None, instead of at the features.
      random_init_radius: The radius of the ball of random starts, if it is another one.
        One step of norm epsilon from a start in a ball of radius 2 epsilon, without
        `pgd_epsilon`, is N-FGSM (de Jorge et al., 2022,
        https://arxiv.org/abs/2202.01181); see `nsl.keras.presets.fast`.
      embedding_layer: The layer of the model at whose outputs the neighbor is searched,
        instead of at the features, or several; they may stand in a nested model. Where
        several have one name, put that of the nested model in front, as in
        'query_tower/embedding'. This is how a model of token ids, strings or
        categories, which have no gradient, is perturbed (Miyato et al., 2017,
        https://arxiv.org/abs/1605.07725). Values per feature are then keyed by the name
        of the layer. Positions that the layer masks as padding are not perturbed and do
        not count in the norm.
      perturb_features: Whether the features are perturbed together with the outputs of
        `embedding_layer`, in one joint norm.
      norm_per_position: Whether each position of a feature or output of shape
        `[batch, ..., d]`, as each token of a text, has a norm and a ball of its own.
        If not, the norm is that of all positions of a sample together.
      standardize_layers: Whether step size, radius and clip values of
        `embedding_layer` count in standard deviations of its outputs, and clip values
        from their mean: for each coordinate of the last axis, over all positions of the
        batch. The same settings then fit any scale of the embeddings, and a model does
        not escape the perturbation by making them large.
      clip_to_layer_range: Whether perturbed outputs of `embedding_layer` stay within
        the range of each coordinate of the last axis: over all entries of an
        `Embedding` layer, from 0 to 1 for one-hot and multi-hot encodings, over all
        positions of the batch for other layers.
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
                        f"AdvNeighborConfig({name}=True) is about the outputs of "
                        "embedding_layer, but received embedding_layer="
                        f"{self.embedding_layer!r}. Name a layer, or leave {name} out."
                    )
        if self.random_init_radius is not None and not self.random_init:
            raise ValueError(
                "AdvNeighborConfig.random_init_radius is the radius of random starts, "
                f"but received {self.random_init_radius!r} and random_init=False. Set "
                "random_init=True, or leave the radius out."
            )
        low, high = self.clip_value_min, self.clip_value_max
        plain = isinstance(low, numbers.Real) and isinstance(high, numbers.Real)
        if plain and low > high:
            raise ValueError(
                "AdvNeighborConfig.clip_value_min must not exceed clip_value_max, but "
                f"received {low!r} and {high!r}."
            )


class AdvMode(Choice):
    """What becomes of the labeled loss at the samples themselves.

    Attributes:
      ADD: The adversarial loss is added to it (Goodfellow et al., 2015).
      REPLACE: The adversarial loss takes its place (Madry et al., 2018).
      FREE: So it does, and the weights are updated after each step of the ascent, by
        the same backward pass (Shafahi et al., 2019,
        https://arxiv.org/abs/1904.12843).
    """

    ADD = "add"
    REPLACE = "replace"
    FREE = "free"


class AdvObjective(Choice):
    """What is minimized at the adversarial neighbors.

    Attributes:
      LABELED: The labeled loss.
      TRADES: The divergence of the predictions from those at the samples (Zhang et al.,
        2019, https://arxiv.org/abs/1901.08573).
      MART: A crossentropy with a margin, and the divergence weighted by how likely a
        sample is misclassified (Wang et al., 2020,
        https://openreview.net/forum?id=rklOg6EFwS).
      LOGIT_PAIRING: The labeled loss and the distance of the logits (Kannan et al.,
        2018, https://arxiv.org/abs/1803.06373).
      VIRTUAL: The divergence, of unlabeled samples too (Miyato et al., 2018,
        https://arxiv.org/abs/1704.03976).
      INTERVAL_BOUNDS: The labeled loss at outputs that are at least as bad as those of
        any point of the ball. No neighbor is searched; what withstands this is
        certified (Gowal et al., 2018, https://arxiv.org/abs/1810.12715).
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
      multiplier: Factor of the adversarial loss in the total loss, at least 0, or a
        schedule: a callable from the number of optimizer updates to the factor. With
        `mode='replace'` it is not used, but by the objective 'interval_bounds'.
      adv_neighbor_config: How the adversarial neighbors are found.
      mode: An `AdvMode` or its value. With 'replace' the labeled loss at the
        adversarial neighbors is all that is minimized, as in equation 2.1 of Madry et
        al. (2018, https://arxiv.org/abs/1706.06083), and a training step makes no pass
        over the samples but those that search the neighbors. It goes with the objective
        'labeled', and with 'interval_bounds', which is then added to the labeled loss
        at the neighbors instead of the samples; other objectives define their own clean
        term.
      objective: An `AdvObjective` or its value, or the name of an objective that was
        registered with `nsl.keras.AdversarialObjective`. Those but 'labeled' need a
        model of class scores. 'interval_bounds' needs a sequential or functional model
        of common layers, see `nsl.lib.interval_bounds`, with a crossentropy, squared or
        absolute error as loss; of the neighbor's settings the radius, masks and clip
        values count. 'mart' and 'logit_pairing' have a labeled loss of their own in the
        place of the compiled one.
      from_logits: Whether the outputs of the model are logits or probabilities, for the
        objectives that need to know. None asks the compiled loss.
      start_epoch: The epoch of `fit`, counted from 0, from which on the term takes part
        in training. Until then training is as without it.
      weight_perturbation: By how much the weights are perturbed as well, in units of
        their own norm, or a schedule. Each weight of two axes or more is moved by this
        factor times its norm along the gradient of the whole loss, and the gradient
        there, at the same adversarial neighbors, is what updates the weights. This is
        the adversarial weight perturbation of Wu et al. (2020,
        https://arxiv.org/abs/2004.05884), who take 0.01 with PGD training and 0.005
        with TRADES. It costs one more forward and backward pass, and none with 0.
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
                f"AdvRegConfig(mode={self.mode.value!r}) trains on the labeled loss at "
                "the adversarial neighbors and nothing else, but received objective="
                f"{self.objective!r}, which says itself what it is added to. Leave one "
                "of them out."
            )
        if self.mode is AdvMode.FREE and self.start_epoch:
            raise ValueError(
                "AdvRegConfig(mode='free') trains on each batch several times from the "
                f"first epoch on, but received start_epoch={self.start_epoch!r}. Leave "
                "it out, or take mode='replace'."
            )
        if self.mode is AdvMode.FREE and not self.adv_neighbor_config.pgd_iterations:
            raise ValueError(
                "AdvRegConfig(mode='free') trains pgd_iterations times on each batch, "
                "but received pgd_iterations=0. Give how often, such as 8."
            )

    def _check_box(self) -> None:
        """Checks that interval bounds have a box, which is of the features."""
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
      feature_mask: See `AdvNeighborConfig`, as for all that follow.
      adv_step_size: The norm of the perturbation that one step adds.
      adv_grad_norm: The norm of the step and of the ball.
      clip_value_min: Lower bound of the perturbed features.
      clip_value_max: Upper bound of the perturbed features.
      pgd_iterations: The number of ascent steps.
      pgd_epsilon: The radius of the ball around the original features.
      random_init: Whether the ascent starts at a random point of that ball.
      mode: See `AdvRegConfig`, as for all that follow.
      objective: What is minimized at the adversarial neighbors.
      from_logits: Whether the outputs of the model are logits.
      start_epoch: The epoch from which on the term takes part in training.
      embedding_layer: See `AdvNeighborConfig`, as for all that follow. The layer at
        whose outputs the neighbors are searched, or several.
      perturb_features: Whether the features are perturbed together with these.
      norm_per_position: Whether each position has a norm of its own.
      standardize_layers: Whether settings count in standard deviations of the outputs.
      clip_to_layer_range: Whether perturbed outputs stay within their range.
      random_init_radius: The radius of the ball of random starts.
      weight_perturbation: See `AdvRegConfig`. How far the weights are perturbed.

    Returns:
      The config.
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
    """Which class an attack is aimed at."""

    SECOND = "second"
    LEAST = "least"
    RANDOM = "random"
    GROUND_TRUTH = "ground_truth"


@attrs.define
class AdvTargetConfig:
    """How the class an attack is aimed at is chosen.

    Attributes:
      target_method: The second most likely class, the least likely, a random one, or
        the true label; an `AdvTargetType` or its value.
      random_seed: Seed of the random choice. With None `tf.random.set_seed` alone
        governs it; attacks take None as 0.
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
      adv_neighbor_config: Norm and length of the perturbation.
      distance_config: The distance between clean and perturbed outputs.
      num_approx_steps: Number of power iterations that approximate the direction of
        largest change. With 0 the direction stays random.
      approx_difference: Length of the finite difference that approximates the
        Hessian's product with a vector (xi in equation 12).
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
