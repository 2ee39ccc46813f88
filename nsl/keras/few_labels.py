"""Trains a classifier on few labels and a graph; it answers without the graph.

`fit` runs two stages, which can be called one by one. `teach` trains the model so that
its mean answer along random walks is right for labeled nodes and sure for the others,
and spreads its answers along the edges. `distill` trains the model from the start on
these answers, for all nodes, by their own features alone.

For n nodes, c classes and e edges, counted in each direction, answers take at most
20 * n * c bytes and the graph 16 * e, beside the features and the model. A batch of the
first stage has at most 2 * walks * batch_size samples, one of the second batch_size. A
stage takes `teacher_steps` or `steps` updates, and one prediction for all nodes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from nsl.data import Graph, propagate
from nsl.data.feature_rows import feature_rows, gather, plain_array
from nsl.data.powers import at_least_one
from nsl.data.walks import Walks, teleport_of_size
from nsl.keras.base_model import check_base_model, to_base_inputs
from nsl.progress import Progress

Floats = npt.NDArray[np.float32]

_TELEPORTS = (0.1, 0.2, 0.4)
_LEAST_EDGES, _LEAST_HOMOPHILY = 30, 0.1
_LEAST_STEPS = 300
# Of features: the share of zeros from which on they count as sparse.
_SPARSE_SHARE, _SPARSE_DROPOUT = 0.9, 0.5
_LEAST_PROBABILITY = 1e-7
_LEAST_SHARE = 1e-3


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a run may choose. The defaults suit graphs of any kind and size.

    Attributes:
      teleport: The chance that a random walk stops before each step. By default that
        with which half of the nodes reach ten nodes or fewer, 1 over the chance that
        two walks from a node end at the same one.
      hops: The largest number of steps of a walk.
      walks: How many walks from a node are averaged.
      consistency: Factor of the loss of unlabeled nodes, of which two sets of walks are
        to give the same, surer answer (Feng et al., 2020,
        https://arxiv.org/abs/2005.11079). It grows over a quarter of the steps.
      sharpening_temperature: The smaller, the surer that answer.
      balance: How far a class counts in the losses of unlabeled nodes as it does among
        the labels (1) instead of as often as it is predicted (0): `power` of `balance`.
      confidence: The mean probability of the likeliest class in soft labels.
      input_dropout: The share of numbers that float features lack in a batch; the
        others are scaled up. By default 0.5 where nine tenths are 0 anyway, as in bags
        of words, and otherwise 0.
      learning_rate: Of Adam at the start of a stage; it falls to 0 along a cosine.
      batch_size: The number of nodes in a batch.
      teacher_steps: The number of updates of the first stage.
      steps: Those of the second; by default one pass over the nodes, or 300.
    """

    teleport: float | None = None
    hops: int = 10
    walks: int = 4
    consistency: float = 1.0
    sharpening_temperature: float = 0.5
    balance: float = 0.5
    confidence: float = 0.7
    input_dropout: float | None = None
    learning_rate: float = 0.01
    batch_size: int = 512
    teacher_steps: int = 150
    steps: int | None = None

    def __post_init__(self) -> None:
        """Checks the numbers."""
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
    """Trains a model on few labels and the graph over all samples.

    ```python
    graph = nsl.data.Graph((sources, targets), ids=range(len(x)), undirected=True)
    nsl.keras.few_labels.fit(model, graph, x, y, sample_weight=is_labeled, seed=0)
    model.predict(x_new)  # needs no graph
    ```

    The graph and the validation nodes decide, by the same rules for every graph:

    - how far walks lead (`Settings.teleport`);
    - whether the graph is used: edges between nodes of known label, 30 or more, must
      join equal labels more often than chance. With h the share of edges that do and p
      that of all pairs, (h - p) / (1 - p) must be 0.1 or more;
    - how far answers are spread: of three teleports that under which the labels of the
      validation nodes are likeliest;
    - which stage has the last word: the first, if its network is right for more
      validation nodes, by more than a standard error.

    Args:
      model: Any Keras model with one output of shape [batch, classes]. It is trained in
        place, by Adam, from the weights that it has, and stays compiled as it is.
      graph: The graph, or None.
      x: The features, a row for each node: arrays, sparse matrices of SciPy, sparse or
        ragged tensors, or a dict, tuple or list of them as the model takes it. Sparse
        ones are made dense batch by batch if the model has no sparse inputs. Or a
        `tf.data.Dataset` of batches `x` or `(x, ...)` in the order of the nodes.
      y: Integers of shape [nodes]; those of unlabeled nodes are not read.
      sample_weight: Numbers or booleans of shape [nodes], 1 by default. 0 stands for
        an unlabeled node.
      validation: Booleans of shape [nodes]: nodes whose label is known, but does not
        train.
      teacher: Whether there is a first stage. Otherwise the soft labels are those of
        label propagation.
      distillation: Whether there is a second stage. Otherwise the model is what the
        first one trains.
      settings: What else may be chosen.
      from_logits: Whether the model gives logits instead of probabilities. By default
        its compiled loss tells; if it is not compiled, it gives probabilities.
      seed: An integer that all chance depends on, but what layers draw themselves.

    Returns:
      The model.

    Raises:
      TypeError: If an argument is of a wrong type.
      ValueError: If a shape or number is wrong, a label is no class, no node is
        labeled, the model has several outputs, or both stages are off.
    """
    if not teacher and (not distillation or graph is None):
        raise ValueError(
            "Without a teacher there must be a graph, along which labels spread, and "
            "distillation, which trains the model. Received "
            f"graph={graph!r}, teacher={teacher}, distillation={distillation}."
        )
    settings = settings or Settings()
    network = _Network(model, x, from_logits, settings, seed)
    labels = _Labels.of(y, sample_weight, validation, network)
    graph = _useful(graph, labels)
    beginning = network.weights()
    if teacher:
        answers = _teach(network, graph, labels)
    else:
        assert graph is not None
        answers = propagate(graph, labels.one_hot, teleport=0.1, hops=settings.hops)
    if not distillation:
        return model
    taught = network.weights()
    known = labels.validation
    before = network.hits(labels.y, known) if teacher and len(known) else None
    network.set_weights(beginning)
    weight = np.where(labels.weight > 0, labels.weight, answers.any(axis=1))
    weight = weight.astype(np.float32)
    soft = soften(answers, settings.confidence)
    soft[labels.labeled] = labels.one_hot[labels.labeled]
    used = np.flatnonzero(weight)
    weight[used] *= balance(soft[used], labels.shares, settings.balance)
    _distill(network, soft, weight)
    if before is not None:
        loss = before - network.hits(labels.y, known)
        if loss.mean() > loss.std() / np.sqrt(len(known)):
            network.set_weights(taught)
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
    """Trains a model so that its answers, spread along the edges, are right.

    The answer to a node is what the mean of the model's logits at the ends of some
    random walks from it makes likely: PageRank of the logits, by samples (Gasteiger et
    al., 2019, https://arxiv.org/abs/1810.05997; Bojchevski et al., 2020,
    https://arxiv.org/abs/2007.01570). Its crossentropy counts for labeled nodes, half
    of a batch at most. For the others each of two answers is drawn towards the
    sharpened mean of both.

    Args:
      model: See `fit`, as for all.
      graph: The graph. None spreads nothing.
      x: The features.
      y: The labels.
      sample_weight: 0 stands for an unlabeled node.
      validation: Nodes that decide how far answers are spread.
      settings: What else may be chosen.
      from_logits: Whether the model gives logits.
      seed: Determines batches, walks and dropout of the input.

    Returns:
      Probabilities for all nodes, float32 of shape [nodes, classes].

    Raises:
      TypeError: If an argument is of a wrong type.
      ValueError: If a shape or number is wrong, or no node is labeled.
    """
    network = _Network(model, x, from_logits, settings or Settings(), seed)
    labels = _Labels.of(y, sample_weight, validation, network)
    return _teach(network, graph, labels)


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
    """Trains a model on the probabilities of classes (Hinton et al., 2015).

    Zhang et al. (2022), "Graph-less neural networks", https://arxiv.org/abs/2110.08727,
    do so with the answers of a graph neural network.

    Args:
      model: See `fit`, as for all.
      x: The features.
      soft_labels: Probabilities of shape [nodes, classes].
      sample_weight: Numbers of shape [nodes], 1 by default.
      settings: What else may be chosen.
      from_logits: Whether the model gives logits.
      seed: Determines batches and dropout of the input.

    Returns:
      The model.

    Raises:
      TypeError: If an argument is of a wrong type.
      ValueError: If a shape or number is wrong.
    """
    network = _Network(model, x, from_logits, settings or Settings(), seed)
    soft = plain_array(soft_labels, "soft_labels")
    if soft.shape != (network.nodes, network.classes):
        raise ValueError(
            f"soft_labels must have shape {(network.nodes, network.classes)}, [nodes, "
            f"classes], but have shape {soft.shape}."
        )
    _distill(network, soft.astype(np.float32), _weights(sample_weight, network.nodes))
    return model


