"""Part (a) of examples/digits.py: a graph over labeled and unlabeled images."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import records
import tensorflow as tf
from digits_data import Images, choose_labeled, compile_model, make_model

import nsl
from nsl.keras import few_labels


@dataclasses.dataclass(frozen=True)
class GraphSettings:
    """What part (a) may choose.

    Attributes:
      num_neighbors: How many similar images an image is joined with.
      learning_rate: Of the network that learns from labels alone; of 0.001, 0.003 and
        0.01 none is better than the others on the validation images.
      steps: The number of updates of that network.
      with_graph: What the library may choose. Of walks that stop with a chance of 0.05,
        0.1 and 0.25 the longest are best on the validation images; the library itself
        chooses 0.25.
    """

    num_neighbors: int = 5
    learning_rate: float = 0.003
    steps: int = 600
    with_graph: few_labels.Settings = dataclasses.field(
        default_factory=lambda: few_labels.Settings(teleport=0.05)
    )


def image_examples(images: Images) -> Iterator[dict[str, records.Value]]:
    """Yields images as examples without labels."""
    for row, pixels in enumerate(images.x):
        yield {"id": b"image%d" % row, "pixels": pixels}


def build_graph(images: Images, num_neighbors: int, folder: Path) -> nsl.data.Graph:
    """Joins each image with those of the largest cosine similarity."""
    examples, edges = folder / "images.tfr", folder / "graph.tsv"
    records.write_examples(examples, image_examples(images))
    records.run_tool(
        "build_graph.py",
        "--embedding_feature_name=pixels",
        f"--num_neighbors={num_neighbors}",
        "--similarity_threshold=0",
        examples,
        edges,
    )
    ids = [f"image{row}" for row in range(len(images.y))]
    return nsl.data.Graph(edges, ids, undirected=True)


def train_on_labels(images: Images, settings: GraphSettings, seed: int) -> keras.Model:
    """Trains on the few labeled images alone."""
    keras.utils.set_random_seed(seed)
    labeled = choose_labeled(images.y, seed)
    model = make_model()
    compile_model(model, settings.learning_rate)
    batch = (images.x[labeled], images.y[labeled])
    data = tf.data.Dataset.from_tensors(batch).repeat()
    model.fit(data, steps_per_epoch=settings.steps, shuffle=False, verbose=0)
    return model


def train_with_graph(
    images: Images, settings: GraphSettings, seed: int, folder: Path
) -> keras.Model:
    """Trains on the few labels and on the graph over all images."""
    keras.utils.set_random_seed(seed)
    labeled = np.isin(np.arange(len(images.y)), choose_labeled(images.y, seed))
    return few_labels.fit(
        make_model(),
        build_graph(images, settings.num_neighbors, folder),
        images.x,
        images.y,
        sample_weight=labeled,
        settings=settings.with_graph,
        seed=seed,
    )
