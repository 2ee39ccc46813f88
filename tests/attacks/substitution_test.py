"""Substitution: every candidate is tried, and the right one is kept."""

import copy
import itertools
import pickle
from typing import Any, ClassVar

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from nsl.attacks import Substitution, objectives


def brute_force(
    x: np.ndarray, replacements: dict[int, list[int]], k: int, scores: Any, y: Any
) -> list[tuple[int, float]]:
    """The fewest changes that flip each record (-1 if none), and the worst margin."""
    found = []
    for row, label in zip(x, y, strict=True):
        margins: dict[int, list[float]] = {j: [] for j in range(k + 1)}
        options = [[v, *replacements.get(i, [])] for i, v in enumerate(row.tolist())]
        for candidate in itertools.product(*options):
            changes = sum(a != b for a, b in zip(candidate, row, strict=True))
            if changes <= k:
                z = scores(np.array([candidate], x.dtype))[0]
                margins[changes].append(max(np.delete(z, label)) - z[label])
        flipped = [j for j in margins if max(margins[j], default=-1.0) > 0]
        fewest = flipped[0] if flipped else -1
        pool = margins[fewest] if flipped else [*itertools.chain(*margins.values())]
        found.append((fewest, max(pool)))
    return found


@st.composite
def tables(draw: Any) -> tuple[Any, ...]:
    columns = draw(st.integers(1, 4))
    replacements = {
        i: draw(st.lists(st.integers(0, 4), max_size=4))
        for i in draw(st.sets(st.integers(0, columns - 1), min_size=1))
    }
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    x = rng.integers(0, 4, [draw(st.integers(1, 6)), columns])
    # Any function of the categories, that of pairs included.
    single = rng.normal(size=[columns, 5, 3])
    pairs = rng.normal(size=[5, 5, 3])

    def scores(x: np.ndarray) -> np.ndarray:
        z = sum(single[i, x[:, i]] for i in range(columns))
        return z + pairs[x[:, 0], x[:, -1]] + 1.5 * np.eye(3)[0]

    y = scores(x).argmax(axis=1)
    return x, replacements, draw(st.integers(0, 3)), scores, y, draw(st.integers(1, 9))


@given(tables())
@settings(max_examples=60, deadline=None)
def test_is_what_brute_force_finds(table: tuple[Any, ...]) -> None:
    x, replacements, k, scores, y, batch_size = table
    attack = Substitution(replacements, max_changes=k)
    report = attack.report(scores, x, y, batch_size=batch_size, from_logits=True)
    found = report.features
    assert found.dtype == x.dtype
    z = scores(found)
    margins = [max(np.delete(row, c)) - row[c] for row, c in zip(z, y, strict=True)]
    expected = brute_force(x, replacements, k, scores, y)
    for i, (fewest, margin) in enumerate(expected):
        assert report.fallen[i] == (fewest >= 0)
        np.testing.assert_allclose(margins[i], margin, rtol=1e-5, atol=1e-6)
        if fewest >= 0:
            assert report.changes[i] == fewest
    np.testing.assert_array_equal((found != x).sum(axis=1), report.changes)
    assert attack.allows(x, found, k).all()
    for c, name in enumerate(report.columns):
        alone = Substitution({name: replacements[name]}).report(
            scores, x, y, from_logits=True, verbose=False
        )
        np.testing.assert_array_equal(report.alone[:, c], alone.fallen & (k > 0))
    counts = [
        sum(
            np.prod([len({*replacements[i]} - {row[i]}) for i in chosen])
            for j in range(1, k + 1)
            for chosen in itertools.combinations(replacements, j)
        )
        for row in x.tolist()
    ]
    np.testing.assert_array_equal(report.candidates, counts)


REGIONS = ["north", "south", "west"]
WEIGHTS = np.array([[0.0, 2.0, -1.0], [0.5, -3.0, 1.0], [1.5, 0.0, 0.0]], np.float32)


class OneHot:
    """A linear score of one-hot columns; its worst case is known in closed form."""

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        hot = tf.one_hot(tf.cast(x, tf.int32), 3)
        return tf.reduce_sum(hot * WEIGHTS, axis=[1, 2])[:, None] - 2.25


