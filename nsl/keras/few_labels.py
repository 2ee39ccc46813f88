"""Trains a classifier on few labels and a graph; predicting needs no graph.

`fit` runs two stages, which can also be called separately. `teach` trains the model so
that its predictions, averaged over random walks, are correct for labeled nodes and
confident for unlabeled ones; it then smooths the predictions along the edges. `distill`
trains the model from its initial weights on these soft labels of all nodes, using only
each node's own features.

With n nodes, c classes and e directed edges, predictions take at most 100 * n * c bytes
and the graph 16 * e, in addition to the features, once more as dense float32 while at
most 2^27 values, and the model. A batch has at most 2 * walks * batch_size samples in
the first stage and batch_size in the second. `teach` trains twice for `teacher_steps`
updates, with validation nodes four times, only once with unlabeled nodes, and predicts
for all nodes each time. With validation nodes, it also trains a graph convolutional
network if that takes minutes at most. `distill` runs `steps` updates.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from absl import logging

from nsl.data import Graph, propagate
from nsl.data.feature_rows import plain_array
from nsl.data.powers import at_least_one
from nsl.data.walks import Walks, teleport_of_size
from nsl.keras.graph_convolution import graph_convolution
from nsl.keras.node_labels import NodeLabels, node_weights
from nsl.keras.node_model import SMALLEST_PROBABILITY, NodeModel
from nsl.keras.smooth_features import smooth_features

Floats = npt.NDArray[np.float32]

_FEATURE_HOPS, _FEATURE_DROPOUT = 2, 0.5
_MIN_EDGES, _MIN_HOMOPHILY = 30, 0.1
_PASSES, _MIN_STEPS, _MAX_STEPS = 30, 300, 1500
_MIN_SHARE = 1e-3


@dataclasses.dataclass(frozen=True)
class Settings:
    """Hyperparameters. The defaults suit graphs of any kind and size.

    Attributes:
      teleport: The probability in [0, 1] that a random walk stops before each step. By
        default it is chosen so that the walks of at least half of the nodes spread
        over at most ten nodes each, where walks spread over 1 / P nodes if two of them
        end at the same node with probability P.
      hops: The maximum number of steps of a walk.
      walks: The number of walks per node that are averaged.
      consistency: The weight of the consistency loss: predictions from two sets of
        walks should agree and be confident (Feng et al., 2020,
        https://arxiv.org/abs/2005.11079). It ramps up over the first quarter of the
        steps.
      sharpening_temperature: The temperature in [0, 1] that sharpens the targets of the
        consistency loss; lower is sharper.
      balance: How far the losses of unlabeled nodes weight classes by their share of
        the labels (1) instead of by how often they are predicted (0), in [0, 1]: the
        `power` of `balance`.
      confidence: The mean over nodes of the highest class probability in soft labels.
      input_dropout: The dropout rate of float features, in [0, 0.99]. By default 0.5
        for features that are sparse or at least 90% zeros, such as bags of words, and
        0 for others.
      learning_rate: The initial learning rate of Adam in each stage. It decays to 0
        with a cosine schedule.
      batch_size: The number of nodes in a batch.
      teacher_steps: The number of updates of each training in the first stage.
      steps: The number of updates in the second stage; by default 30 passes over the
        nodes, but at least 300 updates, and at most 1,500 or one pass.

    Raises:
      TypeError: If a count is not an integer.
      ValueError: If a number is out of range.
    """

    teleport: float | None = None
    hops: int = 10
    walks: int = 4
    consistency: float = 1.0
    sharpening_temperature: float = 0.5
    balance: float = 0.5
    confidence: float = 0.9
    input_dropout: float | None = None
    learning_rate: float = 0.01
    batch_size: int = 512
    teacher_steps: int = 150
    steps: int | None = None

    def __post_init__(self) -> None:
        """Checks the ranges."""
        for name in ("hops", "walks", "batch_size", "teacher_steps", "steps"):
            if name != "steps" or self.steps is not None:
                at_least_one(name, getattr(self, name))
        for name, most in (
            ("teleport", 1.0),
            ("consistency", np.inf),
            ("sharpening_temperature", 1.0),
            ("balance", 1.0),
            ("confidence", 1.0),
            ("learning_rate", np.inf),
            ("input_dropout", 0.99),
        ):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= most:
                raise ValueError(f"{name} must be in [0, {most}], but is {value}.")


def fit(
    model: keras.Model,
    graph: Graph | None,
    x: Any,
    y: Any,
    sample_weight: Any = None,
    *,
    validation: Any = None,
    teacher: bool = True,
    distillation: bool = True,
    settings: Settings | None = None,
    from_logits: bool | None = None,
    seed: int | None = None,
) -> keras.Model:
    """Trains a model on few labels and a graph over all samples.

    ```python
    graph = nsl.data.Graph((sources, targets), ids=range(len(x)), undirected=True)
    nsl.keras.few_labels.fit(model, graph, x, y, sample_weight=is_labeled, seed=0)
    model.predict(x_new)  # needs no graph
    ```

    The graph and the validation nodes decide the following, by the same rules for every
    graph:

    - How far walks reach: see `Settings.teleport`.
    - Whether the graph is used. It is ignored if at least 30 of its edges join nodes of
      known label, and these edges join equal labels hardly more often than chance:
      (h - p) / (1 - p) < 0.1, where h is the fraction of edges that join equal labels,
      and p that of all pairs of nodes.
    - Which predictions become soft labels, and how far they are smoothed: see `teach`.
    - Which weights the model keeps: those of the first stage, if they classify more
      validation nodes correctly by more than one standard error.

    Args:
      model: A Keras model with one output of shape [batch, classes]. Training starts
        from its current weights and updates it in place, with Adam; its compiled
        optimizer and loss stay as they are.
      graph: The graph, or None.
      x: The features, one row for each node: arrays, SciPy sparse matrices, sparse or
        ragged tensors, or a dict, tuple or list of them, as the model takes them.
        Sparse features become dense batch by batch if the model has no sparse inputs.
        Alternatively a `tf.data.Dataset` of batches `x` or `(x, ...)`, in the order of
        the nodes.
      y: Class labels, integers of shape [nodes]; ignored for unlabeled nodes.
      sample_weight: Numbers or booleans of shape [nodes]; 1 by default. 0 marks an
        unlabeled node.
      validation: Booleans of shape [nodes] that mark the validation nodes: their labels
        are known, but not trained on. Their `sample_weight` must be 0.
      teacher: Whether to run the first stage. If not, soft labels come from label
        propagation.
      distillation: Whether to run the second stage. If not, the model keeps the weights
        of the first.
      settings: The hyperparameters.
      from_logits: Whether the model outputs logits instead of probabilities. By
        default read from its compiled loss; an uncompiled model outputs probabilities.
      seed: The seed of all randomness except that of the model's own layers.

    Returns:
      `model`.

    Raises:
      TypeError: If an argument is of a wrong type.
      ValueError: If a shape or number is wrong, a label is out of range, no node is
        labeled, the model has several outputs, or the switches leave no stage that
        trains it.
    """
    if not teacher and (not distillation or graph is None):
        raise ValueError(
            "With teacher=False, there must be a graph, for label propagation, and "
            "distillation=True, to train the model. Received "
            f"graph={graph!r}, teacher={teacher}, distillation={distillation}."
        )
    settings = settings or Settings()
    network = _node_model(model, x, from_logits, settings, seed)
    labels = NodeLabels.of(y, sample_weight, validation, network.nodes, network.classes)
    graph = _useful_graph(graph, labels)
    initial_weights = network.weights()
    if teacher:
        probabilities = _teach(network, graph, labels, settings)
    else:
        assert graph is not None
        probabilities = propagate(
            graph, labels.one_hot, teleport=0.1, hops=settings.hops
        )
    if not distillation:
        return model
    teacher_weights = network.weights()
    validation_rows = labels.validation
    teacher_correct = None
    if teacher and len(validation_rows):
        teacher_correct = network.correct(labels.y, validation_rows)
    network.set_weights(initial_weights)
    weight = np.where(labels.weight > 0, labels.weight, probabilities.any(axis=1))
    weight = weight.astype(np.float32)
    soft_labels = soften(probabilities, settings.confidence)
    soft_labels[labels.labeled] = labels.one_hot[labels.labeled]
    used = np.flatnonzero(weight)
    weight[used] *= balance(soft_labels[used], labels.shares, settings.balance)
    _distill(network, soft_labels, weight, settings)
    if teacher_correct is not None:
        loss = teacher_correct - network.correct(labels.y, validation_rows)
        if loss.mean() > loss.std() / np.sqrt(len(validation_rows)):
            network.set_weights(teacher_weights)
    return model


def teach(
    model: keras.Model,
    graph: Graph | None,
    x: Any,
    y: Any,
    sample_weight: Any = None,
    *,
    validation: Any = None,
    settings: Settings | None = None,
    from_logits: bool | None = None,
    seed: int | None = None,
) -> Floats:
    """Trains a model so that its predictions are correct after smoothing on the graph.

    The model is trained from its current weights several times, and keeps the weights
    of the last training:

    1. Given validation nodes: on the labeled nodes, without the graph.
    2. Given validation nodes: on the labeled nodes, with float features averaged over
       the nodes that are at most two edges away (Wu et al., 2019,
       https://arxiv.org/abs/1902.07153). This is left out for models with sparse
       inputs, and for features of more than 2^27 values.
    3. On the labeled nodes, with random walks.
    4. On all nodes, with random walks and the consistency loss. It often helps, but can
       also collapse where features say little.

    Given validation nodes, a graph convolutional network is trained on the labeled
    nodes and float features as well (Kipf and Welling, 2017,
    https://arxiv.org/abs/1609.02907), unless this would take longer than a few minutes:
    for graphs of at most 2^20 directed edges, and features of at most 2^24 values, or
    2^21 that are not zero.

    The predictions of 2 to 4 are smoothed, with the teleport probability of the walks.
    The result is the geometric mean of the predictions after `soften`. Validation nodes
    leave out those that are clearly worse than the best: by more than one standard
    error of the difference in accuracy. Each class counts by its share of the
    supervised predictions, as validation nodes may lack a class or be of another
    distribution.

    The prediction for a node is the softmax of the model's mean logits at the ends of
    random walks from it: a sampled personalized PageRank of the logits (Gasteiger et
    al., 2019, https://arxiv.org/abs/1810.05997; Bojchevski et al., 2020,
    https://arxiv.org/abs/2007.01570). The loss is the crossentropy of labeled nodes, at
    most half of each batch, plus a consistency loss of the rest, drawn from all nodes:
    each of two predictions is trained towards the sharpened mean of both.

    Args:
      model: See `fit`, like every argument here.
      graph: The graph. With None, predictions are not smoothed.
      x: The features.
      y: The labels.
      sample_weight: 0 marks an unlabeled node.
      validation: The nodes that decide which predictions are returned.
      settings: The hyperparameters.
      from_logits: Whether the model outputs logits.
      seed: The seed of batches, walks and input dropout.

    Returns:
      The smoothed class probabilities of all nodes, float32 of shape [nodes, classes].

    Raises:
      TypeError: If an argument is of a wrong type.
      ValueError: If a shape or number is wrong, or no node is labeled.
    """
    settings = settings or Settings()
    network = _node_model(model, x, from_logits, settings, seed)
    labels = NodeLabels.of(y, sample_weight, validation, network.nodes, network.classes)
    return _teach(network, graph, labels, settings)


def distill(
    model: keras.Model,
    x: Any,
    soft_labels: Any,
    sample_weight: Any = None,
    *,
    settings: Settings | None = None,
    from_logits: bool | None = None,
    seed: int | None = None,
) -> keras.Model:
    """Trains a model on soft labels (Hinton et al., 2015).

    Zhang et al. (2022), "Graph-less neural networks", https://arxiv.org/abs/2110.08727,
    distill the predictions of a graph neural network in this way.

    Args:
      model: See `fit`, like every argument here except `soft_labels`.
      x: The features.
      soft_labels: Class probabilities of shape [nodes, classes].
      sample_weight: Numbers of shape [nodes]; 1 by default.
      settings: The hyperparameters.
      from_logits: Whether the model outputs logits.
      seed: The seed of batches and input dropout.

    Returns:
      `model`.

    Raises:
      TypeError: If an argument is of a wrong type.
      ValueError: If a shape or number is wrong.
    """
    settings = settings or Settings()
    network = _node_model(model, x, from_logits, settings, seed)
    soft = plain_array(soft_labels, "soft_labels")
    if soft.shape != (network.nodes, network.classes):
        raise ValueError(
            f"soft_labels must have shape {(network.nodes, network.classes)}, [nodes, "
            f"classes], but have shape {soft.shape}."
        )
    weight = node_weights(sample_weight, network.nodes)
    _distill(network, soft.astype(np.float32), weight, settings)
    return model


def soften(answers: Any, confidence: float = 0.9) -> Floats:
    """Rescales predictions with a temperature to reach a mean confidence.

    Guo et al. (2017), https://arxiv.org/abs/1706.04599, fit the temperature to
    validation samples; a fixed confidence needs none.

    Args:
      answers: Class probabilities of shape [nodes, classes]. Rows are normalized; rows
        of zeros become uniform.
      confidence: The target mean over nodes of the highest class probability. Rows of
        zeros do not count. If no temperature reaches it, the closest one is used.

    Returns:
      Class probabilities, float32 of shape [nodes, classes].
    """
    logits = _log(answers)
    sums = np.asarray(answers).sum(axis=1)
    logits[sums == 0] = 0
    # Bisection for the logarithm of the inverse temperature.
    low, high = -10.0, 10.0
    for _ in range(40):
        middle = (low + high) / 2
        mean = _softmax(logits[sums > 0] * np.float32(np.exp(middle))).max(axis=1)
        low, high = (middle, high) if mean.mean() < confidence else (low, middle)
    return _softmax(logits * np.float32(np.exp(low)))


def balance(soft_labels: Any, shares: Any, power: float = 0.5) -> Floats:
    """Computes node weights that keep rare classes from being lost among frequent ones.

    The weight of a node of class c is proportional to (s[c] / p[c]) ** power, where s
    is the desired share of the class, and p the mean of its soft labels, at least
    0.001. For a soft label, it is the mean over the classes. With power 1, the classes
    have the shares s in the total weight.

    Args:
      soft_labels: Class probabilities of shape [nodes, classes].
      shares: The desired shares of the classes, of shape [classes], such as those of
        the labels.
      power: How far to change the shares, from 0 (not at all) to 1.

    Returns:
      The weights, float32 of shape [nodes], with a mean of 1.

    Raises:
      ValueError: If a shape is wrong.
    """
    soft = plain_array(soft_labels, "soft_labels").astype(np.float32)
    desired = plain_array(shares, "shares").astype(np.float32)
    if soft.ndim != 2 or desired.shape != soft.shape[1:]:
        raise ValueError(
            "soft_labels must have shape [nodes, classes], and shares [classes], but "
            f"their shapes are {soft.shape} and {desired.shape}."
        )
    return _balance(tf.constant(soft), tf.constant(desired), power).numpy()


def _balance(soft_labels: tf.Tensor, shares: tf.Tensor, power: float) -> tf.Tensor:
    predicted = tf.maximum(tf.reduce_mean(soft_labels, axis=0), _MIN_SHARE)
    weights = tf.linalg.matvec(soft_labels, tf.pow(shares / predicted, power))
    return tf.math.divide_no_nan(weights, tf.reduce_mean(weights))


def _softmax(logits: Floats) -> Floats:
    with np.errstate(under="ignore"):
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)


def _log(probabilities: Any) -> Floats:
    values = np.asarray(probabilities, np.float32)
    return np.log(np.maximum(values, SMALLEST_PROBABILITY))


def _node_model(
    model: keras.Model,
    x: Any,
    from_logits: bool | None,
    settings: Settings,
    seed: int | None,
) -> NodeModel:
    return NodeModel(
        model,
        x,
        from_logits=from_logits,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        input_dropout=settings.input_dropout,
        seed=seed,
    )


def _useful_graph(graph: Graph | None, labels: NodeLabels) -> Graph | None:
    """Returns the graph, or None if its homophily is known to be too low."""
    if graph is None:
        return None
    ends = labels.y[graph.sources], labels.y[graph.targets]
    known = (ends[0] >= 0) & (ends[1] >= 0)
    if known.sum() < _MIN_EDGES:
        return graph
    equal = np.mean(ends[0][known] == ends[1][known])
    frequencies = np.bincount(labels.y[labels.y >= 0]) / (labels.y >= 0).sum()
    chance = np.sum(frequencies**2)
    if equal - chance >= _MIN_HOMOPHILY * (1 - chance):
        return graph
    logging.warning(
        "The graph is ignored: %.1f%% of its %d edges between known labels join equal "
        "labels, and %.1f%% of all pairs do.",
        100 * equal,
        known.sum(),
        100 * chance,
    )
    return None


class _Teaching:
    """The batches and the loss of one training of the first stage; see `teach`.

    Args:
      network: The model and the features.
      labels: The labels.
      walks: Random walks, or None for predictions that are not smoothed.
      settings: The hyperparameters. Without consistency, batches hold no unlabeled
        nodes.
    """

    def __init__(
        self,
        network: NodeModel,
        labels: NodeLabels,
        walks: Walks | None,
        settings: Settings,
    ) -> None:
        self._network, self._walks, self._settings = network, walks, settings
        self._count = settings.walks if walks else 1
        self._supervised = min(len(labels.labeled), settings.batch_size // 2 or 1)
        self._unsupervised = 0
        if settings.consistency:
            self._unsupervised = max(settings.batch_size - self._supervised, 1)
        self._labeled = tf.constant(labels.labeled, tf.int32)
        self._one_hot = tf.constant(labels.one_hot[labels.labeled])
        self._weight = tf.constant(labels.weight[labels.labeled])
        self._shares = tf.constant(labels.shares)

    def batch(self, step: tf.Tensor) -> Any:
        """Samples nodes and the ends of two sets of walks from each."""
        seeds = tf.unstack(
            tf.random.stateless_uniform(
                [5, 2],
                tf.stack([self._network.seed, step]),
                minval=None,  # type: ignore[arg-type]
                dtype=tf.int64,
            )
        )
        order = tf.random.experimental.stateless_shuffle(  # type: ignore[attr-defined]
            tf.range(tf.size(self._labeled)), seeds[0]
        )[: self._supervised]
        drawn = tf.random.stateless_uniform(
            [self._unsupervised], seeds[1], 0, self._network.nodes, tf.int32
        )
        starts = tf.concat([tf.gather(self._labeled, order), drawn], axis=0)
        starts = tf.repeat(starts, self._count)
        views = [
            tf.unique(self._walks.ends(starts, seed) if self._walks else starts)
            for seed in seeds[2:4]
        ]
        # A node in both views gets independent dropout in each.
        rows = tf.concat([view.y for view in views], axis=0)
        positions = tf.stack([views[0].idx, views[1].idx + tf.size(views[0].y)])
        labels = tf.gather(self._one_hot, order), tf.gather(self._weight, order)
        return self._network.batch(rows, seeds[4]), positions, *labels

    def loss(
        self,
        step: tf.Tensor,
        inputs: Any,
        positions: tf.Tensor,
        y: tf.Tensor,
        weight: tf.Tensor,
    ) -> tf.Tensor:
        """Returns the loss of a batch, a scalar."""
        logs = self._network.log_probabilities(inputs, training=True)
        starts = self._supervised + self._unsupervised
        shape = [2, starts, self._count, self._network.classes]
        logs = tf.reshape(tf.gather(logs, positions), shape)
        logs = tf.nn.log_softmax(tf.reduce_mean(logs, axis=2))
        cross = -tf.reduce_sum(y * logs[:, : self._supervised], axis=[0, 2]) / 2
        loss = tf.reduce_sum(weight * cross) / tf.reduce_sum(weight)
        if not self._unsupervised:
            return loss
        ramp = 4 * tf.cast(step, tf.float32) / self._settings.teacher_steps
        factor = self._settings.consistency * tf.minimum(ramp, 1.0)
        return loss + factor * self._consistency(logs[:, self._supervised :])

    def _consistency(self, pair: tf.Tensor) -> tf.Tensor:
        """Returns the mean loss of two sets of log-probabilities of the same nodes."""
        mean = tf.reduce_mean(tf.exp(pair), axis=0)
        mean = tf.math.log(mean + SMALLEST_PROBABILITY)
        target = tf.nn.softmax(mean / self._settings.sharpening_temperature)
        target = tf.stop_gradient(target)
        cross = -tf.reduce_sum(target * pair, axis=-1)
        cross *= _balance(target, self._shares, self._settings.balance)
        return tf.reduce_mean(cross)

    def train(self) -> Floats:
        """Trains, and returns the log-probabilities of all nodes, not smoothed."""
        steps = self._settings.teacher_steps
        self._network.train("Teaching", steps, self.batch, self.loss)
        return self._network.predict()


def _teach(
    network: NodeModel, graph: Graph | None, labels: NodeLabels, settings: Settings
) -> Floats:
    """Runs the first stage; see `teach`."""
    if graph is not None and graph.num_nodes != network.nodes:
        raise ValueError(
            f"The graph has {graph.num_nodes} nodes, but x has {network.nodes} "
            "rows. Pass the ids of all nodes to the graph."
        )
    start = network.weights()

    def trained(network: NodeModel, walks: Walks | None, consistency: float) -> Floats:
        network.set_weights(start)
        chosen = dataclasses.replace(settings, consistency=consistency)
        return _Teaching(network, labels, walks, chosen).train()

    strengths = sorted({0.0, settings.consistency})
    alone: list[Floats] = []
    if graph is None:
        # The model keeps the weights of the last training.
        candidates = [trained(network, None, each) for each in strengths]
    else:
        teleport = settings.teleport
        if teleport is None:
            teleport = teleport_of_size(graph, settings.hops)
        walks = Walks(graph, teleport, settings.hops)
        candidates = []
        if len(labels.validation):
            alone = [trained(network, None, 0.0)]
            averaged = _averaged(network, graph, settings.input_dropout)
            candidates += [trained(averaged, None, 0.0)] if averaged else []
        candidates += [trained(network, walks, each) for each in strengths]
        candidates = [
            propagate(graph, logs, teleport=teleport, hops=settings.hops)
            for logs in candidates
        ]
        if len(labels.validation):
            seed = int(network.seed)
            found = graph_convolution(network.features, graph, labels, seed)
            candidates[:0] = [] if found is None else [found]
    if len(labels.validation):
        supervised = candidates[: len(candidates) - len(strengths) + 1]
        shares = _shares(supervised)
        candidates = _reliable([*alone, *candidates], shares, labels)
        if alone and all(each is alone[0] for each in candidates):
            logging.warning(
                "Validation nodes are predicted best without the graph: it is not used "
                "for soft labels."
            )
    return _mean(candidates, settings.confidence)


def _averaged(
    network: NodeModel, graph: Graph, dropout: float | None
) -> NodeModel | None:
    """Returns the model with averaged features, or None if it cannot read them."""
    if network.takes_sparse:
        return None
    x = smooth_features(network.features, graph, _FEATURE_HOPS)
    if x is None:
        return None
    return network.reading(x, _FEATURE_DROPOUT if dropout is None else dropout)


def _mean(candidates: list[Floats], confidence: float) -> Floats:
    """Returns the normalized geometric mean of softened predictions."""
    soft = [_log(soften(_softmax(each), confidence)) for each in candidates]
    return _softmax(np.mean(soft, axis=0))


def _shares(logs: list[Floats]) -> Floats:
    """Returns the share of each class among the predictions of the mean."""
    mean = np.mean(logs, axis=0)
    counts = 1 + np.bincount(mean.argmax(axis=1), minlength=mean.shape[1])
    return (counts / counts.sum()).astype(np.float32)


def _reliable(
    candidates: list[Floats], shares: Floats, labels: NodeLabels
) -> list[Floats]:
    """Returns the predictions that are not clearly worse than the best.

    Args:
      candidates: Log-probabilities of shape [nodes, classes].
      shares: How much each class counts, of shape [classes].
      labels: The labels.

    Returns:
      The candidates whose accuracy on validation nodes, with weighted classes, is at
      most one standard error below the highest: that of the difference, if there is
      none in truth.
    """
    rows = labels.validation
    y = labels.y[rows]
    weight = (shares / np.maximum(np.bincount(y, minlength=labels.classes), 1))[y]
    weight /= weight.sum()
    correct = np.array([each[rows].argmax(axis=1) == y for each in candidates], float)
    losses = correct[np.argmax(correct @ weight)] - correct
    errors = np.sqrt(np.square(losses) @ weight**2)
    return [candidates[i] for i in np.flatnonzero(losses @ weight <= errors + 1e-9)]


def _distill(
    network: NodeModel, soft_labels: Floats, weight: Floats, settings: Settings
) -> None:
    """Runs the second stage; see `distill`."""
    rows = np.flatnonzero(weight)
    size = min(settings.batch_size, len(rows))
    one_pass = -(-len(rows) // size)
    steps = settings.steps or max(
        _MIN_STEPS, one_pass, min(_PASSES * one_pass, _MAX_STEPS)
    )
    rng = np.random.default_rng(network.seed)
    per_epoch = len(rows) // size
    epochs = -(-steps // per_epoch)
    order = np.concatenate(
        [rng.permutation(rows)[: per_epoch * size] for _ in range(epochs)]
    )
    nodes = tf.constant(order.reshape(-1, size), tf.int32)
    targets, weights = tf.constant(soft_labels), tf.constant(weight, tf.float32)

    def batch(step: tf.Tensor) -> Any:
        chosen = nodes[step]
        inputs = network.batch(chosen, tf.stack([network.seed, step]))
        return inputs, tf.gather(targets, chosen), tf.gather(weights, chosen)

    def loss(_: tf.Tensor, inputs: Any, y: tf.Tensor, w: tf.Tensor) -> tf.Tensor:
        logs = network.log_probabilities(inputs, training=True)
        return tf.reduce_sum(w * -tf.reduce_sum(y * logs, axis=1)) / tf.reduce_sum(w)

    network.train("Distilling", steps, batch, loss)
