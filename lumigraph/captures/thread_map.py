"""Ordered parallel map with bounded memory. Decoders and OpenCV release the interpreter lock."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def thread_count() -> int:
    """Number of cores this process may use, at most 8: beyond that, memory bandwidth is the limit."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, 8)


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int | None = None
) -> Generator[Result, None, None]:
    """Yield function(item) in the order of the items, computed by `workers` threads (default: thread_count()).

    Work runs at most 2 x workers items ahead of the consumer. Closing the iterator cancels pending calls and waits for
    the running ones.
    """
    workers = thread_count() if workers is None else workers
    futures: deque[Future[Result]] = deque()
    source = iter(items)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="capture")
    try:
        futures.extend(pool.submit(function, item) for item in islice(source, 2 * workers))
        while futures:
            yield futures.popleft().result()
            futures.extend(pool.submit(function, item) for item in islice(source, 1))
    finally:
        pool.shutdown(cancel_futures=True)
