"""A `Server` over HTTP: images in, JSON out. Starlette does what is HTTP's."""

import asyncio
import functools
import io
import json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from seenn_jax.data.images import Corrupt, Record, decode
from seenn_jax.errors import UserError
from seenn_jax.serving.answers import Answer, Refused, Stopped, TooLate
from seenn_jax.serving.server import Server

MOST_PIXELS = 25_000_000  # of an image that is sent
DECODERS = 4  # images decoded at once: one of so many pixels takes up to 0.2 GB meanwhile
SECONDS = 30  # for a body to arrive
DRAINED = 16  # times the limit, that is read of a larger body
MOST_AXES = 8  # of an .npy
_NPY = b"\x93NUMPY"
# What the page may do: show itself, and ask this server.
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'"
)
# The status of an error; the first kind that fits.
STATUS: tuple[tuple[type[Exception], int], ...] = (
    (Refused, 429),
    (Stopped, 503),
    (UserError, 422),
    (TooLate, 504),
    (TimeoutError, 408),
    (Corrupt, 400),
    (ClientDisconnect, 499),  # which nobody sees
    (RuntimeError, 500),
)


class Limits(NamedTuple):
    """What a request may bring.

    Attributes:
      body: bytes.
      frame: brings an image of any size to the network's; None for a network that sees none.
      resize: whether it does, or other sizes are refused.
    """

    body: int
    frame: Callable[[Image.Image], np.ndarray] | None
    resize: bool = True


def application(server: Server, limits: Limits) -> Starlette:
    """POST /predict, GET /healthz, /metrics and the page at /."""
    decoders = ThreadPoolExecutor(DECODERS, "seenn_jax decoder")
    page = resources.files("seenn_jax.serving").joinpath("page.html").read_text()

    async def home(request: Request) -> Response:
        return HTMLResponse(page, headers={"Content-Security-Policy": _POLICY})

    async def health(request: Request) -> Response:
        running = server.running
        status = {"status": "ok" if running else "stopped"}
        return JSONResponse(status, 200 if running else 503)

    async def metrics(request: Request) -> Response:
        return PlainTextResponse(metrics_text(server.counters()))

    return Starlette(
        routes=[
            Route("/", home),
            Route("/healthz", health),
            Route("/metrics", metrics),
            Route(
                "/predict", functools.partial(_predict, server, limits, decoders), methods=["POST"]
            ),
        ],
        exception_handlers={
            HTTPException: _http_error,
            **{kind: functools.partial(_error, status) for kind, status in STATUS},
        },
    )


async def _predict(
    server: Server, limits: Limits, decoders: ThreadPoolExecutor, request: Request
) -> Response:
    options = _options(request)
    body = await _body(request, limits.body)
    threads = None if body.startswith(_NPY) else decoders  # an .npy has nothing to decode
    loop = asyncio.get_running_loop()
    images = await loop.run_in_executor(threads, _images, body, server, limits)
    if images.ndim == 1 + len(server.served.shape) + server.served.frames:
        asked = _several(server, images, options)
    else:
        asked = server.predict(images, **options)
    found = await _unless_gone(request, asked)
    names = server.served.names
    if isinstance(found, Answer):
        return JSONResponse(as_json(found, names))
    return JSONResponse([as_json(answer, names) for answer in found])


async def _several(server: Server, images: np.ndarray, options: dict) -> list[Answer]:
    if not server.served.frames:
        return await server.predict_all(images, **options)
    server.check_count(len(images))
    try:
        async with asyncio.TaskGroup() as group:  # where one fails the others are cancelled
            asked = [group.create_task(server.predict(image, **options)) for image in images]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in asked]


def as_json(answer: Answer, names: tuple[str, ...]) -> dict[str, Any]:
    """An answer for JSON."""
    found = {
        "class": answer.number,
        "name": answer.name,
        "confidence": round(answer.confidence, 6),
        "timesteps": answer.timesteps,
        "complete": answer.complete,
        "milliseconds": round(1e3 * answer.seconds, 3),
    }
    if answer.ticks:
        found["ticks"] = [
            {"class": number, "name": names[number], "confidence": round(confidence, 6)}
            for number, confidence in answer.ticks
        ]
    return found


def _options(request: Request) -> dict[str, Any]:
    """Arguments of `submit` in the query."""
    options: dict[str, Any] = {}
    for name, value in request.query_params.items():
        if name == "ticks" and value == "all":
            options["ticks"] = True
        elif name in ("deadline", "exit"):
            options[name] = _number(name, value)
        else:
            raise UserError(
                f"the query has {name}={value[:40]!r}: it may have `ticks`=all, `deadline` in "
                "seconds and `exit`, the value of the exit"
            )
    return options


def _number(name: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"`{name}` is {value[:40]!r}: give a number")
    return number


