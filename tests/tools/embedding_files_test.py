"""Embeddings from Parquet, Arrow and NumPy files and from memory, as from TFRecords."""

import gzip
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from pyarrow import feather, parquet

from nsl.tools import build_graph, read_tsv_graph
from nsl.tools.build_graph import main
from tests.tools.example_files import write_examples

NODES = 40
VECTORS = np.random.default_rng(0).normal(size=(NODES, 4)).astype(np.float32)
IDS = [f"é{i}" for i in range(NODES)]
LABELS = ["a", "b", None, "a"] * (NODES // 4)


ID_FILES = ("ids.npy", "ids.txt", "utf16.txt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same embeddings in files of all kinds."""
    path = tmp_path_factory.mktemp("embeddings")
    write_examples(
        path / "x.tfr",
        (
            {"id": [node], "embedding": row.tolist(), "y": [y] if y else []}
            for node, row, y in zip(IDS, VECTORS, LABELS, strict=True)
        ),
    )
    np.save(path / "x.npy", VECTORS)
    np.save(path / "first.npy", VECTORS[:25])
    np.save(path / "rest.npy", np.asfortranarray(VECTORS[25:]))
    np.save(path / "ids.npy", IDS)
    (path / "ids.txt").write_text("".join(f"{node}\n" for node in IDS))
    # As Windows saves "Unicode text".
    (path / "utf16.txt").write_text("\n".join(IDS), encoding="utf-16", newline="\r\n")
    lists = pa.FixedSizeListArray.from_arrays(VECTORS.reshape(-1), 4)
    table = pa.table({"y": LABELS, "embedding": lists, "id": IDS})
    feather.write_feather(table, path / "x.arrow")
    views = pa.array(VECTORS.tolist(), pa.list_view(pa.float32()))
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(VECTORS)
    for name, column in (("views", views), ("tensors", tensors)):
        table_of = table.set_column(1, "embedding", column)
        with pa.ipc.new_stream(path / f"{name}.arrow", table_of.schema) as writer:
            writer.write_table(table_of)
    parquet.write_table(
        table.set_column(1, "embedding", [VECTORS.tolist()]),
        path / "x.parquet",
        row_group_size=7,
    )
    feather.write_feather(table.slice(0, 25), path / "first.arrow")
    feather.write_feather(table.slice(20), path / "rest.arrow")
    return path


def _graph(folder: Path, embeddings: Any, **options: Any) -> bytes:
    build_graph(embeddings, folder / "g.tsv", 0.7, **options)
    return (folder / "g.tsv").read_bytes()


def test_any_file_or_array_gives_the_same_graph(folder: Path) -> None:
    expected = _graph(folder, folder / "x.tfr")
    assert expected.count(b"\n") > 20
    for name in ("x.parquet", "x.arrow", "views.arrow", "tensors.arrow"):
        assert _graph(folder, folder / name) == expected
    # An id that stands in an earlier input too is left out.
    overlapping = [folder / "first.arrow", folder / "rest.arrow"]
    assert _graph(folder, overlapping) == expected
    files = [folder / "first.npy", folder / "rest.npy"]
    for ids in (IDS, np.array(IDS), *map(folder.joinpath, ID_FILES)):
        assert _graph(folder, VECTORS, ids=ids) == expected
        assert _graph(folder, folder / "x.npy", ids=ids) == expected
        assert _graph(folder, files, ids=ids) == expected


def test_ids_of_arrays_are_the_numbers_of_rows(folder: Path) -> None:
    expected = _graph(folder, VECTORS, ids=range(NODES))
    assert _graph(folder, VECTORS) == expected
    assert _graph(folder, VECTORS.astype(np.float64)) == expected
    pattern = f"{folder / 'first.npy'},{folder / 'rest.npy'}"
    assert _graph(folder, pattern) == expected


@pytest.mark.parametrize("name", ["x.tfr", "x.npy", "x.parquet", "x.arrow"])
@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress])
def test_compressed_files(folder: Path, name: str, compress: Any) -> None:
    path = folder / f"{name}.compressed"
    path.write_bytes(compress((folder / name).read_bytes()))
    assert _graph(folder, path) == _graph(folder, folder / name)


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_numbers_of_two_bytes(folder: Path, dtype: tf.DType) -> None:
    vectors = tf.cast(VECTORS, dtype).numpy()
    assert _graph(folder, vectors) == _graph(folder, vectors.astype(np.float32))


def test_labels_in_a_table(folder: Path) -> None:
    reports = [
        build_graph(folder / name, folder / "g.tsv", label_feature_name="y")
        for name in ("x.tfr", "x.parquet")
    ]
    assert reports[0] == reports[1]
    assert 0 < reports[0]["homophily"] < 1


def test_the_graph_as_parquet(folder: Path) -> None:
    build_graph(VECTORS, folder / "g.parquet", 0.7)
    build_graph(VECTORS, folder / "g.tsv", 0.7)
    table = parquet.read_table(folder / "g.parquet")
    assert table.column_names == ["source", "target", "weight"]
    exact, rounded = (read_tsv_graph(folder / f"g.{end}") for end in ("parquet", "tsv"))
    assert exact.keys() == rounded.keys()
    for source, targets in exact.items():
        assert list(targets) == list(rounded[source])
        assert list(targets.values()) == pytest.approx(
            list(rounded[source].values()), abs=1e-6
        )


