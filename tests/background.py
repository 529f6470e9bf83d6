"""Run work in a thread during a block."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event


@contextmanager
def in_background(work: Callable[[Event], None]) -> Iterator[None]:
    """
    Run *work* in a thread; its event is set when the block ends.

    Raises:
        Exception: What *work* raised, at the end of the block.
    """
    done = Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(work, done)
        try:
            yield
        finally:
            done.set()
        running.result()
