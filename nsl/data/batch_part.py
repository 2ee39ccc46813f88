"""Which samples of each batch one worker's input pipeline makes."""

from __future__ import annotations

import dataclasses
from typing import Any

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class BatchPart:
    """The replicas that an input pipeline feeds.

    Each batch is cut into one piece for each replica, as evenly as it can be. A
    pipeline yields the pieces of its replicas in turn, all pipelines equally many.

    Attributes:
      replicas: How many replicas there are over all workers.
      first: The first replica of this pipeline.
      local: How many replicas this pipeline feeds.
    """

    replicas: int = 1
    first: int = 0
    local: int = 1

    @classmethod
    def of(cls, context: tf.distribute.InputContext | None) -> BatchPart:
        """Finds the part of a pipeline.

        Args:
          context: What `tf.distribute` says of the pipeline; None for the only one,
            which makes whole batches.

        Returns:
          Its part.

        Raises:
          TypeError: If `context` is something else.
          ValueError: If the pipelines do not feed equally many replicas.
        """
        if context is None:
            return cls()
        if not isinstance(context, tf.distribute.InputContext):
            raise TypeError(
                "input_context must be a tf.distribute.InputContext, as "
                "strategy.distribute_datasets_from_function passes it, but received "
                f"{type(context).__name__}."
            )
        replicas, workers = context.num_replicas_in_sync, context.num_input_pipelines
        index = context.input_pipeline_id
        if replicas % workers or not 0 <= index < workers:
            raise ValueError(
                "Each input pipeline must feed equally many replicas, but received "
                f"pipeline {index} of {workers} for {replicas} replicas."
            )
        local = replicas // workers
        return cls(replicas, index * local, local)

    @property
    def is_whole(self) -> bool:
        """Whether this pipeline is the only one."""
        return self.local == self.replicas

    def piece_size(self, batch_size: int) -> int | None:
        """Returns the size of the pieces of a full batch, None if they differ."""
        return None if batch_size % self.replicas else batch_size // self.replicas

    def piece(
        self, index: tf.Tensor, batch_size: int, samples: int
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Finds one of the pieces that this pipeline yields in an epoch.

        Args:
          index: Which of them, from 0 on; int64.
          batch_size: How many samples a full batch has.
          samples: How many samples an epoch has.

        Returns:
          The number of the piece among those of all pipelines, and at which sample of
          the epoch it begins and ends.
        """
        batch, replica = index // self.local, self.first + index % self.local
        start = batch * batch_size
        size: Any = tf.minimum(tf.constant(batch_size, tf.int64), samples - start)
        return (
            batch * self.replicas + replica,
            start + size * replica // self.replicas,
            start + size * (replica + 1) // self.replicas,
        )
