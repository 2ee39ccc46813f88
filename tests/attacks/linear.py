"""A linear model, whose worst perturbation is known in closed form."""

import numpy as np
import tensorflow as tf

ORDER = {"l1": 1, "l2": 2, "infinity": np.inf}


class Linear:
    """Logits x @ w of structures: the leaves side by side."""

    def __init__(self, seed=0, features=12, classes=5):
        self.weights = np.random.default_rng(seed).normal(size=[features, classes])
        self.w = tf.constant(self.weights, tf.float32)
        self.calls = 0

    def __call__(self, x):
        self.calls += 1
        leaves = [tf.cast(f, tf.float32) for f in tf.nest.flatten(x)]
        rows = [tf.reshape(f, [-1, int(np.prod(f.shape[1:]))]) for f in leaves]
        return tf.concat(rows, axis=1) @ self.w

    def predict(self, x):
        return np.argmax(self(x).numpy(), axis=1)


def inputs(count=9, features=12, seed=1):
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 1, [count, features]).astype(np.float32)


def largest_gain(gradient, low, high, epsilon, norm):
    """Returns max <gradient, d> over |d| <= epsilon, low <= d <= high."""
    size = np.abs(np.asarray(gradient, np.float64))
    room = np.where(gradient > 0, high, -low)
    if norm == "infinity":
        step = np.minimum(room, epsilon)
    elif norm == "l2":
        smallest, largest = 0.0, 1e9
        for _ in range(200):
            middle = (smallest + largest) / 2
            step = np.minimum(middle * size, room)
            inside = np.linalg.norm(step) <= epsilon
            smallest, largest = (middle, largest) if inside else (smallest, middle)
        step = np.minimum(smallest * size, room)
    else:
        step, left = np.zeros_like(size), epsilon
        for i in np.argsort(-size):
            step[i] = min(room[i], left)
            left -= step[i]
    return float(step @ size)


def lead(logits, labels, targets):
    """The objective whose gradient is the same everywhere."""
    return tf.gather(logits, targets, batch_dims=1) - tf.gather(
        logits, labels, batch_dims=1
    )