def soften(answers: Any, confidence: float = 0.7) -> Floats:
    """Changes the temperature of answers so that they are as sure as is wanted.

    Guo et al. (2017), https://arxiv.org/abs/1706.04599, scale so by validation samples;
    a fixed confidence needs none.

    Args:
      answers: Probabilities of shape [nodes, classes]. Rows are normalized, and those
        of zeros become uniform.
      confidence: The mean over nodes of the probability of the likeliest class. It is
        met as nearly as can be.

    Returns:
      float32 of that shape.
    """
    logits = _logs(answers)
    sums = np.asarray(answers).sum(axis=1)
    logits[sums == 0] = 0
    low, high = -10.0, 10.0
    for _ in range(40):
        middle = (low + high) / 2
        mean = _softmax(logits[sums > 0] * np.float32(np.exp(middle))).max(axis=1)
        low, high = (middle, high) if mean.mean() < confidence else (low, middle)
    return _softmax(logits * np.float32(np.exp(low)))


def balance(soft_labels: Any, shares: Any, power: float = 0.5) -> Floats:
    """Weighs nodes so that rare classes are not lost among frequent ones.

    A node of class c gets a weight in proportion to (s[c] / p[c]) ** power, where s is
    the wanted share of the class and p the mean of its soft labels, at least 0.001; a
    soft label gets the mean over classes. With power 1 the classes' shares of the
    weight are s.

    Args:
      soft_labels: Probabilities of shape [nodes, classes].
      shares: The wanted shares of the classes, of shape [classes], say those among the
        labels.
      power: How far shares change, from 0 (not at all) to 1.

    Returns:
      float32 of shape [nodes], with a mean of 1.
    """
    soft = plain_array(soft_labels, "soft_labels").astype(np.float32)
    wanted = plain_array(shares, "shares").astype(np.float32)
    if soft.ndim != 2 or wanted.shape != soft.shape[1:]:
        raise ValueError(
            "soft_labels must have shape [nodes, classes] and shares [classes], but "
            f"have shapes {soft.shape} and {wanted.shape}."
        )
    return _balance(tf.constant(soft), tf.constant(wanted), power).numpy()


