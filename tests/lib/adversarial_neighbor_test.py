"""Tests of adversarial neighbors."""

import gc
import weakref

import numpy as np
import pytest
import tensorflow as tf
from absl import logging

from nsl import configs, lib
from nsl.lib import adversarial_neighbor
from nsl.lib.adversarial_neighbor import projected_gradient_ascent
from tests.conftest import golden

NORMS = ["l1", "l2", "infinity"]
PGD = {"adv_step_size": 0.1, "pgd_iterations": 3, "pgd_epsilon": 0.25}


def loss_fn(labels, logits):
    return tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    )


class Problem:
    """A small classifier and a batch, from the golden figures."""

    def __init__(self, inputs):
        arrays = [np.array(w, np.float32) for w in inputs["weights"]]
        self.w1, self.b1, self.w2, self.b2 = arrays
        self.x = np.array(inputs["x"], np.float32)
        self.y = np.array(inputs["y"])

    def model(self, x):
        return tf.tanh(x @ self.w1 + self.b1) @ self.w2 + self.b2

    def attack(self, x, config, tape=None, **kwargs):
        """Perturbs `x` within a graph, or eagerly with an own tape."""
        if tape is None and tf.executing_eagerly():
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = loss_fn(self.y, self.model(x))
        else:
            loss = loss_fn(self.y, self.model(x))
        return lib.gen_adv_neighbor(
            x,
            loss,
            config,
            gradient_tape=tape,
            pgd_model_fn=self.model,
            pgd_loss_fn=loss_fn,
            pgd_labels=self.y,
            **kwargs,
        )


@pytest.fixture
def problem():
    return Problem(golden("adv_neighbors")[0]["inputs"])


def ascend(features, gradients, **config):
    return projected_gradient_ascent(
        features, gradients, configs.AdvNeighborConfig(**config)
    )


@pytest.fixture
def warnings(monkeypatch):
    messages = []
    monkeypatch.setattr(logging, "warning", lambda m, *a: messages.append(m % a))
    adversarial_neighbor._warn_unperturbed.cache_clear()
    return messages


def check_golden(case, run):
    config = configs.AdvNeighborConfig(**case["config"])
    problem = Problem(case["inputs"])
    neighbor, weight = run(problem, tf.constant(problem.x), config)
    expected = case["expected"]
    np.testing.assert_allclose(neighbor, expected["adv_neighbor"], atol=1e-5)
    np.testing.assert_array_equal(weight, expected["adv_weight"])


@pytest.mark.parametrize("use_while_loop", [False, True])
@pytest.mark.parametrize("case", golden("adv_neighbors"))
def test_golden(case, use_while_loop):
    check_golden(case, lambda p, x, c: p.attack(x, c, use_while_loop=use_while_loop))


@pytest.mark.parametrize("case", golden("adv_neighbors")[::3])
def test_golden_xla(case):
    check_golden(
        case,
        lambda p, x, c: tf.function(lambda x: p.attack(x, c), jit_compile=True)(x),
    )


