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
    """How similar embeddings are searched.

    Attributes:
      EXACT: Every pair is compared, or with `lsh_splits` every pair within a bucket.
      IVF: Only vectors around a few near centroids are compared (inverted lists).
      AUTO: Exact where that is as quick, otherwise inverted lists.
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
            f"{instance.lsh_splits} asks for hashing, which is another way to compare "
            "fewer pairs. Leave one of them out."
        )


@attrs.define
class GraphBuilderConfig:
    """Which pairs of embeddings become edges, and how pairs are searched.

    Attributes:
      id_feature_name: The feature that holds an example's id.
      embedding_feature_name: The feature that holds its embedding.
      similarity_threshold: Pairs of at least this cosine similarity become edges.
      lsh_splits: The number of random hyperplanes that split the examples into
        buckets (locality-sensitive hashing); only pairs within a bucket are compared.
        0 compares every pair.
      lsh_rounds: How often the splitting is repeated with new hyperplanes.
      random_seed: Seed of the hyperplanes. None draws a new one.
      num_neighbors: The most neighbors an example keeps: the most similar ones, at
        or above the threshold. None keeps all.
      mutual: With `num_neighbors`, whether an edge is kept only if each of its ends
        has chosen the other.
      index: A `SearchIndex` or its value.
      recall: With inverted lists, the share of the edges that are to be found: as few
        lists are searched as find this share for a sample of examples.
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
