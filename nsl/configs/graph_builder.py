"""Settings of building a graph from embeddings."""

import attrs

from nsl.configs import fields
from nsl.configs.choice import Choice


def _validate_rounds(
    instance: "GraphBuilderConfig", attribute: "attrs.Attribute[int]", value: int
) -> None:
    fields.integer()(instance, attribute, value)
    if instance.lsh_splits > 0 and value < 1:
        raise ValueError(
            "GraphBuilderConfig.lsh_rounds must be at least 1 when lsh_splits is "
            f"{instance.lsh_splits}, but received {value!r}."
        )


def _validate_mutual(
    instance: "GraphBuilderConfig", attribute: "attrs.Attribute[bool]", value: bool
) -> None:
    if not isinstance(value, bool):
        raise TypeError(
            f"GraphBuilderConfig.mutual must be True or False, but received {value!r}."
        )
    if value and instance.num_neighbors is None:
        raise ValueError("GraphBuilderConfig.mutual needs num_neighbors to be set.")


class SearchIndex(Choice):
    """How to search similar embeddings.

    Attributes:
      EXACT: Compares every pair, or with `lsh_splits` every pair within a bucket.
      IVF: Compares only vectors near a few centroids (inverted lists).
      AUTO: Exact if that is as fast, otherwise inverted lists.
    """

    EXACT = "exact"
    IVF = "ivf"
    AUTO = "auto"


def _validate_index(
    instance: "GraphBuilderConfig",
    attribute: "attrs.Attribute[SearchIndex]",
    value: SearchIndex,
) -> None:
    if instance.lsh_splits > 0 and value is not SearchIndex.EXACT:
        raise ValueError(
            f"GraphBuilderConfig.index is {value.value!r}, but lsh_splits="
            f"{instance.lsh_splits} selects hashing, another way to compare fewer "
            "pairs. Omit one of them."
        )


@attrs.define
class GraphBuilderConfig:
    """Which pairs of embeddings become edges, and how to search them.

    Attributes:
      id_feature_name: The feature that holds an example's id.
      embedding_feature_name: The feature that holds its embedding.
      similarity_threshold: The smallest cosine similarity of an edge.
      lsh_splits: The number of random hyperplanes that split the examples into buckets
        (locality-sensitive hashing). Only pairs within a bucket are compared. 0
        compares every pair.
      lsh_rounds: The number of times the split is repeated with new hyperplanes.
      random_seed: The seed of the hyperplanes. None draws a new one.
      num_neighbors: The maximum number of neighbors per example: the most similar ones
        at or above the threshold. None keeps all.
      mutual: With `num_neighbors`, whether to keep an edge only if each end is among
        the other's neighbors.
      index: A `SearchIndex` or its value.
      recall: With inverted lists, the share of the edges to find. The search visits as
        few lists as reach this share on a sample of examples.

    Raises:
      TypeError: If a value has the wrong type.
      ValueError: If a value is out of range, or settings contradict each other.
    """

    id_feature_name: str = attrs.field(
        default="id", validator=fields.string(empty=False)
    )
    embedding_feature_name: str = attrs.field(
        default="embedding", validator=fields.string(empty=False)
    )
    similarity_threshold: float = attrs.field(
        default=0.8, validator=fields.number(-1, 1)
    )
    lsh_splits: int = attrs.field(default=0, validator=fields.integer(0))
    lsh_rounds: int = attrs.field(default=1, validator=_validate_rounds)
    random_seed: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(fields.integer())
    )
    num_neighbors: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(fields.integer(1))
    )
    mutual: bool = attrs.field(default=False, validator=_validate_mutual)
    index: SearchIndex = attrs.field(
        default=SearchIndex.EXACT, converter=SearchIndex, validator=_validate_index
    )
    recall: float = attrs.field(default=0.98, validator=fields.number(0, 1))
