"""Everything that nsl uses of Keras beyond its public interface.

Each name stands here once, with what it is for and what is done without it. Nothing of
Keras is imported, so that rooms that work without Keras may use this file. Where a
release of Keras moves a name, `tests/keras/internals_test.py` fails by that name.
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

    `Layer._flatten_layers`; without it the layers that `model.layers` gives, down to
    the last. An empty list for what is no Keras layer.
    """
    if hasattr(model, "_flatten_layers"):
        return list(model._flatten_layers(include_self=include_self))
    children = getattr(model, "layers", None)
    if not isinstance(children, list | tuple):
        return []
    nested = [layer for child in children for layer in (child, *all_layers(child)[1:])]
    return [model, *nested] if include_self else nested


def takes_training(model: Any) -> bool:
    """Tells whether `model.call` takes `training`.

    `Layer._call_has_training_arg`; without it the signature of `call` tells.
    """
    known = getattr(model, "_call_has_training_arg", None)
    if known is None:
        known = "training" in inspect.signature(model.call).parameters
    return bool(known)


def keywords_of_call(model: Any) -> set[str] | None:
    """Lists the keywords that `model.call` makes use of, or None if it takes any.

    The signature of `call` tells, but for functional and sequential models, whose
    `call` takes any keyword and hands on those that the model has registered
    (`Layer._call_context_args`; without it none).
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

    Where Keras builds a model by a symbolic call (`Layer._maybe_build`), it passes all
    of them as one argument named `kwargs`. Without that nothing changes.
    """
    rest = dict(kwargs)
    return {**rest.pop("kwargs", {}), **rest}


def input_structure(model: Any) -> Any:
    """Returns the structure of a functional model's inputs, None for other models.

    `Functional._inputs_struct`, for which a built `Sequential` has a `_functional`.
    Without them `inputs`, if that is one tensor or a dict.
    """
    functional = getattr(model, "_functional", model)
    return getattr(functional, "_inputs_struct", None)


def logits_of(output: Any) -> Any:
    """Returns what went into the softmax or sigmoid that gave an output, or None.

    `_keras_logits`, which Keras keeps for its own losses. Without it callers take the
    logarithm of the probabilities, which has no gradient where one is rounded to 0.
    """
    return getattr(output, "_keras_logits", None)


def keep_logits(output: Any, logits: Any) -> None:
    """Notes the logits of an output, as Keras does."""
    output._keras_logits = logits


def mask_of(output: Any) -> Any:
    """Returns which positions of an output count, bool of shape [batch, ...], or None.

    `_keras_mask`, which layers hand from one to the next. Without it all count.
    """
    return getattr(output, "_keras_mask", None)


def keep_mask(output: Any, mask: Any) -> None:
    """Notes the mask of an output, as Keras does."""
    output._keras_mask = mask


def note_mask(layer: Any, inputs: Any, mask: Any, outputs: Any) -> None:
    """Notes the masks of a layer's outputs, as Keras does after its `call`.

    Public: `Layer.supports_masking` and `Layer.compute_mask`.

    Args:
      layer: The layer.
      inputs: Its first argument.
      mask: The masks of `inputs`, in their structure.
      outputs: What it returned.
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
    """Tells whether a layer is one of Keras's own, whose behavior is known.

    By its module, `keras.src.layers`. Without it none is, and samples and neighbors
    go through the model in passes of their own.
    """
    return type(layer).__module__.startswith(f"{_KERAS}layers.")


def is_own_operation(operation: Any) -> bool:
    """Tells whether a step of a functional model is one of `keras.ops`.

    By its module, `keras.src.ops`. Without it none is, and has no interval bounds.
    """
    return type(operation).__module__.startswith(f"{_KERAS}ops.")


def is_own_activation(activation: Any) -> bool:
    """Tells whether a function is one of Keras's activations; see `is_own_layer`."""
    module = getattr(activation, "__module__", "")
    return module.startswith(f"{_KERAS}activations.")


def is_functional(model: Any) -> bool:
    """Tells whether a model only chains layers; see `is_own_layer`."""
    return type(model).__module__ in _FUNCTIONAL


def flat_inputs(model: Any, inputs: Any) -> list[Any]:
    """Returns what a functional model runs on, in the order of `model.inputs`.

    `Functional._standardize_inputs`, which picks entries of a dict by name and adds or
    drops an axis of size 1. Without it the leaves in the order of their structure.
    """
    functional = getattr(model, "_functional", None) or model
    standardize = getattr(functional, "_standardize_inputs", tf.nest.flatten)
    return list(standardize(inputs))


def run_operations(
    model: Any, inputs: list[Any], run: Callable[[Any], Callable[..., Any]]
) -> Any:
    """Runs a functional or sequential model with functions instead of its operations.

    `Function._run_through_graph`. Without it there are no interval bounds.

    Args:
      model: The model, built.
      inputs: What takes the place of `model.inputs`, of any type.
      run: Returns the function that is called instead of an operation or layer.

    Returns:
      What the functions gave in the place of the model's outputs, in their structure.
    """
    functional = getattr(model, "_functional", model)
    if functional is None:
        raise ValueError(
            f"Expected a model whose layers are known, but '{model.name}' is not built "
            "yet. Call it on a batch, or give it a keras.Input."
        )
    outputs = functional._run_through_graph(inputs, operation_fn=run)
    single = isinstance(outputs, list | tuple) and len(outputs) == 1
    return outputs[0] if single else outputs