def _balance(soft: tf.Tensor, shares: tf.Tensor, power: float) -> tf.Tensor:
    predicted = tf.maximum(tf.reduce_mean(soft, axis=0), _LEAST_SHARE)
    weights = tf.linalg.matvec(soft, tf.pow(shares / predicted, power))
    return tf.math.divide_no_nan(weights, tf.reduce_mean(weights))


def _softmax(logits: Floats) -> Floats:
    with np.errstate(under="ignore"):
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)


def _logs(probabilities: Any) -> Floats:
    values = np.asarray(probabilities, np.float32)
    return np.log(np.maximum(values, _LEAST_PROBABILITY))


def _weights(sample_weight: Any, nodes: int) -> Floats:
    """Checks the weights of nodes."""
    if sample_weight is None:
        return np.ones(nodes, np.float32)
    weights = plain_array(sample_weight, "sample_weight").astype(np.float32)
    if weights.shape not in ((nodes,), (nodes, 1)):
        raise ValueError(
            f"sample_weight must have shape ({nodes},), one number for each node, but "
            f"has shape {weights.shape}."
        )
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise ValueError("sample_weight must be finite and not negative.")
    return weights.reshape(nodes)


@dataclasses.dataclass(frozen=True, eq=False)
class _Labels:
    """What is known of the nodes.

    Attributes:
      y: The class of each node, -1 where it is not known.
      weight: The weights of the nodes, 0 for those that do not train.
      labeled: The rows of those that do.
      validation: The rows of those that choose.
      classes: The number of classes.
    """

    y: npt.NDArray[np.int64]
    weight: Floats
    labeled: npt.NDArray[np.intp]
    validation: npt.NDArray[np.intp]
    classes: int

    @classmethod
    def of(
        cls, y: Any, sample_weight: Any, validation: Any, network: _Network
    ) -> _Labels:
        """Checks labels and weights."""
        nodes, classes = network.nodes, network.classes
        values = plain_array(y, "y")
        if values.shape not in ((nodes,), (nodes, 1)) or values.dtype.kind not in "biu":
            raise ValueError(
                f"y must be integers of shape ({nodes},), the class of each node, but "
                f"is {values.dtype} of shape {values.shape}."
            )
        weight = _weights(sample_weight, nodes)
        chosen = np.zeros(nodes, bool)
        if validation is not None:
            chosen = plain_array(validation, "validation")
            if chosen.dtype != bool or chosen.shape != (nodes,):
                raise ValueError(
                    f"validation must be booleans of shape ({nodes},), whether a node "
                    f"validates, but is {chosen.dtype} of shape {chosen.shape}."
                )
        if (chosen & (weight > 0)).any():
            row = np.flatnonzero(chosen & (weight > 0))[0]
            raise ValueError(
                f"Node {row} validates and has sample_weight {weight[row]}: give nodes "
                "of validation the weight 0."
            )
        labeled = np.flatnonzero(weight)
        if not len(labeled):
            raise ValueError("No node is labeled: each has sample_weight 0.")
        known = np.where((weight > 0) | chosen, values.reshape(nodes).astype(int), -1)
        wrong = ((weight > 0) | chosen) & ((known < 0) | (known >= classes))
        if wrong.any():
            row = np.flatnonzero(wrong)[0]
            raise ValueError(
                f"The model has {classes} classes, 0 to {classes - 1}, but y of node "
                f"{row} is {known[row]}. If its label is not known, give it "
                "sample_weight 0."
            )
        return cls(known, weight, labeled, np.flatnonzero(chosen), classes)

    @property
    def one_hot(self) -> Floats:
        """The classes of labeled nodes as 0 and 1, and zeros for the others."""
        rows = np.zeros((len(self.y), self.classes), np.float32)
        rows[self.labeled, self.y[self.labeled]] = 1
        return rows

    @property
    def shares(self) -> Floats:
        """The shares of the classes in the weight of labeled nodes."""
        return self.weight @ self.one_hot / self.weight.sum()


