"""`python -m seenn_jax serve`: its mistakes, and what it starts."""

import asyncio
import functools
import os
import signal
import socket
import sys
import threading
import types

import pytest

from seenn_jax.cli import serve
from seenn_jax.errors import UserError
from tests.cli.conftest import check_refused

MODULE = "seenn_jax/__main__.py"
DIGITS = "--weights=digits-resnet8"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--slots=0"], ["--slots is 0", "at least 1"]),
        (["--ticks_per_call=0"], ["--ticks_per_call is 0"]),
        (["--queue=0"], ["--queue is 0"]),
        (["--body=0"], ["--body is 0"]),
        (["--port=70000"], ["--port=70000", "choose another port"]),
        (["--host=203.0.113.1", "--port=0"], ["--host=203.0.113.1", "an address of this machine"]),
        (["--workdir=runs/none"], ["--workdir=runs/none name two networks"]),
        (["image.png"], ["unexpected argument 'image.png'"]),
        (["--split=test"], ["unknown flag 'split'"]),
    ],
    ids=lambda value: value[0] if value[0].startswith("-") else "",
)
def test_a_mistake_is_one_sentence(program, arguments, named):
    check_refused(*program(MODULE, "serve", DIGITS, *arguments), *named)


def test_a_port_that_is_taken(program):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = program(MODULE, "serve", DIGITS, f"--port={port}")
    check_refused(*refused, f"--port={port}", "in use", "choose another port")


def test_an_empty_host_is_not_every_address():
    with pytest.raises(UserError, match="`host` is '': give an address of this machine"):
        serve._listening("", 0).close()


def test_without_the_extra(program, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    refused = program(MODULE, "serve", DIGITS)
    check_refused(*refused, 'pip install "seenn_jax[serve]"', "uvicorn is not installed")


def test_what_it_starts(program, monkeypatch, trained):
    found = {}

    class Idle(serve.Server):
        def __init__(self, run, **options):
            found.update(options, run=run)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def counters(self):
            return {"answers": 1234}

    monkeypatch.setattr(serve, "Server", Idle)
    monkeypatch.setattr(serve, "_listen", lambda uvicorn, app, listening: found.update(app=app))
    flags = ("--port=0", "--slots=8", "--queue=5", "--exit=patience", "--threshold=2")
    status, out, err = program(MODULE, "serve", f"--workdir={trained}", *flags)
    assert (status, err) == (0, "")
    assert (found["slots"], found["ticks_per_call"], found["queue"]) == (8, 1, 5)
    assert (found["exit"], found["choice"].value) == ("patience", 2)
    assert found["run"].workdir == trained
    assert "patience exit, patience 2 (T = 3), as given\nListening on http://127.0.0.1:" in out
    assert "Stopped; 1,234 images were answered." in out


@pytest.fixture(params=["asyncio", "uvloop"])
def stuck(request):
    """`(*signals)`: serve one request that never ends, and send the signals once it has come."""
    uvicorn = pytest.importorskip("uvicorn")
    pytest.importorskip(request.param)
    config = functools.partial(uvicorn.Config, loop=request.param, log_config=None)
    library = types.SimpleNamespace(Config=config, Server=uvicorn.Server)
    listening, entered = socket.create_server(("127.0.0.1", 0)), threading.Event()

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        entered.set()
        await asyncio.Event().wait()

    def interrupt(signals):
        entered.wait()
        for number in signals:
            os.kill(os.getpid(), number)

    def listen(*signals):
        thread = threading.Thread(target=interrupt, args=(signals,))
        with socket.create_connection(listening.getsockname()) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
            thread.start()
            serve._listen(library, app, listening)
            thread.join()

    with listening:
        yield listen


def test_a_stop_waits_for_so_long_at_most(stuck, monkeypatch, caplog):
    monkeypatch.setattr(serve, "GRACE", 0.1)
    stuck(signal.SIGTERM)
    assert "timeout graceful shutdown exceeded" in caplog.text
    assert "Traceback" not in caplog.text


def test_a_second_signal_waits_for_nobody(stuck, monkeypatch, caplog):
    monkeypatch.setattr(serve, "GRACE", None)
    stuck(signal.SIGTERM, signal.SIGINT)
    assert "Traceback" not in caplog.text
