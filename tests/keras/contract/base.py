"""What the contract tests share: data, base models, and the wrapper under test."""

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

SAMPLES, FEATURES, CLASSES = 24, 4, 3
_RANDOM = np.random.default_rng(7)
X = _RANDOM.normal(size=(SAMPLES, FEATURES)).astype("float32")
Y = _RANDOM.integers(0, CLASSES, SAMPLES)
SAMPLE_WEIGHT = _RANDOM.uniform(0.5, 2.0, SAMPLES).astype("float32")


class ContractBase:
    """How a wrapper is made and fed; a subclass says so once."""

    #: Name of the wrapper's metric, and whether evaluation logs it too.
    term_metric: str
    term_in_evaluation: bool
    #: Metrics of further terms, which evaluation does not log.
    further_metrics: tuple[str, ...] = ()
    #: Whether the term draws no random numbers. XLA, several replicas and repeated
    #: evaluation draw others: losses and weights are then only near.
    draws_alike = True

    def near(self, tolerance: float) -> float:
        """The tolerance between two ways to run the same steps."""
        return tolerance if self.draws_alike else max(tolerance, 0.1)

    def comparable(self, logs: dict[str, Any]) -> dict[str, Any]:
        """What two ways to run the same steps agree in."""
        names = logs if self.draws_alike else ["loss"]
        # Before 3.14, Keras gives tensors.
        return {name: np.asarray(logs[name]).tolist() for name in names}

    def wrap(self, base: keras.Model, **config: Any) -> keras.Model:
        """Wraps a base model with the settings under test."""
        raise NotImplementedError

    def training_x(self, x: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Adds what a training batch holds beside the features of the samples."""
        return x

    def terms(self, logs: dict[str, Any]) -> Any:
        """The sum of the terms that are logged."""
        names = (self.term_metric, *self.further_metrics)
        return sum(logs[name] for name in names if name in logs)

    def compiled(self, base: keras.Model | None = None, **compile_args: Any) -> Any:
        """A wrapper over `base` (by default `mlp()`), compiled for classification."""
        model = self.wrap(base if base is not None else mlp())
        settings = {
            "optimizer": keras.optimizers.SGD(0.1),
            "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        }
        model.compile(**{**settings, **compile_args})
        return model

    def fit(self, model: keras.Model, **fit_args: Any) -> keras.callbacks.History:
        """Trains on the shared data in order, an epoch of three batches."""
        settings = {
            "x": self.training_x({"x": X}),
            "y": Y,
            "batch_size": 8,
            "epochs": 1,
            "shuffle": False,
            "verbose": 0,
        }
        return model.fit(**{**settings, **fit_args})

    def fresh(self) -> Any:
        """What `compiled()` gives, made and traced once for all tests of the class."""
        if not self.draws_alike:  # The state of its generator is not among the weights.
            return self.compiled()
        return renewed(self._make)

    @classmethod
    def _make(cls) -> Any:
        return cls().compiled()

    def trained_weights(self, base: keras.Model | None = None, **fit_args: Any) -> Any:
        """The weights after wrapping, compiling and training."""
        model = self.fresh() if base is None else self.compiled(base)
        self.fit(model, **fit_args)
        return model.get_weights()


def renewed(make: Callable[[], Any]) -> Any:
    """What `make()` gives, made and traced once for all who ask for it.

    It begins anew: with its first weights, an optimizer without a past, metrics of
    nothing. Whoever asks next takes it away. Not for optimizers with slots, nor for
    models whose state is not among their weights.
    """
    model, weights = _made_once(make)
    model.set_weights(weights)
    model.optimizer.iterations.assign(0)
    # Before 3.15, Keras does not do so for single batches.
    model.reset_metrics()
    return model


@functools.cache
def _made_once(make: Callable[[], Any]) -> tuple[Any, list[np.ndarray]]:
    model = make()
    return model, model.get_weights()


def innermost(model: keras.Model) -> keras.Model:
    """The model that a wrapper, or several around each other, train."""
    while hasattr(model, "base_model"):
        model = model.base_model
    return model


def mlp(*hidden: keras.layers.Layer, seed: int = 1) -> keras.Model:
    """A small classifier of `X`, always with the same initial weights."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((FEATURES,), name="x"),
            keras.layers.Dense(5, activation="tanh"),
            *hidden,
            keras.layers.Dense(CLASSES),
        ]
    )


def assert_weights_equal(actual: Any, expected: Any, tolerance: float = 1e-6) -> None:
    """Compares lists of weights."""
    assert len(actual) == len(expected)
    for left, right in zip(actual, expected, strict=True):
        np.testing.assert_allclose(left, right, rtol=tolerance, atol=tolerance)