@pytest.mark.parametrize("dtype", ["int32", "int64", "float32", "float64"])
@pytest.mark.parametrize("k", [0, 1, 2, 3])
def test_a_linear_score_of_one_hot_columns(k: int, dtype: str) -> None:
    x = np.array([*itertools.product(range(3), repeat=3)], dtype)
    own = WEIGHTS[np.arange(3), x.astype(int)]
    score = own.sum(axis=1) - 2.25
    y = (score > 0).astype(int)
    best = np.where(y[:, None] > 0, WEIGHTS.min(axis=1), WEIGHTS.max(axis=1))
    gains = np.sort(np.abs(best - own), axis=1)[:, ::-1]
    towards = np.where(y > 0, -1, 1)
    reached = [score + towards * gains[:, :j].sum(axis=1) for j in range(k + 1)]
    flips = np.array([(one > 0) != y for one in reached])
    attack = Substitution({i: range(3) for i in range(3)}, max_changes=k)
    report = attack.report(OneHot(), x, y)
    np.testing.assert_array_equal(report.fallen, flips.any(axis=0))
    fewest = np.where(report.fallen, flips.argmax(axis=0), k)
    worst = np.array(reached)[fewest, np.arange(27)]
    got = OneHot()(report.features).numpy()[:, 0]
    np.testing.assert_allclose(got, worst, atol=1e-6)
    assert report.features.dtype == dtype
    shares = [flips[: j + 1].any(axis=0).mean() for j in range(k + 1)]
    np.testing.assert_allclose(list(report.by_changes.values()), shares)


def keras_model() -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = {
        "region": keras.Input((1,), dtype="string", name="region"),
        "visits": keras.Input((1,), dtype="int32", name="visits"),
        "grade": keras.Input((1,), dtype="int32", name="grade"),
        "weight": keras.Input((1,), name="weight"),
    }
    regions = keras.layers.StringLookup(vocabulary=REGIONS)(inputs["region"])
    visits = keras.layers.Embedding(5, 2)(inputs["visits"])
    grades = keras.layers.CategoryEncoding(4, output_mode="one_hot")
    parts = [
        keras.layers.Flatten()(keras.layers.Embedding(4, 2)(regions)),
        keras.layers.Flatten()(visits),
        grades(inputs["grade"]),
        inputs["weight"],
    ]
    hidden = keras.layers.Dense(8, "tanh", kernel_initializer="random_normal")
    hidden = hidden(keras.layers.Concatenate()(parts) * 20.0)
    return keras.Model(inputs, keras.layers.Dense(3, "softmax")(hidden))


def records(count: int = 20, text: Any = object) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "region": rng.choice(REGIONS, count).astype(text),
        "visits": rng.integers(0, 5, count).astype("int32"),
        "grade": rng.integers(0, 4, count).astype("int32"),
        "weight": rng.normal(size=count).astype("float32"),
    }


REPLACEMENTS = {"region": REGIONS, "visits": range(5), "grade": [0, 3]}


@pytest.mark.parametrize("text", [object, "U", "S"])
def test_a_keras_model_on_strings_and_numbers(text: Any) -> None:
    model, x = keras_model(), records(text=text)

    def decisions(x: dict[str, np.ndarray]) -> np.ndarray:
        return model({k: tf.constant(v) for k, v in x.items()}).numpy().argmax(axis=1)

    y = decisions(x)
    attack = Substitution(REPLACEMENTS, max_changes=2)
    report = attack.report(model, x, y)
    found = report.features
    assert {*report.changes.tolist()} >= {1, 2}
    assert {k: v.dtype.kind for k, v in found.items()} == {
        k: v.dtype.kind for k, v in x.items()
    }
    np.testing.assert_array_equal(found["weight"], x["weight"])
    assert {type(v) for v in found["region"]} == {type(v) for v in x["region"]}
    np.testing.assert_array_equal(decisions(found) != y, report.fallen)
    # One record, by hand: nothing of one change flips it if two are needed.
    for i in np.flatnonzero(report.changes == 2)[:3]:
        for name, values in REPLACEMENTS.items():
            for value in values:
                one = {k: v[i : i + 1].copy() for k, v in x.items()}
                one[name][0] = value
                assert decisions(one) == y[i]


