"""Batches of samples and their neighbors, from a graph and features in memory."""

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
) -> tf.data.Dataset:
    """Makes the batches that `nsl.keras.GraphRegularization` trains on.

    Each epoch is one pass over the samples, in a new order and with neighbors drawn
    anew. The shapes are static, but for the last batch.

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
      features: An array of shape [nodes, ...], which is called `x`, or a dict of such
        arrays by name; memory-mapped ones stay on the disk. Row i belongs to the node
        `graph.ids[i]`. Numbers or strings, also as Python objects or columns of a
        table. A sparse matrix or array of SciPy and a `tf.SparseTensor` become batches
        of `tf.SparseTensor`, a `tf.RaggedTensor` ragged ones.
      labels: An array of shape [samples, ...] or a structure of them. Without labels
        a batch is the dict of features alone.
      sample_weight: Numbers or booleans of shape [samples]; 1 by default. 0 stands for
        an unlabeled sample: its label is not read, zeros take its place, and it
        counts in the graph loss alone. Metrics leave it out if they are given as
        `weighted_metrics`.
      neighbor_config: How neighbor features are named, and the number of neighbors.
      batch_size: How many samples a batch has, over all replicas together.
      sample_ids: Ids of shape [samples], or [samples, m] where a sample is several
        nodes, such as the pairs of link prediction; the features of a batch then have
        shape [batch, m, ...], and a neighbor of (a, b) is (c, b), where c is a neighbor
        of a, or (a, c), where c is one of b. By default all nodes are samples.
      sampling: How the neighbors are chosen: `Sampling.TOP`, the heaviest,
        `Sampling.UNIFORM` or `Sampling.WEIGHTED`, or their values. The weight that
        goes with a neighbor is always the weight of its edge. Where there are fewer
        than asked for, the sample itself with weight 0 stands in.
      shuffle: Whether the samples come in a new order each epoch.
      drop_remainder: Whether a last batch that is not full is left out.
      seed: An integer that order and neighbors follow, together with
        `tf.random.set_seed` if that was called. Without it they follow
        `keras.utils.set_random_seed`.
      input_context: What `strategy.distribute_datasets_from_function` passes to its
        function: each batch is then divided among all replicas, as evenly as it can be,
        and this dataset yields the parts of the replicas of one worker in turn. Over
        all workers each sample comes once an epoch, and all workers make the same
        number of batches, of which those of the last one may be empty. Several workers
        need a seed, one for all. Drawn neighbors are others than without a context.
      epoch: The number of the epoch, on which, with the seed alone, order and draws
        depend. A `tf.Variable` of integers is read whenever an iteration begins, so
        that training that goes on from a backup can repeat the epochs that an
        undisturbed one would have had. By default iterations are counted from the
        making of the dataset on.

    Returns:
      A `tf.data.Dataset` of `({"x": ..., "NL_nbr_0_x": ..., "NL_nbr_0_weight": ...},
      labels, sample_weight)`; weights of neighbors have shape [batch, 1], those of
      samples [batch].

    Raises:
      TypeError: If an argument is of a wrong type.
      ValueError: If lengths differ, an id is unknown, a number is out of range or the
        name of a feature cannot be told from those of neighbors.
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
            f"With {reason}, order and neighbors must follow one seed: give "
            "neighbor_dataset the same seed wherever and whenever the job runs."
        )
    if sampling is Sampling.WEIGHTED and (graph.weights < 0).any():
        raise ValueError(
            "Neighbors can be drawn in proportion to weights only if none is negative, "
            f"but one is {graph.weights.min()}."
        )
    tensors = _named_rows(features, graph, neighbor_config)
    rows = _sample_rows(graph, sample_ids)
    samples = len(rows)
    if samples == 0:
        raise ValueError("There are no samples: sample_ids is empty.")
    if drop_remainder and samples < batch_size:
        raise ValueError(
            f"With drop_remainder, {samples} samples make no batch of {batch_size}."
        )
    targets = _sample_targets(labels, sample_weight, samples)

    row_splits = host_tensor(graph.row_splits)
    edge_targets, edge_weights = host_tensor(graph.targets), host_tensor(graph.weights)
    row_tensor = host_tensor(rows)
    target_tensors = tf.nest.map_structure(host_tensor, targets)

    steps = samples // batch_size if drop_remainder else -(-samples // batch_size)
    # All batches are full if they can be: then every shape is static.
    only_full = drop_remainder or samples % batch_size == 0
    piece_size = part.piece_size(batch_size) if only_full else None

    # TensorFlow operations throughout: converting them would take half a second.
    @tf.autograph.experimental.do_not_convert
    def epoch_of(epoch_seed: tf.Tensor) -> tf.data.Dataset:
        order = tf.range(samples, dtype=tf.int32)
        if shuffle:
            order = tf.random.experimental.stateless_shuffle(
                order, tf.stack([epoch_seed, tf.constant(0, tf.int64)])
            )

        @tf.autograph.experimental.do_not_convert
        def places_and_seed(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            piece, start, end = part.piece(index, batch_size, samples)
            places = tf.ensure_shape(order[start:end], [piece_size])
            return places, tf.stack([epoch_seed, 1 + piece])

        return tf.data.Dataset.range(steps * part.local).map(places_and_seed)

    @tf.autograph.experimental.do_not_convert
    def batch(places: tf.Tensor, batch_seed: tf.Tensor) -> Any:
        nodes = tf.gather(row_tensor, places)
        sample_nodes = nodes if nodes.shape.rank == 2 else nodes[:, tf.newaxis]
        neighbors, weights = choose_neighbors(
            row_splits,
            edge_targets,
            edge_weights,
            sample_nodes,
            count,
            sampling,
            batch_seed,
        )
        if nodes.shape.rank == 1:
            neighbors = neighbors[:, :, 0]
        x = {name: gather(feature, nodes) for name, feature in tensors.items()}
        prefix, suffix = neighbor_config.prefix, neighbor_config.weight_suffix
        for i in range(count):
            for name, feature in tensors.items():
                x[f"{prefix}{i}_{name}"] = gather(feature, neighbors[:, i])
            x[f"{prefix}{i}{suffix}"] = weights[:, i : i + 1]
        if labels is None:
            return x
        y, w = tf.nest.map_structure(lambda t: tf.gather(t, places), target_tensors)
        return x, y, w

    dataset = _epoch_seeds(seed, epoch).flat_map(epoch_of)
    dataset = dataset.map(batch, num_parallel_calls=tf.data.AUTOTUNE)
    if part.local == 1:
        # Keras would take the number of pieces for several replicas as that of batches.
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(steps))
    return dataset.prefetch(tf.data.AUTOTUNE)


def _epoch_seeds(seed: int | None, epoch: tf.Variable | int | None) -> tf.data.Dataset:
    """Makes the dataset of one int64, another one each time it is iterated over."""
    if epoch is None:
        seeds = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True)
        return seeds.take(1)

    @tf.autograph.experimental.do_not_convert
    def seed_of_epoch(_: tf.Tensor) -> tf.Tensor:
        number = tf.cast(epoch, tf.int64)
        pair = tf.stack([tf.constant(seed, tf.int64), number])
        return tf.random.stateless_uniform([], pair, None, None, tf.int64)

    return tf.data.Dataset.range(1).map(seed_of_epoch)


def _check_type(name: str, value: Any, kind: type) -> None:
    if not isinstance(value, kind):
        raise TypeError(
            f"{name} must be a {kind.__name__}, but received {type(value).__name__}."
        )


def _named_rows(
    features: Any, graph: Graph, neighbor_config: GraphNeighborConfig
) -> dict[str, Rows]:
    # A matrix by keys of SciPy is a dict too.
    if not isinstance(features, Mapping) or is_sparse_matrix(features):
        features = {"x": features}
    if not features:
        raise ValueError("There are no features: the dict is empty.")
    rows = {}
    for name, value in features.items():
        if not isinstance(name, str):
            raise TypeError(f"The name of a feature must be a string, but is {name!r}.")
        prefix, suffix = neighbor_config.prefix, neighbor_config.weight_suffix
        if name.startswith(prefix) or f"_{name}" == suffix:
            raise ValueError(
                f"The feature {name!r} has the name of a neighbor's feature or weight "
                f"(prefix {prefix!r}, weight_suffix {suffix!r}): give it another name."
            )
        rows[name] = feature_rows(value, f"Feature {name!r}", graph.num_nodes)
    return rows


def _sample_rows(graph: Graph, sample_ids: Any) -> npt.NDArray[np.int32]:
    if sample_ids is None:
        return np.arange(graph.num_nodes, dtype=np.int32)
    rows = graph.rows(sample_ids, "sample_ids")
    if rows.ndim not in (1, 2) or (rows.ndim == 2 and not rows.shape[1]):
        raise ValueError(
            "sample_ids must be of shape [samples] or [samples, m], but have shape "
            f"{rows.shape}."
        )
    return rows


def _sample_targets(labels: Any, sample_weight: Any, samples: int) -> tuple[Any, Any]:
    """Checks labels and sample weights and blanks the labels that do not count."""
    if sample_weight is None:
        weights = np.ones(samples, np.float32)
    elif labels is None:
        raise ValueError(
            "sample_weight needs labels: without them nothing is weighted."
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

    def counted(values: Any) -> npt.NDArray[Any]:
        array = plain_array(values, "labels")
        if array.ndim == 0 or len(array) != samples:
            raise ValueError(
                f"labels must have one row for each of the {samples} samples, but have "
                f"shape {array.shape}."
            )
        if (weights != 0).all():
            return array
        shown = array.copy()
        blank = "" if array.dtype == object else np.zeros((), array.dtype)
        shown[weights == 0] = blank
        return shown

    if labels is None:
        return (), weights
    if isinstance(labels, list):
        labels = plain_array(labels, "labels")
    return tf.nest.map_structure(counted, labels), weights
