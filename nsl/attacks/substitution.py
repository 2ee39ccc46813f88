"""Exhaustive search for the worst-case replacement of categories."""

from __future__ import annotations

import io
import itertools
import numbers
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import attrs
import numpy as np
import tensorflow as tf

from nsl.attacks.attack import adapted
from nsl.attacks.columns import Column, lists_of_values, read_columns
from nsl.attacks.examples import Examples, split
from nsl.attacks.model_adapter import ModelAdapter
from nsl.attacks.objectives import Objective, check_objective, objective_of
from nsl.attacks.problem import Loss, per_example
from nsl.configs import fields
from nsl.progress import Progress

_BATCH_SIZE = 4096
# The maximum number of candidate counts (record by set of columns) in memory.
_MOST_COUNTS = 1_000_000


@attrs.frozen
class Substitution:
    """Tries all replacements of at most k columns: the exact worst case.

    The worst case of a record is the candidate that changes the decision with the
    fewest replaced columns; among several, or if there is none, the one of largest
    objective. The search is exhaustive, so a record that stays robust is certified
    against all candidates. Each candidate takes one forward pass, and no gradients are
    needed.

    ```python
    attack = nsl.attacks.Substitution(
        {"region": ["north", "south"], "visits": range(5)}, max_changes=2
    )
    x_adv = attack(model, x, y)
    print(attack.report(model, x, y))
    ```

    Use it in `nsl.evaluate_robustness` with `norm="l0"`, where epsilon is the number of
    columns.

    Attributes:
      replacements: The allowed values of each column, by feature name. Columns without
        an entry are not replaced. For a matrix, keys are column indices; for a matrix
        within a structure, one level down: `{"codes": {0: [1, 2]}}`. A tuple of keys is
        a group of columns that are replaced together and count as one change, each
        value a tuple: `{(3, 4): [(1, 0), (0, 1)]}` for a one-hot block. Instead of a
        list, a dict from a current value to its replacements; other current values are
        not replaced.
      max_changes: The maximum number of columns replaced in a record, k.
      objective: The objective of the worst case: 'margin', 'cross_entropy', 'dlr', or a
        function like those in `nsl.attacks.objectives`.
      max_candidates: The maximum number of candidates per record; more are an error.
    """

    black_box: ClassVar[bool] = True
    needs_scores: ClassVar[bool] = False
    minimizes: ClassVar[bool] = True
    norm: ClassVar[str] = "l0"

    replacements: dict[Any, Any] = attrs.field(
        converter=lists_of_values, eq=fields.comparable, hash=False
    )
    max_changes: int = attrs.field(default=1, validator=fields.integer(0))
    objective: str | Objective = attrs.field(
        default="margin", kw_only=True, validator=check_objective
    )
    max_candidates: int = attrs.field(
        default=100_000, kw_only=True, validator=fields.integer(1)
    )

    def __call__(
        self,
        model: Callable[..., Any],
        x: Any,
        y: Any = None,
        *,
        epsilon: Any = None,
        bounds: Any = None,
        feature_mask: Any = None,
        seed: int = 0,
        **options: Any,
    ) -> Any:
        """Returns the worst case of each record.

        Args:
          model: As in `nsl.attacks.Attack`: a callable from features to logits or
            probabilities of shape [batch, classes] or [batch, 1], or to class labels.
          x: Features, an array or a structure of arrays of any dtype, of shape
            [records, ...]; or batches of them. Missing values (NaN, None) are values
            like any other.
          y: The true classes, integers of shape [records] or one-hot; with `loss_fn`,
            any structure that it takes. None uses the labels in the batches or, if
            there are none, the model's predictions.
          epsilon: Replaces `max_changes`; a list gives a list of results.
          bounds: Must be None, because the replacements determine the allowed values.
          feature_mask: Must be None, like `bounds`.
          seed: Ignored, because nothing is random.
          **options: Those of `report`.

        Returns:
          The features of the worst cases, arrays in the structure and dtypes of `x`.

        Raises:
          ValueError: If arguments do not fit each other or the outputs of the model, a
            column does not exist, or a record has more than `max_candidates`
            candidates.
          TypeError: If the model is not callable, or a value does not have its column's
            type.
        """
        del seed
        if bounds is not None or feature_mask is not None or "grid" in options:
            raise ValueError(
                "Substitution supports none of bounds, feature_mask and grid: its "
                "replacements determine the allowed values."
            )
        is_list = isinstance(epsilon, list | tuple)
        changes = [self._changes(e) for e in (epsilon if is_list else [epsilon])]
        search = self._searched(model, x, y, max(changes), **options)
        results = [search.features(k) for k in changes]
        return results if is_list else results[0]

    def report(
        self,
        model: Callable[..., Any],
        x: Any,
        y: Any = None,
        *,
        target: Any = None,
        from_logits: bool | None = None,
        output: Any = None,
        loss_fn: Loss | None = None,
        criterion: Loss | None = None,
        batch_size: int | None = None,
        verbose: bool = True,
    ) -> SubstitutionReport:
        """Reports the worst case of each record, and which columns change decisions.

        Args:
          model: As in a call.
          x: As in a call.
          y: As in a call.
          target: As in `nsl.attacks.Attack`, like the next four.
          from_logits: Whether the model outputs logits. None detects it.
          output: Which of several outputs to attack.
          loss_fn: The loss per record, which replaces the objective.
          criterion: Whether a record is correct. Without it, no decision counts as
            changed.
          batch_size: The number of candidates per batch; 4096 by default.
          verbose: Whether to show progress on a terminal.

        Returns:
          The report.

        Raises:
          ValueError: As in a call.
          TypeError: As in a call.
        """
        search = self._searched(
            model,
            x,
            y,
            self.max_changes,
            target=target,
            from_logits=from_logits,
            output=output,
            loss_fn=loss_fn,
            criterion=criterion,
            batch_size=batch_size,
            verbose=verbose,
        )
        return SubstitutionReport(
            columns=tuple(column.name for column in search.columns),
            features=search.features(self.max_changes),
            max_changes=self.max_changes,
            fallen=search.fallen,
            changes=np.sum(search.chosen[-1] >= 0, axis=1),
            alone=search.alone,
            candidates=search.candidates.astype(np.int64),
        )

    def allows(self, x: Any, found: Any, epsilon: Any) -> np.ndarray:
        """Returns which records are valid candidates, bool of shape [records].

        Args:
          x: The features, a structure of arrays.
          found: Other features of the same structure and shapes.
          epsilon: The maximum number of replaced columns.
        """
        before, after = (Examples(part, perturbed=False) for part in (x, found))
        ok = np.ones(before.count, bool)
        replaced = np.zeros(before.count, int)
        leaves = [
            [leaf.reshape(before.count, -1) for leaf in examples.leaves]
            for examples in (before, after)
        ]
        same = [(a == b) | ((a != a) & (b != b)) for a, b in zip(*leaves, strict=True)]
        for column in read_columns(self.replacements, before):
            differs, allowed = column.allowed(before, after)
            ok &= allowed
            replaced += differs
            for leaf, place in column.cells:
                same[leaf][:, place] = True
        unchanged = np.all([part.all(axis=1) for part in same], 0)
        return ok & unchanged & (replaced <= self._changes(epsilon))

    def _changes(self, epsilon: Any) -> int:
        if epsilon is None:
            return self.max_changes
        is_number = isinstance(epsilon, numbers.Real)
        if not is_number or not float(epsilon).is_integer() or epsilon < 0:
            raise ValueError(
                "epsilon must be the maximum number of replaced columns, an integer "
                f"of at least 0 or a list of them, but received {epsilon!r}."
            )
        return int(epsilon)

    def _searched(
        self,
        model: Callable[..., Any],
        x: Any,
        y: Any,
        changes: int,
        *,
        from_logits: bool | None = None,
        output: Any = None,
        batch_size: int | None = None,
        verbose: bool = True,
        **options: Any,
    ) -> _Search:
        examples = Examples(x, y, perturbed=False)
        columns = read_columns(self.replacements, examples)
        candidates = _candidates(columns, examples.count, changes)
        most = int(np.argmax(candidates))
        if candidates[most] > self.max_candidates:
            raise ValueError(
                f"Record {most} has {candidates[most]:,.0f} candidates, with up to "
                f"{changes} of {len(columns)} columns replaced, but max_candidates is "
                f"{self.max_candidates:,} ({candidates.sum():,.0f} passes in total). "
                "Lower max_changes, list fewer replacements, or raise max_candidates."
            )
        # The first call of the model uses a whole batch.
        most_useful = max(1, min(_BATCH_SIZE, int(candidates.sum())))
        with adapted(
            model,
            examples,
            batch_size or most_useful,
            output=output,
            from_logits=from_logits,
        ) as (adapter, size):
            objective = objective_of(self.objective)
            search = _Search(
                adapter, examples, size, columns, candidates, objective, **options
            )
            search.run(changes, verbose)
        return search