def test_string_tensors_and_columns_of_shape_batch_by_one() -> None:
    model, x = keras_model(), records()
    expected = Substitution(REPLACEMENTS)(model, x)
    tensors = {k: tf.constant(v[:, None]) for k, v in x.items()}
    found = Substitution(REPLACEMENTS)(model, tensors)
    for name, values in expected.items():
        assert found[name].shape == (20, 1)
        got = found[name][:, 0]
        if name == "region":
            got = np.array([v.decode() for v in got], object)
        np.testing.assert_array_equal(got, values)


def test_batches_and_their_labels() -> None:
    model, x = keras_model(), records()
    y = np.zeros(20, int)
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(7)
    attack = Substitution(REPLACEMENTS)
    expected = attack.report(model, x, y)
    found = attack.report(model, dataset)
    np.testing.assert_array_equal(found.fallen, expected.fallen)
    np.testing.assert_array_equal(found.alone, expected.alone)


@pytest.mark.parametrize("batch_size", [1, 7, 64, 5000])
def test_batch_size_makes_no_difference(batch_size: int) -> None:
    model, x = keras_model(), records()
    attack = Substitution(REPLACEMENTS, max_changes=3)
    expected = attack.report(model, x)
    report = attack.report(model, x, batch_size=batch_size)
    for name in ("fallen", "changes", "alone", "candidates"):
        np.testing.assert_array_equal(getattr(report, name), getattr(expected, name))
    for name, values in expected.features.items():
        np.testing.assert_array_equal(report.features[name], values)


def test_columns_of_matrices_among_several_inputs() -> None:
    weights = np.array([3.0, -1.0, 2.0])

    def scores(x: dict[str, tf.Tensor]) -> tf.Tensor:
        codes, extra = x["codes"], x["extra"]
        score = tf.linalg.matvec(tf.cast(codes, tf.float64), weights) + extra[:, 0]
        return tf.stack([0 * score, score - 6.5], axis=1)

    x = {"codes": np.array([[1, 0, 0], [1, 1, 1]]), "extra": np.zeros((2, 1))}
    attack = Substitution({"codes": {0: [0, 2], 2: [0, 1, 2]}, "extra": [0.5, 3.0]})
    report = attack.report(scores, x)
    assert report.columns == ("codes/0", "codes/2", "extra")
    # From 3 to 6, 7 or 6; from 4 to 7, 6 or 7.
    np.testing.assert_array_equal(
        report.alone, [[False, True, False], [True, False, True]]
    )
    np.testing.assert_array_equal(report.features["codes"], [[1, 0, 2], [2, 1, 1]])


def test_a_tuple_of_values_a_list_as_features() -> None:
    def scores(x: list[tf.Tensor]) -> tf.Tensor:
        return tf.cast(tf.stack([x[0], x[1]], axis=1), tf.float32)

    x = [np.array([1, 1]), np.array([0, 0])]
    found = Substitution({1: (0, 2)})(scores, x, from_logits=True)
    assert isinstance(found, list)
    np.testing.assert_array_equal(found[1], [2, 2])


class TestGroups:
    def test_a_one_hot_block_stays_one(self) -> None:
        def scores(x: tf.Tensor) -> tf.Tensor:
            score = tf.linalg.matvec(x, np.array([0.0, 1.0, 2.0, 3.0], "float32"))
            return tf.stack([0 * score, score - 2.5], axis=1)

        x = np.array([[5, 1, 0, 0], [0, 1, 0, 0]], "float32")
        block = (1, 2, 3)
        rows = [tuple(row) for row in np.eye(3, dtype="float32")]
        report = Substitution({block: rows}).report(scores, x)
        assert report.columns == (block,)
        assert report.candidates.tolist() == [2, 2]
        np.testing.assert_array_equal(report.features[1], [0, 0, 0, 1])
        np.testing.assert_array_equal(report.changes, [1, 1])
        assert Substitution({block: np.eye(3)}).allows(x, report.features, 1).all()
        x_bad = x + np.array([0, 0, 1, 0], "float32")
        assert not Substitution({block: np.eye(3)}).allows(x, x_bad, 1).any()

    def test_features_that_change_together(self) -> None:
        def scores(x: dict[str, tf.Tensor]) -> tf.Tensor:
            same = tf.cast(x["city"] == "b", tf.int32) == x["zip"]
            return tf.one_hot(tf.where(same, x["zip"], 2), 3)

        x = {"city": np.array(["a", "b"]), "zip": np.array([0, 1], "int32")}
        pairs = [("a", 0), ("b", 1)]
        report = Substitution({("city", "zip"): pairs}).report(scores, x)
        np.testing.assert_array_equal(report.features["city"], ["b", "a"])
        np.testing.assert_array_equal(report.features["zip"], [1, 0])

    def test_a_wide_feature_is_a_group(self) -> None:
        x = {"hot": np.eye(3, dtype="float32")}
        report = Substitution({"hot": np.eye(3)}).report(lambda x: x["hot"], x)
        assert report.fallen.all()
        np.testing.assert_array_equal(report.features["hot"].sum(axis=1), [1, 1, 1])

    def test_values_of_another_length_are_refused(self) -> None:
        with pytest.raises(
            ValueError, match=r"tuples of 2 values.*received \(1, 2, 3\)"
        ):
            Substitution({(0, 1): [(1, 2, 3)]})(np.eye, np.eye(2))


