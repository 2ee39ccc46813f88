"""Keras models, layers and callbacks for training with structured signals."""

import keras as _keras

if _keras.backend.backend() != "tensorflow":
    raise ImportError(
        "nsl.keras runs on Keras's TensorFlow backend, but Keras is set to "
        f"'{_keras.backend.backend()}'. Set the environment variable "
        "KERAS_BACKEND=tensorflow before keras is first imported, or the entry "
        '"backend": "tensorflow" in ~/.keras/keras.json.'
    )

from nsl.keras import callbacks, few_labels, layers, presets
from nsl.keras.adversarial_loss import adversarial_loss
from nsl.keras.adversarial_regularization import AdversarialRegularization
from nsl.keras.graph_regularization import GraphRegularization
from nsl.keras.regularized_model import RegularizedModel
from nsl.keras.terms import (
    AdversarialObjective,
    AdversarialPasses,
    GraphLoss,
    NeighborOutputs,
    OutputPair,
    Term,
)

__all__ = [
    "AdversarialObjective",
    "AdversarialPasses",
    "AdversarialRegularization",
    "GraphLoss",
    "GraphRegularization",
    "NeighborOutputs",
    "OutputPair",
    "RegularizedModel",
    "Term",
    "adversarial_loss",
    "callbacks",
    "few_labels",
    "layers",
    "presets",
]
