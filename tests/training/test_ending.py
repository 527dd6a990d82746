"""SIGTERM is noticed between steps, and while something takes long; elsewhere nothing is asked."""

import os
import signal
import threading
import time

import pytest

from seenn_jax.training.ending import Asked, AskedToEnd


def test_between_steps_and_meanwhile():
    before, begun, told = signal.getsignal(signal.SIGTERM), threading.Event(), threading.Event()

    def long():
        begun.set()
        told.wait(60)

    with AskedToEnd() as end:
        assert not end.now()
        assert signal.getsignal(signal.SIGTERM) == before  # there is nothing to be saved yet
        assert not end.now()
        assert end.meanwhile(lambda: 3) == 3
        with pytest.raises(ZeroDivisionError):
            end.meanwhile(lambda: 1 / 0)
        killer = threading.Thread(
            target=lambda: begun.wait(60) and os.kill(os.getpid(), signal.SIGTERM)
        )
        killer.start()
        started = time.monotonic()
        with pytest.raises(Asked):
            end.meanwhile(long)
        assert time.monotonic() - started < 30
        told.set()
        killer.join()
        assert end.now()
    assert signal.getsignal(signal.SIGTERM) == before


def test_in_another_thread_nothing_is_asked():
    found = []

    def call():
        with AskedToEnd() as end:
            found.extend([end.now(), end.now(), end.meanwhile(threading.get_ident)])

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert found == [False, False, thread.ident]