def test_replacements_by_present_value() -> None:
    """A grade may only fall by one; the best grade's neighbors alone."""

    def scores(x: np.ndarray) -> np.ndarray:
        return np.eye(4)[x[:, 0]]

    x = np.array([[0], [1], [2], [3]])
    report = Substitution({0: {3: [2], 2: [1, 2], 1: [0]}}).report(scores, x)
    np.testing.assert_array_equal(report.features[:, 0], [0, 0, 1, 2])
    np.testing.assert_array_equal(report.candidates, [0, 1, 1, 1])


def test_duplicates_and_present_values_are_no_candidates() -> None:
    seen = []

    def scores(x: np.ndarray) -> np.ndarray:
        seen.extend(x[:, 0].tolist())
        return np.eye(3)[0 * x[:, 0]]

    report = Substitution({0: [1, 1, 2, 0, 2]}).report(scores, np.array([[0], [2]]))
    assert report.candidates.tolist() == [2, 2]
    assert not report.fallen.any()
    assert sorted(seen[-4:]) == [0, 1, 1, 2]


@pytest.mark.parametrize("native", [True, False])
def test_models_that_tell_labels_alone(native: bool) -> None:
    def labels(x: Any) -> Any:
        return tf.cast(x[:, 0] + x[:, 1] > 2, tf.int32)

    def array_labels(x: np.ndarray) -> np.ndarray:
        return (x[:, 0] + x[:, 1] > 2).astype(int)

    x = np.array([[0, 0], [1, 1], [2, 2], [0, 2]])
    attack = Substitution({0: [0, 1], 1: [0, 1]}, max_changes=2)
    report = attack.report(labels if native else array_labels, x)
    np.testing.assert_array_equal(report.fallen, [False, False, True, True])
    np.testing.assert_array_equal(report.changes, [0, 0, 1, 1])
    np.testing.assert_array_equal(report.features[0], x[0])


def test_functions_of_arrays_get_texts_as_they_were_given() -> None:
    seen: list[str] = []

    def scores(x: dict[str, np.ndarray]) -> np.ndarray:
        # An encoder that ignores what it does not know would hide the difference.
        values = np.asarray(x["region"]).tolist()
        seen.extend(v for v in values if isinstance(v, str))
        return np.eye(4)[
            [{"north": 0, "south": 1, "west": 2}.get(v, 3) for v in values]
        ]

    x = {"region": np.array(["north", "west"], object)}
    found = Substitution({"region": REGIONS})(scores, x)
    assert {*seen} == {*REGIONS}
    assert all(found["region"] != x["region"])


@pytest.mark.parametrize("method", ["predict_proba", "predict"])
def test_a_pipeline_on_a_matrix_of_texts_and_numbers(method: str) -> None:
    """The cells of one array are of several types, which no tensor can hold."""
    rng = np.random.default_rng(0)
    x = np.empty((40, 3), object)
    x[:, 0] = rng.choice(["own", "rent"], 40)
    x[:, 1] = rng.normal(40, 10, 40)
    x[:, 2] = rng.choice(["a", "b", "c"], 40)
    y = (x[:, 1] > 38).astype(int) + (x[:, 0] == "own") + (x[:, 2] == "a") >= 2
    encoder = ColumnTransformer(
        [("c", OneHotEncoder(), [0, 2])], remainder=StandardScaler()
    )
    pipeline = make_pipeline(encoder, LogisticRegression()).fit(x, y)
    attack = Substitution({0: ["own", "rent"], 2: ["a", "b", "c"]})
    report = attack.report(getattr(pipeline, method), x)
    decisions = pipeline.predict(x)
    np.testing.assert_array_equal(
        pipeline.predict(report.features) != decisions, report.fallen
    )
    assert report.fallen.any()
    assert not report.fallen.all()
    flipped = np.zeros(40, bool)
    for home in ("own", "rent"):
        one = x.copy()
        one[:, 0] = home
        flipped |= pipeline.predict(one) != decisions
    np.testing.assert_array_equal(report.alone[:, 0], flipped)
    with pytest.raises(ValueError, match="unknown categories"):
        Substitution({2: ["d"]})(pipeline.predict, x)


