"""Keras callbacks."""

from nsl.keras.callbacks.robust_accuracy import RobustAccuracy

__all__ = ["RobustAccuracy"]
