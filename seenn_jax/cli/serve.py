"""Answer images over HTTP: python -m seenn_jax serve."""

import asyncio
import contextlib
import functools
import logging
import signal
import socket
from collections.abc import Iterator
from types import FrameType
from typing import Any

import jax
import numpy as np
from absl import flags

from seenn_jax.cli.console import patient_console
from seenn_jax.cli.flags import SERVE, choice_of
from seenn_jax.cli.main import main as run_program
from seenn_jax.cli.named import check_data_used, check_named, exit_words, loaded
from seenn_jax.engine.common import check_at_least_one
from seenn_jax.errors import UserError
from seenn_jax.run.inference import Predictor
from seenn_jax.run.prediction import frame_of
from seenn_jax.serving.server import Server

MIB = 2**20
GRACE = 30  # seconds after a signal, for answers that are still on their way


def main() -> None:
    """The program."""
    run_program(_serve, SERVE)


def _serve() -> None:
    """Load, listen, and answer until a signal comes."""
    values: dict[str, Any] = {name: flags.FLAGS[name].value for name in SERVE}
    choice = choice_of(flags.FLAGS)
    web, uvicorn = _web()
    check_named(values)
    for name in ("slots", "ticks_per_call", "queue", "body"):
        check_at_least_one(name, values[name])
    with contextlib.closing(_listening(values["host"], values["port"])) as listening:
        run = loaded(values)
        exit, chosen, _ = run.exit_of(values["exit"], choice)
        check_data_used(run, values)
        server = Server(
            run,
            slots=values["slots"],
            ticks_per_call=values["ticks_per_call"],
            queue=values["queue"],
            exit=values["exit"],
            choice=choice,
        )
        limits = web.Limits(values["body"] * MIB, _frame(run), values["resize"])
        console = patient_console(highlight=False)
        with server:
            host, port = listening.getsockname()[:2]
            console.print(exit_words(exit, chosen, run.timesteps), soft_wrap=True)
            console.print(f"Listening on http://{host}:{port}; Ctrl-C stops it.", soft_wrap=True)
            _listen(uvicorn, web.application(server, limits), listening)
        counts = server.counters()
        console.print(f"Stopped; {counts['answers']:,} images were answered.")


def _web() -> tuple[Any, Any]:
    try:
        import uvicorn

        from seenn_jax.serving import web
    except ImportError as error:
        raise UserError(
            f"serve needs the extra `serve` ({error.name} is not installed): "
            'pip install "seenn_jax[serve]"'
        ) from error
    return web, uvicorn


def _listening(host: str, port: int) -> socket.socket:
    if not host:  # of which Python would take every address
        raise UserError(
            "`host` is '': give an address of this machine, such as 127.0.0.1, or 0.0.0.0 for all"
        )
    try:
        if not 0 <= port <= 65535:  # of which Python leaves a socket open
            raise OSError("there is no such port")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UserError(
            f"nothing can listen on `host`={host}, `port`={port} ({error}): choose another port "
            "from 0 (any that is free) to 65535, or an address of this machine"
        ) from error


def _frame(run: Predictor) -> Any:
    """How an image is brought to the network's size; None where it takes recordings."""
    try:
        frame = frame_of(run.config, run.facts)
    except UserError:
        return None
    if run.encoding is None:
        return frame
    frames = jax.jit(lambda image: run.encoding.frames(image[None], run.timesteps)[0])
    return lambda image: np.asarray(frames(frame(image)), np.uint8)


def _listen(uvicorn: Any, app: Any, listening: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM, after which what was asked is answered."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=GRACE,
    )
    logging.getLogger("uvicorn.error").addFilter(_is_no_end)
    http = uvicorn.Server(config)
    # Its own would raise the signal once more afterwards, before the rest is answered.
    http.capture_signals = functools.partial(_signals, http)
    http.run(sockets=[listening])


@contextlib.contextmanager
def _signals(http: Any) -> Iterator[None]:
    """The first signal ends uvicorn's server, and at the second one it waits for nobody."""
    loop = asyncio.get_running_loop()

    def hang_up() -> None:
        http.force_exit = True
        for connection in list(http.server_state.connections):  # which Python 3.12 waits for
            connection.transport.abort()

    def stop(number: int, frame: FrameType | None) -> None:
        if http.should_exit:
            loop.call_soon_threadsafe(hang_up)
        http.should_exit = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_no_end(record: logging.LogRecord) -> bool:
    """Leave out the traceback of each request that a stop does not wait for."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))