def test_a_feature_space_before_the_model() -> None:
    keras.utils.set_random_seed(0)
    x = {k: v for k, v in records().items() if k != "weight"}
    space = keras.utils.FeatureSpace(
        {
            "region": keras.utils.FeatureSpace.string_categorical(num_oov_indices=0),
            "visits": keras.utils.FeatureSpace.integer_categorical(num_oov_indices=0),
            "grade": keras.utils.FeatureSpace.integer_categorical(num_oov_indices=0),
        },
        output_mode="concat",
    )
    space.adapt(tf.data.Dataset.from_tensor_slices(x))
    encoded = space.get_encoded_features()
    scores = keras.layers.Dense(2)(encoded)
    model = keras.Model(space.get_inputs(), scores)
    report = Substitution({"visits": [0]}).report(model, x)
    z = model({k: tf.constant(v[:, None]) for k, v in report.features.items()}).numpy()
    clean = model({k: tf.constant(v[:, None]) for k, v in x.items()}).numpy()
    flipped = z.argmax(axis=1) != clean.argmax(axis=1)
    np.testing.assert_array_equal(report.fallen, flipped)
    assert 0 < flipped.mean() < 1


class TestMissing:
    @staticmethod
    def scores(x: dict[str, np.ndarray]) -> np.ndarray:
        none = np.array([v is None for v in np.asarray(x["job"], object)])
        bad = none.astype(float) + np.isnan(np.asarray(x["income"]))
        return np.stack([2.5 - bad, bad], axis=1)

    X: ClassVar[dict[str, np.ndarray]] = {
        "job": np.array(["a", None, "b"], object),
        "income": np.array([1.0, 2.0, np.nan], "float32"),
    }

    def test_are_values(self) -> None:
        attack = Substitution({"job": ["a", None], "income": [np.nan]}, max_changes=2)
        report = attack.report(self.scores, self.X)
        np.testing.assert_array_equal(report.candidates, [3, 3, 2])
        np.testing.assert_array_equal(report.changes, [2, 1, 1])
        assert report.fallen.all()
        assert report.features["job"].tolist() == [None, None, None]
        assert attack.allows(self.X, report.features, 2).all()
        assert attack.allows(self.X, report.features, 1).tolist() == [False, True, True]

    def test_of_other_columns_stay(self) -> None:
        found = Substitution({"job": ["c"]})(self.scores, self.X)
        np.testing.assert_array_equal(found["income"], self.X["income"])


def test_scores_that_are_no_numbers_are_no_decision() -> None:
    def scores(x: np.ndarray) -> np.ndarray:
        z = np.array([[1.0, 0.0], [np.nan, 0.0], [0.0, 0.5], [0.8, 0.7]])
        return z[x[:, 0]]

    x = np.array([[0], [3]])
    y = [0, 0]
    found = Substitution({0: [1, 3]})(scores, x, y, from_logits=True)
    np.testing.assert_array_equal(found, [[1], [1]])
    # A decision that is another is worse than none.
    found = Substitution({0: [1, 2, 3]})(scores, x, y, from_logits=True)
    np.testing.assert_array_equal(found, [[2], [2]])
    found = Substitution({0: [1, 2, 3]})(scores, x, y, target=[1, 1], from_logits=True)
    np.testing.assert_array_equal(found, [[2], [2]])


