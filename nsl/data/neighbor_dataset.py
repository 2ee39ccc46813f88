"""Batches of samples and their neighbors, from an in-memory graph and features."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from nsl.configs import GraphNeighborConfig
from nsl.data.batch_part import BatchPart
from nsl.data.feature_rows import Rows, feature_rows, gather, plain_array
from nsl.data.graph import Graph
from nsl.data.host_tensors import host_tensor
from nsl.data.powers import at_least_one
from nsl.data.sampling import Sampling, choose_neighbors
from nsl.data.sparse_matrices import is_sparse_matrix

# Neighbors are chosen for several batches at once, as TensorFlow ops on few numbers are
# slow: about this many candidates, which take 1 MB per column.
_CANDIDATES_AT_ONCE = 1 << 17


def neighbor_dataset(
    graph: Graph,
    features: Any,
    labels: Any = None,
    sample_weight: Any = None,
    *,
    neighbor_config: GraphNeighborConfig,
    batch_size: int,
    sample_ids: Any = None,
    sampling: Sampling | str = Sampling.TOP,
    shuffle: bool = True,
    drop_remainder: bool = False,
    seed: int | None = None,
    input_context: tf.distribute.InputContext | None = None,
    epoch: tf.Variable | int | None = None,
) -> tf.data.Dataset:  # type: ignore[type-arg]
    """Makes a dataset of batches for `nsl.keras.GraphRegularization`.

    Each epoch is one pass over the samples, reshuffled, with newly drawn neighbors.
    Shapes are static if all batches are full.

    ```python
    graph_config = nsl.configs.make_graph_reg_config(max_neighbors=5, multiplier=0.1)
    dataset = nsl.data.neighbor_dataset(
        nsl.data.Graph((sources, targets), ids=range(len(x)), undirected=True),
        x, y, sample_weight=is_labeled,
        neighbor_config=graph_config.neighbor_config,
        batch_size=128, sampling="uniform", seed=1,
    )
    graph_model = nsl.keras.GraphRegularization(base_model, graph_config)
    graph_model.compile("adam", loss, weighted_metrics=["accuracy"])
    graph_model.fit(dataset, epochs=20)
    ```

    Args:
      graph: The graph.
      features: An array of shape [nodes, ...], which is named `x`, or a dict of such
        arrays by name. Row i belongs to the node `graph.ids[i]`. Arrays hold numbers or
        strings and may be memory-mapped, of dtype object, or columns of a table.
        SciPy sparse matrices and arrays and `tf.SparseTensor`s give batches of
        `tf.SparseTensor`s, a `tf.RaggedTensor` gives ragged batches.
      labels: An array of shape [samples, ...] or a structure of arrays. Without labels,
        a batch is only the dict of features.
      sample_weight: Numbers or booleans of shape [samples]; 1 by default. 0 marks an
        unlabeled sample: its label is replaced by zeros, and it contributes only to the
        graph loss. Pass metrics as `weighted_metrics` to exclude such samples.
      neighbor_config: The names of neighbor features and the number of neighbors.
      batch_size: The number of samples in a batch, over all replicas.
      sample_ids: Ids of shape [samples]; by default all nodes. Or of shape
        [samples, m] for samples of m nodes, such as the pairs of link prediction:
        the features of a batch then have shape [batch, m, ...], and a neighbor of
        the pair (a, b) is (c, b), where c is a neighbor of a, or (a, c), where c is a
        neighbor of b.
      sampling: How to choose neighbors: `Sampling.TOP` (the heaviest edges),
        `Sampling.UNIFORM` or `Sampling.WEIGHTED`, or their values. The weight of a
        neighbor is always its edge weight. If there are fewer than requested, the
        batch is padded with the sample itself, with weight 0.
      shuffle: Whether to reshuffle the samples each epoch.
      drop_remainder: Whether to drop the last batch if it is not full.
      seed: An integer that determines order and neighbors, together with
        `tf.random.set_seed` if that was called. Without a seed,
        `keras.utils.set_random_seed` determines them.
      input_context: The context that `strategy.distribute_datasets_from_function`
        passes to its function. Each batch is then split among all replicas as evenly
        as possible, and this dataset yields the pieces of one worker's replicas in
        turn. Over all workers, each sample occurs once per epoch, and all workers
        yield the same number of pieces, of which some of the last batch may be empty.
        Several workers need a common seed. The neighbors drawn differ from those
        without a context.
      epoch: The epoch number; with it, order and neighbors depend only on it and the
        seed. A `tf.Variable` of integers is read at the start of each iteration, so
        that training resumed from a backup repeats the epochs of an uninterrupted run.
        By default, iterations are counted from the creation of the dataset.

    Returns:
      A `tf.data.Dataset` of `({"x": ..., "NL_nbr_0_x": ..., "NL_nbr_0_weight": ...},
      labels, sample_weight)`. Neighbor weights are float32 of shape [batch, 1], sample
      weights float32 of shape [batch].

    Raises:
      TypeError: If an argument is of a wrong type.
      ValueError: If lengths differ, an id is unknown, a number is out of range, or a
        feature is named like a neighbor feature.
    """
    _check_type("graph", graph, Graph)
    _check_type("neighbor_config", neighbor_config, GraphNeighborConfig)
    count = neighbor_config.max_neighbors
    if count < 1:
        raise ValueError(
            "neighbor_config.max_neighbors must be at least 1, the number of neighbors "
            f"of each sample, but is {count}."
        )
    batch_size = at_least_one("batch_size", batch_size)
    if seed is not None and not isinstance(seed, int | np.integer):
        raise TypeError(f"seed must be an integer or None, but is {seed!r}.")
    sampling = Sampling(sampling)
    if epoch is not None and not isinstance(epoch, int | np.integer | tf.Variable):
        raise TypeError(
            f"epoch must be an integer, a tf.Variable or None, but is {epoch!r}."
        )
    part = BatchPart.of(input_context)
    if seed is None and (epoch is not None or not part.is_whole):
        reason = "an epoch number" if epoch is not None else "several workers"
        raise ValueError(
            f"With {reason}, neighbor_dataset needs a seed: pass the same integer in "
            "every worker and every run."
        )
    if sampling is Sampling.WEIGHTED and (graph.weights < 0).any():
        raise ValueError(
            "Sampling.WEIGHTED needs weights that are not negative, but the smallest "
            f"weight of the graph is {graph.weights.min()}."
        )
    tensors = _named_rows(features, graph, neighbor_config)
    rows = _sample_rows(graph, sample_ids)
    samples = len(rows)
    if samples == 0:
        raise ValueError("There are no samples: sample_ids is empty.")
    if drop_remainder and samples < batch_size:
        raise ValueError(
            f"With drop_remainder=True there are no batches: there are {samples} "
            f"samples, fewer than batch_size={batch_size}."
        )
    targets = _sample_targets(labels, sample_weight, samples)

    row_splits = host_tensor(graph.row_splits)
    edge_targets, edge_weights = host_tensor(graph.targets), host_tensor(graph.weights)
    row_tensor = host_tensor(rows)
    target_tensors = tf.nest.map_structure(host_tensor, targets)

    steps = samples // batch_size if drop_remainder else -(-samples // batch_size)
    # If all batches are full, every shape is static.
    only_full = drop_remainder or samples % batch_size == 0
    piece_size = part.piece_size(batch_size) if only_full else None
    largest_piece = -(-batch_size // part.replicas)
    candidates = np.diff(graph.row_splits)[rows].sum() / samples
    pieces_at_once = max(
        1, int(_CANDIDATES_AT_ONCE / (largest_piece * max(candidates, count)))
    )

    # No AutoGraph: there is nothing to convert, and trying takes half a second.
    @tf.autograph.experimental.do_not_convert
    def epoch_of(epoch_seed: tf.Tensor) -> Any:
        order = tf.range(samples, dtype=tf.int32)
        if shuffle:
            order = tf.random.experimental.stateless_shuffle(  # type: ignore[attr-defined]
                order, tf.stack([epoch_seed, tf.constant(0, tf.int64)])
            )

        @tf.autograph.experimental.do_not_convert
        def choose(indices: tf.Tensor) -> tuple[tf.Tensor, ...]:
            """Chooses the neighbors of several pieces, padded to the largest one."""
            pieces, starts, ends = part.pieces(indices, batch_size, samples)
            places = starts[:, tf.newaxis] + tf.range(largest_piece, dtype=tf.int64)
            places = tf.gather(order, tf.minimum(places, samples - 1))
            nodes = tf.gather(row_tensor, places)
            neighbors, weights = choose_neighbors(
                row_splits,
                edge_targets,
                edge_weights,
                tf.reshape(nodes, [-1, *(rows.shape[1:] or [1])]),
                count,
                sampling,
                tf.stack([epoch_seed, 1 + pieces[0]]),
            )
            shape = [-1, largest_piece, count]
            neighbors = tf.reshape(neighbors, [*shape, *rows.shape[1:]])
            neighbors = tf.experimental.numpy.moveaxis(neighbors, 2, 1)
            weights = tf.transpose(tf.reshape(weights, shape), [0, 2, 1])
            weights = tf.expand_dims(weights, -1)
            return places, ends - starts, nodes, neighbors, weights

        indices = tf.data.Dataset.range(steps * part.local).batch(pieces_at_once)
        return indices.map(choose, num_parallel_calls=tf.data.AUTOTUNE).unbatch()

    @tf.autograph.experimental.do_not_convert
    def batch(
        places: tf.Tensor,
        size: tf.Tensor,
        nodes: tf.Tensor,
        neighbors: tf.Tensor,
        weights: tf.Tensor,
    ) -> Any:
        if piece_size is None:
            places, nodes = places[:size], nodes[:size]
            neighbors, weights = neighbors[:, :size], weights[:, :size]
        x = {name: gather(feature, nodes) for name, feature in tensors.items()}
        prefix, suffix = neighbor_config.prefix, neighbor_config.weight_suffix
        neighbor_weights = tf.unstack(weights)
        for i, neighbor in enumerate(tf.unstack(neighbors)):
            for name, feature in tensors.items():
                x[f"{prefix}{i}_{name}"] = gather(feature, neighbor)
            x[f"{prefix}{i}{suffix}"] = neighbor_weights[i]
        if labels is None:
            return x
        y, w = tf.nest.map_structure(lambda t: tf.gather(t, places), target_tensors)
        return x, y, w

    dataset = _epoch_seeds(seed, epoch).flat_map(epoch_of)
    dataset = dataset.map(batch, num_parallel_calls=tf.data.AUTOTUNE)
    if part.local == 1:
        # With several replicas, Keras would mistake the number of pieces for batches.
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(steps))
    return dataset.prefetch(tf.data.AUTOTUNE)


def _epoch_seeds(seed: int | None, epoch: tf.Variable | int | None) -> Any:
    """Makes a dataset of one int64 seed, a new one for each iteration."""
    if epoch is None or seed is None:
        seeds = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True)
        return seeds.take(1)

    @tf.autograph.experimental.do_not_convert
    def seed_of_epoch(_: tf.Tensor) -> tf.Tensor:
        number = tf.cast(epoch, tf.int64)
        pair = tf.stack([tf.constant(seed, tf.int64), number])
        return tf.random.stateless_uniform(
            [],
            pair,
            minval=None,  # type: ignore[arg-type]
            dtype=tf.int64,
        )

    return tf.data.Dataset.range(1).map(seed_of_epoch)


def _check_type(name: str, value: Any, kind: type) -> None:
    if not isinstance(value, kind):
        raise TypeError(
            f"{name} must be a {kind.__name__}, but received {type(value).__name__}."
        )


def _named_rows(
    features: Any, graph: Graph, neighbor_config: GraphNeighborConfig
) -> dict[str, Rows]:
    # SciPy's dok_matrix is a mapping too.
    if not isinstance(features, Mapping) or is_sparse_matrix(features):
        features = {"x": features}
    if not features:
        raise ValueError("features must not be an empty dict.")
    rows = {}
    for name, value in features.items():
        if not isinstance(name, str):
            raise TypeError(f"The name of a feature must be a string, but is {name!r}.")
        prefix, suffix = neighbor_config.prefix, neighbor_config.weight_suffix
        if name.startswith(prefix) or f"_{name}" == suffix:
            raise ValueError(
                f"Feature {name!r} is named like a neighbor feature or weight (prefix "
                f"{prefix!r}, weight_suffix {suffix!r}): rename it."
            )
        rows[name] = feature_rows(value, f"Feature {name!r}", graph.num_nodes)
    return rows


def _sample_rows(graph: Graph, sample_ids: Any) -> npt.NDArray[np.int32]:
    if sample_ids is None:
        return np.arange(graph.num_nodes, dtype=np.int32)
    rows = graph.rows(sample_ids, "sample_ids")
    if rows.ndim not in (1, 2) or (rows.ndim == 2 and not rows.shape[1]):
        raise ValueError(
            "sample_ids must have shape [samples] or [samples, m], but have shape "
            f"{rows.shape}."
        )
    return rows


def _sample_targets(labels: Any, sample_weight: Any, samples: int) -> tuple[Any, Any]:
    """Checks labels and sample weights, and blanks the labels with weight 0."""
    if sample_weight is None:
        weights = np.ones(samples, np.float32)
    elif labels is None:
        raise ValueError(
            "sample_weight needs labels: without labels there is no loss to weight."
        )
    else:
        weights = plain_array(sample_weight, "sample_weight")
        if weights.dtype.kind not in "biuf":
            raise TypeError(f"sample_weight must be numbers, but is {weights.dtype}.")
        weights = weights.astype(np.float32)
        if weights.shape not in ((samples,), (samples, 1)):
            raise ValueError(
                f"sample_weight must have shape ({samples},), one number for each "
                f"sample, but has shape {weights.shape}."
            )
        if not np.isfinite(weights).all():
            raise ValueError("sample_weight must be finite.")
        weights = weights.reshape(samples)

    def blanked(values: Any) -> npt.NDArray[Any]:
        array = plain_array(values, "labels")
        if array.ndim == 0 or len(array) != samples:
            raise ValueError(
                f"labels must have one row for each of the {samples} samples, but have "
                f"shape {array.shape}."
            )
        if (weights != 0).all():
            return array
        result = array.copy()
        blank = "" if array.dtype == object else np.zeros((), array.dtype)
        result[weights == 0] = blank
        return result

    if labels is None:
        return (), weights
    if isinstance(labels, list):
        labels = plain_array(labels, "labels")
    return tf.nest.map_structure(blanked, labels), weights
