"""Settings of graph regularization."""

from typing import Any

import attrs

from nsl.configs import fields
from nsl.configs.choice import Choice
from nsl.configs.distance import DistanceConfig, DistanceType, TransformType


@attrs.define
class GraphNeighborConfig:
    """Where a batch holds the neighbors of its samples.

    With the defaults, feature `x` of the first neighbor is `NL_nbr_0_x` and the
    weight of the edge to it `NL_nbr_0_weight`.

    Attributes:
      prefix: What the names of neighbor features and weights begin with.
      weight_suffix: What the names of neighbor weights end with.
      max_neighbors: How many neighbors each sample has in the batch. 0 turns graph
        regularization off.
    """

    prefix: str = attrs.field(default="NL_nbr_", validator=fields.string(empty=False))
    weight_suffix: str = attrs.field(
        default="_weight", validator=fields.string(empty=False)
    )
    max_neighbors: int = attrs.field(default=0, validator=fields.integer(0))


class GraphObjective(Choice):
    """What graph regularization minimizes.

    Attributes:
      DISTANCE: The distance between each sample and its neighbors.
      CONTRASTIVE: How much nearer the rest of the batch is than the neighbors.
      CONSISTENCY: The divergence of each sample's prediction from what its neighbors
        predict together. By itself it is content with one class for all: it needs
        labels enough to hold against it.
      PROPAGATION: The labeled loss of what the neighbors predict together, so that a
        label teaches all neighbors of its sample, and consistency with that.
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
      neighbor_config: Where a batch holds the neighbors.
      multiplier: Factor of the graph loss in the total loss, at least 0, or a schedule:
        a callable from the number of optimizer updates to the factor, as those in
        `keras.optimizers.schedules`.
      distance_config: The distance between a sample and its neighbor. Of the other
        objectives, those of predictions ask its `transform_fn` whether outputs are
        logits, beside the compiled loss.
      output_name: The output of the model that is compared; None compares all.
      embedding_layer: The layer of the model whose outputs are compared, instead of
        those of the model. It may stand in a nested model.
      objective: A `GraphObjective` or its value, or the name of a graph loss that was
        registered with `nsl.keras.GraphLoss`.
      temperature: What 'contrastive' divides cosine similarities by. Greater than 0.
      sharpening_temperature: 'consistency' and 'propagation' raise the neighbors' mean
        prediction to the power 1 / this: 1 leaves it as it is, less sharpens it.
        Greater than 0.
      start_epoch: The epoch of `fit`, counted from 0, from which on the loss counts.
        Neighbors go through the model before too.
      distribution_alignment: How much 'consistency' and 'propagation' hold back a class
        that the neighbors' predictions in a batch have too often, so that it does not
        win all samples where labels are few: from 0, not at all, to 1, until all
        classes are predicted equally often.
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
                "GraphRegConfig compares an output of the model or a layer of it, but "
                f"received output_name={self.output_name!r} and "
                f"embedding_layer={self.embedding_layer!r}. Leave one of them None."
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
      distance_type: See `DistanceConfig`, as for all that follow.
      reduction: How the distances become one number.
      sum_over_axis: The axis along which differences are summed.
      transform_fn: What is applied to both sides first.
      output_name: See `GraphRegConfig`, as for all that follow.
      embedding_layer: The layer whose outputs are compared.
      objective: What is minimized.
      temperature: What similarities are divided by.
      sharpening_temperature: The smaller, the sharper are predictions to learn from.
      start_epoch: The epoch from which on the loss counts.
      distribution_alignment: How much a class that wins too often is held back.

    Returns:
      The config.
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
