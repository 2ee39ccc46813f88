"""Settings of graph regularization."""

from typing import Any

import attrs

from nsl.configs import fields
from nsl.configs.choice import Choice
from nsl.configs.distance import DistanceConfig, DistanceType, TransformType


@attrs.define
class GraphNeighborConfig:
    """The naming scheme of neighbor features in a batch.

    With the defaults, feature `x` of the first neighbor is `NL_nbr_0_x`, and its edge
    weight is `NL_nbr_0_weight`.

    Attributes:
      prefix: The prefix of the names of neighbor features and weights.
      weight_suffix: The suffix of the names of neighbor weights.
      max_neighbors: The number of neighbors per sample in the batch. 0 disables graph
        regularization.
    """

    prefix: str = attrs.field(default="NL_nbr_", validator=fields.string(empty=False))
    weight_suffix: str = attrs.field(
        default="_weight", validator=fields.string(empty=False)
    )
    max_neighbors: int = attrs.field(default=0, validator=fields.integer(0))


class GraphObjective(Choice):
    """The loss that graph regularization minimizes.

    Attributes:
      DISTANCE: The distance between each sample and its neighbors.
      CONTRASTIVE: The contrastive loss of samples against their neighbors.
      CONSISTENCY: The divergence between each sample's prediction and the mean
        prediction of its neighbors. It has a trivial minimum, one class for all
        samples, so it needs enough labels.
      PROPAGATION: The labeled loss of the neighbors' mean prediction, which trains all
        neighbors of a sample on its label, plus consistency with that prediction.
    """

    DISTANCE = "distance"
    CONTRASTIVE = "contrastive"
    CONSISTENCY = "consistency"
    PROPAGATION = "propagation"


def _to_objective(value: Any) -> Any:
    return fields.to_choice(GraphObjective, value)


@attrs.define
class GraphRegConfig:
    """Settings of graph regularization.

    Attributes:
      neighbor_config: The naming scheme of neighbor features.
      multiplier: The factor of the graph loss in the total loss, at least 0, or a
        schedule: a callable from the number of optimizer updates to the factor, such as
        those in `keras.optimizers.schedules`.
      distance_config: The distance between a sample and its neighbor. Its
        `transform_fn` also tells the objectives that use predictions whether outputs
        are logits, as the compiled loss does.
      output_name: The model output to compare; None compares all.
      embedding_layer: The layer whose outputs to compare, instead of the model's. It
        may be nested in another model.
      objective: A `GraphObjective` or its value, or the name of a graph loss registered
        with `nsl.keras.GraphLoss`.
      temperature: The divisor of cosine similarities in 'contrastive'. Greater than 0.
      sharpening_temperature: 'consistency' and 'propagation' raise the neighbors' mean
        prediction to the power of its inverse: 1 does not sharpen, smaller values do.
        Greater than 0.
      start_epoch: The first epoch of `fit`, counted from 0, that uses the loss.
        Neighbors go through the model before too.
      distribution_alignment: How strongly 'consistency' and 'propagation' align the
        predicted class shares of a batch towards uniform, so that no class takes over
        when labels are few: from 0, not at all, to 1, where all classes are predicted
        about equally often.

    Raises:
      TypeError: If a value has the wrong type.
      ValueError: If a value is out of range, or both `output_name` and
        `embedding_layer` are given.
    """

    neighbor_config: GraphNeighborConfig = attrs.field(
        factory=GraphNeighborConfig, validator=fields.instance_of(GraphNeighborConfig)
    )
    multiplier: float | fields.Schedule = attrs.field(
        default=0.01, validator=fields.number(0, schedule=True)
    )
    distance_config: DistanceConfig = attrs.field(
        factory=DistanceConfig, validator=fields.instance_of(DistanceConfig)
    )
    output_name: str | None = attrs.field(
        default=None,
        validator=attrs.validators.optional(fields.string(empty=False)),
    )
    embedding_layer: str | None = attrs.field(
        default=None,
        validator=attrs.validators.optional(fields.string(empty=False)),
    )
    objective: GraphObjective | str = attrs.field(
        default=GraphObjective.DISTANCE,
        converter=_to_objective,
        validator=fields.choice_or_name(GraphObjective),
    )
    temperature: float = attrs.field(
        default=0.5, validator=fields.number(0, exclusive=True)
    )
    sharpening_temperature: float = attrs.field(
        default=0.5, validator=fields.number(0, exclusive=True)
    )
    start_epoch: int = attrs.field(default=0, validator=fields.integer(0))
    distribution_alignment: float = attrs.field(
        default=0.0, validator=fields.number(0, 1)
    )

    def __attrs_post_init__(self) -> None:
        if self.output_name is not None and self.embedding_layer is not None:
            raise ValueError(
                "GraphRegConfig compares either an output of the model or a layer, but "
                f"received output_name={self.output_name!r} and "
                f"embedding_layer={self.embedding_layer!r}. Set one of them to None."
            )


def make_graph_reg_config(
    neighbor_prefix: str = "NL_nbr_",
    neighbor_weight_suffix: str = "_weight",
    max_neighbors: int = 0,
    multiplier: float | fields.Schedule = 0.01,
    distance_type: DistanceType | str = DistanceType.L2,
    reduction: str = "weighted_sum_by_nonzero_weights",
    sum_over_axis: int | None = None,
    transform_fn: TransformType | str = TransformType.NONE,
    output_name: str | None = None,
    embedding_layer: str | None = None,
    objective: GraphObjective | str = GraphObjective.DISTANCE,
    temperature: float = 0.5,
    sharpening_temperature: float = 0.5,
    start_epoch: int = 0,
    distribution_alignment: float = 0.0,
) -> GraphRegConfig:
    """Makes a `GraphRegConfig` from a flat list of settings.

    Args:
      neighbor_prefix: `GraphNeighborConfig.prefix`.
      neighbor_weight_suffix: `GraphNeighborConfig.weight_suffix`.
      max_neighbors: `GraphNeighborConfig.max_neighbors`.
      multiplier: `GraphRegConfig.multiplier`.
      distance_type: See `DistanceConfig`, as for the next three.
      reduction: How distances are reduced to a scalar.
      sum_over_axis: The axis along which differences are summed.
      transform_fn: The transform of both tensors.
      output_name: See `GraphRegConfig`, as for all that follow.
      embedding_layer: The layer whose outputs to compare.
      objective: The loss to minimize.
      temperature: The divisor of similarities.
      sharpening_temperature: Smaller values sharpen the targets more.
      start_epoch: The first epoch that uses the loss.
      distribution_alignment: How strongly to align class shares towards uniform.

    Returns:
      The config.

    Raises:
      TypeError: If a value has the wrong type.
      ValueError: If a value is out of range, or both `output_name` and
        `embedding_layer` are given.
    """
    return GraphRegConfig(
        neighbor_config=GraphNeighborConfig(
            prefix=neighbor_prefix,
            weight_suffix=neighbor_weight_suffix,
            max_neighbors=max_neighbors,
        ),
        multiplier=multiplier,
        distance_config=DistanceConfig(
            distance_type=distance_type,
            reduction=reduction,
            sum_over_axis=sum_over_axis,
            transform_fn=transform_fn,
        ),
        output_name=output_name,
        embedding_layer=embedding_layer,
        objective=objective,
        temperature=temperature,
        sharpening_temperature=sharpening_temperature,
        start_epoch=start_epoch,
        distribution_alignment=distribution_alignment,
    )