def function_of_loss(loss: Any) -> tuple[str, dict[str, Any]]:
    """Returns the name of Keras's function that a loss object wraps, and its settings.

    `LossFunctionWrapper.fn` and `_fn_kwargs`. Without them an empty name: what the
    loss takes is then not known, and config fields such as `from_logits` must say it.
    """
    function: Any = getattr(loss, "fn", None)
    if not getattr(function, "__module__", "").startswith(f"{_KERAS}losses."):
        return "", {}
    return function.__name__, dict(getattr(loss, "_fn_kwargs", {}))


def losses_by_output(model: Any) -> dict[Any, Any]:
    """Returns the loss compiled for each output, by its path in the structure.

    `Trainer._compile_loss` and its `_flat_losses`, which are there once the loss was
    computed. Without them no loss is known, and objectives that need one say so.
    """
    compiled = getattr(model, "_compile_loss", None)
    flat: Any = getattr(compiled, "_flat_losses", None) or ()
    return {entry.path: entry.loss for entry in flat}


def compiled_loss(
    model: Any, x: Any, y: Any, y_pred: Any, sample_weight: Any, training: bool
) -> tf.Tensor:
    """Computes the loss as `compute_loss` does, which may take `training` or not.

    `Trainer._compute_loss`; without it `compute_loss` itself is called.
    """
    compute = getattr(model, "_compute_loss", model.compute_loss)
    return compute(
        x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training
    )


def own_metrics(model: Any) -> list[Any]:
    """Returns the metrics that a model's own code updates, not those compiled.

    `Layer._metrics`. Without it none, so that they are not logged by a wrapper.
    """
    return list(getattr(model, "_metrics", ()))


def track_loss(model: Any, loss: tf.Tensor, count: tf.Tensor) -> None:
    """Adds a batch to the metric 'loss'.

    `Trainer._loss_tracker`. Without it 'loss' would be missing from the logs.
    """
    model._loss_tracker.update_state(loss, sample_weight=count)


@contextlib.contextmanager
def losses_hidden(*models: Any) -> Iterator[None]:
    """Hides `model.losses` of models from `compute_loss`.

    `Layer._losses_override`. Without it they would be counted twice.
    """
    hiding = [model for model in models if model.losses]
    for model in hiding:
        # An empty list would not count as an override.
        model._losses_override.append(tf.zeros([]))
    try:
        yield
    finally:
        for model in hiding:
            model._losses_override.clear()


@contextlib.contextmanager
def losses_kept(model: Any) -> Iterator[None]:
    """Drops what the body adds to the losses of a model and its layers.

    `Layer._losses`. Without it the losses that layers add would count once a pass.
    """
    before = [(layer, list(layer._losses)) for layer in all_layers(model)]
    try:
        yield
    finally:
        for layer, losses in before:
            layer._losses[:] = losses


class StrategyHooks:
    """What Keras lacks under distribution strategies, as a base in front of its Model.

    Under a strategy Keras builds a model from a batch that it unpacks by itself
    (`_symbolic_build`); a wrapper has to have its say. With several workers it also
    stops with an error in two places, for any model
    (https://github.com/keras-team/keras/issues/20585): where it averages a batch over
    replicas to see its shapes (`_maybe_symbolic_build`), and where it averages logged
    numbers along an axis that they do not have (`_make_function`). A release that does
    not call a hook by its name has plain Keras's behavior.
    """

    def batch_to_build(self, data: Any) -> Any:
        """Returns a batch as Keras has to unpack it."""
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
            # One replica's part of the batch shows the shapes too.
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
    """Gives logged numbers the axis over which Keras averages them across workers."""

    @functools.wraps(step_function)
    def step(*args: Any, **kwargs: Any) -> Any:
        logs = step_function(*args, **kwargs)
        return tf.nest.map_structure(lambda value: value[tf.newaxis], logs)

    return step


def note_input_shape(model: Any, x: Any) -> None:
    """Notes what a model is called with, as Keras does where it builds a model itself.

    `Layer._build_shapes_dict`, which TensorFlow Lite reads. Without it a wrapper has to
    be called once before it is converted.
    """
    if getattr(model, "_build_shapes_dict", None) is None:
        shapes = tf.nest.map_structure(lambda f: (None, *f.shape[1:]), x)
        model._build_shapes_dict = {"input_shape": shapes}


def default_build(build: Callable[..., Any]) -> Callable[..., Any]:
    """Marks a `build` before which Keras builds a model by calling it, as plain ones.

    `_is_default`, as Keras marks its own. Without it `build` runs instead of that call,
    and knows shapes of all that is in the batch, but no dtypes.
    """
    build._is_default = True  # type: ignore[attr-defined]
    return build
