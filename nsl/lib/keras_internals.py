"""All of nsl's uses of Keras's private interface.

Each name appears here once, with its purpose and the behavior without it. No other file
may use one of them. If a Keras release renames something,
`tests/keras/internals_test.py` fails and names it. This file does not import Keras, so
rooms that work without Keras can use it.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

_KERAS = "keras.src."
_FUNCTIONAL = (f"{_KERAS}models.functional", f"{_KERAS}models.sequential")


def all_layers(model: Any, include_self: bool = True) -> list[Any]:
    """Lists a model and all layers nested in it.

    `Layer._flatten_layers`; without it, recursion over `model.layers`. Returns an empty
    list for objects that are not Keras layers.
    """
    if hasattr(model, "_flatten_layers"):
        return list(model._flatten_layers(include_self=include_self))
    children = getattr(model, "layers", None)
    if not isinstance(children, list | tuple):
        return []
    nested = [layer for child in children for layer in (child, *all_layers(child)[1:])]
    return [model, *nested] if include_self else nested


def takes_training(model: Any) -> bool:
    """Returns whether `model.call` takes `training`.

    `Layer._call_has_training_arg`; without it, the signature of `call`.
    """
    known = getattr(model, "_call_has_training_arg", None)
    if known is None:
        known = "training" in inspect.signature(model.call).parameters
    return bool(known)


def keywords_of_call(model: Any) -> set[str] | None:
    """Lists the keywords that `model.call` uses, or returns None if it takes any.

    Read from the signature of `call`. The `call` of functional and sequential models
    takes any keyword and passes on those registered with the model
    (`Layer._call_context_args`; without it, none).
    """
    call = type(model).call
    [_, *parameters] = inspect.signature(call).parameters.values()
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    if takes_any and call.__module__ not in _FUNCTIONAL:
        return None
    kinds = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    named = {p.name for p in parameters[1:] if p.kind in kinds}
    return named | set(getattr(model, "_call_context_args", ()))


def keywords_received(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Returns the keywords that `call(self, inputs, **kwargs)` was called with.

    When Keras builds a model by a symbolic call (`Layer._maybe_build`), it passes all
    keywords as one argument named `kwargs`. Otherwise this changes nothing.
    """
    rest = dict(kwargs)
    return {**rest.pop("kwargs", {}), **rest}


def input_structure(model: Any) -> Any:
    """Returns the structure of a functional model's inputs, None for other models.

    `Functional._inputs_struct`; a built `Sequential` has a `_functional` with it.
    Without these, None.
    """
    functional = getattr(model, "_functional", model)
    return getattr(functional, "_inputs_struct", None)


def logits_of(output: Any) -> Any:
    """Returns the input of the softmax or sigmoid that computed an output, or None.

    `_keras_logits`, which Keras keeps for its own losses. Without it, callers use the
    logarithm of the probabilities, which has no gradient where one rounds to 0.
    """
    return getattr(output, "_keras_logits", None)


def keep_logits(output: Any, logits: Any) -> None:
    """Attaches logits to an output, as Keras does."""
    output._keras_logits = logits


def mask_of(output: Any) -> Any:
    """Returns the mask of an output, bool of shape [batch, ...], or None.

    `_keras_mask`, which layers pass on. Without it, no position is masked.
    """
    return getattr(output, "_keras_mask", None)


def keep_mask(output: Any, mask: Any) -> None:
    """Attaches a mask to an output, as Keras does."""
    output._keras_mask = mask


def output_mode(layer: Any) -> str | None:
    """Returns how a layer encodes categories, such as 'one_hot', or None.

    Public `output_mode` of most layers; `TextVectorization._output_mode`. Without it,
    the bags of words that this layer returns are integers, which nothing perturbs.
    """
    mode = getattr(layer, "output_mode", None) or getattr(layer, "_output_mode", None)
    return mode if isinstance(mode, str) else None


def note_mask(layer: Any, inputs: Any, mask: Any, outputs: Any) -> None:
    """Attaches masks to a layer's outputs, as Keras does after `call`.

    Public interface: `Layer.supports_masking` and `Layer.compute_mask`.

    Args:
      layer: The layer.
      inputs: Its first argument.
      mask: The masks of `inputs`, in the same structure.
      outputs: The outputs of the layer.
    """
    flat = tf.nest.flatten(outputs)
    known = all(mask_of(output) is not None for output in flat)
    if known or not getattr(layer, "supports_masking", False):
        return
    masks = layer.compute_mask(inputs, mask)
    if masks is not None:
        for output, found in zip(flat, tf.nest.flatten(masks), strict=False):
            if found is not None and mask_of(output) is None:
                keep_mask(output, found)


