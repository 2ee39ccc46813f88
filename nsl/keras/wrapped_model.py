"""A model around a base model, whose weights, saving and serving are the base's."""

from __future__ import annotations

import functools
import inspect
from typing import Any, ClassVar, Self

import keras
import tensorflow as tf

from nsl.configs import serialization
from nsl.keras.base_model import (
    check_base_model,
    to_base_inputs,
    warn_of_unused_overrides,
)
from nsl.keras.batch import describe, to_tensor
from nsl.keras.data_forms import DataForms
from nsl.keras.multi_worker import MultiWorker


class WrappedModel(DataForms, MultiWorker):
    """A Keras model that predicts with a base model and trains its weights.

    Loss, metrics and sample weights are handled by Keras as for any model.

    Args:
      base_model: A sequential, functional or subclassed `keras.Model`, or another
        wrapper.
      **kwargs: Arguments of `keras.Model`, as `name`.

    Raises:
      TypeError: If `base_model` is no Keras model.
    """

    # Arguments of the constructor that are configs of `nsl.configs`.
    _config_classes: ClassVar[dict[str, type]] = {}

    def __init__(self, base_model: keras.Model, **kwargs: Any) -> None:
        check_base_model(base_model)
        kwargs.setdefault("dtype", base_model.dtype_policy)
        # The base model casts its inputs itself. Cast here, labels would suffer too.
        super().__init__(autocast=False, **kwargs)
        self.base_model = base_model
        self._core: keras.Model = getattr(base_model, "_core", base_model)
        if self._core is base_model:
            warn_of_unused_overrides(base_model)
        self.built = base_model.built

    def unpack(self, data: Any) -> tuple[Any, Any, Any]:
        """Splits a batch into features, labels and weights of its samples."""
        if isinstance(self.base_model, WrappedModel):
            return self.base_model.unpack(data)
        return super().unpack(data)

    def strip(self, x: Any) -> Any:
        """Removes what only training uses from features, as those of neighbors.

        Args:
          x: Features as `predict` and `evaluate` receive them.

        Returns:
          The features of the samples themselves.
        """
        if isinstance(self.base_model, WrappedModel):
            return self.base_model.strip(x)
        return x

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Runs the base model; labels and neighbor features are not needed."""
        return self.run_base(self.strip(inputs), training=training)

    def run_base(self, x: Any, training: bool | None) -> Any:
        """Runs the base model on features in the structure the user chose.

        Args:
          x: Features of a batch.
          training: Whether layers such as Dropout run in training mode.

        Returns:
          The outputs of the base model.
        """
        inputs = to_base_inputs(self._core, x)
        if self._core._call_has_training_arg:
            return self._core(inputs, training=training)
        return self._core(inputs)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> tf.Tensor:
        """Computes the loss of one pass as the base model computes it."""
        if self._base_computes_loss():
            return self._core._compute_loss(x, y, y_pred, sample_weight, training)
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Configures training; takes the arguments of `keras.Model.compile`."""
        super().compile(*args, **kwargs)
        if self._base_computes_loss():
            settings = inspect.signature(super().compile).bind(*args, **kwargs)
            self._core.compile(
                optimizer=self.optimizer,
                loss=settings.arguments.get("loss"),
                loss_weights=settings.arguments.get("loss_weights"),
            )

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded model as it was compiled when saved."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """All metrics, those that the base model updates itself included."""
        # Keras passes over the metrics of models inside of a model.
        return [*super().metrics, *self._core._metrics]

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs, where the base model knows them."""
        return self._core.output_names

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Restores the built state, which is that of the base model."""
        del config
        self.built = self.base_model.built

    def save(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Saves the base model, so that serving needs no nsl.

        `keras.saving.save_model(model, path)` saves the whole wrapper instead; where
        that is loaded, `nsl.keras` must have been imported.

        Args:
          filepath: Where to, as in `keras.Model.save`.
          *args: Further arguments of `keras.Model.save`.
          **kwargs: Further arguments of `keras.Model.save`.
        """
        self._core.save(filepath, *args, **kwargs)

    def export(self, filepath: Any, *args: Any, **kwargs: Any) -> Any:
        """Exports the base model for serving, as `keras.Model.export` does.

        Args:
          filepath: Where to.
          *args: Further arguments of `keras.Model.export`.
          **kwargs: Further arguments of `keras.Model.export`.

        Returns:
          What the export of the base model returns.
        """
        return self._core.export(filepath, *args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` needs, the base model and configs included."""
        return {
            "name": self.name,
            "base_model": keras.saving.serialize_keras_object(self.base_model),
            **{
                name: serialization.to_dict(
                    getattr(self, name), keras.saving.serialize_keras_object
                )
                for name in self._config_classes
            },
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], **kwargs: Any) -> Self:
        """Makes the wrapper from what `get_config` returned."""
        decode = functools.partial(keras.saving.deserialize_keras_object, **kwargs)
        arguments = {**config, "base_model": decode(config["base_model"])}
        for name, kind in cls._config_classes.items():
            arguments[name] = serialization.from_dict(kind, config[name], decode)
        return cls(**arguments)

    def _expected_data(self) -> str:
        """Names, for an error, the forms in which a batch may come."""
        return "x and y, or batches (x, y) or (x, y, sample_weight)"

    def _tensors(self, data: Any) -> tuple[Any, Any, Any]:
        """Unpacks a batch and makes sure of tensors and labels."""
        x, y, sample_weight = self.unpack(data)
        if y is None and self.loss is not None:
            raise ValueError(
                f"{self.name} needs labels to compute its loss: expected "
                f"{self._expected_data()}, but received no y and x = {describe(x)}."
            )
        return keras.tree.map_structure(to_tensor, (x, y, sample_weight))

    def _check_training(self, x: Any, sample_weight: Any) -> None:
        """Checks what only a training batch must hold."""
        if isinstance(self.base_model, WrappedModel):
            self.base_model._check_training(x, sample_weight)

    def _symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        # Keras unpacks the batch here by itself, under a distribution strategy.
        if data_batch is not None:
            x, y, sample_weight = self.unpack(data_batch)
            data_batch = (self.strip(x), y, sample_weight)
        super()._symbolic_build(iterator=iterator, data_batch=data_batch)

    def _base_computes_loss(self) -> bool:
        return type(self._core).compute_loss is not keras.Model.compute_loss

    def _own_losses(self) -> list[tf.Tensor]:
        """The base model's own losses, of the pass just done."""
        if self._base_computes_loss():
            return []
        return [self._aggregate_additional_loss(loss) for loss in self.losses]
