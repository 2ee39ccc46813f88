"""Examples on the host, with their labels and limits, in batches."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import attrs
import numpy as np
import tensorflow as tf

from nsl import configs
from nsl.attacks.labels import numbers_as_array, read_classes
from nsl.lib import feature_mask as masks
from nsl.lib import features as feature_structures
from nsl.lib.features import is_perturbable
from nsl.lib.norms import Norm
from nsl.lib.threat_model import ThreatModel

_INFINITE = -1
_SHORTER = 1e-12
_MOST_REACHED = 0.9
# Tolerances for rounding errors: of a distance, a coordinate, and a grid value.
_RELATIVE, _ABSOLUTE, _GRID_SLACK = 1e-4, 1e-5, 1e-2


@attrs.frozen
class Limits:
    """The allowed perturbations of the examples.

    Each field except `radius` has an entry for each leaf of the features: None, or an
    array that broadcasts to the leaf and whose first axis has size 1 or the number of
    examples.

    Attributes:
      radius: The radius of the ball, of shape [examples, 1].
      scale: The divisor of each coordinate's perturbation before the norm is computed.
      low: The lower bound.
      high: The upper bound.
      mask: Factors of the gradient; a feature with factor 0 is not perturbed.
      grid: The spacing of valid values, which are its multiples.
    """

    radius: np.ndarray
    scale: list[Any]
    low: list[Any]
    high: list[Any]
    mask: list[Any]
    grid: list[Any]


@attrs.frozen
class Batch:
    """A batch of examples.

    Attributes:
      features: Their features.
      labels: Their labels.
      targets: Their target classes, or None.
      limits: Their allowed perturbations.
      memory: The initial values of the variables that a call of the model changes.
    """

    features: Any
    labels: Any
    targets: Any
    limits: Limits
    memory: list[Any]

    def threat(self, norm: configs.NormType | str | Norm) -> ThreatModel:
        """Returns the ball, the bounds and the mask; bounds include the examples."""
        features, limits = self.features, self.limits
        features = tf.nest.map_structure(tf.convert_to_tensor, features)

        def including(extreme: Any, bounds: list[Any]) -> list[Any]:
            return [
                None if bound is None else extreme(bound, tf.cast(leaf, bound.dtype))
                for bound, leaf in zip(bounds, tf.nest.flatten(features), strict=True)
            ]

        return ThreatModel(
            features,
            norm,
            radius=limits.radius,
            scale=limits.scale,
            low=including(tf.minimum, limits.low),
            high=including(tf.maximum, limits.high),
            mask=limits.mask,
        )

    def distance(self, features: Any, norm: configs.NormType | Norm) -> np.ndarray:
        """Returns the norm of the change from these features, a float64 column."""
        changes = []
        for before, after, scale in self._leaves(features, self.limits.scale):
            if is_perturbable(before):
                change = np.subtract(after, before, dtype=np.float64)
                change = change if scale is None else change / scale
                changes.append(_flat(change))
        rows = changes[0] if len(changes) == 1 else np.concatenate(changes, axis=1)
        return Norm.of(norm).length(tf.convert_to_tensor(rows)).numpy()

    def inside(self, features: Any, norm: configs.NormType | Norm) -> Any:
        """Moves perturbed features into the ball, in their own dtypes.

        Rounding to the dtype of a feature can leave the ball. Such perturbations are
        scaled down to the radius and rounded towards the clean features.
        """
        length, radius = self.distance(features, norm), self.limits.radius
        outside = length > radius
        if not np.any(outside):
            return features
        share = np.divide(radius, length, out=np.ones_like(length), where=outside)
        share = np.where(outside, share * (1 - _SHORTER), 1.0)
        shortened = functools.partial(_shortened, share=share)
        return tf.nest.map_structure(shortened, self.features, features)

    def allows(self, features: Any, norm: configs.NormType | Norm) -> np.ndarray:
        """Returns which perturbed features are allowed, bool of shape [batch].

        These are finite, within ball and bounds, on the grid, and unchanged where the
        mask or the dtype forbids a perturbation; with tolerances of 1e-4 of the radius
        and 1e-5 of a coordinate for rounding errors.
        """
        limits = self.limits
        largest = limits.radius * (1 + _RELATIVE) + _ABSOLUTE
        ok = (self.distance(features, norm) <= largest)[:, 0]
        for before, after, low, high, mask, grid in self._leaves(
            features, limits.low, limits.high, limits.mask, limits.grid
        ):
            if not is_perturbable(before):
                ok &= np.all(_flat(before == after), axis=1)
                continue
            before, after = before.astype(np.float64), after.astype(np.float64)
            slack = _ABSOLUTE * (1 + np.abs(before))
            fine = np.isfinite(after)
            # An example outside its bounds may stay where it is.
            if low is not None:
                fine &= after >= np.minimum(before, low) - slack
            if high is not None:
                fine &= after <= np.maximum(before, high) + slack
            stays = np.abs(after - before) <= slack
            if mask is not None:
                fine &= stays | (mask > 0)
            if grid is not None:
                steps = after / grid
                fine &= stays | (np.abs(steps - np.round(steps)) <= _GRID_SLACK)
            ok &= np.all(_flat(fine), axis=1)
        return ok

    def _leaves(self, features: Any, *given: list[Any]) -> Iterator[tuple[Any, ...]]:
        """Yields the clean and another value of each feature, with its limits."""
        found = map(np.asarray, tf.nest.flatten(features))
        return zip(tf.nest.flatten(self.features), found, *given, strict=True)


class Examples:
    """Features and labels as arrays, and the allowed perturbations.

    Args:
      x: Arrays or tensors of shape [examples, ...], or a structure of them; or batches:
        a tf.data.Dataset, a `keras.utils.PyDataset`, or another iterable. Batches of
        the form (x, y) or (x, y, sample_weight) include the labels.
      y: The labels, unless the batches include them; None if there are none.
      bounds: The lower and upper bound, numbers or structures of arrays, or None.
      feature_mask: A number or a structure of arrays, or None.
      grid: The spacing of valid values, a number or a structure of arrays, or None.
      perturbed: Whether floating features are perturbed. If not, any values of any
        dtype are allowed.

    Attributes:
      x, y: The features and labels, structures of arrays; y may be None.
      leaves: A list of the features.
      count: The number of examples.
      limits: The limits given, with a radius of 0.

    Raises:
      ValueError: If there are no examples, no feature can be perturbed, the numbers of
        examples differ, or bounds, mask or grid do not fit.
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        *,
        bounds: Any = None,
        feature_mask: Any = None,
        grid: Any = None,
        perturbed: bool = True,
    ) -> None:
        x, y = _collected(x, y)
        self.x = tf.nest.map_structure(_on_host, x)
        self.y = None if y is None else tf.nest.map_structure(_on_host, y)
        self.leaves: list[np.ndarray] = tf.nest.flatten(self.x)
        counts = {len(leaf) if leaf.ndim else 0 for leaf in self.leaves}
        if len(counts) != 1 or counts == {0}:
            raise ValueError(
                "x must contain at least one example, and features of shape "
                "[examples, ...], but received shapes "
                f"{[leaf.shape for leaf in self.leaves]}."
            )
        [self.count] = counts
        for name, leaf in zip(
            feature_structures.names(self.x), self.leaves, strict=True
        ):
            rows = leaf.reshape(self.count, -1)
            skipped = not perturbed or not is_perturbable(leaf)
            finite = skipped or np.isfinite(rows).all(axis=1)
            if not np.all(finite):
                raise ValueError(
                    f"{f'feature {name!r}' if name else 'x'} must be finite, but "
                    f"example {int(np.argmin(finite))} is not."
                )
        for leaf in [] if self.y is None else tf.nest.flatten(self.y):
            self.check_count(leaf, "y")
        if perturbed and not any(map(is_perturbable, self.leaves)):
            raise ValueError(feature_structures.nothing_to_perturb(self.x))
        low, high = _pair(bounds)
        mask = self._spread(feature_mask, "feature_mask")
        for part in mask:
            if part is not None:
                masks.in_unit_interval(tf.constant(part))
        self.limits = Limits(
            radius=np.zeros([self.count, 1]),
            scale=[None] * len(self.leaves),
            low=self._spread(low, "bounds[0]"),
            high=self._spread(high, "bounds[1]"),
            mask=mask,
            grid=self._spread(grid, "grid"),
        )
        for below, above in zip(self.limits.low, self.limits.high, strict=True):
            if below is not None and above is not None and np.any(below > above):
                raise ValueError(
                    "bounds must be a pair (low, high) with low <= high throughout, "
                    f"but received low up to {np.max(below)} and high down to "
                    f"{np.min(above)}."
                )
        for part in self.limits.grid:
            if part is not None and not np.all(part > 0):
                raise ValueError(f"grid must be greater than 0, but received {grid!r}.")

    def check_count(self, values: Any, what: str) -> None:
        """Raises ValueError unless there is one entry per example."""
        shape = np.shape(values)
        if not shape or shape[0] != self.count:
            raise ValueError(
                f"{what} must have one entry for each of the {self.count} examples, "
                f"but has shape {shape}."
            )

    def labels_and_targets(
        self, classes: int, logits: Callable[[], np.ndarray], target: Any
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns the true and the target classes, int32 of shape [examples].

        Args:
          classes: The number of classes.
          logits: Computes the clean logits, whose classes are used if there is no y.
          target: The target classes as given, or None.

        Raises:
          ValueError: If they are not classes, or nearly all targets equal the labels.
        """
        if self.y is None:
            labels = logits().argmax(axis=1).astype(np.int32)
        else:
            labels = read_classes(self.y, classes)
        if target is None:
            return labels, None
        self.check_count(target, "target")
        targets = read_classes(target, classes, "target")
        if np.mean(targets == labels) > _MOST_REACHED:
            raise ValueError(
                "target must be the target classes, but nearly all of them equal the "
                "labels of the examples. Pass the true classes as y."
            )
        return labels, targets

    def first(self, count: int) -> Any:
        """Returns the features of the first `count` examples, with repetition."""
        rows = np.arange(count) % self.count
        return tf.nest.map_structure(lambda leaf: leaf[rows], self.x)

    def limits_of(self, epsilon: Any) -> tuple[list[Limits], bool]:
        """Returns the limits for each radius, and whether a list of radii was given.

        Args:
          epsilon: A radius: a number, an array of shape [examples], or a radius per
            coordinate (a dict by feature, or an array of the shape of a feature). Or a
            list or tuple of them.

        Raises:
          ValueError: If a radius is negative, not finite, or fits no feature.
        """
        is_list = isinstance(epsilon, list | tuple)
        return [*map(self._limits_of, epsilon if is_list else [epsilon])], is_list

    def batch(
        self,
        indices: np.ndarray,
        limits: Limits,
        labels: Any = None,
        targets: Any = None,
        memory: Iterable[Any] = (),
    ) -> Batch:
        """Returns a `Batch` of the examples with these ascending indices."""
        given = (self.x, labels, targets, limits)
        x, labels, targets, limits = self.take(given, indices)
        return Batch(x, labels, targets, limits, list(memory))

    def take(self, values: Any, indices: np.ndarray) -> Any:
        """Indexes what has an entry per example; keeps what all examples share."""
        count = len(indices)
        piece: Any = indices
        if count and indices[-1] - indices[0] == count - 1:
            piece = slice(int(indices[0]), int(indices[-1]) + 1)

        def taken(leaf: Any) -> Any:
            return leaf if leaf is None or len(leaf) != self.count else leaf[piece]

        return tf.nest.map_structure(taken, values)

    def arguments(self, indices: np.ndarray, epsilon: Any) -> dict[str, Any]:
        """Returns the arguments of an attack on some of the examples, by name.

        `epsilon` is a radius or a list of them. The result has `grid` only if one was
        given.
        """
        limits = self.take(self.limits, indices)
        spread = {
            name: tf.nest.pack_sequence_as(self.x, getattr(limits, name))
            for name in ("low", "high", "mask", "grid")
            if any(part is not None for part in getattr(limits, name))
        }
        is_list = isinstance(epsilon, list | tuple)
        radii = [
            self._of_examples(e, indices) for e in (epsilon if is_list else [epsilon])
        ]
        low, high = spread.get("low"), spread.get("high")
        return {
            "x": self.take(self.x, indices),
            "epsilon": radii if is_list else radii[0],
            "bounds": None if low is None and high is None else (low, high),
            "feature_mask": spread.get("mask"),
            **({"grid": spread["grid"]} if "grid" in spread else {}),
        }

    def excess(self) -> float:
        """Returns the largest distance of a feature outside its bounds, at least 0."""
        return max(
            max(float(np.max(low - leaf)), float(np.max(leaf - high)), 0.0)
            for leaf, low, high in self._boxes()
        )

    def reach(self, norm: configs.NormType | Norm) -> float | None:
        """Returns a radius with which every example can reach every other one.

        This is the norm of the box around all examples and bounds. Returns None if
        masks, bounds or features that are not floating keep an example from becoming
        another.
        """
        fixed = not all(map(is_perturbable, self.leaves))
        if fixed or any(m is not None and not np.all(m > 0) for m in self.limits.mask):
            return None
        widths = []
        for leaf, low, high in self._boxes():
            least, most = np.min(leaf, axis=0), np.max(leaf, axis=0)
            if np.any(np.minimum(low, leaf) > least) or np.any(
                np.maximum(high, leaf) < most
            ):
                return None
            low = np.where(np.isfinite(low), np.minimum(low, least), least).min(axis=0)
            high = np.where(np.isfinite(high), np.maximum(high, most), most).max(axis=0)
            widths.append(np.ravel(high - low))
        box = tf.constant([np.concatenate(widths)], tf.float64)
        return float(Norm.of(norm).length(box)[0, 0])

    def _boxes(self) -> Iterator[tuple[np.ndarray, Any, Any]]:
        """Yields each perturbable feature and its bounds, in float64."""
        for leaf, low, high in zip(
            self.leaves, self.limits.low, self.limits.high, strict=True
        ):
            if is_perturbable(leaf):
                ones = np.ones([1] * leaf.ndim)
                low = ones * (-np.inf if low is None else low)
                high = ones * (np.inf if high is None else high)
                yield leaf.astype(np.float64), low, high

    def _of_examples(self, epsilon: Any, indices: np.ndarray) -> Any:
        if isinstance(epsilon, Mapping):
            return {k: self._of_examples(v, indices) for k, v in epsilon.items()}
        if np.ndim(epsilon) == 0 or len(epsilon) != self.count:
            return epsilon
        feature = [leaf.shape[1:] for leaf in self.leaves]
        return epsilon if np.shape(epsilon) in feature else np.asarray(epsilon)[indices]

    def _limits_of(self, epsilon: Any) -> Limits:
        shapes = [leaf.shape[1:] for leaf in self.leaves if is_perturbable(leaf)]
        shape = () if isinstance(epsilon, Mapping) else np.shape(epsilon)
        whole = {(), (self.count,), (self.count, 1), (1, 1)}
        of_feature = (
            shape != () and len(shapes) == 1 and shape[-len(shapes[0]) :] == shapes[0]
        )
        if shape == (self.count,) == shapes[0] and len(shapes) == 1:
            raise ValueError(
                f"epsilon of shape {shape} could be a radius per example or per "
                f"column. Reshape it to {(self.count, 1)} or {(1, *shape)}."
            )
        if isinstance(epsilon, Mapping) or (of_feature and shape not in whole - {()}):
            return self._per_coordinate(epsilon)
        number = np.asarray(epsilon).dtype.kind in "iufb"
        radius = np.asarray(epsilon if number else np.nan, np.float64)
        if shape not in whole or not np.all(np.isfinite(radius) & (radius >= 0)):
            raise ValueError(
                "epsilon must be a number of at least 0, an array with one for each "
                f"of the {self.count} examples, one for each coordinate (a dict by "
                "feature, or an array of a feature's shape), or a list of these, but "
                f"received {epsilon!r}."
            )
        return self._with_radius(radius.reshape([-1, 1]))

    def _per_coordinate(self, epsilon: Any) -> Limits:
        """Returns limits with a ball of radius 1 that is scaled in each coordinate."""
        scale = self._spread(epsilon, "epsilon")
        for name, leaf, part in zip(
            feature_structures.names(self.x), self.leaves, scale, strict=True
        ):
            if not is_perturbable(leaf):
                continue
            if part is None or not np.all(np.isfinite(part) & (part >= 0)):
                found = "no entry" if part is None else f"{part!r}"
                raise ValueError(
                    "epsilon must have a radius of at least 0 for each feature, but "
                    f"has {found} for {name or 'the feature'!r}. With 0, a feature is "
                    "not perturbed."
                )
        mask = [
            m if s is None else (s > 0) * (np.float32(1) if m is None else m)
            for m, s in zip(self.limits.mask, scale, strict=True)
        ]
        scale = [
            None if s is None else np.where(s > 0, s, 1).astype(s.dtype) for s in scale
        ]
        return self._with_radius(np.ones([1, 1]), scale=scale, mask=mask)

    def _with_radius(self, radius: np.ndarray, **limits: list[Any]) -> Limits:
        radius = np.broadcast_to(radius, (self.count, 1))
        return attrs.evolve(self.limits, radius=radius, **limits)

    def _spread(self, value: Any, what: str) -> list[Any]:
        if value is None:
            return [None] * len(self.leaves)
        dtypes = [
            tf.float64 if leaf.dtype == np.float64 else tf.float32
            for leaf in self.leaves
        ]
        parts = feature_structures.spread_tensors(value, self.x, what, dtypes)
        ranks = [leaf.ndim for leaf in self.leaves]
        return [
            part if part is None else part.numpy()[(None,) * (rank - part.shape.rank)]
            for part, rank in zip(parts, ranks, strict=True)
        ]


def _flat(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1)


def _shortened(before: np.ndarray, after: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Scales the change of each example and rounds it towards the clean example."""
    if not is_perturbable(before):
        return after
    share = share.reshape((len(before), *[1] * (before.ndim - 1)))
    change = np.subtract(after, before, dtype=np.float64)
    change *= share
    shorter = np.add(before, change, dtype=np.float64).astype(before.dtype)
    moved = np.abs(np.subtract(shorter, before, dtype=np.float64))
    beyond = moved > np.abs(change)
    return np.nextafter(shorter, before, out=shorter, where=beyond)


def split(count: int, size: int) -> list[slice]:
    """Splits a range into slices of at most `size`."""
    return [slice(i, min(i + size, count)) for i in range(0, count, size)]


def _collected(x: Any, y: Any) -> tuple[Any, Any]:
    """Returns features and labels as structures of arrays, without batches."""
    if not _is_batches(x):
        return numbers_as_array(x), numbers_as_array(y)
    batches = list(_batches(x))
    if not batches:
        raise ValueError("x must contain at least one example, but has no batches.")
    if isinstance(batches[0], tuple):
        if y is None and len(batches[0]) > 1:
            y = _joined([batch[1] for batch in batches])
        batches = [batch[0] for batch in batches]
    if _is_batches(y):
        y = _joined(list(_batches(y)))
    return _joined(batches), numbers_as_array(y)


def _is_batches(x: Any) -> bool:
    return (
        isinstance(x, Iterable)
        and not isinstance(x, Mapping | list | tuple | str | bytes)
        and not tf.is_tensor(x)
        and not hasattr(x, "__array__")
        and not isinstance(x, tf.RaggedTensor | tf.SparseTensor)
    ) or hasattr(x, "num_batches")


def _batches(x: Any) -> Iterator[Any]:
    endless = hasattr(x, "cardinality") and int(x.cardinality()) == _INFINITE
    if endless or (hasattr(x, "num_batches") and x.num_batches is None):
        raise ValueError(
            "x must have finitely many batches, but it repeats forever. Use a part, "
            "such as dataset.take(10)."
        )
    if hasattr(x, "num_batches"):
        return (x[i] for i in range(x.num_batches))
    return iter(x)


def _joined(batches: list[Any]) -> Any:
    def join(*parts: Any) -> np.ndarray:
        arrays = [_on_host(part) for part in parts]
        if not arrays[0].ndim:
            raise ValueError(
                "x must contain batches of shape [batch, ...], but an element is a "
                "scalar. Batch it, such as by dataset.batch(32)."
            )
        if len({array.shape[1:] for array in arrays}) > 1:
            raise ValueError(
                "x must contain batches that differ only in size, but received shapes "
                f"{sorted({array.shape for array in arrays})}. Pad all to one length, "
                "such as by dataset.padded_batch(32, padded_shapes=...)."
            )
        return np.concatenate(arrays)

    return tf.nest.map_structure(join, *batches)


def _on_host(leaf: Any) -> np.ndarray:
    if isinstance(leaf, tf.RaggedTensor | tf.SparseTensor):
        raise ValueError(
            f"Attacks need dense features, but received a {type(leaf).__name__}. "
            "Convert it with to_tensor() or tf.sparse.to_dense."
        )
    if tf.is_tensor(leaf) and not hasattr(leaf, "numpy"):
        raise ValueError(
            "Attacks run on the host and cannot be called inside a tf.function or "
            "Dataset.map. Call them outside, or use nsl.lib.gen_adv_neighbor inside."
        )
    return leaf.numpy() if tf.is_tensor(leaf) else np.asarray(leaf)


def _pair(bounds: Any) -> tuple[Any, Any]:
    if bounds is None:
        return None, None
    if not isinstance(bounds, list | tuple) or len(bounds) != 2:
        raise ValueError(
            "bounds must be a pair (low, high), each a number or a structure of arrays "
            f"keyed by feature or None, but received {bounds!r}."
        )
    return bounds[0], bounds[1]
