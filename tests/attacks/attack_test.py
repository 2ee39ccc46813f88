"""What holds for every attack: structures, epsilons, batches, labels, targets."""

import gc
import weakref

import numpy as np
import pytest
import tensorflow as tf

from nsl import attacks, configs
from nsl.attacks import model_adapter
from tests.attacks.linear import ORDER, Linear, inputs, largest_gain

PGD = attacks.PGD(steps=10)


@pytest.fixture(scope="module")
def model():
    return Linear()


@pytest.fixture
def x():
    return inputs()


def test_labels_are_what_the_model_says_if_none_are_given(model, x):
    y = model.predict(x)
    np.testing.assert_array_equal(
        PGD(model, x, epsilon=0.1), PGD(model, x, y, epsilon=0.1)
    )


def test_labels_may_be_one_hot_or_a_column(model, x):
    y = model.predict(x)
    expected = PGD(model, x, y, epsilon=0.1)
    np.testing.assert_array_equal(PGD(model, x, np.eye(5)[y], epsilon=0.1), expected)
    np.testing.assert_array_equal(PGD(model, x, y[:, None], epsilon=0.1), expected)


def test_a_structure_has_one_joint_norm_with_bounds_and_masks_of_its_own():
    rng = np.random.default_rng(0)
    x = {
        "image": rng.uniform(size=[6, 2, 3]).astype(np.float32),
        "more": [rng.uniform(size=[6, 4]), np.arange(6)[:, None]],
        "word": np.array([b"a", b"b"] * 3)[:, None],
    }
    weights = tf.constant(rng.normal(size=[10, 3]), tf.float32)

    def model(x):
        image = tf.reshape(x["image"], [-1, 6])
        logits = tf.concat([image, tf.cast(x["more"][0], tf.float32)], 1) @ weights
        return logits + 0 * tf.cast(x["more"][1], tf.float32)

    mask = np.ones([4])
    mask[1] = 0
    found = attacks.FGSM(norm="l2")(
        model,
        x,
        epsilon=0.5,
        bounds=({"image": 0}, {"image": 1, "more": [0.9]}),
        feature_mask={"more": [mask]},
    )
    assert {k: type(v) for k, v in found.items()} == {
        "image": np.ndarray,
        "more": list,
        "word": np.ndarray,
    }
    assert found["image"].dtype == np.float32
    assert found["more"][0].dtype == np.float64
    np.testing.assert_array_equal(found["more"][1], x["more"][1])
    np.testing.assert_array_equal(found["word"], x["word"])
    np.testing.assert_array_equal(found["more"][0][:, 1], x["more"][0][:, 1])
    moved = np.concatenate(
        [
            (found["image"] - x["image"]).reshape(6, 6),
            found["more"][0] - x["more"][0],
        ],
        axis=1,
    )
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 0.5, rtol=1e-5)
    assert found["image"].min() >= 0
    # What starts above its bound may stay there, but goes no further.
    assert np.all(found["more"][0] <= np.maximum(x["more"][0], 0.9))


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_results_have_the_dtype_of_the_features(model, x, dtype):
    found = PGD(model, x.astype(dtype), epsilon=0.1)
    assert found.dtype == dtype
    assert 0.09 < np.abs(found - x.astype(dtype)).max() < 0.101


@pytest.mark.parametrize("norm", ORDER)
def test_one_epsilon_per_example(model, x, norm):
    epsilon = np.linspace(0, 0.4, len(x))
    found = attacks.PGD(norm=norm, steps=10)(model, x, epsilon=epsilon)
    moved = np.linalg.norm((found - x).astype(np.float64), ORDER[norm], axis=1)
    assert np.all(moved <= epsilon * (1 + 1e-5) + 1e-7)
    np.testing.assert_array_equal(found[0], x[0])
    alone = attacks.FGSM(norm=norm)(model, x, epsilon=epsilon)
    expected = attacks.FGSM(norm=norm)(model, x[-1:], epsilon=0.4)
    np.testing.assert_allclose(alone[-1:], expected, rtol=1e-6)


def test_more_epsilon_never_means_less_success():
    """On a model whose answer changes back with a larger perturbation."""

    def model(x):
        return tf.concat([tf.cos(4 * x), tf.zeros_like(x)], axis=1)

    x = np.linspace(-0.3, 0.3, 20, dtype=np.float32)[:, None]
    y = np.zeros(20, np.int32)
    epsilons = [0.9, 0.2, np.full(20, 0.5), 1.4]
    attack = attacks.FGSM()
    results = attack(model, x, y, epsilon=epsilons)
    rates = [np.mean(np.cos(4 * r) < 0) for r in results]
    assert len(results) == 4
    assert rates[1] <= rates[2] <= rates[0] <= rates[3]
    assert rates[3] == 1
    # Alone, the largest overshoots.
    alone = attack(model, x, y, epsilon=1.4)
    assert np.mean(np.cos(4 * alone) < 0) < 1
    for result, epsilon in zip(results, [0.9, 0.2, 0.5, 1.4], strict=True):
        assert np.abs(result - x).max() <= epsilon * (1 + 1e-6)


