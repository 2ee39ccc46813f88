"""One interface for attacks and evaluations to any kind of model."""

import contextlib
import functools
import inspect
import operator
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from nsl.attacks.fingerprint import fingerprint
from nsl.attacks.labels import is_one_hot, numbers_as_array
from nsl.lib import keras_internals

_KEPT_ADAPTERS = 4
_KEPT_PROGRAMS = 16
_SUM_TOLERANCE = 1e-3
_HALF_SUM_TOLERANCE = 1e-2
ONE_LENGTH = (
    "Pad all texts to the same length, such as by "
    "keras.layers.TextVectorization(output_sequence_length=...)."
)

_adapters: dict[int, "OrderedDict[Hashable, ModelAdapter]"] = {}


class ModelAdapter:
    """Calls a model for inference and restores its state.

    The model may be a Keras model, any callable of tensors, the `predict` method of a
    Keras model (which is replaced by the model), or a function without gradients: of
    NumPy arrays, such as scikit-learn's `predict_proba`, or of tensors whose values it
    reads, such as by `numpy()`. The adapter holds a weak reference; callers must keep
    the model alive.

    Args:
      model: A callable from features to outputs. If it takes `training`, that is False.
      output: The output to use: a key, a position, or a function of all outputs. None
        uses the only one.
      from_logits: Whether outputs are logits. None detects it, see `examine`.

    Attributes:
      from_logits: Whether outputs are treated as logits, after the first call.
      classes: The number of classes; 0 if outputs are not of shape [batch, classes],
        [batch, 1] or [batch].
      decisions: Whether outputs are class labels: integers or, from a function of NumPy
        arrays, whole numbers or one-hot rows.
      is_native: Whether the model takes tensors, so that it may have gradients.
      takes_logarithms: Whether `logits` has taken logarithms of probabilities.
      traces: The number of times Python called the model, such as to trace a graph.
      assumptions: Sentences about what was assumed of the outputs.
      guessed: Whether the choice between logits and probabilities is a guess that the
        outputs do not settle.

    Raises:
      TypeError: If the model is not callable.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        output: Any = None,
        from_logits: bool | None = None,
    ) -> None:
        self._reference = _reference(owner_of_predict(model))
        self.output = output
        self._kwargs = {"training": False} if _takes_training(self.model) else {}
        self._narrows = False
        self._memory: list[int] = []
        self._kinds: Any = None
        self._passes = tf.Variable(0, dtype=tf.int64, trainable=False)  # type: ignore[arg-type]
        self._programs: OrderedDict[Hashable, Any] = OrderedDict()
        self._given_from_logits = from_logits
        self.from_logits = from_logits
        self.classes = self._most_classes = 0
        self.decisions = False
        self.is_native = True
        self._reads_values = False
        self.takes_logarithms = False
        self.assumptions: list[str] = []
        self.guessed = False
        self.is_examined = False
        self.traces = 0
        self._noted: Any = None

    @property
    def model(self) -> Callable[..., Any]:
        """The model."""
        model = self._reference()
        assert model is not None
        return model

    @property
    def passes(self) -> int:
        """The number of examples that have passed through the model."""
        return int(self._passes.numpy())

    @property
    def batch_size(self) -> int | None:
        """The batch size, if the model's inputs fix one."""
        inputs = tf.nest.flatten(getattr(self.model, "inputs", None) or [])
        shapes = [tuple(getattr(tensor, "shape", None) or ()) for tensor in inputs]
        sizes = {shape[0] for shape in shapes if shape} - {None}
        return sizes.pop() if len(sizes) == 1 else None

    def __getattr__(self, name: str) -> Any:
        # Custom attacks may access attributes of the model.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.model, name)

    def __call__(self, x: Any, memory: Iterable[tf.Tensor] = (), **kwargs: Any) -> Any:
        """Calls the model for inference, ignoring `kwargs`, and counts the examples.

        Args:
          x: The features.
          memory: The result of `memory`, to start from that state.
          **kwargs: Ignored.

        Returns:
          The chosen output; all outputs if there are several and none was chosen.
        """
        for i, value in zip(self._memory, memory, strict=False):
            kept_variables(self.model)[i].assign(value)
        self.traces += 1
        first = tf.nest.flatten(x)[0]
        count = tf.shape(first, tf.int64)[0] if tf.is_tensor(first) else len(first)
        self._passes.assign_add(count)
        return self.chosen(self.call_uncounted(x))

    def logits(self, x: Any, memory: Iterable[tf.Tensor] = ()) -> tf.Tensor:
        """Returns logits of shape [batch, classes], float32 or wider.

        Converts probabilities to logarithms, a single logit or probability of the
        second of two classes to logits of both, and class labels to one-hot rows.

        Raises:
          ValueError: If the outputs have another shape.
        """
        outputs = self.check_classes(self(x, memory))
        if outputs.shape.rank == 1:
            outputs = outputs[:, None]
        if self.decisions and outputs.shape[1] == 1:
            # The last column stands for classes not seen before.
            labels = tf.cast(outputs[:, 0], tf.int32)
            return tf.one_hot(tf.minimum(labels, self.classes), self.classes + 1)
        wide = tf.float64 if outputs.dtype == tf.float64 else tf.float32
        if not self.from_logits:
            # Keras keeps the inputs of its softmax or sigmoid. They are exact, while
            # the logarithm of a probability that rounds to 0 or 1 has no gradient.
            logits = keras_internals.logits_of(outputs)
            if logits is None or logits.shape != outputs.shape:
                self.takes_logarithms = True
                return _log_probabilities(tf.cast(outputs, wide))
            outputs = logits
        outputs = tf.cast(outputs, wide)
        if outputs.shape[1] == 1:
            outputs = tf.concat([tf.zeros_like(outputs), outputs], axis=1)
        return outputs

    def examine(self, x: Any, labels: Any = None) -> Any:
        """Calls the model outside any graph, and records what its outputs are.

        Builds the model if needed. Detects which variables a call changes despite
        `training=False` (such as states of recurrent layers), the kind of outputs and,
        unless given, whether they are logits: probabilities lie in [0, 1] and their
        rows sum to 1 within 1e-3. If a single output per example leaves that open, the
        last activation and the compiled loss decide.

        Args:
          x: The features of a few examples.
          labels: Their labels, which may contain more classes than outputs that are
            class labels.

        Returns:
          The chosen output.

        Raises:
          ValueError: If `output` does not exist.
        """
        self.is_examined = True
        with self.state_kept():
            outputs = self._first_call(x)
        # Only now, because the first call may create the variables.
        variables = kept_variables(self.model)
        before = [tf.identity(v).numpy() for v in variables]
        with self.state_kept():
            if variables:
                self.call_uncounted(x)
            after = [tf.identity(v).numpy() for v in variables]
        self._memory = [
            i
            for i, (old, new) in enumerate(zip(before, after, strict=True))
            # Random-generator states advance, because noise should differ between
            # calls.
            if old.dtype.kind == "f" and not np.array_equal(old, new)
        ]
        chosen = self.chosen(outputs)
        self._describe(chosen, labels)
        return chosen

    def predict(self, x: Any, size: int, as_logits: bool = False) -> Any:
        """Returns the outputs or logits of many examples, arrays, batch by batch."""
        function: Any = self.logits if as_logits else self.__call__
        if self.is_native:
            # A new partial: TensorFlow warns about repeated tracing of one function.
            eager, key = (
                functools.partial(function),
                ("predict", as_logits, self.classes),
            )
            function = self.compiled(key, lambda: tf.function(eager, autograph=False))
        return self.in_batches(function, x, size)

    def in_batches(self, function: Any, x: Any, size: int) -> Any:
        """Returns `function(x, memory)` of many examples, arrays; restores the state.

        Raises:
          ValueError: If outputs of different batches differ in more than their size.
        """
        count = len(tf.nest.flatten(x)[0])
        size, fixed = self.batch_size or size, self.batch_size is not None
        parts = []
        with self.state_kept():
            memory = self.memory()
            if self.is_native and not fixed:
                specs = tf.nest.map_structure(any_batch_size, x)
                function.get_concrete_function(specs, memory)
            for start in range(0, count, size):
                rows = np.arange(start, start + size) % count
                rows = rows if fixed else rows[: count - start]
                batch = tf.nest.map_structure(operator.itemgetter(rows), x)
                parts.append(function(batch, memory))
        return tf.nest.map_structure(lambda *p: _joined(p)[:count], *parts)

    def forget_if_changed(self) -> None:
        """Discards compiled functions if the model has changed since `note`.

        Detects added or removed layers, changed attributes of the model and its layers,
        and changes of what a function closes over. Changed weights do not matter.
        """
        if self._noted is not None and self._noted != fingerprint(self.model):
            self._noted, self.is_examined = None, False
            self._programs.clear()

    def note(self) -> None:
        """Records the model's fingerprint for `forget_if_changed`."""
        self._noted = fingerprint(self.model)

    def memory(self) -> list[tf.Tensor]:
        """Returns the values of the variables that a call of the model changes."""
        if not self._memory:
            return []
        variables = kept_variables(self.model)
        return [tf.identity(variables[i]) for i in self._memory]

    @contextlib.contextmanager
    def state_kept(self) -> Iterator[None]:
        """Restores the variables that are not trainable after the body."""
        before = [(v, tf.identity(v)) for v in kept_variables(self.model)]
        try:
            yield
        finally:
            for variable, value in before:
                variable.assign(value)

    def compiled(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Returns the result of `make` for a key, caching the last 16 hashable keys."""
        return _recent(self._programs, key, make, _KEPT_PROGRAMS)

    def call_uncounted(self, x: Any) -> Any:
        """Returns the model's own outputs, tensors, without counting the examples."""
        if self.is_native:
            x = tf.nest.map_structure(tf.convert_to_tensor, x)
        if self._narrows:
            x = tf.nest.map_structure(_to_float32, x)
        if self.is_native:
            return self.model(x, **self._kwargs)

        def of_arrays(*leaves: Any) -> Any:
            arrays = tf.nest.pack_sequence_as(x, [np.asarray(leaf) for leaf in leaves])
            if self._reads_values:
                arrays = tf.nest.map_structure(tf.convert_to_tensor, arrays)
            return numbers_as_array(self.model(arrays, **self._kwargs))

        if tf.executing_eagerly():
            outputs = of_arrays(*tf.nest.flatten(x))
            return tf.nest.map_structure(tf.convert_to_tensor, outputs)
        kinds = tf.nest.flatten(self._kinds)
        found = tf.numpy_function(
            lambda *leaves: [
                np.asarray(leaf, kind.dtype.as_numpy_dtype)
                for leaf, kind in zip(
                    tf.nest.flatten(of_arrays(*leaves)), kinds, strict=True
                )
            ],
            tf.nest.flatten(x),
            [kind.dtype for kind in kinds],
        )
        shaped = [
            tf.ensure_shape(leaf, kind.shape)
            for leaf, kind in zip(found, kinds, strict=True)
        ]
        return tf.nest.pack_sequence_as(self._kinds, shaped)

    def _first_call(self, x: Any) -> Any:
        """Detects whether the model takes tensors, also float64, or NumPy arrays."""
        self._reads_values = False
        kinds = [(True, False)]
        if any(leaf.dtype == tf.float64 for leaf in tf.nest.flatten(x)):
            kinds.append((True, True))
        is_tensorflow = isinstance(self.model, tf.Module)
        if not (is_tensorflow or hasattr(self.model, "get_concrete_function")):
            kinds.append((False, False))
        errors = []
        for self.is_native, self._narrows in kinds:
            try:
                outputs = numbers_as_array(self.call_uncounted(x))
            except Exception as error:
                errors.append(error)
                continue
            if self.is_native and not all(map(tf.is_tensor, tf.nest.flatten(outputs))):
                # Strings become bytes in a tensor, but the function may need strings.
                self.is_native = False
                outputs = numbers_as_array(self.call_uncounted(x))
            elif self.is_native and len(kinds) > 1 and self._leaves_graph(x):
                self.is_native, self._reads_values = False, True
            outputs = tf.nest.map_structure(tf.convert_to_tensor, outputs)
            self._kinds = tf.nest.map_structure(any_batch_size, outputs)
            return outputs
        raise errors[0]

    def _leaves_graph(self, x: Any) -> bool:
        """Returns whether the model reads its tensors' values, without gradients."""
        program = tf.function(lambda x: self.call_uncounted(x), autograph=False)
        try:
            program.get_concrete_function(x)
        except tf.errors.OperatorNotAllowedInGraphError:
            return False  # `if` on a tensor: the function has gradients.
        except (NotImplementedError, AttributeError, TypeError):
            # From `np.asarray`, `numpy()` and `predict` of a Keras model.
            return True
        return False

    def chosen(self, outputs: Any) -> Any:
        """Returns the chosen output; all of them if none was chosen."""
        if callable(self.output):
            return self.output(outputs)
        leaves = tf.nest.flatten(outputs)
        if self.output is None:
            return outputs
        names = output_names(self.model, outputs)
        if self.output in names:
            return leaves[names.index(self.output)]
        try:
            return outputs[self.output]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ValueError(
                f"output={self.output!r} is not among the model's outputs {names}."
            ) from error

    def check_classes(self, outputs: Any) -> tf.Tensor:
        """Checks that outputs have the shape of logits, and returns them."""
        leaves = tf.nest.flatten(outputs)
        if (
            len(leaves) == 1
            and tf.is_tensor(leaves[0])
            and leaves[0].shape.rank in (1, 2)
        ):
            return leaves[0]
        names = output_names(self.model, outputs) if tf.nest.is_nested(outputs) else []
        found = (
            f"its outputs are {names}: choose one with output="
            if names
            else f"its output has shape {getattr(outputs, 'shape', None)}"
        )
        raise ValueError(
            "The model must return one tensor of shape [batch, classes], but "
            f"{found}. For other outputs, pass loss_fn (in evaluate_robustness: loss), "
            "a function of (y, outputs) that returns one loss per example."
        )

    def _describe(self, outputs: Any, labels: Any) -> None:
        self.assumptions, self.guessed = [], False
        self.from_logits, self.classes = self._given_from_logits, 0
        leaves = tf.nest.flatten(outputs)
        if len(leaves) > 1 or not tf.is_tensor(leaves[0]):
            return
        [outputs] = leaves
        if outputs.shape.rank not in (1, 2):
            return
        values = outputs.numpy()
        column = values.ndim == 1 or values.shape[1] == 1
        self.decisions = self._are_decisions(values, column)
        self.classes = 2 if column else values.shape[1]
        if self.decisions and column:
            if values.dtype.kind in "OSU" or np.any(values < 0):
                raise ValueError(
                    "The model outputs class labels, which must be integers from 0, "
                    f"but received {values.ravel()[:3].tolist()}. Map them, such as by "
                    "lambda x: np.searchsorted(classes, model.predict(x))."
                )
            known = np.asarray(labels)
            seen = [values, known] if known.dtype.kind in "iuf" else [values]
            most = int(max(1, *(np.max(v, initial=0) for v in seen))) + 1
            self.classes = max(most, self._most_classes)
            self._most_classes = self.classes
        if self.decisions:
            self.assumptions.append("The outputs are class labels, not scores.")
        elif self.from_logits is None:
            self._guess(outputs, values, column)
        if self.from_logits is None:
            self.from_logits = True

    def _are_decisions(self, values: np.ndarray, column: bool) -> bool:
        """Returns whether outputs are class labels."""
        if values.dtype.kind in "iubOSU" and column:
            return True
        if self.is_native:
            return False
        return (
            bool(np.all(values == np.floor(values))) if column else is_one_hot(values)
        )

    def _guess(self, outputs: tf.Tensor, values: np.ndarray, column: bool) -> None:
        """Decides between logits and probabilities."""
        why = ""
        if keras_internals.logits_of(outputs) is not None:
            self.from_logits, why = False, "the model ends in a softmax or sigmoid"
        elif not are_probabilities(values):
            self.from_logits = True
            why = "some lie outside [0, 1]" if column else "rows do not sum to 1"
        elif not column:
            self.from_logits, why = False, "every row sums to 1"
        else:
            known = _declares_logits(self.model)
            self.guessed = known is None
            self.from_logits = bool(known)
            why = (
                f"all {len(values)} that were checked lie in [0, 1]"
                if known is None
                else "the model's last activation or compiled loss says so"
            )
        kind = "logits" if self.from_logits else "probabilities"
        self.assumptions.append(f"The outputs are treated as {kind}: {why}.")


def adapt(
    model: Callable[..., Any], *, output: Any = None, from_logits: bool | None = None
) -> ModelAdapter:
    """Returns the adapter of a model; the same one for the lifetime of the model."""
    if isinstance(model, ModelAdapter):
        return model
    owner = getattr(model, "__self__", model)

    def make() -> ModelAdapter:
        return ModelAdapter(model, output=output, from_logits=from_logits)

    if id(owner) not in _adapters:
        try:
            weakref.finalize(owner, _adapters.pop, id(owner), None)
        except TypeError:  # No weak references.
            return make()
        _adapters[id(owner)] = OrderedDict()
    key = (getattr(model, "__func__", None), output, from_logits)
    return _recent(_adapters[id(owner)], key, make, _KEPT_ADAPTERS)


def any_batch_size(leaf: Any) -> tf.TensorSpec:
    """Returns the TensorSpec of an array with any batch size; scalars stay scalars."""
    shape = [None, *leaf.shape[1:]] if len(leaf.shape) else []
    return tf.TensorSpec(shape, tf.as_dtype(leaf.dtype))


def are_probabilities(values: np.ndarray) -> bool:
    """Returns whether outputs of shape [batch] or [batch, classes] are probabilities.

    All must lie in [0, 1] and, with several classes, rows must sum to 1 within 1e-3
    (1e-2 for 16-bit dtypes).
    """
    tolerance = _HALF_SUM_TOLERANCE if values.dtype.itemsize == 2 else _SUM_TOLERANCE
    values = np.asarray(values, np.float64)
    if not np.all((values >= 0) & (values <= 1 + tolerance)):
        return False
    if values.ndim == 1 or values.shape[1] == 1:
        return bool(np.all(values <= 1))
    return bool(np.all(np.abs(values.sum(axis=1) - 1) <= tolerance))


def output_names(model: Any, outputs: Any) -> list[Any]:
    """Returns the name of each output: its key, its Keras name, or its position."""
    if isinstance(outputs, Mapping):
        return sorted(outputs)
    names = list(getattr(model, "output_names", None) or ())
    count = len(tf.nest.flatten(outputs))
    return names if len(names) == count else list(range(count))


def kept_variables(model: Any) -> list[Any]:
    """Lists the variables of a model that attacks must restore.

    These are the variables that are not trainable, and the states of recurrent layers,
    which Keras does not list as variables.
    """
    variables = getattr(model, "variables", None) or ()
    kept = [v for v in variables if not getattr(v, "trainable", True)]
    states = [
        state
        for layer in keras_internals.all_layers(model)
        if getattr(layer, "stateful", False)
        for state in tf.nest.flatten(getattr(layer, "states", None) or [])
    ]
    known = {id(v) for v in kept}
    return kept + [state for state in states if id(state) not in known]


def _recent(
    kept: "OrderedDict[Hashable, Any]",
    key: Hashable,
    make: Callable[[], Any],
    most: int,
) -> Any:
    try:
        if key not in kept:
            kept[key] = make()
    except TypeError:  # Not hashable.
        return make()
    kept.move_to_end(key)
    while len(kept) > most:
        kept.popitem(last=False)
    return kept[key]


def owner_of_predict(model: Any) -> Any:
    """Returns the Keras model of a `predict` method, which is not differentiable.

    Raises:
      TypeError: If the model is not callable.
    """
    owner = getattr(model, "__self__", None)
    name = getattr(model, "__name__", "")
    is_keras = hasattr(owner, "trainable_variables") and callable(owner)
    if is_keras and name in ("predict", "predict_on_batch", "call", "__call__"):
        return owner
    if not callable(model):
        hint = next((m for m in ("predict_proba", "predict") if hasattr(model, m)), "")
        hint = f": pass its method {hint}" if hint else ""
        raise TypeError(
            "model must be a callable from features to outputs, but received "
            f"{type(model).__name__}{hint}."
        )
    return model


def _reference(model: Any) -> Callable[[], Any]:
    try:
        if inspect.ismethod(model):
            return weakref.WeakMethod(model)
        return weakref.ref(model)
    except TypeError:
        return lambda: model


def _takes_training(model: Callable[..., Any]) -> bool:
    function = getattr(model, "call", model)
    try:
        return "training" in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False


def _joined(parts: Sequence[Any]) -> np.ndarray:
    shapes = {tuple(part.shape) for part in parts}
    if len({shape[1:] for shape in shapes}) > 1:
        raise ValueError(
            "All batches must have outputs of one shape, but received shapes "
            f"{sorted(shapes)}. {ONE_LENGTH}"
        )
    return np.concatenate([np.asarray(part) for part in parts])


def _to_float32(leaf: Any) -> Any:
    return tf.cast(leaf, tf.float32) if leaf.dtype == tf.float64 else leaf


def _declares_logits(model: Any) -> bool | None:
    """Returns whether a Keras model's last activation or loss implies logits."""
    layer = model
    while layers := getattr(layer, "layers", None):
        layer = layers[-1]
    name = getattr(getattr(layer, "activation", None), "__name__", None)
    if name in ("linear", "sigmoid", "softmax"):
        return name == "linear"
    return getattr(getattr(model, "loss", None), "from_logits", None)


def _log_probabilities(probabilities: tf.Tensor) -> tf.Tensor:
    if probabilities.shape[1] == 1:
        probabilities = tf.concat([1 - probabilities, probabilities], axis=1)
    return tf.math.log(tf.maximum(probabilities, 1e-30))
