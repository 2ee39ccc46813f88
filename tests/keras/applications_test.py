"""Models of keras.applications take a training step in either wrapper.

Without weights from a network and on small images. Compiling them takes half a minute
each, so that `make test` leaves them out and `make matrix` runs them.
"""

from collections.abc import Callable

import keras
import numpy as np
import pytest

import nsl

pytestmark = pytest.mark.applications

BATCH, CLASSES = 2, 3
# The smallest images that each takes, or somewhat above.
FAMILIES = {
    "ConvNeXtTiny": 32,
    "DenseNet121": 32,
    "EfficientNetV2B0": 32,
    "MobileNetV2": 32,
    "NASNetMobile": 32,
    "ResNet50V2": 32,
    "Xception": 71,
}


def adversarial(base: keras.Model) -> keras.Model:
    config = nsl.configs.make_adv_reg_config(multiplier=0.2, adv_step_size=0.1)
    return nsl.keras.AdversarialRegularization(base, adv_config=config)


def graph(base: keras.Model) -> keras.Model:
    config = nsl.configs.make_graph_reg_config(multiplier=0.2, max_neighbors=1)
    return nsl.keras.GraphRegularization(base, config)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    ("wrap", "term"),
    [(adversarial, "scaled_adversarial_loss"), (graph, "scaled_graph_loss")],
)
def test_a_step_of(
    name: str, wrap: Callable[[keras.Model], keras.Model], term: str
) -> None:
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    size = FAMILIES[name]
    base = getattr(keras.applications, name)(
        weights=None, input_shape=(size, size, 3), classes=CLASSES
    )
    input_name = base.inputs[0].name
    images, neighbors = (
        np.random.default_rng(0)
        .uniform(size=(2, BATCH, size, size, 3))
        .astype("float32")
    )
    labels = np.arange(BATCH) % CLASSES
    features = {input_name: images}
    if wrap is graph:
        features[f"NL_nbr_0_{input_name}"] = neighbors
        features["NL_nbr_0_weight"] = np.ones((BATCH, 1), "float32")
    model = wrap(base)
    model.compile(
        keras.optimizers.SGD(1e-3),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    before = [weight.numpy() for weight in base.trainable_weights]
    history = model.fit(features, labels, batch_size=BATCH, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert history[term][0] > 0
    after = [weight.numpy() for weight in base.trainable_weights]
    assert all(np.isfinite(weight).all() for weight in after)
    changed = [(old != new).any() for old, new in zip(before, after, strict=True)]
    assert np.mean(changed) > 0.9
    answers = model(images, training=False)
    assert answers.shape == (BATCH, CLASSES)
    np.testing.assert_allclose(answers, base(images, training=False), atol=1e-6)
