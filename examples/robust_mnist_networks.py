"""The four networks of examples/robust_mnist.py, and how they are trained."""

import dataclasses

import keras
import numpy as np
from mnist_images import Images

import nsl

NAMES = ("plain", "pgd", "trades", "bounds")
BOUNDS = (0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Training:
    """Chosen with prototypes, scored on training images that are left out here.

    The epochs and the multiplier of TRADES follow the time there is for training; the
    bounds take most of it, for they grow slowly.
    """

    epsilon: float = 0.3
    steps: int = 5
    step_size: float = 0.1
    # Shares of the training. With all of epsilon at once, nothing is long learned.
    epsilon_grows: float = 0.2
    learning_rate_grows: float = 0.3
    learning_rate: float = 0.002
    batch_size: int = 128
    epochs: tuple[int, int, int, int] = (3, 5, 5, 32)
    trades_multiplier: float = 4.0
    bounds_multiplier: float = 0.05
    bounds_grow: float = 0.45
    bounds_learning_rate_grows: float = 0.1
    ema_momentum: float = 0.998
    filters: tuple[int, int] = (32, 64)
    units: int = 128


QUICK = Training(
    epsilon=0.2,
    steps=2,
    step_size=0.15,
    learning_rate=0.01,
    batch_size=64,
    epochs=(4, 4, 4, 20),
    filters=(8, 16),
    units=32,
)


def make_model(
    shape: tuple[int, ...], settings: Training, clips: bool = False
) -> keras.Model:
    """Returns a network of two strided convolutions, which gives logits.

    Args:
      shape: The shape of an image.
      settings: The numbers of filters and units.
      clips: Whether the contrast is raised first: to begin with, all below 0.3 is white
        and all above 0.7 black. Madry et al. (2018, appendix C) found that their
        network had learned such thresholds by itself.
    """
    model = keras.Sequential([keras.Input(shape)])
    if clips:
        contrast = keras.layers.Conv2D(1, 1)
        model.add(contrast)
        contrast.set_weights([np.array([[[[2.5]]]]), np.array([-0.75])])
        model.add(keras.layers.ReLU(max_value=1.0))
    for filters in settings.filters:
        model.add(
            keras.layers.Conv2D(
                filters, 4, strides=2, padding="same", activation="relu"
            )
        )
    model.add(keras.layers.Flatten())
    model.add(keras.layers.Dense(settings.units, activation="relu"))
    model.add(keras.layers.Dense(10))
    return model


def adversarial(
    name: str, model: keras.Model, settings: Training, total_steps: int
) -> nsl.keras.AdversarialRegularization:
    """Returns the model with the training of that name around it."""
    if name == "bounds":
        config = nsl.keras.presets.interval_bounds(
            settings.epsilon,
            BOUNDS,
            multiplier=settings.bounds_multiplier,
            steps=1,
            warmup_steps=int(settings.bounds_grow * total_steps),
        )
        return nsl.keras.AdversarialRegularization(model, adv_config=config)
    objective = {"multiplier": 1.0, "mode": "replace"}
    if name == "trades":
        objective = {"multiplier": settings.trades_multiplier, "objective": "trades"}
    config = nsl.configs.make_adv_reg_config(
        adv_grad_norm="infinity",
        adv_step_size=settings.step_size,
        pgd_iterations=settings.steps,
        pgd_epsilon=keras.optimizers.schedules.PolynomialDecay(
            0.0, int(settings.epsilon_grows * total_steps), settings.epsilon
        ),
        random_init=True,
        clip_value_min=BOUNDS[0],
        clip_value_max=BOUNDS[1],
        **objective,
    )
    return nsl.keras.AdversarialRegularization(model, adv_config=config)


def train(name: str, images: Images, settings: Training, seed: int) -> keras.Model:
    """Returns a trained network, with no wrapper around it."""
    keras.utils.set_random_seed(seed)
    bounds = name == "bounds"
    model = trained = make_model(images.x.shape[1:], settings, clips=bounds)
    epochs = settings.epochs[NAMES.index(name)]
    total_steps = epochs * -(-len(images.y) // settings.batch_size)
    if name != "plain":
        trained = adversarial(name, model, settings, total_steps)
    grows = settings.learning_rate_grows
    if bounds:
        grows = settings.bounds_learning_rate_grows
    warmup_steps = int(grows * total_steps)
    learning_rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        total_steps - warmup_steps,
        warmup_target=settings.learning_rate,
        warmup_steps=warmup_steps,
    )
    trained.compile(
        optimizer=keras.optimizers.Adam(
            learning_rate, use_ema=bounds, ema_momentum=settings.ema_momentum
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    trained.fit(
        images.x,
        images.y,
        batch_size=settings.batch_size,
        epochs=epochs,
        verbose=0,
    )
    return model
