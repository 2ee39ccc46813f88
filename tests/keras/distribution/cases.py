"""What must come to the same weights on one device, on several, and on workers."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import attrs
import keras
import tensorflow as tf

import nsl
from nsl.configs.choice import Choice
from tests.keras.contract.base import X, Y, mlp
from tests.keras.graph_regularization_test import neighbors_of

BATCH, EPOCHS = 12, 2

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


PGD = {
    "pgd_iterations": 3,
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
    """

    name: str
    wrap: Wrap

    def compiled(self, **compile_args: Any) -> Any:
        """Makes the model, always with the same initial weights and seeds."""
        model = self.wrap(mlp())
        settings = {
            "optimizer": keras.optimizers.SGD(0.1, momentum=0.9),
            "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "metrics": ["accuracy"],
        }
        model.compile(**{**settings, **compile_args})
        return model

    def fit(self, model: Any, batch_size: int = BATCH) -> dict[str, Any]:
        """Trains on samples in order and returns what was logged."""
        names = {term.name for term in model._terms}
        x = neighbors_of({"x": X}, 2) if "graph" in names else {"x": X}
        data = tf.data.Dataset.from_tensor_slices((x, Y)).batch(batch_size)
        return model.fit(data, epochs=EPOCHS, verbose=0).history


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


def draws(model: Any) -> bool:
    """Whether a term draws at random, which each replica does by itself."""
    return any(getattr(term, "seed_generator", None) for term in model._terms)


def _alternatives(config: Any) -> list[dict[str, str]]:
    """Lists the settings of enumerated fields other than the default ones."""
    return [
        {field.name: choice.value}
        for field in attrs.fields(type(config))
        if isinstance(default := getattr(config, field.name), Choice)
        for choice in type(default)
        if choice is not default
    ]


def _cases() -> list[Case]:
    cases = [
        Case("fgsm", adversarial),
        Case("pgd", functools.partial(adversarial, **PGD)),
        Case("graph", graph),
        Case("stacked", lambda base: graph(adversarial(base))),
        Case("random-start", functools.partial(adversarial, random_init=True, **PGD)),
    ]
    # Every objective and mode, so that a new one is tested as soon as it is there.
    for setting in _alternatives(nsl.configs.AdvRegConfig()):
        wrap = functools.partial(adversarial, **setting, **PGD)
        cases.append(Case("-".join(setting.values()), wrap))
    for setting in _alternatives(nsl.configs.GraphRegConfig()):
        wrap = functools.partial(graph, **setting)
        cases.append(Case("-".join(setting.values()), wrap))
    return cases


CASES = {case.name: case for case in _cases()}
