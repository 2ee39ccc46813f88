"""Adversarial regularization of a Keras model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import h5py
import keras
import numpy as np
import tensorflow as tf

from nsl.configs import AdvNeighborConfig, AdvRegConfig
from nsl.keras.base_model import input_names
from nsl.keras.batches import describe, to_tensor
from nsl.keras.clean_pass import CleanPass, Perturbations, Point
from nsl.keras.config_attribute import ConfigAttribute
from nsl.keras.regularized_model import RegularizedModel
from nsl.keras.schedules import at_step
from nsl.keras.terms import AdversarialTerm

# The name of the random-start generator's state in a file of weights.
_SEED = "nsl_random_start"


@keras.saving.register_keras_serializable(package="nsl")
class AdversarialRegularization(RegularizedModel):
    """Trains a base model on its samples and on their adversarial neighbors.

    The loss is the labeled loss plus `multiplier` times the labeled loss at the
    adversarial neighbor of each sample (Goodfellow et al., 2015,
    https://arxiv.org/abs/1412.6572; with several iterations Madry et al., 2018,
    https://arxiv.org/abs/1706.06083). Training and evaluation log
    `scaled_adversarial_loss`. Prediction and export need no labels.

    With `mode='replace'`, the loss is the labeled loss at the neighbors alone. Training
    metrics are then those of the neighbors, since only the neighbors run in training
    mode. Evaluation metrics are always those of the samples. `objective` selects other
    losses at the neighbors, such as TRADES. Both are fields of `AdvRegConfig`.

    Data has the form that any Keras model takes, or that of NSL 1.4: one dict of
    features and labels, where `label_keys` names the labels.

    ```python
    adv_config = nsl.configs.make_adv_reg_config(multiplier=0.2, adv_step_size=0.05)
    adv_model = nsl.keras.AdversarialRegularization(base_model, adv_config=adv_config)
    adv_model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    adv_model.fit(x_train, y_train, epochs=5)
    adv_model.predict(x_test)
    ```

    Args:
      base_model: The model to regularize: a sequential, functional or subclassed
        `keras.Model`, or another wrapper. Shares its weights with the wrapper.
      label_keys: The keys of the labels in a dict batch, in the order of the outputs.
        Features with these names are never perturbed. A config in this position is
        used as `adv_config`.
      sample_weight_key: The key of the sample weights in a dict batch, or None.
      adv_config: The settings, by default `AdvRegConfig()`.
      base_with_labels_in_features: Whether a subclassed base model receives the labels
        of a dict batch among its features. A functional model receives them if it has
        an input of that name.
      **kwargs: Arguments of `keras.Model`, such as `name`.

    Raises:
      TypeError: If an argument has the wrong type.
      ValueError: If the objective is not registered, or the base model has no
        `embedding_layer`. For an unbuilt base model, the first training step checks the
        latter.
    """

    adv_config = ConfigAttribute(AdvRegConfig, maker="make_adv_reg_config")

    def __init__(
        self,
        base_model: keras.Model,
        label_keys: Sequence[str] | AdvRegConfig = ("label",),
        sample_weight_key: str | None = None,
        adv_config: AdvRegConfig | None = None,
        base_with_labels_in_features: bool = False,
        **kwargs: Any,
    ) -> None:
        if isinstance(label_keys, AdvRegConfig) and adv_config is None:
            adv_config, label_keys = label_keys, ("label",)
        if adv_config is None:
            adv_config = AdvRegConfig()
        label_keys = _checked_keys(label_keys)
        if not isinstance(sample_weight_key, str | None):
            raise TypeError(
                "sample_weight_key must be a string or None, but received "
                f"{sample_weight_key!r}. Pass a config as adv_config=..."
            )
        kwargs.setdefault("name", "AdversarialRegularization")
        super().__init__(base_model, **kwargs)
        self.label_keys = label_keys
        self.sample_weight_key = sample_weight_key
        self.base_with_labels_in_features = base_with_labels_in_features
        self._seed_generator: keras.random.SeedGenerator | None = None
        self.adv_config = adv_config
        self._prepare_terms()

    def own_terms(self) -> list[AdversarialTerm]:
        """Returns the adversarial loss with the current config."""
        return [AdversarialTerm(self.adv_config, self._keys(), self._seed_generator)]

    def _keys(self) -> list[str]:
        """Lists the keys of labels and sample weights."""
        weights = [self.sample_weight_key] if self.sample_weight_key else []
        return [*self.label_keys, *weights]

    def unpack(self, data: Any) -> tuple[Any, Any, Any]:
        """Splits a batch, in Keras's form or a dict, into x, y and sample weights."""
        x, y, sample_weight = super().unpack(data)
        if not isinstance(x, Mapping):
            return x, y, sample_weight
        if sample_weight is None and self.sample_weight_key:
            sample_weight = x.get(self.sample_weight_key)
        labeled = bool(self.label_keys) and all(key in x for key in self.label_keys)
        if y is None and labeled:
            y = self._labels(x)
        return self._without_labels(x), y, sample_weight

    def strip(self, x: Any) -> Any:
        """Removes labels and sample weights, unless the base model takes them."""
        return self._without_labels(super().strip(x))

    def perturb_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, **config_kwargs: Any
    ) -> Any:
        """Finds the adversarial neighbors of a batch.

        All passes run with `training=False` and change no state of the model.

        Args:
          x: The features; or a dict of features and labels; or, without `y`, a tuple
            `(x, y)` or `(x, y, sample_weight)`, as the batches of `fit`.
          y: The labels, unless `x` holds them.
          sample_weight: The sample weights, of shape `[batch_size]`. They do not change
            the direction in which a sample is perturbed, but a sample of weight 0 is
            not perturbed.
          **config_kwargs: Fields of `AdvNeighborConfig` that override the wrapper's
            config in this call. None keeps the value of the config.

        Returns:
          The perturbed features in the structure of `x`, as NumPy arrays. Features that
          cannot be perturbed are returned unchanged. Labels and weights of a dict are
          returned as tensors, as in NSL 1.4; those of a tuple are not returned. If the
          base model has a preprocessor, the features are its outputs.

          With an `embedding_layer`, a dict: for each layer its perturbed outputs, a
          list if there are several. With `perturb_features`, the dict holds the
          features too, under their names or 'x'.

        Raises:
          TypeError: If `AdvNeighborConfig` has no such field.
          ValueError: If the model is not compiled, labels are missing, or no feature
            can be perturbed.
        """
        if not self.compiled:
            raise ValueError(
                "perturb_on_batch maximizes the compiled loss, but the model is not "
                "compiled. Call compile() first."
            )
        config = at_step(self._neighbor_config(config_kwargs), self._step())
        if isinstance(x, tuple) and y is None:
            x, y, of_tuple = keras.utils.unpack_x_y_sample_weight(x)
            sample_weight = sample_weight if of_tuple is None else of_tuple
        inside = x if isinstance(x, Mapping) else {}
        labels = {key: to_tensor(inside[key]) for key in self._keys() if key in inside}
        names = ("x", "y", "sample_weight")
        batch = dict(zip(names, self.unpack((x, y, sample_weight)), strict=True))
        batch = self._preprocessed("perturb_on_batch", batch)
        x = batch["x"]
        data = tuple(batch[name] for name in names)
        features, y, sample_weight = self._unpacked_tensors(data)
        clean = CleanPass(self.strip(features), y, sample_weight, training=False)
        [term] = self.own_terms()
        passes = self._passes([term])
        point = term.perturb(passes, passes.save_states(clean), config)
        if point.perturbations:
            return self._perturbed_layers(passes.centers(clean), point, config)
        perturbed = point.x
        perturbed = keras.tree.map_structure(_to_numpy, perturbed, self.strip(x))
        return {**x, **labels, **perturbed} if isinstance(x, Mapping) else perturbed

    def _perturbed_layers(
        self, centers: Perturbations, point: Point, config: AdvNeighborConfig
    ) -> dict[str, Any]:
        """Returns the perturbed outputs of layers by name, with perturbed features."""
        found: dict[str, Any] = {}
        for name, added in point.perturbations.items():
            outputs = [
                (tf.cast(center, perturbation.dtype) + perturbation).numpy()
                for center, perturbation in zip(centers[name], added, strict=True)
            ]
            found[name] = outputs[0] if len(outputs) == 1 else outputs
        if config.perturb_features:
            features = keras.tree.map_structure(_to_numpy, point.x, point.x)
            found |= features if isinstance(features, Mapping) else {"x": features}
        return found

    def save_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Saves the weights in the base model's format, which both can load.

        The file also holds the state of the random-start generator, so that training
        can resume from it exactly.

        Args:
          filepath: The path of the file, as in `keras.Model.save_weights`.
          *args: Further arguments of `keras.Model.save_weights`.
          **kwargs: Further arguments of `keras.Model.save_weights`.
        """
        super().save_weights(filepath, *args, **kwargs)
        if self._seed_generator is not None and os.path.isfile(filepath):
            with h5py.File(filepath, "a") as file:
                file[_SEED] = np.asarray(self._seed_generator.state)

    def load_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Loads weights that this model or its base model saved.

        Args:
          filepath: The path of the file, as in `keras.Model.load_weights`.
          *args: Further arguments of `keras.Model.load_weights`.
          **kwargs: Further arguments of `keras.Model.load_weights`.
        """
        super().load_weights(filepath, *args, **kwargs)
        if self._seed_generator is not None and h5py.is_hdf5(filepath):
            with h5py.File(filepath, "r") as file:
                if _SEED in file:
                    self._seed_generator.state.assign(file[_SEED][()])

    def save_own_variables(self, store: Any) -> None:
        """Saves the state of the random-start generator."""
        if self._seed_generator is not None:
            store["seed"] = self._seed_generator.state

    def load_own_variables(self, store: Any) -> None:
        """Restores the state of the random-start generator."""
        if self._seed_generator is not None:
            self._seed_generator.state.assign(store["seed"])

    def _neighbor_config(self, changes: dict[str, Any]) -> AdvNeighborConfig:
        """Returns the wrapper's `AdvNeighborConfig` with changed fields."""
        changes = {key: v for key, v in changes.items() if v is not None}
        unknown = changes.keys() - attrs.fields_dict(AdvNeighborConfig).keys()
        if unknown:
            raise TypeError(
                f"AdvNeighborConfig has no fields {sorted(unknown)}. Its fields are "
                f"{list(attrs.fields_dict(AdvNeighborConfig))}."
            )
        return attrs.evolve(self.adv_config.adv_neighbor_config, **changes)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, serialized."""
        return {
            **super().get_config(),
            "label_keys": list(self.label_keys),
            "sample_weight_key": self.sample_weight_key,
            "base_with_labels_in_features": self.base_with_labels_in_features,
        }

    def _prepare_terms(self) -> None:
        super()._prepare_terms()
        terms = self.own_terms()
        if self._seed_generator is None and any(term.draws for term in terms):
            self._seed_generator = keras.random.SeedGenerator()

    def _without_labels(self, x: Any) -> Any:
        if not isinstance(x, Mapping):
            return x
        dropped = {self.sample_weight_key}
        if not self.base_with_labels_in_features:
            dropped.update(self.label_keys)
        dropped.difference_update(input_names(self._core))
        return {key: feature for key, feature in x.items() if key not in dropped}

    def _labels(self, x: Mapping[str, Any]) -> Any:
        """Returns the labels of a dict batch in the structure of the outputs."""
        if len(self.label_keys) == 1:
            return x[self.label_keys[0]]
        if set(self.label_keys) == set(getattr(self._core, "output_names", ())):
            return {key: x[key] for key in self.label_keys}
        return [x[key] for key in self.label_keys]

    def _check_training(self, x: Any, sample_weight: Any) -> None:
        super()._check_training(x, sample_weight)
        if self.sample_weight_key and sample_weight is None:
            raise ValueError(
                "Sample weights are missing: expected the key "
                f"'{self.sample_weight_key}' in a dict batch, or sample_weight, but "
                f"received x = {describe(x)}."
            )

    def _expected_data(self) -> str:
        return f"{super()._expected_data()}, or one dict with the keys {self._keys()}"


def _checked_keys(label_keys: Any) -> tuple[str, ...]:
    listed = isinstance(label_keys, Sequence) and not isinstance(label_keys, str)
    if not listed or not all(isinstance(key, str) for key in label_keys):
        raise TypeError(
            "label_keys must be a list or tuple of strings, such as ('label',), but "
            f"received {label_keys!r}."
        )
    return tuple(label_keys)


def _to_numpy(value: Any, given: Any) -> Any:
    if getattr(value, "dtype", None) == tf.string:
        return given  # Keras takes arrays of str, but not of bytes.
    dense = isinstance(value, tf.Tensor) and hasattr(value, "numpy")
    return value.numpy() if dense else value