def _useful(graph: Graph | None, labels: _Labels) -> Graph | None:
    """Returns the graph unless its edges join equal labels as seldom as chance does."""
    if graph is None:
        return None
    sources = np.repeat(np.arange(graph.num_nodes), np.diff(graph.row_splits))
    ends = labels.y[sources], labels.y[graph.targets]
    known = (ends[0] >= 0) & (ends[1] >= 0)
    if known.sum() < _LEAST_EDGES:
        return graph
    equal = np.mean(ends[0][known] == ends[1][known])
    shares = np.bincount(labels.y[labels.y >= 0]) / (labels.y >= 0).sum()
    chance = np.sum(shares**2)
    return graph if equal - chance >= _LEAST_HOMOPHILY * (1 - chance) else None


class _Network:
    """A model, the features of all nodes, and how the one is trained on the others."""

    def __init__(
        self,
        model: keras.Model,
        x: Any,
        from_logits: bool | None,
        settings: Settings,
        seed: int | None,
    ) -> None:
        check_base_model(model)
        self.model, self.settings = model, settings
        self.seed = np.random.SeedSequence(seed).generate_state(1)[0].astype(np.int64)
        features = _collected(x) if isinstance(x, tf.data.Dataset) else x
        self.nodes = _length(features)
        self._rows = tf.nest.map_structure(
            lambda value: feature_rows(value, "A feature of x", self.nodes), features
        )
        inputs = getattr(model, "inputs", None) or ()
        self._takes_sparse = any(getattr(each, "sparse", False) for each in inputs)
        self._dropout = tf.nest.map_structure(self._dropout_of, features)
        self._from_logits = _gives_logits(model) if from_logits is None else from_logits
        output = self._output(self.batch(tf.range(min(2, self.nodes))), False)
        shapes = [tuple(part.shape) for part in keras.tree.flatten(output)]
        if len(shapes) != 1 or len(shapes[0]) != 2 or shapes[0][1] < 2:
            raise ValueError(
                "few_labels trains models with one output of shape [batch, classes], "
                f"two classes or more, but {model.name!r} has outputs of shapes "
                f"{shapes}. Train a keras.Model of one of several outputs; let a yes "
                "or no be two classes."
            )
        self.classes = shapes[0][1]
        values = np.asarray(tf.cast(keras.tree.flatten(output)[0], tf.float32))
        if not self._from_logits and not (
            (values >= 0).all() and np.allclose(values.sum(axis=1), 1, atol=1e-2)
        ):
            raise ValueError(
                f"{model.name!r} is taken to give probabilities, but gives "
                f"{values[0]}. If these are logits, pass from_logits=True, or compile "
                "it with a loss that has from_logits=True; otherwise let it end with a "
                "softmax."
            )
        self._answers_of = tf.function(
            lambda rows: self.log_probabilities(self.batch(rows), training=False),
            input_signature=[tf.TensorSpec([None], tf.int32)],
            autograph=False,
        )

    def _dropout_of(self, value: Any) -> float:
        """Returns the share of a feature's numbers that batches lack."""
        dtype = tf.as_dtype(getattr(value, "dtype", np.asarray(value).dtype))
        if not dtype.is_floating:
            return 0.0
        if self.settings.input_dropout is not None:
            return self.settings.input_dropout
        zeros = 1.0
        if not (isinstance(value, tf.SparseTensor) or hasattr(value, "tocoo")):
            zeros = float(np.mean(np.asarray(value[: 1 << 10]) == 0))
        return _SPARSE_DROPOUT if zeros >= _SPARSE_SHARE else 0.0

    def weights(self) -> list[npt.NDArray[Any]]:
        """Copies all variables of the model."""
        return [variable.numpy() for variable in self.model.variables]

    def set_weights(self, values: list[npt.NDArray[Any]]) -> None:
        """Puts back what `weights` returned."""
        for variable, value in zip(self.model.variables, values, strict=True):
            variable.assign(value)

    def batch(
        self, nodes: tf.Tensor, noise: tf.Tensor | None = None
    ) -> tuple[Any, ...]:
        """Gathers the features of nodes, with dropout where there is a seed for it."""

        def of_feature(rows: Any, dropout: float) -> Any:
            values = gather(rows, nodes)
            if noise is not None and dropout:
                values = _dropped(values, dropout, noise)
            if isinstance(values, tf.SparseTensor) and not self._takes_sparse:
                return tf.sparse.to_dense(values)
            return values

        batch = tf.nest.map_structure(of_feature, self._rows, self._dropout)
        return tuple(tf.nest.flatten(batch))

    def _output(self, batch: tuple[Any, ...], training: bool) -> Any:
        inputs = tf.nest.pack_sequence_as(self._rows, batch)
        return self.model(to_base_inputs(self.model, inputs), training=training)

    def log_probabilities(self, batch: tuple[Any, ...], training: bool) -> tf.Tensor:
        """Returns the logarithms of what the model answers."""
        output = tf.cast(self._output(batch, training), tf.float32)
        if self._from_logits:
            return tf.nn.log_softmax(output)
        return tf.math.log(tf.maximum(output, _LEAST_PROBABILITY))

    def answers(self, rows: npt.NDArray[np.intp] | None = None) -> Floats:
        """Returns log-probabilities for some nodes or all, of shape [rows, classes]."""
        rows = np.arange(self.nodes) if rows is None else rows
        found = np.empty((len(rows), self.classes), np.float32)
        size = self.settings.batch_size
        with Progress("Answering", len(rows), "nodes") as progress:
            for first in range(0, len(rows), size):
                part = rows[first : first + size].astype(np.int32)
                found[first : first + size] = self._answers_of(part).numpy()
                progress.advance(len(part))
        return found

    def hits(self, y: npt.NDArray[np.int64], rows: npt.NDArray[np.intp]) -> Floats:
        """Tells for each of some nodes whether the model is right: 1 or 0."""
        right = self.answers(rows).argmax(axis=1) == y[rows]
        return right.astype(np.float32)

    def train(
        self,
        title: str,
        steps: int,
        batch: Callable[[tf.Tensor], Any],
        loss: Callable[..., tf.Tensor],
    ) -> None:
        """Updates the weights.

        Args:
          title: What is done, for a line on a terminal.
          steps: The number of updates.
          batch: Makes a batch, a tuple, of the number of the step.
          loss: Computes the loss of a batch, of the number of the step and its parts.
        """
        variables = self.model.trainable_variables
        schedule = keras.optimizers.schedules.CosineDecay(
            self.settings.learning_rate, steps
        )
        optimizer = keras.optimizers.Adam(schedule)
        if self.model.dtype_policy.name == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        optimizer.build(variables)

        @tf.function(autograph=False, reduce_retracing=True)
        def update(step: tf.Tensor, *parts: Any) -> None:
            with tf.GradientTape() as tape:
                total = tf.add_n([loss(step, *parts), *self.model.losses])
                total = optimizer.scale_loss(total)
            optimizer.apply(tape.gradient(total, variables), variables)

        # TensorFlow operations throughout: converting them would take half a second.
        @tf.autograph.experimental.do_not_convert
        def numbered(step: tf.Tensor) -> Any:
            return step, *batch(step)

        batches = tf.data.Dataset.range(steps).map(
            numbered, num_parallel_calls=tf.data.AUTOTUNE
        )
        with Progress(title, steps, "steps") as progress:
            for parts in batches.prefetch(tf.data.AUTOTUNE):
                update(*parts)
                progress.advance(1)