def is_own_layer(layer: Any) -> bool:
    """Returns whether a layer is one of Keras's own, whose behavior is known.

    Its module starts with `keras.src.layers`. Without it, no layer counts as one, and
    samples and neighbors need separate forward passes.
    """
    return type(layer).__module__.startswith(f"{_KERAS}layers.")


def is_own_operation(operation: Any) -> bool:
    """Returns whether an operation of a functional model belongs to `keras.ops`.

    Its module starts with `keras.src.ops`. Without it, no operation does, and none has
    interval bounds.
    """
    return type(operation).__module__.startswith(f"{_KERAS}ops.")


def is_own_activation(activation: Any) -> bool:
    """Returns whether a function is one of Keras's activations; see `is_own_layer`."""
    module = getattr(activation, "__module__", "")
    return module.startswith(f"{_KERAS}activations.")


def is_functional(model: Any) -> bool:
    """Returns whether a model is only a graph of layers.

    The `call` of its class is that of functional or sequential models; see
    `is_own_layer`. Subclasses may add methods, as those of keras-hub do.
    """
    kind = type(model)
    own_call = getattr(getattr(kind, "call", None), "__module__", None)
    outer: str = getattr(kind.__call__, "__module__", "") or ""
    return own_call in _FUNCTIONAL and outer.startswith(_KERAS)


def has_operations(model: Any) -> bool:
    """Returns whether a model is functional and built, so `run_operations` runs it."""
    return is_functional(model) and getattr(model, "_functional", model) is not None


def flat_inputs(model: Any, inputs: Any) -> list[Any]:
    """Returns the inputs of a functional model in the order of `model.inputs`.

    `Functional._standardize_inputs`, which selects dict entries by name and adds or
    drops axes of size 1. Without it, the leaves of the inputs in order.
    """
    functional = getattr(model, "_functional", None) or model
    standardize = getattr(functional, "_standardize_inputs", tf.nest.flatten)
    return list(standardize(inputs))


def run_operations(
    model: Any, inputs: list[Any], run: Callable[[Any], Callable[..., Any]]
) -> Any:
    """Runs a functional or sequential model with its operations replaced by functions.

    `Function._run_through_graph`. Required for interval bounds and for attacks at a
    layer that share side branches: without it, these raise AttributeError.

    Args:
      model: The model, built.
      inputs: Replacements of `model.inputs`, of any type.
      run: Returns the function to call instead of an operation or layer.

    Returns:
      The results in place of the model's outputs, in the same structure.

    Raises:
      ValueError: If the model is not built.
    """
    functional = getattr(model, "_functional", model)
    if functional is None:
        raise ValueError(
            f"Expected a built model, but '{model.name}' is not built yet. Call it on "
            "a batch, or give it a keras.Input."
        )
    outputs = functional._run_through_graph(inputs, operation_fn=run)
    single = isinstance(outputs, list | tuple) and len(outputs) == 1
    return outputs[0] if single else outputs


def function_of_loss(loss: Any) -> tuple[str, dict[str, Any]]:
    """Returns the name and settings of the Keras function behind a loss.

    `LossFunctionWrapper.fn` and `_fn_kwargs`. Without them, an empty name: the form of
    the outputs is then unknown, and config fields such as `from_logits` must be set.
    """
    function: Any = loss if inspect.isfunction(loss) else getattr(loss, "fn", None)
    if not getattr(function, "__module__", "").startswith(f"{_KERAS}losses."):
        return "", {}
    return function.__name__, dict(getattr(loss, "_fn_kwargs", {}))


def losses_by_output(model: Any) -> dict[Any, Any]:
    """Returns the compiled loss of each output, keyed by its path in the structure.

    `Trainer._compile_loss` and its `_flat_losses`, which exist once the loss has been
    computed. Without them no loss is known, and objectives that need one raise an
    error.
    """
    compiled = getattr(model, "_compile_loss", None)
    flat: Any = getattr(compiled, "_flat_losses", None) or ()
    return {entry.path: entry.loss for entry in flat}


def compiled_loss(
    model: Any, x: Any, y: Any, y_pred: Any, sample_weight: Any, training: bool
) -> tf.Tensor:
    """Computes the loss like `compute_loss`, which may or may not take `training`.

    `Trainer._compute_loss`; without it, `compute_loss`.
    """
    compute = getattr(model, "_compute_loss", model.compute_loss)
    return compute(
        x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training
    )