def test_targets() -> None:
    def scores(x: tf.Tensor) -> tf.Tensor:
        return tf.one_hot(x[:, 0], 4) * 2 + tf.one_hot(x[:, 1], 4)

    x = np.array([[0, 0], [0, 1]], "int32")
    attack = Substitution({0: [1, 2], 1: [3]}, max_changes=2)
    report = attack.report(scores, x, [0, 0], target=[2, 3], from_logits=True)
    np.testing.assert_array_equal(report.fallen, [True, False])
    np.testing.assert_array_equal(report.features[0], [2, 0])
    assert report.features[1, 1] == 3


def test_a_loss_and_a_criterion_for_any_other_output() -> None:
    def price(x: tf.Tensor) -> tf.Tensor:
        return tf.cast(x[:, 0] * 10 + x[:, 1], tf.float32)

    def loss(y: Any, outputs: Any) -> Any:
        return tf.square(outputs - tf.cast(y, tf.float32))

    x, y = np.array([[1, 1], [2, 2]]), np.array([11, 22])
    attack = Substitution({0: [0, 2], 1: [9]}, max_changes=1)
    report = attack.report(price, x, y, loss_fn=loss)
    np.testing.assert_array_equal(report.features, [[0, 1], [0, 2]])
    assert not report.fallen.any()
    report = attack.report(
        price, x, y, loss_fn=loss, criterion=lambda y, z: np.abs(z - y) < 9
    )
    np.testing.assert_array_equal(report.alone, [[True, False], [True, False]])
    with pytest.raises(ValueError, match="loss_fn excludes target"):
        attack(price, x, y, loss_fn=loss, target=[1, 1])


def test_a_list_of_epsilons_is_one_search_of_the_largest() -> None:
    model, x = keras_model(), records()
    attack = Substitution(REPLACEMENTS)
    found = attack(model, x, epsilon=[0, 1.0, 2])
    for k, one in enumerate(found):
        alone = attack(model, x, epsilon=k)
        for name in x:
            np.testing.assert_array_equal(one[name], alone[name])
        assert attack.allows(x, one, k).all()


def test_inputs_in_a_list_of_several_dtypes() -> None:
    """Of https://github.com/keras-team/keras/issues/20166: texts and integers."""
    texts = keras.Input((), dtype="string", name="texts")
    codes = keras.Input((), dtype="int64", name="codes")
    letters = keras.layers.StringLookup(vocabulary=["a", "b"], output_mode="one_hot")
    numbers = keras.layers.IntegerLookup(vocabulary=[12, 36], output_mode="one_hot")
    parts = keras.layers.Concatenate()([letters(texts), numbers(codes)])
    # Of the first class are a with 12, and b with 36.
    kernel = np.array([[0, 0, 2, 0, 0, 2], [0, 1, 1, 0, 1, 1]], "float32").T
    model = keras.Model([texts, codes], keras.layers.Dense(2)(parts))
    model.layers[-1].set_weights([kernel, np.array([-0.5, 0.0], "float32")])
    grid = [*itertools.product("ab", [12, 36])]
    x = [np.array(part) for part in zip(*grid, strict=True)]
    report = Substitution({0: ["a", "b"], 1: [12, 36]}, max_changes=2).report(model, x)
    z = model([tf.constant(part) for part in x]).numpy().argmax(axis=1)
    table = dict(zip(grid, z.tolist(), strict=True))
    fewest = [
        min(
            sum(a != b for a, b in zip(one, other, strict=True))
            for other in grid
            if table[other] != table[one]
        )
        for one in grid
    ]
    np.testing.assert_array_equal(report.changes, fewest)


def test_a_model_of_one_batch_size() -> None:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Embedding(3, 2), keras.layers.Flatten()]
    inputs = keras.Input(batch_shape=(4, 2), dtype="int32")
    fixed = keras.Sequential([inputs, *layers, keras.layers.Dense(2)])
    any_size = keras.Sequential(fixed.layers)
    x = np.random.default_rng(0).integers(0, 3, (10, 2)).astype("int32")
    attack = Substitution({0: range(3), 1: range(3)}, max_changes=2)
    reports = [attack.report(model, x) for model in (fixed, any_size)]
    np.testing.assert_array_equal(reports[0].features, reports[1].features)
    np.testing.assert_array_equal(reports[0].alone, reports[1].alone)


def test_more_changes_than_columns() -> None:
    x = np.zeros((2, 1), int)
    report = Substitution({0: [1]}, max_changes=4).report(
        lambda x: tf.one_hot(x[:, 0], 2), x
    )
    assert report.by_changes == {0: 0.0, 1: 1.0, 2: 1.0, 3: 1.0, 4: 1.0}