def test_a_given_array_is_not_changed(folder: Path) -> None:
    for scale in (1, 1e33):
        vectors = VECTORS * np.float32(scale)
        kept = vectors.copy()
        vectors.flags.writeable = scale == 1
        _graph(folder, vectors)
        assert (vectors == kept).all()


def test_the_command_takes_ids(folder: Path) -> None:
    output = folder / "command.tsv"
    arguments = [str(folder / "x.npy"), str(output), f"--ids={folder / 'ids.txt'}"]
    assert main([*arguments, "--similarity_threshold=0.7"]) == 0
    assert output.read_bytes() == _graph(folder, folder / "x.tfr")


@pytest.mark.parametrize(
    ("embeddings", "options", "message"),
    [
        (VECTORS[0], {}, r"shape \(4,\)"),
        (VECTORS > 0, {}, "dtype bool"),
        (np.array([[None]]), {}, "dtype object"),
        (np.full((3, 2), np.nan), {}, "row 0 .*NaN"),
        (np.full((3, 2), 1e300), {}, "row 0 .*infinite"),
        (VECTORS, {"ids": IDS[1:]}, "one id for each embedding, 40, but have 39"),
        (VECTORS, {"ids": [0] * NODES}, "'0' is duplicated: in row 0 and in row 1"),
        (VECTORS, {"ids": ["a\tb", *IDS[1:]]}, "contains a tab"),
        (VECTORS, {"label_feature_name": "y"}, "label_feature_name='y' needs files"),
        ("x.npy", {"label_feature_name": "y"}, "x.npy is an array"),
        ("x.npy", {"ids": IDS[1:]}, "x.npy, row 39: there are more rows than ids"),
        ("first.npy", {"ids": IDS}, "arrays, 25, but have 40"),
        ("x.arrow", {"ids": IDS}, "arrays, 0, but have 40"),
        (
            "x.npy",
            {"ids": "x.parquet"},
            "not a file of ids, .npy or text: it is a Parquet file",
        ),
        (["x.npy", "x.npy"], {"ids": [*IDS, *IDS]}, "is duplicated"),
        (["first.npy", "three.npy"], {}, "three.npy, row 0: .* 3 values, .* 4"),
        ("objects.npy", {}, "objects.npy cannot be read as an array: .*objects"),
        ("x.npz", {}, "x.npz is not a TFRecord file: it is a zip archive"),
        ("x.parquet", {"embedding_feature_name": "v"}, "no column 'v'; .* 'id'"),
        ("x.parquet", {"embedding_feature_name": "id"}, "'id' must hold lists of num"),
        ("x.parquet", {"id_feature_name": "embedding"}, "'embedding' must be strings"),
    ],
)
def test_wrong_embeddings(
    folder: Path, embeddings: Any, options: dict[str, Any], message: str
) -> None:
    np.save(folder / "three.npy", np.zeros((2, 3)))
    np.save(folder / "objects.npy", np.array([{}]))
    np.savez(folder / "x.npz", VECTORS)
    if isinstance(embeddings, str):
        embeddings = folder / embeddings
    elif isinstance(embeddings, list):
        embeddings = [folder / name for name in embeddings]
    if isinstance(options.get("ids"), str):
        options = {"ids": folder / options["ids"]}
    with pytest.raises(ValueError, match=message):
        build_graph(embeddings, folder / "none.tsv", **options)
    assert not (folder / "none.tsv").exists()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": ["a", "a"], "embedding": [[1.0]] * 2}, "row 1: duplicate id 'a'"),
        (
            {"id": ["a", None], "embedding": [[1.0]] * 2},
            "row 1, .*'id': .*missing",
        ),
        ({"id": ["a", "b"], "embedding": [[1.0], [1.0, 2.0]]}, "row 1, .* 2 values"),
        ({"id": ["a", "b"], "embedding": [[1.0], [None]]}, "row 1, .*missing"),
        ({"id": ["a", "b"], "embedding": [[1.0], None]}, "row 1, .*missing"),
        ({"id": ["a", "b"], "embedding": [[1.0], [np.inf]]}, "'b' .*infinite"),
        ({"id": ["a"], "embedding": [[]]}, "lists of numbers|no values"),
    ],
)
def test_wrong_tables(columns: dict[str, Any], message: str, tmp_path: Path) -> None:
    parquet.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=rf"x\.parquet.*{message}"):
        build_graph(tmp_path / "x.parquet", tmp_path / "g.tsv")


def test_an_array_without_rows_makes_an_empty_graph(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((0, 4)))
    assert build_graph(tmp_path / "x.npy", tmp_path / "g.tsv")["nodes"] == 0
    assert build_graph(np.zeros((0, 4)), tmp_path / "g.tsv")["nodes"] == 0
