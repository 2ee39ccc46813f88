"""Interval bounds: what a network may return for all inputs of a box."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from nsl.lib import keras_internals
from nsl.lib.features import is_perturbable


@dataclasses.dataclass(frozen=True, eq=False)
class Interval:
    """Bounds of a tensor, one pair for each of its elements.

    Attributes:
      lower: The lower bounds.
      upper: The upper bounds, a tensor like `lower`; the same object where nothing
        varies.
      scores: What went into the softmax or sigmoid that gave this, or None.
      affine: What went into the dense layer that gave this, and its kernel, or None.
    """

    lower: tf.Tensor
    upper: tf.Tensor
    scores: Interval | None = None
    affine: tuple[Interval, tf.Tensor] | None = None

    @property
    def center(self) -> tf.Tensor:
        """The middle of the interval."""
        return (self.lower + self.upper) / 2

    @property
    def radius(self) -> tf.Tensor:
        """Half the width of the interval."""
        return (self.upper - self.lower) / 2

    def worst_case_logits(self, labels: Any, binary: bool | None = None) -> tf.Tensor:
        """Returns logits that no point of the box makes worse for the labels.

        If these logits have the highest score at the label, all points of the box have.
        Where the output is that of a dense layer, or the softmax of one, differences
        of logits are bounded instead of each logit, which is tighter: Gowal et al.
        (2018), https://arxiv.org/abs/1810.12715, section 3.

        Args:
          labels: Classes, integers of shape [batch, ...] or [batch, ..., 1], or one-hot
            rows, of shape [batch, ..., classes]; for binary outputs 0 or 1, with one
            entry for each of the outputs.
          binary: Whether each element is the logit of a yes by itself, instead of that
            of one class along the last axis. None: if there is one element alone.

        Returns:
          A tensor of the shape of the output. Of several classes, the logit of the
          label is 0.
        """
        if self.scores is not None:
            return self.scores.worst_case_logits(labels, binary)
        labels = tf.convert_to_tensor(labels)
        shape = self.lower.shape
        if binary is None:
            binary = shape.rank == 1 or shape[-1] == 1
        if binary:
            yes = tf.reshape(labels, tf.shape(self.lower))
            return tf.where(tf.cast(yes, tf.float32) > 0.5, self.lower, self.upper)
        if labels.shape.rank == shape.rank and labels.shape[-1] != 1:
            labels = tf.argmax(labels, axis=-1)
        labels = tf.cast(tf.reshape(labels, tf.shape(self.lower)[:-1]), tf.int32)
        if self.affine is None:
            own = tf.gather(self.lower, labels, axis=-1, batch_dims=shape.rank - 1)
            right = tf.one_hot(labels, shape[-1], on_value=True, off_value=False)
            others = self.upper - own[..., tf.newaxis]
            return tf.where(right, tf.zeros_like(others), others)
        before, kernel = self.affine
        own = tf.gather(self.center, labels, axis=-1, batch_dims=shape.rank - 1)
        # Of each class, how its logit less that of the label depends on what goes in.
        columns = tf.gather(tf.transpose(kernel), labels)[..., tf.newaxis]
        spread = tf.einsum("...n,...nk->...k", before.radius, tf.abs(kernel - columns))
        return self.center - own[..., tf.newaxis] + spread


def interval_bounds(model: Any, lower: Any, upper: Any) -> Any:
    """Bounds the outputs of a model over all inputs of a box.

    Each layer's outputs are bounded given bounds of its inputs: Gowal et al. (2018),
    https://arxiv.org/abs/1810.12715, section 3. The model runs as in inference:
    without dropout, and with the moving statistics of batch normalization, whose state
    stays as it is. Bounds are computed in float32 at least; rounding, of about 1e-6 of
    them, is not bounded. Gradients flow to the weights.

    ```python
    output = nsl.lib.interval_bounds(model, x - 0.1, x + 0.1)
    certified = tf.argmax(output.worst_case_logits(y), axis=-1) == y
    ```

    Args:
      model: A sequential or functional Keras model of dense, convolutional, pooling,
        normalization, reshaping and merging layers and monotonic activations. Any other
        layer takes part if it has a method `interval_bounds(lower, upper)` that returns
        such a pair. A wrapper of `nsl.keras` stands for its base model.
      lower: The inputs' lower bounds, in the structure of the model's inputs.
      upper: Their upper bounds. Inputs that are no floats must be equal in both.

    Returns:
      An `Interval` for each output, in their structure.

    Raises:
      ValueError: If nothing is known of a layer; the message names it.
    """

    def interval_of(low: tf.Tensor, high: tf.Tensor) -> Interval:
        if not is_perturbable(low):
            return Interval(low, low)
        dtype = tf.float64 if low.dtype == tf.float64 else tf.float32
        return Interval(tf.cast(low, dtype), tf.cast(high, dtype))

    while hasattr(model, "base_model"):
        model = model.base_model
    if not keras_internals.is_functional(model):
        raise ValueError(
            "Interval bounds go from layer to layer, so they need a sequential or "
            f"functional Keras model, but received {type(model).__name__}."
        )
    ends = (keras_internals.flat_inputs(model, end) for end in (lower, upper))
    inputs = [interval_of(low, high) for low, high in zip(*ends, strict=True)]
    return keras_internals.run_operations(model, inputs, _bounded)


def _bounded(operation: Any) -> Callable[..., Any]:
    """Returns an operation of a model as a function of intervals."""

    def run(*args: Any, mask: Any = None, training: Any = None, **kwargs: Any) -> Any:
        del mask, training
        if keras_internals.is_functional(operation):
            inputs = tf.nest.flatten(args[0])
            return keras_internals.run_operations(operation, inputs, _bounded)
        intervals = [a for a in tf.nest.flatten((args, kwargs)) if _is_interval(a)]
        if all(one.lower is one.upper for one in intervals):
            exact = operation.call(*_ends(args, "lower"), **_ends(kwargs, "lower"))
            return tf.nest.map_structure(lambda output: Interval(output, output), exact)
        own = getattr(operation, "interval_bounds", None)
        if own is not None:
            return Interval(*own(intervals[0].lower, intervals[0].upper))
        if getattr(operation, "quantization_mode", None) is not None:
            raise ValueError(
                f"Interval bounds of the layer '{operation.name}' are not known: it is "
                f"quantized ({operation.quantization_mode}), and rounds its inputs. "
                "Bound the model as it was before."
            )
        rule = None
        if keras_internals.is_own_layer(operation):
            rule = _RULES.get(type(operation).__name__)
        elif keras_internals.is_own_operation(operation):
            rule = _OPERATIONS.get(type(operation).__name__)
        if rule is None:
            raise ValueError(
                f"Interval bounds of the layer '{operation.name}' are not known: it is "
                f"a {type(operation).__name__}. Known are {sorted(_RULES)}. Take one "
                "of these, or a layer of your own with a method "
                "interval_bounds(lower, upper) that returns the bounds of its outputs."
            )
        return rule(operation, *args, **kwargs)

    return run


def _is_interval(value: Any) -> bool:
    return isinstance(value, Interval)


def _ends(values: Any, end: str) -> Any:
    """Replaces each interval in a structure by one of its ends."""
    return tf.nest.map_structure(
        lambda value: getattr(value, end) if _is_interval(value) else value, values
    )


def _monotonic(layer: Any, *args: Any, **kwargs: Any) -> Interval:
    """Bounds what no input makes smaller as it grows."""
    slopes = [getattr(layer, name, 0) or 0 for name in ("alpha", "negative_slope")]
    interpolation = getattr(layer, "interpolation", "nearest")
    if min(slopes) < 0 or interpolation not in ("nearest", "bilinear"):
        raise ValueError(
            f"Interval bounds of the layer '{layer.name}' are known where it is "
            "monotonic: with slopes of at least 0, and interpolation 'nearest' or "
            f"'bilinear'. But its config is {layer.get_config()}."
        )
    low = layer.call(*_ends(args, "lower"), **_ends(kwargs, "lower"))
    return Interval(low, layer.call(*_ends(args, "upper"), **_ends(kwargs, "upper")))


def _per_element(layer: Any, x: Interval) -> Interval:
    """Bounds what is affine in each element, of whatever sign."""
    ends = layer.call(x.lower), layer.call(x.upper)
    return Interval(tf.minimum(*ends), tf.maximum(*ends))


def _subtract(layer: Any, pair: list[Interval]) -> Interval:
    first, second = pair
    return Interval(first.lower - second.upper, first.upper - second.lower)


def _identity(layer: Any, x: Interval) -> Interval:
    """Bounds what does nothing in inference."""
    del layer
    return x


def _activation(layer: Any, x: Interval) -> Interval:
    return _activated(layer, layer.activation, x)


def _softmax(layer: Any, x: Interval) -> Interval:
    """Bounds each share of a softmax: its own score up, all others down."""
    axis = getattr(layer, "axis", -1)
    if axis not in (-1, x.lower.shape.rank - 1):
        raise ValueError(
            f"Interval bounds of the softmax '{layer.name}' are known along the last "
            f"axis alone, but it is along {axis!r}."
        )

    def share(own: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
        # All but one of a sum, with no difference of numbers that are nearly equal.
        highest = tf.reduce_max(others, -1, keepdims=True)
        shares = tf.exp(others - highest)
        rest = tf.maximum(tf.reduce_sum(shares, -1, keepdims=True) - shares, 1.0)
        is_top = tf.one_hot(
            tf.argmax(others, -1), others.shape[-1], on_value=True, off_value=False
        )
        below = tf.where(is_top, others.dtype.min, others)
        below = tf.reduce_logsumexp(below, -1, keepdims=True)
        return tf.sigmoid(own - tf.where(is_top, below, highest + tf.math.log(rest)))

    return Interval(share(x.lower, x.upper), share(x.upper, x.lower), scores=x)


def _activated(layer: Any, activation: Any, x: Interval) -> Interval:
    name = getattr(activation, "__name__", None)
    if activation is None or name == "linear":
        return x
    known = keras_internals.is_own_activation(activation)
    if known and name == "softmax":
        return _softmax(layer, x)
    if not known or name not in _MONOTONIC_ACTIVATIONS:
        raise ValueError(
            f"Interval bounds of the activation {name or activation!r} of the layer "
            f"'{layer.name}' are not known. Known are softmax and the monotonic ones: "
            f"{sorted(_MONOTONIC_ACTIVATIONS)}."
        )
    scores = x if name == "sigmoid" else None
    return Interval(activation(x.lower), activation(x.upper), scores)


def _weighted(
    product: Callable[[Any, tf.Tensor, tf.Tensor], tf.Tensor],
) -> Callable[[Any, Interval], Interval]:
    """Returns the rule of a layer that multiplies by a kernel and adds a bias."""

    def rule(layer: Any, x: Interval) -> Interval:
        kernel = tf.cast(tf.convert_to_tensor(layer.kernel), x.lower.dtype)
        center = product(layer, x.center, kernel)
        if getattr(layer, "bias", None) is not None:
            center = _with_bias(layer, center)
        radius = product(layer, x.radius, tf.abs(kernel))
        affine = (x, kernel) if type(layer).__name__ == "Dense" else None
        output = Interval(center - radius, center + radius, affine=affine)
        return _activated(layer, layer.activation, output)

    return rule


def _with_bias(layer: Any, center: tf.Tensor) -> tf.Tensor:
    bias = tf.cast(tf.convert_to_tensor(layer.bias), center.dtype)
    if getattr(layer, "data_format", None) == "channels_first":
        bias = tf.reshape(bias, [-1, *[1] * (center.shape.rank - 2)])
    return center + bias


def _dense(layer: Any, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    del layer
    return tf.matmul(x, kernel) if x.shape.rank == 2 else tf.tensordot(x, kernel, 1)


def _einsum(layer: Any, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    return tf.einsum(layer.equation, x, kernel)


def _convolution(layer: Any, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    if layer.padding == "causal":
        raise ValueError(
            f"Interval bounds of the causal convolution '{layer.name}' are not known. "
            "Put keras.layers.ZeroPadding1D in front of one with padding='valid'."
        )
    return layer.convolution_op(x, kernel)


def _depthwise(layer: Any, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    if layer.data_format != "channels_last":
        raise ValueError(
            f"Interval bounds of the depthwise convolution '{layer.name}' are known "
            "with data_format='channels_last' alone."
        )
    return tf.nn.depthwise_conv2d(
        x,
        kernel,
        [1, *layer.strides, 1],
        layer.padding.upper(),
        dilations=layer.dilation_rate,
    )


# fmt: off
_MONOTONIC_ACTIVATIONS = frozenset({
    "celu", "elu", "exponential", "hard_sigmoid", "hard_tanh", "leaky_relu",
    "log_sigmoid", "relu", "relu6", "selu", "sigmoid", "soft_shrink", "softplus",
    "softsign", "sparse_plus", "squareplus", "tanh", "tanh_shrink",
})
_IN_DIMENSIONS = (
    "AveragePooling", "Cropping", "GlobalAveragePooling", "GlobalMaxPooling",
    "MaxPooling", "UpSampling", "ZeroPadding",
)
_MONOTONIC = (
    "Add", "Average", "Concatenate", "ELU", "Flatten", "LeakyReLU", "Maximum",
    "Minimum", "Normalization", "Permute", "ReLU", "RepeatVector", "Reshape",
    *(f"{name}{i}D" for name in _IN_DIMENSIONS for i in (1, 2, 3)),
)
_IDLE_IN_INFERENCE = (
    "ActivityRegularization", "AlphaDropout", "Dropout", "GaussianDropout",
    "GaussianNoise", "Identity", "SpatialDropout1D", "SpatialDropout2D",
    "SpatialDropout3D",
)
_MONOTONIC_OPERATIONS = (
    "Add", "Average", "Concatenate", "ExpandDims", "Max", "Maximum", "Mean", "Min",
    "Minimum", "Relu", "Relu6", "Reshape", "Sigmoid", "Softplus", "Squeeze", "Sum",
    "Tanh", "Transpose",
)
# fmt: on

_RULES: dict[str, Callable[..., Any]] = {
    "Activation": _activation,
    "BatchNormalization": _per_element,
    "Conv1D": _weighted(_convolution),
    "Conv2D": _weighted(_convolution),
    "Conv3D": _weighted(_convolution),
    "Dense": _weighted(_dense),
    "DepthwiseConv2D": _weighted(_depthwise),
    "EinsumDense": _weighted(_einsum),
    "Rescaling": _per_element,
    "Softmax": _softmax,
    "Subtract": _subtract,
    **dict.fromkeys(_IDLE_IN_INFERENCE, _identity),
    **dict.fromkeys(_MONOTONIC, _monotonic),
}

# Of keras.ops, in functional models.
_OPERATIONS: dict[str, Callable[..., Any]] = {
    "Softmax": _softmax,
    **dict.fromkeys(_MONOTONIC_OPERATIONS, _monotonic),
}
