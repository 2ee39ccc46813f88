"""A wrapper is called with the keywords that its base model's `call` takes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import nsl
from tests.keras.contract.base import X, Y, mlp
from tests.keras.graph_regularization_test import neighbors_of
from tests.keras.nsl14_wrappers_test import LOSS, adversarial, compiled, graph

SEQUENCES = np.random.default_rng(0).normal(size=(24, 3, 2)).astype("float32")
MASK = np.arange(3) <= np.arange(24)[:, None] % 3
# Keras warns that a model which was called with a mask hands none on.
pytestmark = pytest.mark.filterwarnings("ignore:.*does not support masking")
MAKERS = pytest.mark.parametrize("make", [adversarial, graph])


class Scaled(keras.Model):
    """Multiplies its logits by what it is called with."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.inner, self.scale = mlp(), scale

    def call(self, inputs, training=None, scale=None):
        scale = self.scale if scale is None else scale
        return scale * self.inner(inputs, training=training)


class OfAny(Scaled):
    def call(self, inputs, **settings):
        return super().call(inputs, **settings)


def recurrent(functional):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3, 2), name="x")
    layers = [keras.layers.LSTM(2), keras.layers.Dense(3)]
    if not functional:
        return keras.Sequential([inputs, *layers])
    return keras.Model({"x": inputs}, layers[1](layers[0](inputs)))


@MAKERS
@pytest.mark.parametrize("functional", [False, True])
@pytest.mark.parametrize("as_dict", [False, True])
def test_mask(make, functional, as_dict):
    base = recurrent(functional)
    x, mask = ({"x": SEQUENCES}, {"x": MASK}) if as_dict else (SEQUENCES, MASK)
    structured = {"x": SEQUENCES} if functional else SEQUENCES
    expected = base(structured, mask=MASK)
    for model in (make(base), compiled(make(base)), make(make_other(make)(base))):
        np.testing.assert_allclose(model(x, mask=mask), expected, 1e-6)
        np.testing.assert_allclose(model(x, mask=None), base(structured), 1e-6)
    assert np.any(np.abs(expected - base(structured)) > 1e-3)


def make_other(make):
    return graph if make is adversarial else adversarial


@MAKERS
@pytest.mark.parametrize("kind", [Scaled, OfAny])
def test_keyword_of_a_subclass(make, kind):
    model = make(kind())
    # The first call builds the base model.
    expected = 3 * np.asarray(model(X, scale=3.0)) / 3
    np.testing.assert_allclose(model(X, scale=2.0), 2 / 3 * expected, 1e-5)
    np.testing.assert_allclose(model(X, training=False), expected / 3, 1e-5)


@MAKERS
@pytest.mark.parametrize(
    ("base", "known"),
    [(mlp, "'mask'"), (Scaled, "'scale', 'training'")],
    ids=["functional", "subclassed"],
)
def test_keyword_that_the_base_model_does_not_take(make, base, known):
    with pytest.raises(TypeError, match=rf"\['factor'\], but its call .*{known}"):
        make(base())(X, factor=2.0)


@MAKERS
@pytest.mark.parametrize("is_compiled", [False, True])
def test_keyword_that_is_none_need_not_be_taken(make, is_compiled):
    base = Scaled()
    model = compiled(make(base)) if is_compiled else make(base)
    found = model(X, mask=None, scale=None)
    np.testing.assert_allclose(found, base(X), 1e-6)


@pytest.mark.parametrize("kind", ["adversarial", "graph"])
def test_terms_run_with_the_same_keywords(kind):
    make = {"adversarial": adversarial, "graph": graph}[kind]
    batch = {"x": X} if kind == "adversarial" else neighbors_of({"x": X}, 2)
    given = compiled(make(Scaled()))
    fixed = compiled(make(Scaled(2.0)))
    found = losses_and_gradients(given, batch, scale=2.0)
    expected = losses_and_gradients(fixed, batch)
    assert len(found[0]) == 2
    tf.nest.map_structure(
        lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-6), found, expected
    )


def losses_and_gradients(model, batch, **keywords):
    if isinstance(model, nsl.keras.AdversarialRegularization):
        batch = {**batch, "label": Y}
    with tf.GradientTape() as tape:
        outputs = model(batch, training=True, **keywords)
        losses = list(model.losses)
        if "label" not in batch:
            losses.append(LOSS(Y, outputs))
        total = tf.add_n([tf.reduce_sum(loss) for loss in losses])
    gradients = tape.gradient(total, model.trainable_variables)
    return losses, [tf.convert_to_tensor(gradient) for gradient in gradients]


@pytest.mark.parametrize("compile_step", [False, True])
def test_mask_of_samples_with_adversarial_neighbors(compile_step):
    batch = {"x": SEQUENCES, "label": Y}
    masked = keras.Sequential(
        [keras.Input((3, 2)), keras.layers.Masking(), recurrent(0)]
    )
    base = recurrent(0)
    base.set_weights(masked.get_weights())
    zeroed = {**batch, "x": SEQUENCES * MASK[..., None]}
    model, expected = compiled(adversarial(base)), compiled(adversarial(masked))

    def losses(model, batch, **keywords):
        model(batch, training=True, **keywords)
        return [tf.reduce_sum(loss) for loss in model.losses]

    if compile_step:
        losses = tf.function(losses)
    np.testing.assert_allclose(
        losses(model, batch, mask=MASK), losses(expected, zeroed), 1e-5
    )


def test_mask_beside_neighbors_in_a_graph():
    base = recurrent(functional=True)
    model = compiled(graph(base))
    batch = neighbors_of({"x": SEQUENCES}, 2)
    with pytest.raises(ValueError, match="neighbors, which have masks of their own"):
        model(batch, mask=MASK, training=True)
    expected = base({"x": SEQUENCES}, mask=MASK)
    np.testing.assert_allclose(model(batch, mask=MASK, training=False), expected, 1e-6)


def test_keyword_in_a_wrapper_that_overrides_call():
    class Fixed(nsl.keras.GraphRegularization):
        def call(self, inputs, training=None):
            return super().call(inputs, training=training, scale=2.0)

    config = nsl.configs.make_graph_reg_config(max_neighbors=2, multiplier=0.3)
    batch, settings = neighbors_of({"x": X}, 2), {"batch_size": 8, "shuffle": False}
    model, expected = compiled(Fixed(Scaled(), config)), compiled(graph(Scaled(2.0)))
    for one in (model, expected):
        one.fit(batch, Y, verbose=0, **settings)
    for found, weights in zip(model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(found, weights, 1e-4, 1e-6)
