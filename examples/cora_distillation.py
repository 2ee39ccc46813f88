"""A second network for examples/cora.py, taught by the first and the citations."""

import keras
import numpy as np
import tensorflow as tf
from cora_data import CitationGraph
from scipy import sparse
from sklearn.preprocessing import normalize

import nsl

# Of personalized PageRank, as in the paper.
TELEPORT, ROUNDS = 0.1, 10


def soft_labels(
    answers: np.ndarray,
    citations: nsl.data.Graph,
    labels: np.ndarray,
    known: np.ndarray,
) -> np.ndarray:
    """Mixes the answer to each paper with those to the papers around it.

    Personalized PageRank of the answers: Gasteiger et al. (2019), "Predict then
    propagate", https://arxiv.org/abs/1810.05997, equation 5.

    Args:
      answers: Probabilities of shape [papers, classes].
      citations: The graph of the papers.
      labels: The classes of shape [papers].
      known: The rows of the papers whose class may be used.

    Returns:
      Probabilities of shape [papers, classes], those of the known papers 0 or 1.
    """
    size = (citations.num_nodes, citations.num_nodes)
    edges = citations.weights, citations.targets, citations.row_splits
    shares = normalize(sparse.csr_matrix(edges, shape=size), norm="l1")
    mixed = answers
    for _ in range(ROUNDS):
        mixed = (1 - TELEPORT) * (shares @ mixed) + TELEPORT * answers
    mixed = normalize(mixed, norm="l1")
    mixed[known] = np.eye(answers.shape[1])[labels[known]]
    return mixed


def distill(
    teacher: keras.Model,
    graph: CitationGraph,
    citations: nsl.data.Graph,
    known: np.ndarray,
    optimizer: keras.optimizers.Optimizer,
    steps: int,
    batch_size: int,
    seed: int,
) -> keras.Model:
    """Trains a network like the teacher on soft labels of all papers.

    As Zhang et al. (2022), "Graph-less neural networks",
    https://arxiv.org/abs/2110.08727, with a teacher that has not seen the graph when it
    answers.

    Args:
      teacher: The network that was trained on the labels and the graph.
      graph: The papers.
      citations: Who cites whom, among all papers.
      known: The rows of the papers whose class may be used.
      optimizer: An optimizer for so many steps.
      steps: The number of weight updates.
      batch_size: How many papers a step sees, at most.
      seed: Determines weights, order and dropout.

    Returns:
      The student.
    """
    keras.utils.set_random_seed(seed)
    student = keras.models.clone_model(teacher)
    student.compile(optimizer, "categorical_crossentropy")
    answers = teacher.predict(graph.words, batch_size=batch_size, verbose=0)
    labels = soft_labels(answers, citations, graph.labels, known)
    data = tf.data.Dataset.from_tensor_slices((graph.words, labels))
    data = data.shuffle(len(labels), seed=seed).repeat().batch(batch_size)
    student.fit(data, steps_per_epoch=steps, shuffle=False, verbose=0)
    return student