@attrs.frozen(eq=False)
class SubstitutionReport:
    """The decisions that at most k replaced columns can change. Exact, and printable.

    Attributes:
      columns: The keys of the replaceable columns.
      features: The worst case of each record, in the structure and dtypes of `x`.
      max_changes: The maximum number of replaced columns, k.
      fallen: Whether the worst case changes the decision, bool of shape [records]. If
        `changes` is 0, the record itself is misclassified.
      changes: The number of replaced columns in the worst case, of shape [records].
      alone: Whether replacing only that column can change the decision, bool of shape
        [records, columns]. False for records that are misclassified unchanged, and
        everywhere if `max_changes` is 0.
      candidates: The number of candidates of each record, of shape [records].
    """

    columns: tuple[Any, ...]
    features: Any
    max_changes: int
    fallen: np.ndarray
    changes: np.ndarray
    alone: np.ndarray
    candidates: np.ndarray

    @property
    def by_changes(self) -> dict[int, float]:
        """The share of misclassified records, by the maximum number of changes."""
        return {
            k: float(np.mean(self.fallen & (self.changes <= k)))
            for k in range(self.max_changes + 1)
        }

    @property
    def by_column(self) -> dict[Any, float]:
        """The share of records whose decision that column alone can change."""
        shares = map(float, self.alone.mean(axis=0))
        return dict(zip(self.columns, shares, strict=True))

    def __str__(self) -> str:
        lines = [
            f"Share misclassified of {len(self.fallen):,} records, over all "
            f"{self.candidates.sum():,} candidates"
        ]
        rows = [("no column replaced", self.by_changes[0])]
        for k in range(1, self.max_changes + 1):
            noun = "column" if k == 1 else "columns"
            rows.append((f"at most {k} {noun} replaced", self.by_changes[k]))
        if self.max_changes:
            ranked = sorted(self.by_column.items(), key=lambda item: -item[1])
            rows += [(f"  column {name!r} alone", share) for name, share in ranked]
        width = max(len(text) for text, _ in rows)
        lines += [f"{text.ljust(width)}  {share:6.1%}" for text, share in rows]
        return "\n".join(lines)