async def _body(request: Request, most: int) -> bytes:
    """The body, in time and of at most so many bytes."""
    parts, size = [], 0
    async with asyncio.timeout(SECONDS):
        async for part in request.stream():
            size += len(part)
            if size > DRAINED * most:
                break
            if size <= most:
                parts.append(part)
            else:  # read to its end, as a client that still writes would not see the answer
                parts.clear()
    if size > most:
        raise HTTPException(413, f"the body has more than {most:,} bytes: send less at a time")
    return b"".join(parts)


def _images(body: bytes, server: Server, limits: Limits) -> np.ndarray:
    """The image of a body, [H, W, C], or the batch of an .npy, [N, H, W, C].

    Raises:
      UserError: nothing, or what the network does not take.
      Corrupt: an image that can't be read.
    """
    if not body:
        raise UserError("the body is empty: send an image (PNG, JPEG, WebP, BMP) or an .npy")
    if body.startswith(_NPY):
        return _batch(body, np.dtype(server.served.dtype))
    if limits.frame is None:
        raise UserError(
            "this network takes recordings: send them as an .npy, "
            f"{np.dtype(server.served.dtype).name} [N, T, H, W, C]"
        )
    image = decode(Record(body, 0, "of the request"), most_pixels=MOST_PIXELS)
    height, width = server.served.shape[:2]
    if not limits.resize and image.size != (width, height):
        raise UserError(
            f"the image has {image.width} x {image.height} pixels, and this server takes {width} x "
            f"{height}: send that, or start the server with `resize`"
        )
    return limits.frame(image)


def _batch(body: bytes, wanted: np.dtype) -> np.ndarray:
    """The array of an .npy, of which nothing is believed before it is checked."""
    file = io.BytesIO(body)
    try:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = read(file)
        if len(shape) > MOST_AXES or not all(type(n) is int and 0 <= n <= len(body) for n in shape):
            raise ValueError("a size that can't be")
    except Exception as error:  # it is a Python literal, which anybody can have written
        raise UserError("the .npy has no header that can be read: write it by np.save") from error
    data = memoryview(body)[file.tell() :]
    size = math.prod(shape) * wanted.itemsize
    if dtype != wanted or fortran or size != len(data):
        raise UserError(
            f"the .npy is {dtype.name}{list(shape)}{' in Fortran order' * fortran}, of "
            f"{len(data):,} bytes: send {wanted.name} [N, H, W, C] (event data [N, T, H, W, C]) in "
            "C order"
        )
    return np.frombuffer(data, wanted).reshape(shape)


async def _unless_gone(request: Request, asked: Any) -> Any:
    """What is asked; it is cancelled where the client goes away."""
    answering, gone = asyncio.ensure_future(asked), asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({answering, gone}, return_when=asyncio.FIRST_COMPLETED)
        if answering.done():
            return answering.result()
        raise ClientDisconnect
    finally:
        answering.cancel()
        gone.cancel()


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _error(status: int, request: Request, error: Exception) -> Response:
    headers = {"Retry-After": "1"} if status == 429 else None
    sentence = str(error) or f"the body took more than {SECONDS} s"
    return JSONResponse({"error": sentence.replace("`", "")}, status, headers)


# Of `Server.counters`: name for Prometheus, what it is.
_COUNTERS = {
    "requests": "Images that were let in.",
    "answers": "Images that were answered.",
    "late": "Answers so far, at a deadline.",
    "refused": "Images that the full queue refused.",
    "cancelled": "Images whose client went away.",
    "failed": "Images without an answer.",
}


def metrics_text(counters: dict[str, Any]) -> str:
    """Counters in the text format of Prometheus."""
    lines = []

    def metric(name, kind, about, values):
        lines.extend([f"# HELP seenn_{name} {about}", f"# TYPE seenn_{name} {kind}"])
        lines.extend(f"seenn_{name}{label} {json.dumps(value)}" for label, value in values)

    for name, about in _COUNTERS.items():
        metric(f"{name}_total", "counter", about, [("", counters[name])])
    exits = [(f'{{timesteps="{t}"}}', count) for t, count in enumerate(counters["exits"], 1)]
    metric("exits_total", "counter", "Images by the timesteps that they took.", exits)
    metric("queue_length", "gauge", "Images that wait on the host.", [("", counters["waiting"])])
    latency = [
        (f'{{quantile="{quantile}"}}', seconds)
        for quantile, seconds in counters["latency"].items()
        if seconds is not None
    ]
    metric("latency_seconds", "summary", "From the request to its answer; the latest.", latency)
    lines.append(f"seenn_latency_seconds_sum {counters['seconds']!r}")
    lines.append(f"seenn_latency_seconds_count {counters['answers']}")
    return "\n".join(lines) + "\n"
