"""SIGTERM, by which clusters and Colab end a program: training saves the step reached, and ends."""

import itertools
import signal
import threading
from collections.abc import Callable
from typing import Any

import jax
from jax.experimental import multihost_utils

EVERY = 0.1  # seconds between two looks at whether to end


class Asked(Exception):
    """Training is asked to end while something is computed that it need not wait for."""


class AskedToEnd:
    """Whether to end now, to be asked before each call of a step, in every process alike.

    Of several processes one may have the signal: JAX then finds the call at which all end. In a
    thread that is not the main one nothing is asked. It is a context.
    """

    def __init__(self) -> None:
        self.calls = itertools.count()
        self.signalled = threading.Event()
        self.several = jax.process_count() > 1
        main = threading.current_thread() is threading.main_thread()
        self.alone = main and not self.several

    def __enter__(self) -> "AskedToEnd":
        self.before = signal.getsignal(signal.SIGTERM) if self.alone else None
        return self

    def __exit__(self, *_: Any) -> None:
        if self.alone:
            # None: JAX's own, which is no function of Python's, and only notes the signal.
            signal.signal(signal.SIGTERM, signal.SIG_DFL if self.before is None else self.before)

    def now(self) -> bool:
        """Whether to end before the next step."""
        call = next(self.calls)
        if self.several:
            return multihost_utils.reached_preemption_sync_point(call)
        if self.alone and call == 1:
            # Not before the first step, which is compiled for minutes, and nothing to be saved.
            signal.signal(signal.SIGTERM, lambda *_: self.signalled.set())
        return self.signalled.is_set()

    def meanwhile(self, work: Callable[[], Any]) -> Any:
        """What `work` gives, which may take minutes and changes nothing that is saved.

        Of one process it is computed in a thread, which is left to itself after the signal.

        Raises:
          Asked: at once, after the signal.
        """
        if not self.alone:
            return work()
        found, error = [], []

        def call() -> None:
            try:
                found.append(work())
            except BaseException as raised:
                error.append(raised)

        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(EVERY)
            if self.signalled.is_set():
                raise Asked
        if error:
            raise error[0]
        return found[0]