class _Search:
    """Evaluates candidates, in ascending order of replaced columns.

    Attributes:
      columns: The replaceable columns.
      candidates: The number of candidates of each record, of shape [records].
      fallen: Whether a candidate has succeeded, of shape [records].
      alone: Whether one with a single replaced column has, of shape [records, columns].
      chosen: The best candidates with up to 0, 1, ... replaced columns: for each column
        the position of its value, -1 if not replaced; of shape [records, columns].
    """

    def __init__(
        self,
        model: ModelAdapter,
        examples: Examples,
        size: int,
        columns: list[Column],
        candidates: np.ndarray,
        objective: Objective,
        *,
        target: Any = None,
        loss_fn: Loss | None = None,
        criterion: Loss | None = None,
    ) -> None:
        self._model, self._examples, self._size = model, examples, size
        self._objective, self._loss_fn, self._criterion = objective, loss_fn, criterion
        self._labels: Any = examples.y
        self._targets: Any = None
        if loss_fn is None:
            self._labels, self._targets = examples.labels_and_targets(
                model.classes, lambda: self._outputs(examples.x), target
            )
        elif target is not None:
            raise ValueError("loss_fn excludes target: include the target in the loss.")
        elif examples.y is None:
            self._labels = self._outputs(examples.x)
        self.columns, self.candidates = columns, candidates
        self._counts = np.stack([column.counts for column in columns], axis=1)
        self._value = np.full(examples.count, -np.inf)
        self.fallen = np.zeros(examples.count, bool)
        self.alone = np.zeros([examples.count, len(columns)], bool)
        self.chosen: list[np.ndarray] = []

    def run(self, changes: int, verbose: bool) -> None:
        """Tries all candidates with at most so many replaced columns."""
        best = np.full(self.alone.shape, -1)
        with Progress(
            f"Substitution (at most {changes} of {len(self.columns)} columns)",
            float(self.candidates.sum()) + len(best),
            "candidates",
            stream=None if verbose else io.StringIO(),
        ) as progress:
            for k in range(changes + 1):
                robust = np.flatnonzero(~self.fallen)
                for records, chosen in self._batches(robust, k):
                    self._keep_best(best, records, chosen, single=k == 1)
                    progress.advance(len(records))
                self.chosen.append(best.copy())

    def features(self, changes: int) -> Any:
        """Returns the worst cases with at most so many replaced columns."""
        return self._replaced(np.arange(self._examples.count), self.chosen[changes])

    def _batches(
        self, records: np.ndarray, k: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields records and choices of all candidates with k replaced columns.

        Candidates are enumerated by set of columns, then by record, so that few columns
        differ within a batch.
        """
        found = [*itertools.combinations(range(len(self.columns)), k)]
        sets = np.array(found, np.int64).reshape(len(found), k)
        if not found:
            return
        for piece in split(len(records), max(1, _MOST_COUNTS // len(sets))):
            some = records[piece]
            counts = self._counts[some][:, sets].prod(axis=2).T.ravel()
            ends = np.cumsum(counts)
            for part in split(int(ends[-1]), self._size):
                number = np.arange(part.start, part.stop)
                at = np.searchsorted(ends, number, side="right")
                left = number - (ends[at] - counts[at])
                subset, record = sets[at // len(some)], some[at % len(some)]
                chosen = np.full([len(number), len(self.columns)], -1)
                for c in np.unique(subset):
                    has = np.flatnonzero((subset == c).any(axis=1))
                    count = self._counts[record[has], c]
                    rank = left[has] % count
                    chosen[has, c] = self.columns[c].choice(record[has], rank)
                    left[has] //= count
                yield record, chosen

    def _keep_best(
        self, best: np.ndarray, records: np.ndarray, chosen: np.ndarray, single: bool
    ) -> None:
        value, fooled = self._evaluate(records, self._replaced(records, chosen))
        if single:
            self.alone[records[fooled], np.argmax(chosen[fooled], axis=1)] = True
        # The best candidate of each record in this batch; the first one if tied.
        order = np.lexsort((-value, ~fooled, records))
        records, first = np.unique(records[order], return_index=True)
        at = order[first]
        value, fooled = value[at], fooled[at]
        same = fooled == self.fallen[records]
        better = np.where(same, value > self._value[records], fooled)
        rows = records[better]
        best[rows] = chosen[at[better]]
        self._value[rows], self.fallen[rows] = value[better], fooled[better]

    def _evaluate(self, records: np.ndarray, x: Any) -> tuple[np.ndarray, np.ndarray]:
        """Returns the objective and the success, both of shape [candidates]."""
        labels, targets = tf.nest.map_structure(
            lambda leaf: None if leaf is None else leaf[records],
            (self._labels, self._targets),
        )
        outputs = self._outputs(x)
        if self._loss_fn is not None:
            values: Any = per_example(self._loss_fn(labels, outputs))
            fooled = np.zeros(len(records), bool)
            if self._criterion is not None:
                fooled = ~np.asarray(self._criterion(labels, outputs), bool)
        else:
            values = self._objective(tf.constant(outputs), labels, targets)
            # NaN scores are no decision.
            none, decision = np.isnan(outputs).any(axis=1), outputs.argmax(axis=1)
            fooled = (decision != labels) | none
            if targets is not None:
                fooled = (decision == targets) & ~none
        values = np.asarray(values, np.float64)
        return np.where(np.isnan(values), -np.inf, values), fooled

    def _outputs(self, x: Any) -> Any:
        return self._model.predict(x, self._size, as_logits=self._loss_fn is None)

    def _replaced(self, records: np.ndarray, chosen: np.ndarray) -> Any:
        """Returns the features of candidates."""
        leaves = [leaf[records] for leaf in self._examples.leaves]
        for c in np.flatnonzero((chosen >= 0).any(axis=0)):
            self.columns[c].replace(leaves, chosen[:, c])
        return tf.nest.pack_sequence_as(self._examples.x, leaves)


def _candidates(columns: list[Column], count: int, changes: int) -> np.ndarray:
    """Returns the number of candidates of each record, float64 of shape [records].

    With n_c replacements of column c, this is the sum of the elementary symmetric
    polynomials of n of degrees 1 to k.
    """
    sums = np.zeros([changes + 1, count])
    sums[0] = 1
    for column in columns:
        sums[1:] += sums[:-1] * column.counts
    return sums[1:].sum(axis=0)
