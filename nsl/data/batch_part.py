"""The part of each global batch that one worker's input pipeline yields."""

from __future__ import annotations

import dataclasses
from typing import Any

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class BatchPart:
    """The replicas that an input pipeline feeds.

    Each global batch is split into one piece per replica, as evenly as possible. A
    pipeline yields the pieces of its replicas in turn; every pipeline yields the same
    number.

    Attributes:
      replicas: The number of replicas of all workers.
      first: The first replica that this pipeline feeds.
      local: The number of replicas that this pipeline feeds.
    """

    replicas: int = 1
    first: int = 0
    local: int = 1

    @classmethod
    def of(cls, context: tf.distribute.InputContext | None) -> BatchPart:
        """Returns the part of a pipeline.

        Args:
          context: The context that `tf.distribute` passes; None for a single pipeline,
            which yields whole batches.

        Returns:
          The part.

        Raises:
          TypeError: If `context` is neither None nor an input context.
          ValueError: If the pipelines feed different numbers of replicas.
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
                "All input pipelines must feed the same number of replicas, but "
                f"received pipeline {index} of {workers} for {replicas} replicas."
            )
        local = replicas // workers
        return cls(replicas, index * local, local)

    @property
    def is_whole(self) -> bool:
        """Whether this is the only pipeline."""
        return self.local == self.replicas

    def piece_size(self, batch_size: int) -> int | None:
        """Returns the size of each piece of a full batch, or None if sizes differ."""
        return None if batch_size % self.replicas else batch_size // self.replicas

    def pieces(
        self, indices: tf.Tensor, batch_size: int, samples: int
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns pieces that this pipeline yields in an epoch.

        Args:
          indices: The indices of the pieces in this pipeline, int64.
          batch_size: The number of samples in a full batch.
          samples: The number of samples in an epoch.

        Returns:
          The index of each piece among those of all pipelines, and the first sample of
          the epoch in it and the one after its last; int64 of the shape of `indices`.
        """
        batch = indices // self.local
        replica = self.first + tf.math.floormod(indices, self.local)
        start = batch * batch_size
        size: Any = tf.minimum(tf.constant(batch_size, tf.int64), samples - start)
        return (
            batch * self.replicas + replica,
            start + size * replica // self.replicas,
            start + size * (replica + 1) // self.replicas,
        )