def test_batches_do_not_change_what_is_not_random(model):
    x = inputs(count=23)
    attack = attacks.AutoPGD(steps=8, random_start=False)
    whole = attack(model, x, epsilon=0.2, batch_size=64)
    np.testing.assert_allclose(
        attack(model, x, epsilon=0.2, batch_size=5), whole, atol=1e-6
    )


def test_one_trace_serves_all_sizes_of_batch(x):
    model = Linear()
    attack = attacks.PGD(steps=3)
    attack(model, x, epsilon=0.1, batch_size=4)
    calls = model.calls
    attack(model, x[:5], epsilon=0.2, batch_size=3)
    attack(model, x, epsilon=np.linspace(0, 1, 9))
    assert model.calls == calls


def test_fgsm_takes_one_pass_forward_and_back(x):
    """The last point is only evaluated where several are compared."""

    class Owner:
        passes = tf.Variable(0, trainable=True)

        def __call__(self, x):
            self.passes.assign_add(1)
            return x

    model, attack = Owner(), attacks.FGSM()
    y = np.argmax(x, axis=1)
    for epsilon, passes in ((1e-5, 1), ([1e-5, 2e-5], 4)):
        attack(model, x, y, epsilon=epsilon)
        model.passes.assign(0)
        attack(model, x, y, epsilon=epsilon)
        assert model.passes.numpy() == passes


@pytest.mark.parametrize("kind", [attacks.PGD, attacks.AutoPGD])
def test_k_steps_take_k_passes_and_one_forward(x, kind):
    count = tf.Variable(0)

    def model(x):
        count.assign_add(1)
        return x

    attack, y = kind(steps=7), np.argmax(x, axis=1)
    attack(model, x, y, epsilon=0.1)
    count.assign(0)
    attack(model, x, y, epsilon=0.1)
    assert count.numpy() == 8


def test_the_seed_determines_the_start(model, x):
    attack = attacks.PGD(steps=1, step_size=0.0)
    first = attack(model, x, epsilon=0.1, seed=1)
    np.testing.assert_array_equal(attack(model, x, epsilon=0.1, seed=1), first)
    assert np.abs(attack(model, x, epsilon=0.1, seed=2) - first).min() > 0
    assert np.abs(first - x).max() <= 0.1 * (1 + 1e-6)


def test_restarts_only_help():
    """A model that is fooled in a small part of the ball, flat everywhere else."""

    def model(x):
        inside = tf.cast(tf.reduce_all(x > 0.6, axis=1), tf.float32)[:, None]
        return tf.concat([0.5 - inside, 0 * inside + 0.01 * x[:, :1] * 0], axis=1)

    x = np.zeros([64, 2], np.float32)
    fallen = [
        np.all(found > 0.6, axis=1)
        for restarts in (1, 20)
        for found in [
            attacks.PGD(steps=1, restarts=restarts, step_size=0.0)(
                model, x, np.zeros(64), epsilon=1.0
            )
        ]
    ]
    assert fallen[0].mean() < 0.2
    assert fallen[1].mean() > 0.4
    assert np.all(fallen[1] >= fallen[0])


def test_early_stop_fools_the_same_examples(model):
    x = inputs(count=50)
    y = model.predict(x)
    results = [
        attacks.PGD(steps=12, random_start=False, early_stop=early)(
            model, x, y, epsilon=0.08, batch_size=16
        )
        for early in (False, True)
    ]
    fallen = [model.predict(found) != y for found in results]
    assert 0.1 < fallen[0].mean() < 0.9
    np.testing.assert_array_equal(*fallen)
    np.testing.assert_allclose(
        results[0][~fallen[0]], results[1][~fallen[1]], atol=1e-6
    )


def test_step_counts_add_up():
    for steps in (1, 2, 7, 40):
        counts = attacks.PGD(steps=steps, early_stop=True).step_counts()
        assert sum(counts) == steps
        assert counts[0] == 1


@pytest.mark.parametrize("method", ["second", "least", "random"])
def test_targets_that_the_config_chooses(model, x, method):
    y = model.predict(x)
    config = configs.AdvTargetConfig(method, random_seed=3)
    found = attacks.PGD(steps=20, target=config)(model, x, y, epsilon=2.0)
    reached = model.predict(found)
    assert np.all(reached != y)
    ranks = np.argsort(-model(x).numpy(), axis=1)
    if method != "random":
        expected = ranks[:, 1] if method == "second" else ranks[:, -1]
        np.testing.assert_array_equal(reached, expected)


