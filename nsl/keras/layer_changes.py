"""Changes to the outputs of layers during a pass: watched, perturbed or replaced.

Each change is a function of the position of an output among those that the layer
returns in a pass, and of the output. See `nsl.lib.layer_outputs.recorded_outputs`.
"""

from __future__ import annotations

import functools
from typing import TypeAlias

import tensorflow as tf

from nsl.keras.clean_pass import Perturbations
from nsl.lib.features import is_perturbable
from nsl.lib.layer_outputs import Change

# By layer name.
Changes: TypeAlias = dict[str, Change]


def watching(tape: tf.GradientTape, names: list[str]) -> Changes:
    """Makes a tape watch the outputs of layers."""

    def watch(position: int, output: tf.Tensor) -> tf.Tensor:
        del position
        if is_perturbable(output):
            tape.watch(output)
        return output

    return dict.fromkeys(names, watch)


def adding(perturbations: Perturbations, shared: bool = False) -> Changes:
    """Adds perturbations to the outputs of layers.

    Args:
      perturbations: What to add, by layer name.
      shared: Whether neighbors share the pass. Only the first rows, the samples, are
        perturbed then.
    """
    return {
        name: functools.partial(_added, name, added, shared)
        for name, added in perturbations.items()
    }


def _added(
    name: str,
    perturbations: list[tf.Tensor],
    shared: bool,
    position: int,
    output: tf.Tensor,
) -> tf.Tensor:
    if position >= len(perturbations):
        raise ValueError(
            f"embedding_layer '{name}' ran more often than in the clean pass, where it "
            f"returned {len(perturbations)} outputs. Choose a layer that runs equally "
            "often in every pass."
        )
    perturbation = tf.cast(perturbations[position], output.dtype)
    if not shared:
        return output + tf.ensure_shape(perturbation, output.shape)
    rest = tf.shape(output)[0] - tf.shape(perturbation)[0]
    paddings = tf.stack([[0, rest], *[[0, 0]] * (output.shape.rank - 1)])
    return output + tf.ensure_shape(tf.pad(perturbation, paddings), output.shape)


def replacing(name: str, center: tf.Tensor, perturbation: tf.Tensor) -> Changes:
    """Replaces the only output of a layer by a known output plus a perturbation.

    The result does not depend on the layer's inputs, so that a graph leaves out
    everything below the layer.
    """

    def replace(position: int, output: tf.Tensor) -> tf.Tensor:
        del position
        point = tf.cast(tf.stop_gradient(center), perturbation.dtype) + perturbation
        return tf.ensure_shape(tf.cast(point, output.dtype), output.shape)

    return {name: replace}
