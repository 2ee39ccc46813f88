"""Parallel work in threads, each of which uses single-threaded BLAS."""

import collections
import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@contextlib.contextmanager
def one_per_core() -> Iterator[int]:
    """Limits BLAS to one thread, and returns the number of cores for own threads.

    BLAS threads busy-wait between and within products. Next to other programs, that
    took four times the CPU time.
    """
    with threadpool_limits(1, "blas"):
        yield (
            len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else (os.cpu_count() or 1)
        )


def in_order(
    function: Callable[[_Item], _Result], items: Iterable[_Item], workers: int
) -> Iterator[_Result]:
    """Maps a function over items in threads, a few items ahead of the consumer.

    Args:
      function: The function, mostly NumPy calls, which release the GIL.
      items: The items.
      workers: The number of threads. With 1, the caller's thread does the work.

    Yields:
      The results, in the order of the items.
    """
    if workers == 1:
        yield from map(function, items)
        return
    waiting: collections.deque[Future[_Result]] = collections.deque()
    with ThreadPoolExecutor(workers) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