def test_the_ground_truth_as_target_is_an_untargeted_attack(model, x):
    config = configs.AdvTargetConfig("ground_truth")
    np.testing.assert_array_equal(
        attacks.PGD(steps=10, target=config)(model, x, epsilon=0.1),
        PGD(model, x, epsilon=0.1),
    )


def test_given_targets_are_reached(model, x):
    targets = (model.predict(x) + 2) % 5
    found = PGD(model, x, epsilon=2.0, target=targets)
    np.testing.assert_array_equal(model.predict(found), targets)


def test_a_loss_of_ones_own_is_maximized(x):
    weights = np.linspace(-1, 1, 12, dtype=np.float32)

    def model(x):
        return {"mean": tf.linalg.matvec(x, tf.constant(weights))}

    def loss(y, outputs):
        return tf.square(outputs["mean"] - tf.cast(y["mean"], tf.float32))

    y = {"mean": x @ weights - 1}
    found = attacks.PGD(norm="l2", steps=20, step_size=0.3, restarts=2)(
        model, x, y, epsilon=0.5, loss_fn=loss, bounds=(0, 1)
    )
    gains = [largest_gain(weights, -row, 1 - row, 0.5, "l2") for row in x]
    np.testing.assert_allclose((found - x) @ weights, gains, rtol=0.02)
    unlabeled = PGD(model, x, epsilon=0.5, loss_fn=loss)
    assert np.abs((unlabeled - x) @ weights).min() > 0.4 * np.abs(weights).sum()
    few, many = PGD(model, x, y, epsilon=[0.1, 0.3], loss_fn=loss)
    assert np.all((many - x) @ weights > (few - x) @ weights)


def test_a_loss_that_is_reduced_is_refused(x):
    with pytest.raises(ValueError, match="one value per example"):
        PGD(lambda x: x, x, x, epsilon=0.1, loss_fn=lambda y, z: tf.reduce_sum(z))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epsilon": -1.0}, "epsilon must be a number of at least 0"),
        ({"epsilon": np.ones(4)}, "epsilon must be .* 9 examples"),
        ({"bounds": 1.0}, r"bounds must be a pair \(low, high\)"),
        ({"bounds": (1, 0)}, "low <= high"),
        ({"y": np.full(9, 7)}, "y must be classes from 0 to 4"),
        ({"y": np.zeros(3)}, "y must have one entry for each of the 9 examples|y/0"),
        ({"y": np.full(9, 0.5)}, "y must be classes"),
        ({"target": np.zeros([9, 2])}, "target must be classes"),
        ({"x": np.ones([9, 12], np.int32)}, "Cast integers to float32"),
        ({"x": []}, "at least one example"),
        ({"feature_mask": 2.0}, r"values in \[0, 1\]"),
        ({"model": lambda x: x[:, None]}, "pass loss_fn"),
        ({"model": tf.stop_gradient}, "no gradient .*float32.*Square"),
    ],
)
def test_mistakes_are_named(model, x, arguments, message):
    defaults = {"model": model, "x": x, "epsilon": 0.1}
    with pytest.raises(ValueError, match=message):
        PGD(**(defaults | arguments))


def test_settings_are_checked_and_shown():
    assert "steps=7" in repr(attacks.PGD(steps=7, norm="l2"))
    with pytest.raises(ValueError, match="steps"):
        attacks.PGD(steps=0)
    with pytest.raises(ValueError, match="objectives are"):
        attacks.PGD(objective="typo")
    with pytest.raises(ValueError, match="NormType"):
        attacks.PGD(norm="l3")


def test_what_is_compiled_does_not_keep_the_model(x):
    model = Linear()
    attack = attacks.PGD(steps=2)
    attack(model, x, epsilon=0.1)
    gone, number = weakref.ref(model), id(model)
    assert number in model_adapter._adapters
    del model
    gc.collect()
    assert gone() is None
    assert number not in model_adapter._adapters


def test_a_bound_method_is_compiled_once(x):
    class Owner:
        traced = 0

        def logits(self, x):
            self.traced += 1
            return 2 * x

    owner, attack = Owner(), attacks.PGD(steps=2)
    attack(owner.logits, x, epsilon=0.1)
    traced = owner.traced
    attack(owner.logits, x, epsilon=0.1)
    assert owner.traced == traced


@pytest.mark.parametrize(
    ("kind", "norm"),
    [
        (attacks.FGSM, "l2"),
        (attacks.AutoPGD, "l1"),
    ],
)
def test_xla_finds_the_same(model, x, kind, norm):
    settings = {} if kind is attacks.FGSM else {"steps": 5, "random_start": False}
    results = [
        kind(norm=norm, jit_compile=jit, **settings)(
            model, x, epsilon=0.3, bounds=(0, 1)
        )
        for jit in (False, True)
    ]
    np.testing.assert_allclose(*results, atol=1e-5)
