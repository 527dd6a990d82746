"""How a program starts: help at once; Ctrl-C, while the rest is imported, and SIGTERM in one line.

Nothing slow is imported here, so that there is no time before that.
"""

import contextlib
import functools
import importlib
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def start(name: str) -> None:
    """Run a program of `PROGRAMS`."""
    then = ": the same command continues from what is saved" if name == "train" else ""
    with ended_by_sigterm(then):
        with ended_by_ctrl_c():
            from seenn_jax.cli import help

            topic = help.asked(sys.argv[1:])
            if topic is not None:
                say(help.of_config() if topic else help.of_program(name, command(name)))
                return
            module = importlib.import_module(f"seenn_jax.cli.{name}")
        module.main()


def exit_at_once(status: int) -> NoReturn:
    """End without what Python does at its end."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # nobody reads on
            stream.flush()
    os._exit(status)


def command(name: str) -> str:
    """How a program is called, by how this one was."""
    called = sys.argv[0]
    if called.startswith("seenn-jax "):
        return f"seenn-jax {name}"
    script = Path(called).parent / f"{name}.py"
    if called.startswith("seenn_jax ") or not script.is_file():
        return f"python -m seenn_jax {name}"
    return f"python {script}"


def say(text: str) -> None:
    """Print text; that nobody reads on is no mistake, and a full disk is one."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        silence(sys.stdout)
    except OSError as error:
        silence(sys.stdout)
        print(f"error: standard output takes no more ({error.strerror})", file=sys.stderr)
        sys.exit(2)


def printable(text: str) -> str:
    """Text without what moves the cursor, clears the screen or says other things to a terminal.

    Names of files and classes, and notes on data, are other people's. Lines and tabs stay.
    """
    return _CONTROLS.sub(lambda match: repr(match[0])[1:-1], text)


def silence(stream: Any) -> None:
    """Let what is written to a stream go nowhere, what Python still has for it too."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


@contextlib.contextmanager
def ended_by_ctrl_c() -> Any:
    """End at once when interrupted, while an exception could be taken for a failing import."""

    def end(*_):
        os.write(2, b"interrupted\n")
        os._exit(130)

    try:
        before = signal.signal(signal.SIGINT, end)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def ended_by_sigterm(then: str) -> Iterator[None]:
    """End at once after SIGTERM, with a sentence, whatever the program is at.

    Python calls a handler once it comes back from other code, such as the compiler's, which may
    take minutes. So a thread is told too. Training has a handler of its own while it has something
    to save.
    """
    said = threading.Lock()

    def end(*_: Any) -> None:
        if not said.acquire(blocking=False):
            return  # the other of the two, or a second signal
        os.write(2, f"ended by SIGTERM{then}\n".encode())
        os._exit(128 + signal.SIGTERM)

    def watch() -> None:
        while received := os.read(reading, 1):
            ours = signal.getsignal(signal.SIGTERM) is end
            if ours and received[0] == signal.SIGTERM:
                end()
        os.close(reading)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.signal(signal.SIGTERM, end)
    told = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    _forget_in_forks()
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(told)
        signal.signal(signal.SIGTERM, before)
        os.close(writing)


@functools.cache
def _forget_in_forks() -> None:
    """What a process that is forked off is sent is not this one's."""
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
