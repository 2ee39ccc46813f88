"""Each position of a sequence in a ball of its own, against samples of one position."""

import attrs
import numpy as np
import pytest
import tensorflow as tf

from nsl import configs
from nsl.lib import positions
from nsl.lib.adversarial_neighbor import projected_gradient_ascent

_RANDOM = np.random.default_rng(5)
WORDS = _RANDOM.normal(size=(3, 4, 2)).astype("float32")
PIXELS = _RANDOM.normal(size=(3, 2, 2, 5)).astype("float32")
AGES = _RANDOM.normal(size=3).astype("float32")


def slopes(features):
    """The gradient of a function that is not linear."""
    return tf.nest.map_structure(lambda f: tf.cos(3 * f) + f, features)


@pytest.mark.parametrize("norm", configs.NormType)
@pytest.mark.parametrize(
    "settings",
    [
        {"adv_step_size": 0.3},
        {"adv_step_size": 0.3, "pgd_iterations": 4, "pgd_epsilon": 0.5},
        {
            "adv_step_size": {"words": 0.3, "pixels": 0.1, "ages": 0.2},
            "pgd_iterations": 3,
            "pgd_epsilon": {"words": 0.5, "pixels": 0.2, "ages": 0.1},
            "clip_value_max": 1.0,
        },
        {
            "adv_step_size": 0.3,
            "feature_mask": {"words": np.array([[1.0], [0], [1], [0.5]], "float32")},
        },
    ],
    ids=str,
)
def test_like_samples_of_one_position(norm, settings):
    config = configs.AdvNeighborConfig(
        **settings, adv_grad_norm=norm, norm_per_position=True
    )
    features = {"words": WORDS, "pixels": PIXELS, "ages": AGES}
    features = {name: tf.constant(value) for name, value in features.items()}
    found = projected_gradient_ascent(
        features, slopes(features), config, gradient_fn=slopes
    )
    for name, feature in features.items():
        rows = tf.reshape(feature, [-1, 1 if name == "ages" else feature.shape[-1]])
        own = {
            field: value[name] if isinstance(value, dict) and name in value else value
            for field, value in settings.items()
        }
        mask = own.pop("feature_mask", None)
        if isinstance(mask, np.ndarray):
            own["feature_mask"] = np.tile(mask, (3, 1))
        alone = attrs.evolve(
            configs.AdvNeighborConfig(**own), adv_grad_norm=config.adv_grad_norm
        )
        expected = projected_gradient_ascent(
            rows, slopes(rows), alone, gradient_fn=slopes
        )
        np.testing.assert_allclose(
            found[name], tf.reshape(expected, feature.shape), rtol=1e-5, atol=1e-6
        )


def test_random_start_stays_in_each_ball():
    config = configs.AdvNeighborConfig(
        pgd_epsilon=0.5, random_init=True, pgd_iterations=0, norm_per_position=True
    )
    features = {"words": tf.constant(WORDS), "pixels": tf.constant(PIXELS)}
    found = projected_gradient_ascent(features, None, config, gradient_fn=slopes)
    for name, feature in features.items():
        lengths = np.linalg.norm(found[name] - feature, axis=-1)
        assert np.all(lengths <= 0.5 + 1e-6)
        assert np.all(lengths > 0)


@tf.function(
    input_signature=[
        tf.TensorSpec([None, None, 2]),
        tf.TensorSpec([None, None]),
    ]
)
def there_and_back(words, numbers):
    rows = positions.to_rows([words, numbers])
    return rows, positions.from_rows(rows, [words, numbers])


def test_shapes_that_are_not_known():
    numbers = WORDS[:, 0, :1]
    rows, back = there_and_back(WORDS, numbers)
    assert rows.shape == (15, 2)
    np.testing.assert_array_equal(rows[:12], WORDS.reshape(12, 2))
    np.testing.assert_array_equal(rows[12:, 1], 0)
    np.testing.assert_array_equal(back[0], WORDS)
    np.testing.assert_array_equal(back[1], numbers)