def test_the_model_is_left_as_it_was_and_passes_are_known() -> None:
    sizes = []

    def scores(x: np.ndarray) -> np.ndarray:
        sizes.append(len(x))
        return np.eye(9)[0 * x[:, 0]]

    x = np.arange(6).reshape(3, 2)
    report = Substitution({0: range(9), 1: range(9)}, max_changes=2).report(
        scores, x, [0, 0, 0], batch_size=50
    )
    assert report.candidates.tolist() == [8 + 8 + 64] * 3
    assert max(sizes) == 50
    np.testing.assert_array_equal(x, np.arange(6).reshape(3, 2))


def test_few_candidates_are_few_calls_of_an_expensive_model() -> None:
    sizes = []

    def model(x: np.ndarray) -> np.ndarray:
        sizes.append(len(x))
        return np.stack([x[:, 0], 0.5 - x[:, 0]], axis=1).astype("float32")

    attack = Substitution({0: [0, 1]})
    report = attack.report(model, np.zeros([5, 2], int))
    assert report.fallen.all()
    assert max(sizes) == report.candidates.sum() == 5


def test_the_report_says_what_flips_decisions() -> None:
    def scores(x: dict[str, np.ndarray]) -> np.ndarray:
        return np.eye(2)[np.asarray(x["a"]) * np.asarray(x["b"])]

    x = {"a": np.array([0, 0, 1, 1]), "b": np.array([0, 1, 0, 1])}
    attack = Substitution({"a": [0, 1], "b": [0, 1]}, max_changes=2)
    report = attack.report(scores, x, [0, 0, 0, 0])
    assert report.by_column == {"a": 0.25, "b": 0.25}
    assert report.by_changes == {0: 0.25, 1: 0.75, 2: 1.0}
    assert str(report) == (
        "Share misclassified of 4 records, over all 12 candidates\n"
        "no column replaced           25.0%\n"
        "at most 1 column replaced    75.0%\n"
        "at most 2 columns replaced  100.0%\n"
        "  column 'a' alone           25.0%\n"
        "  column 'b' alone           25.0%"
    )


class TestErrors:
    X: ClassVar[dict[str, np.ndarray]] = {
        "region": np.array(["north"], object),
        "visits": np.array([1], "int32"),
    }

    @staticmethod
    def model(x: Any) -> Any:
        return tf.one_hot(x["visits"], 5)

    @pytest.mark.parametrize(
        ("replacements", "error", "message"),
        [
            ({"reigon": ["a"]}, ValueError, r"\['reigon'\].*\['region', 'visits'\]"),
            ({("region", "no"): ["a"]}, ValueError, r"features \['no'\]"),
            ({}, ValueError, "at least one column"),
            ({"visits": ["2"]}, TypeError, r"'visits'.*int32.*'2' \(str\)"),
            ({"visits": [1.5]}, TypeError, r"'visits'.*int32.*1.5 \(float\)"),
            ({"visits": [2**40]}, TypeError, "int32"),
            ({"visits": [None]}, TypeError, "None"),
            ({"region": [3]}, TypeError, r"'region'.*text.*3 \(int\)"),
            ({"region": "south"}, TypeError, "list of values.*'south'"),
            ({"visits": 3}, TypeError, "list of values"),
            ({"visits": {1: 2}}, TypeError, "list of values"),
            ({"visits": [2], ("region", "visits"): []}, ValueError, "more than once"),
        ],
    )
    def test_replacements_that_do_not_fit(
        self, replacements: Any, error: Any, message: str
    ) -> None:
        with pytest.raises(error, match=message):
            Substitution(replacements)(self.model, self.X)

    def test_columns_of_a_matrix(self) -> None:
        with pytest.raises(ValueError, match=r"'age' of x.*0 to 2.*dict\(frame\)"):
            Substitution({"age": [1]})(np.eye, np.eye(3))
        with pytest.raises(ValueError, match=r"column 3 of x.*0 to 2"):
            Substitution({3: [1]})(np.eye, np.eye(3))

    def test_too_many_candidates(self) -> None:
        x = np.zeros((2, 10), int)
        attack = Substitution({i: range(11) for i in range(10)}, max_changes=3)
        count = 10 * 10 + 45 * 100 + 120 * 1000
        with pytest.raises(ValueError, match=f"{count:,} candidates.*max_candidates"):
            attack(np.eye, x)
        message = f"{2 * count:,} passes in total.*Lower max_changes.*raise"
        with pytest.raises(ValueError, match=message):
            attack(np.eye, x)

    @pytest.mark.parametrize("epsilon", [0.5, -1, "1", np.nan])
    def test_epsilon_is_a_number_of_columns(self, epsilon: Any) -> None:
        with pytest.raises(ValueError, match="number of replaced columns"):
            Substitution({"visits": [2]})(self.model, self.X, epsilon=epsilon)

    def test_bounds_and_masks_have_no_place(self) -> None:
        for name, value in {"bounds": (0, 1), "feature_mask": 1, "grid": 1}.items():
            with pytest.raises(ValueError, match="none of bounds, feature_mask and"):
                Substitution({"visits": [2]})(self.model, self.X, **{name: value})

    def test_settings(self) -> None:
        with pytest.raises(TypeError, match=r"must be a dict.*\[1, 2\]"):
            Substitution([1, 2])
        with pytest.raises(ValueError, match="max_changes"):
            Substitution({0: [1]}, max_changes=-1)
        with pytest.raises(ValueError, match="objective"):
            Substitution({0: [1]}, objective="nothing")

    def test_labels_as_texts_are_refused_as_by_other_attacks(self) -> None:
        with pytest.raises(ValueError, match="Map the labels to integers"):
            Substitution({"visits": [2]})(self.model, self.X, ["yes"])