def own_metrics(model: Any) -> list[Any]:
    """Returns the metrics that a model's own code updates, without the compiled ones.

    `Layer._metrics`. Without it, none, so a wrapper does not log them.
    """
    return list(getattr(model, "_metrics", ()))


def track_loss(model: Any, loss: tf.Tensor, count: tf.Tensor) -> None:
    """Adds a batch to the metric 'loss'.

    `Trainer._loss_tracker`. Required: without it, steps raise AttributeError, since
    'loss' would otherwise be missing from the logs.
    """
    model._loss_tracker.update_state(loss, sample_weight=count)


@contextlib.contextmanager
def losses_hidden(*models: Any) -> Iterator[None]:
    """Hides `model.losses` from `compute_loss`.

    `Layer._losses_override`. Required if the model has losses, which would otherwise
    count twice: without it, steps raise AttributeError.
    """
    hiding = [model for model in models if model.losses]
    for model in hiding:
        # Keras ignores an empty override.
        model._losses_override.append(tf.zeros([]))
    try:
        yield
    finally:
        for model in hiding:
            model._losses_override.clear()


@contextlib.contextmanager
def losses_kept(model: Any) -> Iterator[None]:
    """Restores the losses of a model and its layers after the body.

    `Layer._losses`. Required, since losses that layers add would otherwise count once
    per forward pass: without it, calls in a custom loop raise AttributeError.
    """
    before = [(layer, list(layer._losses)) for layer in all_layers(model)]
    try:
        yield
    finally:
        for layer, losses in before:
            layer._losses[:] = losses


class StrategyHooks:
    """Fixes Keras under distribution strategies; a base class in front of its Model.

    Under a strategy, Keras builds a model from a batch that it unpacks itself
    (`_symbolic_build`); wrappers need to convert the batch first. With several workers
    it also raises errors in two places, for any model
    (https://github.com/keras-team/keras/issues/20585): when it averages a batch over
    replicas to find its shapes (`_maybe_symbolic_build`), and when it averages logged
    numbers along an axis that they do not have (`_make_function`). In a release that
    renames a hook, Keras's own behavior remains.
    """

    def batch_to_build(self, data: Any) -> Any:
        """Converts a batch to the form that Keras unpacks."""
        return data

    def _symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        if data_batch is not None:
            data_batch = self.batch_to_build(data_batch)
        super()._symbolic_build(  # type: ignore[misc]
            iterator=iterator, data_batch=data_batch
        )

    def _maybe_symbolic_build(
        self, iterator: Any = None, data_batch: Any = None
    ) -> Any:
        strategy: Any = self._distribute_strategy  # type: ignore[attr-defined]
        if strategy is not None and iterator is not None:
            # One replica's part of the batch has the shapes too.
            for *_, batches in iterator:
                data_batch = tf.nest.map_structure(
                    lambda part: strategy.experimental_local_results(part)[0],
                    next(batches),
                )
                break
            iterator = None
        super()._maybe_symbolic_build(  # type: ignore[misc]
            iterator=iterator, data_batch=data_batch
        )

    def _make_function(self, step_function: Callable[..., Any]) -> Any:
        strategy = self.distribute_strategy  # type: ignore[attr-defined]
        if (
            isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
            and strategy.extended._in_multi_worker_mode()
        ):
            step_function = _with_an_axis(step_function)
        return super()._make_function(step_function)  # type: ignore[misc]


def _with_an_axis(step_function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the axis along which Keras averages logged numbers across workers."""

    @functools.wraps(step_function)
    def step(*args: Any, **kwargs: Any) -> Any:
        logs = step_function(*args, **kwargs)
        return tf.nest.map_structure(lambda value: value[tf.newaxis], logs)

    return step


def note_input_shape(model: Any, x: Any) -> None:
    """Records the shapes of a model's inputs, as Keras does when it builds a model.

    `Layer._build_shapes_dict`, which TensorFlow Lite reads. Without it, a wrapper must
    be called once before it is converted.
    """
    if getattr(model, "_build_shapes_dict", None) is None:
        shapes = tf.nest.map_structure(lambda f: (None, *f.shape[1:]), x)
        model._build_shapes_dict = {"input_shape": shapes}


def default_build(build: Callable[..., Any]) -> Callable[..., Any]:
    """Marks a `build` as default, so that Keras first builds the model by calling it.

    `_is_default`, with which Keras marks its own. Without it `build` runs instead of
    that call, and knows the shapes of everything in the batch, but no dtypes.
    """
    build._is_default = True  # type: ignore[attr-defined]
    return build
