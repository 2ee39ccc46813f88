"""Interval bound propagation: bounds on a network's outputs over a box of inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from nsl.lib import keras_internals
from nsl.lib.features import is_perturbable


@dataclasses.dataclass(frozen=True, eq=False)
class Interval:
    """Elementwise lower and upper bounds of a tensor.

    Attributes:
      lower: The lower bounds, a floating tensor.
      upper: The upper bounds, a tensor like `lower`; the same object if the value is
        constant over the box.
      scores: The input of the softmax or sigmoid that computed this, or None.
      affine: The input and the kernel of the dense layer that computed this, or None.
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
        """Returns the worst logits for the labels that the bounds allow.

        If the label has the highest of these logits, it has the highest at every point
        of the box. For the output of a dense layer, or the softmax of one, this bounds
        differences of logits instead of each logit, which is tighter: Gowal et al.
        (2018), https://arxiv.org/abs/1810.12715, section 3.

        Args:
          labels: Classes, integers of shape [batch, ...] or [batch, ..., 1], or one-hot
            rows, of shape [batch, ..., classes]; for binary outputs 0 or 1, one for
            each output.
          binary: Whether each element is the logit of an independent binary prediction,
            instead of one class along the last axis. If None, True for outputs of rank
            1, or whose last axis has size 1.

        Returns:
          A tensor of the shape of the output. With several classes, the label's logit
          is 0.
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
        # The weights of each class's logit minus the label's.
        columns = tf.gather(tf.transpose(kernel), labels)[..., tf.newaxis]
        spread = tf.einsum("...n,...nk->...k", before.radius, tf.abs(kernel - columns))
        return self.center - own[..., tf.newaxis] + spread


def interval_bounds(model: Any, lower: Any, upper: Any) -> Any:
    """Bounds the outputs of a model over all inputs of a box.

    This is interval bound propagation: Gowal et al. (2018),
    https://arxiv.org/abs/1810.12715, section 3. The model runs in inference mode: no
    dropout, and batch normalization uses its moving statistics without updating them.
    Bounds are computed in float32 or wider; rounding errors, of relative size about
    1e-6, are not bounded. Gradients flow to the weights.

    ```python
    output = nsl.lib.interval_bounds(model, x - 0.1, x + 0.1)
    certified = tf.argmax(output.worst_case_logits(y), axis=-1) == y
    ```

    Args:
      model: A sequential or functional Keras model of dense, convolutional, pooling,
        normalization, reshaping and merging layers and monotonic activations. Any other
        layer needs a method `interval_bounds(lower, upper)` that returns the bounds of
        its outputs. For a wrapper of `nsl.keras`, its base model is used.
      lower: The lower bounds of the inputs, in the structure of the model's inputs.
      upper: The upper bounds. Inputs that are not floating must be equal in both.

    Returns:
      An `Interval` for each output, in the structure of the outputs.

    Raises:
      ValueError: If the model is not sequential or functional and built, or if a layer
        is not supported; the message names it.
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
            "Interval bounds propagate from layer to layer, so they need a sequential "
            f"or functional Keras model, but received {type(model).__name__}."
        )
    ends = (keras_internals.flat_inputs(model, end) for end in (lower, upper))
    inputs = [interval_of(low, high) for low, high in zip(*ends, strict=True)]
    return keras_internals.run_operations(model, inputs, _bounded)


def _bounded(operation: Any) -> Callable[..., Any]:
    """Returns the function of intervals that bounds an operation of a model."""

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
                "Bound the model before quantization."
            )
        rule = None
        if keras_internals.is_own_layer(operation):
            rule = _RULES.get(type(operation).__name__)
        elif keras_internals.is_own_operation(operation):
            rule = _OPERATIONS.get(type(operation).__name__)
        if rule is None:
            raise ValueError(
                f"Interval bounds of the layer '{operation.name}' are not known: it is "
                f"a {type(operation).__name__}. Supported are {sorted(_RULES)}. Use "
                "one of these, or a custom layer with a method "
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
    """Bounds a layer that is nondecreasing in every input."""
    slopes = [getattr(layer, name, 0) or 0 for name in ("alpha", "negative_slope")]
    interpolation = getattr(layer, "interpolation", "nearest")
    if min(slopes) < 0 or interpolation not in ("nearest", "bilinear"):
        raise ValueError(
            f"Interval bounds of the layer '{layer.name}' are known only if it is "
            "monotonic: slopes of at least 0, and interpolation 'nearest' or "
            f"'bilinear'. Its config is {layer.get_config()}."
        )
    low = layer.call(*_ends(args, "lower"), **_ends(kwargs, "lower"))
    return Interval(low, layer.call(*_ends(args, "upper"), **_ends(kwargs, "upper")))


def _per_element(layer: Any, x: Interval) -> Interval:
    """Bounds a layer that is affine in each element, with slopes of any sign."""
    ends = layer.call(x.lower), layer.call(x.upper)
    return Interval(tf.minimum(*ends), tf.maximum(*ends))


def _subtract(layer: Any, pair: list[Interval]) -> Interval:
    first, second = pair
    return Interval(first.lower - second.upper, first.upper - second.lower)


def _identity(layer: Any, x: Interval) -> Interval:
    """Bounds a layer that does nothing in inference."""
    del layer
    return x


def _activation(layer: Any, x: Interval) -> Interval:
    return _activated(layer, layer.activation, x)


def _softmax(layer: Any, x: Interval) -> Interval:
    """Bounds a softmax: probabilities grow with their own score, shrink with others."""
    axis = getattr(layer, "axis", -1)
    if axis not in (-1, x.lower.shape.rank - 1):
        raise ValueError(
            f"Interval bounds of the softmax '{layer.name}' are known only along the "
            f"last axis, but its axis is {axis!r}."
        )

    def share(own: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
        # The sum over all other classes, without subtracting nearly equal numbers.
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
            f"'{layer.name}' are not known. Supported are softmax and the monotonic "
            "activations: "
            f"{sorted(_MONOTONIC_ACTIVATIONS)}."
        )
    scores = x if name == "sigmoid" else None
    return Interval(activation(x.lower), activation(x.upper), scores)


def _weighted(
    product: Callable[[Any, tf.Tensor, tf.Tensor], tf.Tensor],
) -> Callable[[Any, Interval], Interval]:
    """Returns the rule for a layer that multiplies by a kernel and adds a bias."""

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
            "Use keras.layers.ZeroPadding1D followed by one with padding='valid'."
        )
    return layer.convolution_op(x, kernel)


def _depthwise(layer: Any, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    if layer.data_format != "channels_last":
        raise ValueError(
            f"Interval bounds of the depthwise convolution '{layer.name}' are known "
            "only with data_format='channels_last'."
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

# Operations of keras.ops in functional models.
_OPERATIONS: dict[str, Callable[..., Any]] = {
    "Softmax": _softmax,
    **dict.fromkeys(_MONOTONIC_OPERATIONS, _monotonic),
}
