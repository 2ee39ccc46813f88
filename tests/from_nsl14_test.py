"""Every row of docs/from_nsl14.md: the old line fails as it says, the new one runs.

The rows are those of tables with the columns `NSL 1.4`, `message` and `nsl`.
"""

import contextlib
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import neural_structured_learning as nsl
from tests.pages import ROOT

PAGE = ROOT / "docs" / "from_nsl14.md"
HEADER = "| NSL 1.4 | message | nsl |"
_SPAN = r"(?:``\s?(.+?)``|`([^`]+)`)"
_ROW = re.compile(rf"^\| {_SPAN} \| {_SPAN} \| {_SPAN} \|$")
_STYLE = re.compile(r"\x1b\[\d*m")


def _rows() -> list[tuple[str, str, str]]:
    rows, in_table = [], False
    for line in PAGE.read_text().splitlines():
        in_table = line == HEADER or (in_table and line.startswith("|"))
        if in_table and line != HEADER and not line.startswith("|---"):
            match = _ROW.match(line)
            assert match, f"no row of three code spans: {line}"
            old, message, new = (
                double or single
                for double, single in zip(*[iter(match.groups())] * 2, strict=True)
            )
            rows.append((old, message, new))
    return rows


ROWS = _rows()


class Subclassed(keras.Model):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(3, activation="softmax")

    def call(self, x: Any) -> Any:
        return self.dense(x)


class _Private(Subclassed):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.compile("sgd", "sparse_categorical_crossentropy")


class AddsLoss(keras.layers.Layer):
    def call(self, x: Any) -> Any:
        self.add_loss(tf.reduce_mean(x))
        return x


class Branches(keras.layers.Layer):
    def call(self, x: Any) -> Any:
        if tf.reduce_sum(x) > 0:
            return x
        return -x


class BranchesInGraph(keras.layers.Layer):
    def call(self, x: Any) -> Any:
        return tf.where(tf.reduce_sum(x) > 0, x, -x)


def _classifier(dtype: str = "float32", sparse: bool = False) -> keras.Model:
    inputs = keras.Input((4,), name="feature", dtype=dtype, sparse=sparse)
    x = inputs
    if dtype == "int32":
        x = keras.layers.Flatten()(keras.layers.Embedding(8, 2)(x))
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(x))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def _adversarial(
    base: keras.Model, data: Any = None, **settings: Any
) -> nsl.keras.AdversarialRegularization:
    config = nsl.configs.make_adv_reg_config(**settings)
    model = nsl.keras.AdversarialRegularization(base, ["label"], adv_config=config)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    if data is not None:
        model.fit(data, verbose=0)
    return model


def _write(path: str, *examples: dict[str, Any]) -> None:
    with tf.io.TFRecordWriter(path) as writer:
        for features in examples:
            example = tf.train.Example()
            for name, value in features.items():
                feature = example.features.feature[name]
                if isinstance(value, bytes):
                    feature.bytes_list.value.append(value)
                else:
                    feature.float_list.value.extend(value)
            writer.write(example.SerializeToString())


def _write_files() -> None:
    full = [{"id": n, "embedding": [1.0, 0.5]} for n in (b"a", b"b")]
    _write("complete.tfr", *full)
    _write("twice.tfr", full[0], full[0])
    _write("without_id.tfr", full[0], {"embedding": [1.0, 0.0]})
    _write("without_embedding.tfr", full[0], {"id": b"b"})
    Path("edges.tsv").write_text("a\tb\t1.0\n")
    Path("four_columns.tsv").write_text("a\tb\t1.0\tx\n")
    _classifier().export("saved_model", verbose=False)
    doubled = keras.Sequential(
        [keras.Input((4,)), keras.layers.Lambda(lambda x: 2 * x)]
    )
    doubled.save("with_lambda.keras")


class _Names(dict[str, Any]):
    """What the page says the names in its tables are, each made when it is needed."""

    def __missing__(self, name: str) -> Any:
        maker = getattr(self, f"make_{name}", None)
        if maker is None:
            raise KeyError(name)
        self[name] = maker()
        return self[name]

    def make_x(self) -> Any:
        return np.random.default_rng(0).random((8, 4), np.float32)

    def make_y(self) -> Any:
        return np.arange(8) % 3

    def make_data(self) -> Any:
        return {"feature": self["x"], "label": self["y"]}

    def make_batches(self) -> Any:
        return tf.data.Dataset.from_tensor_slices(self["data"]).batch(4).repeat()

    def make_pairs(self) -> Any:
        pair = self["x"], self["y"]
        return tf.data.Dataset.from_tensor_slices(pair).batch(4)

    def make_hub_layer(self) -> Any:
        class OfAnotherKeras:
            def __call__(self, x: Any) -> Any:
                return x

        return OfAnotherKeras()

    def make_loss_fn(self) -> Any:
        return lambda: tf.constant(0.0)

    def make_gradients(self) -> Any:
        return [tf.zeros(v.shape) for v in self["base"].trainable_variables]

    def make_sparse_pairs(self) -> Any:
        pair = {"feature": tf.sparse.from_dense(self["x"])}, self["y"]
        return tf.data.Dataset.from_tensor_slices(pair).batch(4)

    def make_sparse_batches(self) -> Any:
        return self["sparse_pairs"].map(lambda x, y: {**x, "label": y})

    def make_base(self) -> Any:
        return _classifier()

    def make_model(self) -> Any:
        return _adversarial(_classifier())

    def make_trained(self) -> Any:
        return lambda **s: _adversarial(_classifier(), self["data"], **s)

    def make_of_integers(self) -> Any:
        return _adversarial(_classifier("int32"))

    def make_of_sparse(self) -> Any:
        return _adversarial(_classifier(sparse=True))

    def make_graph_model(self) -> Any:
        config = nsl.configs.make_graph_reg_config(max_neighbors=1)
        model = nsl.keras.GraphRegularization(_classifier(), config)
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    def make_sparse_x(self) -> Any:
        return tf.sparse.from_dense(self["x"])

    def make_sparse_unpacker(self) -> Any:
        inputs = {"feature": keras.Input((4,), name="feature", sparse=True)}
        config = nsl.configs.GraphNeighborConfig(max_neighbors=1)
        _, neighbors, _ = nsl.keras.layers.NeighborFeatures(config)(inputs)
        outputs = keras.layers.Dense(3)(neighbors["feature"])
        return keras.Model(inputs, outputs)

    def make_two_outputs(self) -> Any:
        inputs = keras.Input((4,), name="feature")
        outputs = [keras.layers.Dense(1, name=name)(inputs) for name in "ab"]
        base = keras.Model(inputs, outputs)
        return nsl.keras.AdversarialRegularization(base, ["label_a", "label_b"])

    def make_data_of_two(self) -> Any:
        y = self["y"] * 1.0
        return {"feature": self["x"], "label_a": y, "label_b": y}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    with contextlib.chdir(folder):
        _write_files()
    return folder


@pytest.mark.parametrize(("old", "message", "new"), ROWS, ids=[row[0] for row in ROWS])
def test_row(
    old: str, message: str, new: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    keras.utils.set_random_seed(0)
    kind, colon, rest = message.partition(": ")
    if not (colon and kind.endswith("Error")):
        kind, rest = "", message
    with pytest.raises(Exception) as raised:  # noqa: PT011 (the page says which)
        exec(old, globals(), _Names())
    told = _STYLE.sub("", str(raised.value))
    assert rest in told
    if kind:
        assert type(raised.value).__name__ == kind
    exec(new, globals(), _Names())


def test_the_page_has_rows() -> None:
    assert len(ROWS) > 40
