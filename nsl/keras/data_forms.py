"""The forms in which data may come: Keras's own, and one dict with labels inside."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf


class DataForms(keras.Model):
    """A Keras model whose batches may need unpacking before Keras understands them.

    Keras looks for labels and sample weights in `y` and `sample_weight` alone. Where
    `unpack` finds them inside of `x`, they are moved there before Keras looks.
    """

    def unpack(self, data: Any) -> tuple[Any, Any, Any]:
        """Splits a batch into features, labels and weights of its samples.

        Args:
          data: `x`, `(x,)`, `(x, y)` or `(x, y, sample_weight)`.

        Returns:
          `(x, y, sample_weight)`, where y and sample_weight may be None.
        """
        return keras.utils.unpack_x_y_sample_weight(data)

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Trains the model; takes the arguments of `keras.Model.fit`."""
        return super().fit(**self._unpacked(super().fit, args, kwargs))

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluates the model; takes the arguments of `keras.Model.evaluate`."""
        return super().evaluate(**self._unpacked(super().evaluate, args, kwargs))

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Predicts; takes the arguments of `keras.Model.predict`."""
        arguments = named_arguments(super().predict, args, kwargs)
        return super().predict(**{**arguments, "x": _tuples(arguments["x"])})

    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Trains on one batch; takes the arguments of `keras.Model.train_on_batch`."""
        arguments = self._unpacked(super().train_on_batch, args, kwargs)
        return super().train_on_batch(**arguments)

    def test_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluates one batch; takes the arguments of `keras.Model.test_on_batch`."""
        return super().test_on_batch(
            **self._unpacked(super().test_on_batch, args, kwargs)
        )

    def _unpacked(
        self, method: Callable[..., Any], args: Any, kwargs: Any
    ) -> dict[str, Any]:
        """The arguments of a method of Keras by name, labels where Keras looks."""
        given = named_arguments(method, args, kwargs)
        x, y, weight = given.get("x"), given.get("y"), given.get("sample_weight")
        weighted = given.get("class_weight") is not None
        if isinstance(x, Mapping) and y is None:
            x, y, weight = self.unpack((x, None, weight))
            given |= {"x": x, "y": y, "sample_weight": weight}
        elif weighted and isinstance(x, tf.data.Dataset):
            given["x"] = x.map(self._labeled)
        elif weighted and isinstance(x, keras.utils.PyDataset):
            _refuse_dict_batches(x)
        else:
            given["x"] = _tuples(x)
        if "validation_data" in given:
            given["validation_data"] = self._unpacked_validation(
                given["validation_data"]
            )
        return given

    def _unpacked_validation(self, data: Any) -> Any:
        x = data[0] if isinstance(data, list | tuple) and data else data
        if isinstance(x, Mapping):
            return self._labeled(*data) if x is not data else self._labeled(data)
        return _tuples(data)

    def _labeled(self, *data: Any) -> tuple[Any, ...]:
        """A batch as `(x, y)` or `(x, y, sample_weight)`."""
        x, y, sample_weight = self.unpack(data)
        return (x, y) if sample_weight is None else (x, y, sample_weight)


def named_arguments(
    method: Callable[..., Any], args: Any, kwargs: Any
) -> dict[str, Any]:
    """Names the arguments of a call.

    Args:
      method: What is called.
      args: Positional arguments.
      kwargs: Keyword arguments.

    Returns:
      All arguments by name.
    """
    bound = inspect.signature(method).bind(*args, **kwargs).arguments
    rest = bound.pop("kwargs", {})
    return {**bound, **rest}


def _tuples(x: Any) -> Any:
    """Makes the dicts that a generator yields tuples, which Keras insists on."""
    if not isinstance(x, types.GeneratorType):
        return x
    return ((batch,) if isinstance(batch, Mapping) else batch for batch in x)


def _refuse_dict_batches(batches: keras.utils.PyDataset) -> None:
    first = batches[0]
    if isinstance(first, Mapping):
        raise ValueError(
            "class_weight needs a PyDataset that returns (x, y), but this one returns "
            f"one dict with the keys {sorted(first)}."
        )