def test_is_a_value() -> None:
    attack = Substitution({"a": np.array([1, 2])}, max_changes=2)
    same = Substitution({"a": np.array([1, 2])}, 2)
    assert attack == same
    assert hash(attack) == hash(same)
    assert attack != Substitution({"a": np.array([1, 3])}, 2)
    assert pickle.loads(pickle.dumps(attack)) == copy.deepcopy(attack) == attack
    named = Substitution({"a": [1]}, objective="cross_entropy")
    assert named != Substitution({"a": [1]}, objective=objectives.cross_entropy)


def test_values_may_come_from_anything_that_can_be_listed() -> None:
    x = np.zeros((2, 1), int)
    for values in (iter([1, 2]), {1, 2}, range(1, 3), np.array([1, 2]), tf.range(1, 3)):
        attack = Substitution({0: values})
        for _ in range(2):
            report = attack.report(lambda x: tf.one_hot(x[:, 0], 3), x)
            assert report.candidates.tolist() == [2, 2]


def test_wider_texts_fit() -> None:
    x = {"t": np.array(["a", "b"])}
    found = Substitution({"t": ["a longer one"]})(
        lambda x: tf.one_hot(tf.cast(tf.strings.length(x["t"]) > 3, tf.int32), 2), x
    )
    np.testing.assert_array_equal(found["t"], ["a longer one"] * 2)


def test_bytes_and_texts_are_read_as_the_column_has_them() -> None:
    def scores(x: dict[str, tf.Tensor]) -> tf.Tensor:
        return tf.one_hot(tf.cast(x["t"] == "é", tf.int32), 2)

    for column, value in (
        (np.array(["a"], object), "é".encode()),
        (np.array([b"a"], object), "é"),
        (np.array([b"a"]), "é"),
    ):
        found = Substitution({"t": [value]})(scores, {"t": column})
        assert type(found["t"][0]) is type(column[0])
        assert tf.constant(found["t"]).numpy()[0].decode() == "é"


def test_a_leaf_in_any_memory_order() -> None:
    x = np.asfortranarray(np.zeros((5, 3), int))
    found = Substitution({1: [1]})(lambda x: tf.one_hot(x[:, 1], 2), x)
    np.testing.assert_array_equal(found[:, 1], np.ones(5))


def test_half_floats() -> None:
    x = tf.zeros((3, 2), tf.bfloat16)
    found = Substitution({0: [0.1]})(
        lambda x: tf.cast(tf.stack([0.05 + 0 * x[:, 0], x[:, 0]], 1), tf.float32),
        x,
        from_logits=True,
    )
    assert found.dtype.name == "bfloat16"
    assert np.all(found[:, 0].astype(float) > 0.09)
