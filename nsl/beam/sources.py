"""Reads and writes the files of the tools in a pipeline.

Each file is read by one worker, with the readers of the local tools; different files
are read in parallel.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.metrics import Metrics

from nsl.files.edge_files import COUNTED, EdgeFile
from nsl.files.id_table import as_strings
from nsl.tools import example_index, tfrecord
from nsl.tools.embedding_files import EmbeddingReader
from nsl.tools.job_output import JobOutput


class _ReadFiles(beam.PTransform):
    """Reads each file of a list in a worker."""

    def __init__(self, paths: Sequence[str], reader: beam.DoFn) -> None:
        super().__init__()
        self._paths = list(paths)
        self._reader = reader

    def expand(self, start: Any) -> Any:
        return (
            start
            | "Files" >> beam.Create(self._paths)
            | "OneByOne" >> beam.Reshuffle()
            | "Read" >> beam.ParDo(self._reader)
        )


class _ReadExamplesFn(beam.DoFn):
    def __init__(self, id_feature_name: str) -> None:
        self._id_feature_name = id_feature_name

    def process(self, path: str) -> Iterator[tuple[bytes, bytes]]:
        with contextlib.closing(tfrecord.RecordFile(path)) as file:
            for node, _, data in example_index.examples(file, self._id_feature_name):
                yield node, data


class _ReadEdgesFn(beam.DoFn):
    def __init__(self, namespace: str) -> None:
        self._counters = {name: Metrics.counter(namespace, name) for name in COUNTED}

    def process(self, path: str) -> Iterator[tuple[bytes, bytes, float]]:
        file = EdgeFile(path)
        for sources, targets, weights in file:
            ends = as_strings(sources), as_strings(targets)
            yield from zip(*ends, weights.tolist(), strict=True)
        for name, count in file.counts.items():
            self._counters[name].inc(count)


class _ReadEmbeddingsFn(beam.DoFn):
    def __init__(self, id_feature_name: str, embedding_feature_name: str) -> None:
        self._names = id_feature_name, embedding_feature_name

    def process(self, path: str) -> Iterator[tuple[bytes, bytes]]:
        for block in EmbeddingReader(*self._names).blocks(path):
            if block.ids is None:
                raise ValueError(
                    f"{path} is a NumPy array (.npy), which has no ids: write "
                    "TFRecords or Parquet, or use nsl.tools.build_graph."
                )
            for node, vector in zip(block.ids, block.vectors, strict=True):
                yield node, vector.tobytes()


def example_source(paths: Sequence[str], id_feature_name: str) -> beam.PTransform:
    """Returns a transform that reads (id, serialized Example) from TFRecord files."""
    return _ReadFiles(paths, _ReadExamplesFn(id_feature_name))


def edge_source(paths: Sequence[str], namespace: str) -> beam.PTransform:
    """Returns a transform that reads (source, target, weight) from files of edges.

    Args:
      paths: The files.
      namespace: The namespace of the counters for blank lines, comments and the like.
    """
    return _ReadFiles(paths, _ReadEdgesFn(namespace))


def embedding_source(
    paths: Sequence[str], id_feature_name: str, embedding_feature_name: str
) -> beam.PTransform:
    """Returns a transform that reads (id, little-endian floats) from files."""
    return _ReadFiles(paths, _ReadEmbeddingsFn(id_feature_name, embedding_feature_name))


def write(output: JobOutput) -> beam.PTransform:
    """Returns a transform that writes concatenated bytes.

    The files get their final names when all are complete. One worker writes a file.
    """
    return beam.io.WriteToText(
        output.path,
        append_trailing_newlines=False,
        num_shards=output.num_shards or 1,
        shard_name_template="" if output.num_shards is None else "-SSSSS-of-NNNNN",
        coder=beam.coders.BytesCoder(),
        compression_type=(
            CompressionTypes.GZIP
            if output.compression == "gzip"
            else CompressionTypes.UNCOMPRESSED
        ),
    )
