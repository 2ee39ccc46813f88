"""What must come to the same weights on one device, on several, and on workers."""

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import attrs
import keras
import tensorflow as tf

import nsl
from nsl.configs.choice import Choice
from tests.keras.contract.base import X, Y, mlp
from tests.keras.graph_regularization_test import neighbors_of

BATCH, EPOCHS = 8, 1
FIRST = "fgsm-graph"

Wrap = Callable[[keras.Model], keras.Model]


def adversarial(base: keras.Model, **config: Any) -> keras.Model:
    """Wraps a model; PGD if the config says so."""
    settings = {"multiplier": 0.5, "adv_step_size": 0.2, **config}
    config = nsl.configs.make_adv_reg_config(**settings)
    return nsl.keras.AdversarialRegularization(base, adv_config=config)


def graph(base: keras.Model, **config: Any) -> keras.Model:
    """Wraps a model; every sample has two neighbors, some of them masked."""
    settings = {"multiplier": 0.3, "max_neighbors": 2, **config}
    config = nsl.configs.make_graph_reg_config(**settings)
    return nsl.keras.GraphRegularization(base, config)


GRAPH = nsl.configs.make_graph_reg_config(max_neighbors=2, multiplier=0.3)
PGD = {
    "pgd_iterations": 2,
    "pgd_epsilon": 0.3,
    "adv_step_size": 0.15,
    "adv_grad_norm": "infinity",
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One way to regularize.

    Attributes:
      name: Names the case in tests and files.
      wrap: Wraps a base model.
      draws: Whether each replica draws random numbers for itself. Otherwise those of
        a search's first direction are the same for every sample, wherever it is.
    """

    name: str
    wrap: Wrap
    draws: bool = False

    def compiled(self, **compile_args: Any) -> Any:
        """Makes the model, always with the same initial weights and seeds."""
        base = mlp()
        for weights in base.trainable_variables:
            # Losses of the base model's own must not count once per replica.
            weights.regularizer = keras.regularizers.L2(0.05)
        model = self.wrap(base)
        settings = {
            "optimizer": keras.optimizers.SGD(0.1, momentum=0.9),
            "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "metrics": ["accuracy"],
        }
        model.compile(**{**settings, **compile_args})
        return model

    def fit(self, model: Any, batch_size: int = BATCH) -> dict[str, Any]:
        """Trains on samples in order and returns what was logged."""
        names = {term.name for term in model.terms()}
        x = neighbors_of({"x": X}, 2) if "graph" in names else {"x": X}
        data = untuned(tf.data.Dataset.from_tensor_slices((x, Y)).batch(batch_size))
        with contextlib.nullcontext() if self.draws else _same_for_all_samples():
            return model.fit(data, epochs=EPOCHS, verbose=0).history


def untuned(data: tf.data.Dataset) -> tf.data.Dataset:
    """The dataset without the thread that tunes it.

    The thread may take its time to end when the machine is busy.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return data.with_options(options)


@contextlib.contextmanager
def _same_for_all_samples() -> Iterator[None]:
    """Replaces random directions by one that has all coordinates too."""
    with mock.patch.object(
        tf.random, "stateless_normal", lambda shape, seed: tf.ones(shape)
    ):
        yield


@functools.cache
def on_one_device(case: Case) -> tuple[list[Any], dict[str, Any]]:
    """Trains without a strategy and returns weights and logs."""
    model = case.compiled()
    history = case.fit(model)
    return model.get_weights(), history


@functools.cache
def on_two_devices(case: Case) -> tuple[list[Any], dict[str, Any]]:
    """Trains on two devices of this machine and returns weights and logs."""
    strategy = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
    with strategy.scope():
        model = case.compiled()
    history = case.fit(model)
    return model.get_weights(), history


def _alternatives(config: Any) -> list[dict[str, str]]:
    """Lists the settings of enumerated fields other than the default ones."""
    return [
        {field.name: choice.value}
        for field in attrs.fields(type(config))
        if isinstance(default := getattr(config, field.name), Choice)
        for choice in type(default)
        if choice is not default
    ]


def _wrap(
    base: keras.Model,
    adversarial_setting: dict[str, str] | None,
    graph_setting: dict[str, str] | None,
) -> keras.Model:
    """Wraps a model with one objective of either wrapper, or of both."""
    if adversarial_setting is not None:
        base = adversarial(base, **adversarial_setting, **PGD)
    return base if graph_setting is None else graph(base, **graph_setting)


def _at_hidden_layer(base: keras.Model) -> keras.Model:
    """Perturbs a layer in units, and within bounds, that all replicas have part in.

    And weights by a gradient that they have part in.
    """
    return adversarial(
        base,
        **PGD,
        weight_perturbation=0.1,
        embedding_layer=base.layers[0].name,
        standardize_layers=True,
        clip_to_layer_range=True,
    )


class _OverridesCall(nsl.keras.GraphRegularization):
    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return super().call(inputs, training=training)


def _cases() -> list[Case]:
    random_start = functools.partial(adversarial, random_init=True, **PGD)
    cases = [
        Case(FIRST, lambda base: graph(adversarial(base))),
        Case("random-start", random_start, draws=True),
        Case("hidden-layer-weights", _at_hidden_layer),
        Case("overridden-call", lambda base: _OverridesCall(adversarial(base), GRAPH)),
    ]
    # Every objective and mode, so that a new one is tested as soon as it is there; an
    # adversarial one and one of graphs in the same model, which is made only once.
    for settings in itertools.zip_longest(
        _alternatives(nsl.configs.AdvRegConfig()),
        _alternatives(nsl.configs.GraphRegConfig()),
    ):
        name = "-".join(value for s in settings if s for value in s.values())
        adversarial_setting, graph_setting = settings
        wrap = functools.partial(
            _wrap, adversarial_setting=adversarial_setting, graph_setting=graph_setting
        )
        cases.append(Case(name, wrap))
    return cases


CASES = {case.name: case for case in _cases()}
#: What workers train, too. They differ from devices of one machine in how tensors are
#: gathered and summed: contrastive gathers, the others sum.
OF_WORKERS = {
    name: CASES[name] for name in (FIRST, "random-start", "replace-contrastive")
}
