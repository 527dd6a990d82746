"""SIGTERM, by which clusters and Colab end a program: training saves the step reached, and ends."""

import contextlib
import itertools
import signal
import threading
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils


@contextlib.contextmanager
def asked_to_end() -> Iterator[Callable[[], bool]]:
    """`() -> whether to end now`, to be called before each call of a step, in every process alike.

    Of several processes one may have the signal: JAX then finds the call at which all end. In a
    thread that is not the main one nothing is asked.
    """
    if jax.process_count() > 1:
        calls = itertools.count()
        yield lambda: multihost_utils.reached_preemption_sync_point(next(calls))
        return
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    signalled, called = threading.Event(), False
    before = signal.getsignal(signal.SIGTERM)

    def now() -> bool:
        nonlocal called
        if called:
            # Not before the first step, which is compiled for minutes, and nothing to be saved.
            signal.signal(signal.SIGTERM, lambda *_: signalled.set())
        called = True
        return signalled.is_set()

    try:
        yield now
    finally:
        # None: JAX's own, which is no function of Python's, and only notes the signal.
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