@pytest.mark.parametrize(("norm", "random_init"), [("infinity", False), ("l2", True)])
def test_all_modes_agree(problem, norm, random_init):
    config = configs.AdvNeighborConfig(
        adv_grad_norm=norm, random_init=random_init, clip_value_max=0.7, **PGD
    )
    seed = tf.constant([1, 2])
    x = tf.constant(problem.x)

    def run(loop, jit_compile):
        attack = tf.function(
            lambda x: problem.attack(x, config, seed=seed, use_while_loop=loop)[0],
            jit_compile=jit_compile,
            input_signature=[tf.TensorSpec([None, x.shape[1]])],
        )
        return attack(x)

    eager = problem.attack(x, config, seed=seed)[0]
    compiled = run(False, True)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        neighbor, _ = problem.attack(tf.constant(problem.x), config, seed=[1, 2])
        results = [session.run(neighbor)]
    results.append(problem.attack(x, config, seed=seed, use_while_loop=True)[0])
    results += [run(False, False), run(True, False)]
    for result in results:
        np.testing.assert_allclose(result, eager, atol=1e-5)
    np.testing.assert_allclose(run(True, True), compiled, atol=1e-5)
    if not random_init:  # XLA draws another start.
        np.testing.assert_allclose(compiled, eager, atol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_neighbor_stays_in_ball_and_raises_loss(problem, norm):
    config = configs.AdvNeighborConfig(adv_grad_norm=norm, **PGD)
    x = tf.constant(problem.x)
    neighbor = problem.attack(x, config)[0]
    order = {"l1": 1, "l2": 2, "infinity": np.inf}[norm]
    lengths = np.linalg.norm(neighbor - x, order, axis=1)
    assert (lengths <= 0.25 + 1e-5).all()
    assert loss_fn(problem.y, problem.model(neighbor)) > loss_fn(
        problem.y, problem.model(x)
    )


def test_many_steps_reach_the_optimum_of_a_linear_loss():
    slope = tf.constant([[3.0, 0.0, -4.0]])
    config = configs.AdvNeighborConfig(
        adv_step_size=0.3, pgd_iterations=20, pgd_epsilon=1.0, random_init=True
    )
    x = tf.zeros([5, 3])
    result = projected_gradient_ascent(
        x, None, config, gradient_fn=lambda x: tf.broadcast_to(slope, x.shape)
    )
    np.testing.assert_allclose(result, [[0.6, 0.0, -0.8]] * 5, atol=0.02)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_gradient_that_is_not_finite_perturbs_nothing_along_it(norm, bad):
    x = tf.constant([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    gradient = tf.constant([[bad, 0.0, 2.0], [bad, bad, bad]])
    result = ascend(x, gradient, adv_step_size=0.5, adv_grad_norm=norm)
    np.testing.assert_allclose(result, [[1.0, 2.0, 3.5], [4.0, 5.0, 6.0]])


@pytest.mark.parametrize("norm", NORMS)
def test_zero_gradient_moves_nothing(norm):
    x = tf.constant([[1.0, 2.0]])
    result = ascend(x, tf.zeros([1, 2]), adv_grad_norm=norm, pgd_epsilon=0.1)
    np.testing.assert_array_equal(result, x)


def test_step_has_full_length_however_small_the_gradient():
    result = ascend(tf.zeros([1, 2]), tf.constant([[3e-20, 4e-20]]), adv_step_size=1.0)
    np.testing.assert_allclose(result, [[0.6, 0.8]], rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_dtype_is_kept_and_arithmetic_is_wide(dtype):
    x = tf.cast([[1.0, 2.0]], dtype)
    # In float16 the square of this gradient would overflow.
    result = ascend(x, tf.cast([[3e4, -4e4]], dtype), adv_step_size=0.5)
    assert result.dtype == dtype
    np.testing.assert_allclose(tf.cast(result, tf.float32), [[1.3, 1.6]], rtol=5e-3)


def test_float64_is_exact():
    x = tf.constant([[1.0, 2.0]], tf.float64)
    result = ascend(x, tf.constant([[3.0, -4.0]], tf.float64), adv_step_size=0.1)
    np.testing.assert_allclose(result, [[1.06, 1.92]], rtol=1e-15)


def test_half_precision_iterates_on_unrounded_points(problem):
    """Steps below the resolution of the features add up."""
    x = tf.constant([[1.0]], tf.bfloat16)
    config = configs.AdvNeighborConfig(adv_step_size=0.001, pgd_iterations=20)
    result = projected_gradient_ascent(
        x, tf.ones_like(x), config, gradient_fn=tf.ones_like
    )
    np.testing.assert_allclose(tf.cast(result, tf.float32), [[1.02]], atol=4e-3)
    assert float(result[0, 0]) > 1.0


FEATURES = {
    "b": [np.ones([2, 2], np.float32), np.array([[1], [2]])],
    "a": np.full([2], 3.0, np.float32),
}
GRADIENTS = {
    "b": [np.array([[3.0, 0.0], [1.0, 0.0]], np.float32), None],
    "a": np.array([4.0, 0.0], np.float32),
}


class TestStructures:
    def test_one_joint_norm(self):
        result = ascend(FEATURES, GRADIENTS, adv_step_size=1.0)
        np.testing.assert_allclose(result["b"][0], [[1.6, 1.0], [2.0, 1.0]])
        np.testing.assert_allclose(result["a"], [3.8, 3.0])

    def test_joint_ball(self):
        result = ascend(FEATURES, GRADIENTS, adv_step_size=1.0, pgd_epsilon=0.5)
        np.testing.assert_allclose(result["b"][0], [[1.3, 1.0], [1.5, 1.0]], rtol=1e-5)
        np.testing.assert_allclose(result["a"], [3.4, 3.0], rtol=1e-5)

    def test_what_cannot_be_perturbed_is_the_same_object(self, warnings):
        features = {
            "float": tf.ones([2, 1]),
            "unused": tf.ones([2, 1]),
            "int": tf.ones([2, 1], tf.int32),
            "string": tf.constant([["x"], ["y"]]),
            "ragged": tf.ragged.constant([[1.0], [2.0, 3.0]]),
            "sparse": tf.sparse.from_dense([[1.0], [0.0]]),
        }
        gradients = dict.fromkeys(features) | {"float": tf.ones([2, 1])}
        for _ in range(2):
            result = ascend(features, gradients, adv_step_size=1.0)
        np.testing.assert_allclose(result.pop("float"), [[2.0], [2.0]])
        for name, value in result.items():
            assert value is features[name]
        assert len(warnings) == 1
        for name in result:
            assert repr(name) in warnings[0]
        assert "'float'" not in warnings[0]

    def test_no_warning_if_all_is_perturbed(self, warnings):
        ascend([tf.ones([1, 1])], [tf.ones([1, 1])])
        assert warnings == []

    def test_weight_counts_examples_whatever_comes_first(self):
        features = {
            "a": tf.ragged.constant([[1.0], [2.0, 3.0]]),
            "b": tf.constant([[1.0], [2.0]]),
        }
        with tf.GradientTape() as tape:
            tape.watch(features["b"])
            loss = tf.reduce_sum(features["b"]) + tf.reduce_sum(features["a"])
        config = configs.AdvNeighborConfig(adv_step_size=1.0)
        neighbor, weight = lib.gen_adv_neighbor(
            features, loss, config, gradient_tape=tape
        )
        assert neighbor["a"] is features["a"]
        np.testing.assert_allclose(neighbor["b"], [[2.0], [3.0]])
        np.testing.assert_array_equal(weight, [[1.0], [1.0]])

    def test_loop_with_integers_inside(self):
        features = {"x": tf.ones([2, 3]), "id": tf.constant([[0], [1]])}
        table = tf.constant([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
        config = configs.AdvNeighborConfig(adv_step_size=0.1, pgd_iterations=3)

        def gradient_fn(features):
            gradient = tf.gather(table, features["id"][:, 0])
            return {"x": gradient, "id": None}

        def run(loop):
            return projected_gradient_ascent(
                features, gradient_fn(features), config, gradient_fn, None, loop
            )

        expected = [[1.3, 1.0, 1.0], [1.0, 0.7, 1.0]]
        for loop in (False, True):
            for jit_compile in (False, True):
                compiled = tf.function(run, jit_compile=jit_compile)
                np.testing.assert_allclose(compiled(loop)["x"], expected, rtol=1e-5)

    def test_gradient_of_an_embedding_lookup(self):
        table = tf.constant([[1.0, 2.0], [3.0, 4.0]])
        with tf.GradientTape() as tape:
            tape.watch(table)
            loss = tf.reduce_sum(tf.gather(table, [1]))
        assert isinstance(tape.gradient(loss, table), tf.IndexedSlices)
        with tf.GradientTape() as tape:
            tape.watch(table)
            loss = tf.reduce_sum(tf.gather(table, [1]))
        config = configs.AdvNeighborConfig(adv_step_size=1.0, adv_grad_norm="infinity")
        neighbor, _ = lib.gen_adv_neighbor(table, loss, config, gradient_tape=tape)
        np.testing.assert_allclose(neighbor, [[1.0, 2.0], [4.0, 5.0]])


X = {"a": np.zeros([2, 2], np.float32), "b": np.zeros([2, 1], np.float32)}
G = {"a": np.ones([2, 2], np.float32), "b": np.ones([2, 1], np.float32)}


class TestMasksAndBounds:
    def run(self, **config):
        result = ascend(X, G, adv_step_size=1.0, adv_grad_norm="infinity", **config)
        return result["a"].numpy().tolist(), result["b"].numpy().tolist()

    @pytest.mark.parametrize(
        ("mask", "a", "b"),
        [
            (0.0, [[0, 0]] * 2, [[0]] * 2),
            ({"a": 0}, [[0, 0]] * 2, [[1]] * 2),
            ({"a": None, "b": 0.0}, [[1, 1]] * 2, [[0]] * 2),
            ({"a": [1, 0]}, [[1, 0]] * 2, [[1]] * 2),
            ({"a": np.array([[1], [0]])}, [[1, 1], [0, 0]], [[1]] * 2),
            (np.array([[1.0], [0.0]]), [[1, 1], [0, 0]], [[1], [0]]),
        ],
    )
    def test_mask(self, mask, a, b):
        assert self.run(feature_mask=mask) == (a, b)

    @pytest.mark.parametrize(
        ("bound", "a", "b"),
        [
            (0.5, [[0.5, 0.5]] * 2, [[0.5]] * 2),
            ({"b": 0.5}, [[1, 1]] * 2, [[0.5]] * 2),
            ({"a": [0.5, 2]}, [[0.5, 1]] * 2, [[1]] * 2),
        ],
    )
    def test_upper_bound(self, bound, a, b):
        assert self.run(clip_value_max=bound) == (a, b)

    def test_lower_bound(self):
        assert self.run(clip_value_min={"a": 3}) == ([[3, 3]] * 2, [[1]] * 2)

    def test_radius_and_step_per_feature(self):
        a, b = self.run(pgd_epsilon={"a": 0.25})
        assert (a, b) == ([[0.25, 0.25]] * 2, [[1]] * 2)
        result = ascend(
            X, G, adv_step_size={"a": 0.5, "b": 2}, adv_grad_norm="infinity"
        )
        np.testing.assert_allclose(result["a"], 0.5)
        np.testing.assert_allclose(result["b"], 2)

    def test_no_radius_for_any_feature_is_no_bound(self):
        result = ascend(
            X, G, adv_step_size=3.0, adv_grad_norm="infinity", pgd_epsilon={"a": None}
        )
        np.testing.assert_allclose(result["a"], 3)
        np.testing.assert_allclose(result["b"], 3)

    def test_radius_zero_moves_nothing(self):
        assert self.run(pgd_epsilon=0) == ([[0, 0]] * 2, [[0]] * 2)

    def test_by_position(self):
        x, g = [X["a"], X["b"]], [G["a"], G["b"]]
        for mask in ([None, 0], (1, 0), {1: 0}):
            result = ascend(x, g, adv_grad_norm="infinity", feature_mask=mask)
            np.testing.assert_allclose(result[0], 0.001)
            np.testing.assert_allclose(result[1], 0)

    def test_mask_given_as_list_for_a_single_tensor(self):
        result = ascend(X["a"], G["a"], feature_mask=[1, 0], adv_step_size=1)
        np.testing.assert_allclose(result, [[1, 0]] * 2)

    @pytest.mark.parametrize("loop", [False, True])
    def test_random_start_respects_masks_and_bounds(self, loop):
        config = configs.AdvNeighborConfig(
            feature_mask={"a": [1, 0]},
            clip_value_min={"b": 0.25},
            adv_grad_norm="infinity",
            adv_step_size=0.125,
            pgd_epsilon=1.0,
            pgd_iterations=2,
            random_init=True,
        )
        result = projected_gradient_ascent(X, None, config, lambda _: G, [1, 2], loop)
        assert (result["a"].numpy()[:, 1] == 0).all()
        assert (result["a"].numpy()[:, 0] != 0.25).all()
        assert (result["b"].numpy() >= 0.25).all()

    @pytest.mark.parametrize(
        "field", ["feature_mask", "clip_value_min", "pgd_epsilon", "adv_step_size"]
    )
    def test_unknown_feature(self, field):
        with pytest.raises(
            ValueError, match=rf"{field} has entries.*\['c'\].*\['a', 'b'\]"
        ):
            ascend(X, G, **{field: {"c": 1.0}})

    def test_wrong_shape(self):
        with pytest.raises(
            ValueError,
            match=r"clip_value_max of feature 'b' has shape \(2,\).*\(2, 1\)",
        ):
            ascend(X, G, clip_value_max={"b": [0.0, 1.0]})

    def test_mask_out_of_range(self):
        with pytest.raises(ValueError, match=r"values in \[0, 1\].*\[0.0, 2.0\]"):
            ascend(X, G, feature_mask={"a": np.array([0, 2])})

    def test_step_missing_for_a_feature(self):
        with pytest.raises(ValueError, match=r"adv_step_size has no entry for.*'b'"):
            ascend(X, G, adv_step_size={"a": 1.0})


class TestRandomStart:
    @pytest.mark.parametrize("norm", NORMS)
    @pytest.mark.parametrize("epsilon", [None, 0.5])
    def test_start_lies_in_ball(self, norm, epsilon):
        """Without a radius the step takes its place, as in NSL."""
        config = configs.AdvNeighborConfig(
            adv_step_size=0.25,
            adv_grad_norm=norm,
            pgd_epsilon=epsilon,
            random_init=True,
        )
        starts = []

        def gradient_fn(x):
            starts.append(x)
            return tf.zeros_like(x)

        x = tf.ones([100, 3])
        result = projected_gradient_ascent(x, None, config, gradient_fn)
        (start,) = starts
        order = {"l1": 1, "l2": 2, "infinity": np.inf}[norm]
        lengths = np.linalg.norm(start - x, order, axis=1)
        assert lengths.max() <= (epsilon or 0.25) + 1e-6
        assert lengths.max() > 0.8 * (epsilon or 0.25)
        np.testing.assert_allclose(result, start, atol=1e-6)

    def test_seed(self, problem):
        config = configs.AdvNeighborConfig(random_init=True, **PGD)
        x = tf.constant(problem.x)
        one = problem.attack(x, config, seed=[1, 2])[0]
        np.testing.assert_array_equal(one, problem.attack(x, config, seed=[1, 2])[0])
        assert not np.allclose(one, problem.attack(x, config, seed=[2, 2])[0])

    def test_eager_needs_no_tape_and_no_loss(self, problem):
        config = configs.AdvNeighborConfig(random_init=True, **PGD)
        neighbor, _ = lib.gen_adv_neighbor(
            tf.constant(problem.x),
            None,
            config,
            pgd_model_fn=problem.model,
            pgd_loss_fn=loss_fn,
            pgd_labels=problem.y,
            seed=[1, 2],
        )
        expected = problem.attack(tf.constant(problem.x), config, seed=[1, 2])[0]
        np.testing.assert_array_equal(neighbor, expected)

    def test_leaf_without_gradient_does_not_move(self):
        features = {"a": tf.ones([2, 2]), "b": tf.ones([2, 2])}
        config = configs.AdvNeighborConfig(random_init=True)
        result = projected_gradient_ascent(
            features, None, config, lambda f: {"a": tf.ones([2, 2]), "b": None}
        )
        assert result["b"] is features["b"]
        assert not np.allclose(result["a"], 1.0)

    @pytest.mark.parametrize("norm", NORMS)
    def test_alone(self, problem, norm):
        """With no iteration the neighbor is the random start, as in NSL 1.4."""
        config = configs.AdvNeighborConfig(
            adv_grad_norm=norm,
            pgd_iterations=0,
            pgd_epsilon=1.0,
            random_init=True,
            clip_value_max=0.5,
        )
        x = tf.constant(problem.x)
        calls = []
        neighbor, weight = lib.gen_adv_neighbor(
            {"x": x, "id": tf.zeros(len(x), tf.int32)},
            None,
            config,
            pgd_model_fn=calls.append,
            pgd_loss_fn=loss_fn,
            seed=[1, 2],
        )
        assert not calls
        start = lib.random_in_norm_ball(x, 1.0, norm, seed=[1, 2])
        expected = np.minimum(x + start, 0.5)
        np.testing.assert_allclose(neighbor["x"], expected, atol=1e-6)
        assert weight.shape == [len(x), 1]

    @pytest.mark.parametrize("norm", NORMS)
    @pytest.mark.parametrize("random_init", [False, True])
    def test_infinity_is_no_bound(self, problem, norm, random_init):
        x = tf.constant(problem.x)
        bounds = {
            "pgd_epsilon": np.inf,
            "clip_value_min": -np.inf,
            "clip_value_max": float("inf"),
        }
        settings = dict(PGD, adv_grad_norm=norm, random_init=random_init)
        neighbors = [
            problem.attack(
                x,
                configs.AdvNeighborConfig(**{**settings, **some}),
                seed=[1, 2],
            )[0]
            for some in (bounds, dict.fromkeys(bounds))
        ]
        np.testing.assert_allclose(*neighbors, atol=1e-6)

    @pytest.mark.parametrize("loop", [False, True])
    def test_no_iteration_and_no_random_start_is_one_step(self, problem, loop):
        x = tf.constant(problem.x)
        none, one = (
            problem.attack(
                x, configs.AdvNeighborConfig(pgd_iterations=n), use_while_loop=loop
            )
            for n in (0, 1)
        )
        np.testing.assert_array_equal(none[0], one[0])


class TestRegularizer:
    def test_is_added_in_every_iteration_but_the_first(self, problem):
        """A steep regularizer outweighs the loss: all other steps follow it."""
        config = configs.AdvNeighborConfig(
            adv_step_size=0.1, adv_grad_norm="infinity", pgd_iterations=3
        )
        x = tf.constant(problem.x)
        first, _ = problem.attack(
            x, configs.AdvNeighborConfig(adv_step_size=0.1, adv_grad_norm="infinity")
        )
        neighbor, _ = problem.attack(
            x, config, regularizer_fn=lambda p, _: 1e6 * tf.reduce_sum(p[""][:, 0])
        )
        np.testing.assert_allclose((neighbor - first)[:, 0], 0.2, rtol=1e-5)

    @pytest.mark.parametrize("mode", ["eager", "loop", "xla"])
    def test_follows_the_first_gradient(self, mode):
        """The local linearity of Qin et al., worked out for a loss of x^2."""

        def run(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = tf.reduce_sum(x**2)
            return lib.gen_adv_neighbor(
                x,
                loss,
                configs.AdvNeighborConfig(adv_step_size=1.0, pgd_iterations=2),
                gradient_tape=tape,
                pgd_model_fn=lambda x: x,
                pgd_loss_fn=lambda _, y: tf.reduce_sum(y**2),
                regularizer_fn=lambda p, g: -3.0 * tf.reduce_sum(p[""] * g[""]),
                use_while_loop=mode == "loop",
            )[0]

        if mode == "xla":
            run = tf.function(run, jit_compile=True)
        # From [3, 4] to [3.6, 4.8]; there the gradient is 2x - 3 * 2 * [3, 4].
        neighbor = run(tf.constant([[3.0, 4.0]]))
        np.testing.assert_allclose(neighbor, [[3.0, 4.0]], atol=1e-5)

    def test_knows_features_by_name_and_by_position(self):
        received = []

        def regularizer_fn(perturbations, gradients):
            received.append((perturbations, gradients))
            return 0.0

        def attack(features):
            with tf.GradientTape() as tape:
                leaves = tf.nest.flatten(features)
                tape.watch(leaves[:2])
                loss = tf.reduce_sum(leaves[0])
            lib.gen_adv_neighbor(
                features,
                loss,
                configs.AdvNeighborConfig(pgd_iterations=2),
                gradient_tape=tape,
                pgd_model_fn=lambda x: tf.math.log(tf.nest.flatten(x)[0]),
                pgd_loss_fn=lambda _, y: tf.reduce_sum(y),
                regularizer_fn=regularizer_fn,
            )

        a, b, i = tf.constant([[0.0, 0.5]]), tf.ones([1, 1]), tf.ones([1, 1], tf.int32)
        for features, keys in (
            ({"a": a, "b": b, "i": i}, "ab"),
            ([a, b, i], (0, 1)),
            ({"n": {"a": a, "b": b}, "o": i}, ("n/a", "n/b")),
        ):
            attack(features)
            perturbations, gradients = received.pop()
            assert set(perturbations) == set(keys)
            assert perturbations[keys[1]].numpy() == 0.0
            assert set(gradients) == {keys[0]}
            np.testing.assert_array_equal(gradients[keys[0]], [[0.0, 2.0]])

    def test_may_stand_in_either_place(self, problem):
        """Ninth in release 1.4.0 is the loop, in the sources after it this."""
        config = configs.AdvNeighborConfig(**PGD)
        x = tf.constant(problem.x)
        calls = []

        def regularizer_fn(*arguments):
            calls.append(arguments)
            return 0.0

        def attack(*ninth_on):
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = loss_fn(problem.y, problem.model(x))
            arguments = (x, loss, config, False, tape, problem.model, loss_fn)
            before = len(calls)
            neighbor, _ = lib.gen_adv_neighbor(*arguments, problem.y, *ninth_on)
            np.testing.assert_allclose(neighbor, expected, atol=1e-6)
            return len(calls) - before

        expected = problem.attack(x, config)[0]
        assert attack(True) == attack(False) == 0
        assert attack(False, regularizer_fn) == attack(regularizer_fn) == 2
        assert attack(True, regularizer_fn) == attack(regularizer_fn, True) == 2


class TestTapes:
    @pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
    def test_no_gradient_flows_through_the_neighbor(self, problem, mode):
        config = configs.AdvNeighborConfig(**PGD)
        problem.w1 = tf.Variable(problem.w1)

        def weight_gradient(x, tape_of_attack):
            with tf.GradientTape(persistent=True) as tape:
                tape.watch(x)
                chosen = tape if tape_of_attack else None
                neighbor, _ = problem.attack(x, config, tape=chosen)
                total = loss_fn(problem.y, problem.model(x))
                total += loss_fn(problem.y, problem.model(neighbor))
            return tape.gradient(total, problem.w1), neighbor

        x = tf.constant(problem.x)
        run = weight_gradient
        if mode != "eager":
            run = tf.function(weight_gradient, jit_compile=mode == "xla")
        gradient, neighbor = run(x, True)
        with tf.GradientTape() as tape:
            total = loss_fn(problem.y, problem.model(x))
            total += loss_fn(problem.y, problem.model(tf.identity(neighbor)))
        expected = tape.gradient(total, problem.w1)
        np.testing.assert_allclose(gradient, expected, atol=1e-6)

    @pytest.mark.parametrize("loop", [False, True])
    def test_iterations_leave_nothing_on_the_tape(self, problem, loop):
        problem.w1 = tf.Variable(problem.w1)
        config = configs.AdvNeighborConfig(**PGD)
        hidden = []

        def model(x):
            activations = tf.tanh(x @ problem.w1 + problem.b1)
            hidden.append(weakref.ref(activations))
            return activations @ problem.w2 + problem.b2

        x = tf.constant(problem.x)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            loss = loss_fn(problem.y, model(x))
            lib.gen_adv_neighbor(
                x,
                loss,
                config,
                gradient_tape=tape,
                pgd_model_fn=model,
                pgd_loss_fn=loss_fn,
                pgd_labels=problem.y,
                use_while_loop=loop,
            )
        gc.collect()
        kept = [activations() is not None for activations in hidden]
        assert kept == [True, False, False]
        assert tape.gradient(loss, problem.w1) is not None

    def test_tape_may_be_closed_or_used_once(self, problem):
        config = configs.AdvNeighborConfig(**PGD)
        x = tf.constant(problem.x)
        expected = problem.attack(x, config)[0]
        for persistent in (False, True):
            with tf.GradientTape(persistent=persistent) as tape:
                tape.watch(x)
                loss = loss_fn(problem.y, problem.model(x))
                inside = lib.gen_adv_neighbor(
                    x,
                    loss,
                    config,
                    gradient_tape=tape,
                    pgd_model_fn=problem.model,
                    pgd_loss_fn=loss_fn,
                    pgd_labels=problem.y,
                )[0]
            np.testing.assert_array_equal(inside, expected)


class TestNothingToPerturb:
    """The features come back as they are, with a warning, as in NSL 1.4."""

    @pytest.mark.parametrize("mode", ["eager", "graph", "random", "loop"])
    def test_loss_that_does_not_depend_on_them(self, mode, warnings):
        adversarial_neighbor._warn_nothing_perturbed.cache_clear()
        x = tf.ones([2, 3])

        def run():
            with tf.GradientTape() as tape:
                tape.watch(x)
            return lib.gen_adv_neighbor(
                x,
                tf.constant(1.0),
                configs.AdvNeighborConfig(
                    pgd_iterations=2, random_init=mode in ("random", "loop")
                ),
                gradient_tape=None if mode == "graph" else tape,
                pgd_model_fn=lambda _: tf.constant(1.0),
                pgd_loss_fn=lambda _, y: y,
                use_while_loop=mode == "loop",
            )

        if mode == "graph":
            run = tf.function(run)
        neighbor, weight = run()
        np.testing.assert_array_equal(neighbor, x)
        np.testing.assert_array_equal(weight, [[1.0], [1.0]])
        [message] = warnings
        assert "None of the features can be perturbed" in message

    def test_features_of_other_kinds(self, warnings):
        adversarial_neighbor._warn_nothing_perturbed.cache_clear()
        features = {
            "a": tf.sparse.from_dense([[1.0, 0.0], [0.0, 1.0]]),
            "b": tf.ragged.constant([[1.0], []]),
            "c": tf.ones([2, 1], tf.int32),
        }
        for names in ("abc", "bc", "c"):
            some = {name: features[name] for name in names}
            with tf.GradientTape() as tape:
                neighbor, weight = lib.gen_adv_neighbor(
                    some,
                    tf.constant(1.0),
                    configs.AdvNeighborConfig(),
                    gradient_tape=tape,
                )
            assert all(neighbor[name] is some[name] for name in names)
            np.testing.assert_array_equal(weight, [[1.0], [1.0]])
        assert len(warnings) == 3


class TestErrors:
    def test_nothing_to_perturb(self):
        features = {"image": tf.ones([1, 2], tf.uint8), "name": tf.constant([["x"]])}
        config = configs.AdvNeighborConfig()
        match = r"'image' \(uint8\), 'name' \(string\)"
        with pytest.raises(ValueError, match=match) as e:
            projected_gradient_ascent(features, None, config)
        assert "/ 255" in str(e.value)
        with pytest.raises(ValueError, match=match), tf.GradientTape() as tape:
            lib.gen_adv_neighbor(features, tf.constant(0.0), config, True, tape)

    def test_tape_that_did_not_watch(self):
        x = tf.ones([1, 2])
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(x)
        config = configs.AdvNeighborConfig()
        with pytest.raises(ValueError, match="the loss does not depend on them"):
            lib.gen_adv_neighbor(x, loss, config, True, tape)
        with pytest.raises(ValueError, match=r"tape\.watch"):
            projected_gradient_ascent(x, None, config)

    def test_no_feature(self):
        with pytest.raises(ValueError, match="contains no features"):
            lib.gen_adv_neighbor({}, tf.constant(0.0), configs.AdvNeighborConfig())

    def test_raise_invalid_gradient(self):
        features = {"x": tf.ones([1, 2]), "id": tf.ones([1, 1], tf.int32)}
        config = configs.AdvNeighborConfig()
        with tf.GradientTape() as tape:
            tape.watch(features["x"])
            loss = tf.reduce_sum(features["x"])
        with pytest.raises(ValueError, match=r"Cannot perturb features 'id' \(int32\)"):
            lib.gen_adv_neighbor(
                features,
                loss,
                config,
                raise_invalid_gradient=True,
                gradient_tape=tape,
            )

    def test_eager_without_tape(self):
        x = tf.ones([1, 2])
        with pytest.raises(ValueError, match="gradient_tape is needed in eager mode"):
            lib.gen_adv_neighbor(x, tf.reduce_sum(x), configs.AdvNeighborConfig())

    @pytest.mark.parametrize("config", [{"pgd_iterations": 2}, {"random_init": True}])
    def test_iterations_without_model(self, config):
        config = configs.AdvNeighborConfig(**config)
        x = tf.ones([1, 2])
        with pytest.raises(ValueError, match="pgd_model_fn and pgd_loss_fn are needed"):
            lib.gen_adv_neighbor(x, tf.reduce_sum(x), config)
        with pytest.raises(ValueError, match="gradient_fn is needed"):
            projected_gradient_ascent(x, x, config)

    def test_random_start_alone_needs_no_gradient(self):
        config = configs.AdvNeighborConfig(
            pgd_iterations=0, random_init=True, pgd_epsilon=0.1, adv_grad_norm="l2"
        )
        x = tf.ones([4, 3])
        start = projected_gradient_ascent(x, None, config, seed=[1, 2])
        neighbor, _ = lib.gen_adv_neighbor(x, None, config, seed=[1, 2])
        np.testing.assert_array_equal(start, neighbor)
        length = np.linalg.norm(start - x, axis=1)
        assert np.all((length > 0) & (length <= 0.1 + 1e-6))