def _teach(network: _Network, graph: Graph | None, labels: _Labels) -> Floats:
    settings = network.settings
    walks, teleport = None, 1.0
    if graph is not None:
        if graph.num_nodes != network.nodes:
            raise ValueError(
                f"The graph has {graph.num_nodes} nodes, but x has {network.nodes} "
                "rows. Give the graph the ids of all nodes."
            )
        teleport = settings.teleport or teleport_of_size(graph, settings.hops)
        walks = Walks(graph, teleport, settings.hops)
    count = settings.walks if walks else 1
    supervised = min(len(labels.labeled), settings.batch_size // 2 or 1)
    others = max(settings.batch_size - supervised, 1)
    labeled = tf.constant(labels.labeled, tf.int32)
    one_hot = tf.constant(labels.one_hot[labels.labeled])
    weight = tf.constant(labels.weight[labels.labeled])
    shares = tf.constant(labels.shares)

    def batch(step: tf.Tensor) -> Any:
        seeds = tf.unstack(
            tf.random.stateless_uniform(
                [5, 2], tf.stack([network.seed, step]), None, None, tf.int64
            )
        )
        order = tf.random.experimental.stateless_shuffle(
            tf.range(len(labels.labeled)), seeds[0]
        )[:supervised]
        drawn = tf.random.stateless_uniform(
            [others], seeds[1], 0, network.nodes, tf.int32
        )
        starts = tf.concat([tf.gather(labeled, order), drawn], axis=0)
        views = []
        for view_seed in seeds[2:4]:
            ends = tf.repeat(starts, count)
            views.append(tf.unique(walks.ends(ends, view_seed) if walks else ends))
        # A node in both views gets a dropout of its own in each.
        rows = tf.concat([view.y for view in views], axis=0)
        shift = [0, tf.size(views[0].y)]
        places = tf.stack(
            [view.idx + first for view, first in zip(views, shift, strict=True)]
        )
        inputs = network.batch(rows, seeds[4])
        return inputs, places, tf.gather(one_hot, order), tf.gather(weight, order)

    def loss(
        step: tf.Tensor, inputs: Any, places: tf.Tensor, y: tf.Tensor, w: tf.Tensor
    ) -> tf.Tensor:
        logs = tf.gather(network.log_probabilities(inputs, training=True), places)
        logs = tf.reshape(logs, [2, supervised + others, count, network.classes])
        logs = tf.nn.log_softmax(tf.reduce_mean(logs, axis=2))
        cross = -tf.reduce_sum(y * logs[:, :supervised], axis=[0, 2]) / 2
        labeled_loss = tf.reduce_sum(w * cross) / tf.reduce_sum(w)
        pair = logs[:, supervised:]
        mean = tf.reduce_mean(tf.exp(pair), axis=0)
        mean = tf.math.log(mean + _LEAST_PROBABILITY)
        target = tf.nn.softmax(mean / settings.sharpening_temperature)
        target = tf.stop_gradient(target)
        cross = -tf.reduce_sum(target * pair, axis=-1)
        cross *= _balance(target, shares, settings.balance)
        ramp = 4 * tf.cast(step, tf.float32) / settings.teacher_steps
        factor = settings.consistency * tf.minimum(ramp, 1.0)
        return labeled_loss + factor * tf.reduce_mean(cross)

    network.train("Teaching", settings.teacher_steps, batch, loss)
    logs = network.answers()
    if graph is None:
        return np.exp(logs)
    rows = labels.validation
    if len(rows):
        likely = [
            _softmax(propagate(graph, logs, teleport=each, hops=settings.hops))[
                rows, labels.y[rows]
            ]
            for each in _TELEPORTS
        ]
        teleport = _TELEPORTS[int(np.argmax([_logs(p).mean() for p in likely]))]
    return _softmax(propagate(graph, logs, teleport=teleport, hops=settings.hops))


def _distill(network: _Network, soft: Floats, weight: Floats) -> None:
    settings = network.settings
    rows = np.flatnonzero(weight)
    size = min(settings.batch_size, len(rows))
    steps = settings.steps or max(_LEAST_STEPS, -(-len(rows) // size))
    order = np.random.default_rng(network.seed)
    per_epoch = len(rows) // size
    epochs = -(-steps // per_epoch)
    nodes = np.concatenate(
        [order.permutation(rows)[: per_epoch * size] for _ in range(epochs)]
    )
    nodes = tf.constant(nodes.reshape(-1, size), tf.int32)
    soft_labels, weights = tf.constant(soft), tf.constant(weight.astype(np.float32))

    def batch(step: tf.Tensor) -> Any:
        chosen = nodes[step]
        inputs = network.batch(chosen, tf.stack([network.seed, step]))
        return inputs, tf.gather(soft_labels, chosen), tf.gather(weights, chosen)

    def loss(_: tf.Tensor, inputs: Any, y: tf.Tensor, w: tf.Tensor) -> tf.Tensor:
        logs = network.log_probabilities(inputs, training=True)
        return tf.reduce_sum(w * -tf.reduce_sum(y * logs, axis=1)) / tf.reduce_sum(w)

    network.train("Distilling", steps, batch, loss)


def _gives_logits(model: keras.Model) -> bool:
    """Tells from the compiled loss of a model whether it gives logits."""
    loss = getattr(model, "loss", None)
    return bool(getattr(loss, "from_logits", False)) or bool(
        getattr(loss, "_fn_kwargs", {}).get("from_logits", False)
    )


def _dropped(values: Any, share: float, seed: tf.Tensor) -> Any:
    """Leaves out a share of the numbers of a tensor and scales the others up."""
    if isinstance(values, tf.SparseTensor):
        return values.with_values(_dropped(values.values, share, seed))
    if isinstance(values, tf.RaggedTensor):
        return values.with_flat_values(_dropped(values.flat_values, share, seed))
    draws = tf.random.stateless_uniform(tf.shape(values), seed)
    return tf.where(draws >= share, values / tf.cast(1 - share, values.dtype), 0)


def _collected(dataset: tf.data.Dataset) -> Any:
    """Puts the features of all batches of a dataset together."""
    batches = [batch[0] if isinstance(batch, tuple) else batch for batch in dataset]
    if not batches:
        raise ValueError("x is a dataset without batches.")

    def joined(*parts: Any) -> Any:
        if isinstance(parts[0], tf.SparseTensor):
            return tf.sparse.concat(0, parts)
        if isinstance(parts[0], tf.RaggedTensor):
            return tf.concat(parts, axis=0)
        return np.concatenate([part.numpy() for part in parts])

    return tf.nest.map_structure(joined, *batches)


def _length(features: Any) -> int:
    values = tf.nest.flatten(features)
    if not values:
        raise ValueError("x has no features.")
    shape = getattr(values[0], "shape", None)
    return int(np.shape(values[0])[0] if shape is None else shape[0])
