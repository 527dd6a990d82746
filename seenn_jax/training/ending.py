"""SIGTERM, by which clusters and Colab end a program: training saves the step reached, and ends."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax

AHEAD = 4  # calls of a step, more than one process may be ahead of another


@contextlib.contextmanager
def asked_to_end() -> Iterator[Callable[[], bool]]:
    """`() -> whether to end now`, to be called before each call of a step, in every process alike.

    Of several processes one may have the signal: it tells the others, through JAX's coordinator,
    at which of the calls all end. In a thread that is not the main one nothing is asked.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    signalled = threading.Event()
    before = signal.getsignal(signal.SIGTERM)
    end = signalled.is_set if jax.process_count() == 1 else _agreed(signalled)
    called = False

    def now() -> bool:
        nonlocal called
        if called:
            # Not before the first step, which is compiled for minutes, and nothing to be saved.
            signal.signal(signal.SIGTERM, lambda *_: signalled.set())
        called = True
        return end()

    try:
        yield now
    finally:
        # None: JAX's own, which is no function of Python's, and only notes the signal.
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def _agreed(signalled: threading.Event) -> Callable[[], bool]:
    from jax._src.distributed import global_state

    client: Any = global_state.client
    calls, ends = 0, None
    key = "seenn_jax/end"

    def now() -> bool:
        nonlocal calls, ends
        calls += 1
        if ends is None:
            if signalled.is_set():
                with contextlib.suppress(jax.errors.JaxRuntimeError):  # another was first
                    client.key_value_set(key, str(calls + AHEAD))
            with contextlib.suppress(jax.errors.JaxRuntimeError):  # nobody was signalled
                ends = int(client.key_value_try_get(key))
        return ends is not None and calls >= ends

    return now
