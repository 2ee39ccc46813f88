"""Changes to the outputs of layers during a pass: watched, perturbed or replaced.

Each change is a function of the position of an output among those that the layer
returns in a pass, and of the output. See `nsl.lib.layer_outputs.recorded_outputs`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TypeAlias

import tensorflow as tf

from nsl.keras.clean_pass import Perturbations
from nsl.lib.features import is_perturbable
from nsl.lib.layer_outputs import Change

# By layer name.
Changes: TypeAlias = dict[str, Change]
# An output of a layer, and the copy without its gradient that the model continues with.
Detached: TypeAlias = tuple[tf.Tensor, tf.Tensor]


def watching(tape: tf.GradientTape, names: list[str]) -> Changes:
    """Makes a tape watch the outputs of layers."""

    def watch(position: int, output: tf.Tensor) -> tf.Tensor:
        del position
        if is_perturbable(output):
            tape.watch(output)
        return output

    return dict.fromkeys(names, watch)


def detaching(
    tape: tf.GradientTape, names: list[str], detached: list[Detached]
) -> Changes:
    """Cuts the data flow at the outputs of layers, and makes a tape watch what follows.

    Args:
      tape: The tape.
      names: Names of the layers.
      detached: Receives each output of each layer, and what the model continues with.
    """

    def detach(position: int, output: tf.Tensor) -> tf.Tensor:
        del position
        continued = tf.stop_gradient(output)
        tape.watch(continued)
        detached.append((output, continued))
        return continued

    return dict.fromkeys(names, detach)


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
    perturbation = tf.cast(_at(position, perturbations, name), output.dtype)
    if not shared:
        return output + tf.ensure_shape(perturbation, output.shape)
    rest = tf.shape(output)[0] - tf.shape(perturbation)[0]
    paddings = tf.stack([[0, rest], *[[0, 0]] * (output.shape.rank - 1)])
    return output + tf.ensure_shape(tf.pad(perturbation, paddings), output.shape)


def _at(position: int, tensors: list[tf.Tensor], name: str) -> tf.Tensor:
    if position >= len(tensors):
        raise ValueError(
            f"embedding_layer '{name}' ran more often than in the clean pass, where it "
            f"returned {len(tensors)} outputs. Choose a layer that runs equally often "
            "in every pass."
        )
    return tensors[position]


def replacing(
    centers: Mapping[str, list[tf.Tensor]], perturbations: Perturbations
) -> Changes:
    """Replaces the outputs of layers by known outputs plus perturbations.

    The results do not depend on the layers' inputs, so that a graph leaves out
    everything below the layers.
    """
    return {
        name: functools.partial(_replaced, name, centers[name], added)
        for name, added in perturbations.items()
    }


def _replaced(
    name: str,
    centers: list[tf.Tensor],
    perturbations: list[tf.Tensor],
    position: int,
    output: tf.Tensor,
) -> tf.Tensor:
    perturbation = _at(position, perturbations, name)
    point = tf.cast(centers[position], perturbation.dtype) + perturbation
    return tf.ensure_shape(tf.cast(point, output.dtype), output.shape)
