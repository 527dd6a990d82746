"""Answers for images as they come, from slots that are never empty while something waits."""

import asyncio
import gc
import math
import numbers
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
from jaxtyping import Shaped

from seenn_jax.engine.common import check_at_least_one
from seenn_jax.errors import UserError, check_choice
from seenn_jax.exits import Choice, check_kind
from seenn_jax.run.inference import Predictor
from seenn_jax.serving.answers import Answer, Counters, Stopped
from seenn_jax.serving.core import Served
from seenn_jax.serving.inbox import Inbox, Request
from seenn_jax.serving.runs import served as served_of
from seenn_jax.serving.worker import Worker

WHEN_FULL = ("refuse", "wait")
LARGEST = float(np.finfo(np.float32).max)  # value of an exit


class Server:
    """Answers images as they come; a context manager.

        with Server(seenn_jax.load("digits-resnet8"), slots=32) as server:
            server.submit(image).result()       # an Answer; a thread of its own runs the network

    Requests are let into slots in the order in which they came, and answered as they exit. Those of
    `submit_all` and `map` come back in their order. While it runs, Python's garbage collector
    leaves alone what was there before (`gc.freeze`): to look through it takes tenths of a second.

    Args:
      predictor: a loaded run, or a `Served` of a network of your own.
      slots: images under way at a time. A tick computes all of them or, where fewer are under way,
        a part, down to a sixteenth, so that an image alone does not wait for empty slots.
      ticks_per_call: that the device runs before the host looks again. What exits earlier makes
        room at once.
      queue: images that may wait on the host.
      when_full: "refuse" what is too much with `Refused`, or "wait" for room.
      exit, choice: as for `Predictor.predict`.

    Raises:
      UserError: no network; no whole number of slots, ticks or places in the queue, or fewer than
        one; what `Predictor.predict` says of `exit` and `choice`.
    """

    def __init__(
        self,
        predictor: Predictor | Served,
        *,
        slots: int = 64,
        ticks_per_call: int = 1,
        queue: int = 1024,
        when_full: str = "refuse",
        exit: str | None = None,
        choice: Choice | None = None,
    ):
        counts = {"slots": slots, "ticks_per_call": ticks_per_call, "queue": queue}
        for what, value in counts.items():
            check_at_least_one(what, value)
        check_choice("when_full", when_full, WHEN_FULL)
        check_kind(choice)
        if isinstance(predictor, Predictor):
            predictor = served_of(predictor, exit, choice)
        elif not isinstance(predictor, Served):
            raise UserError(
                f"the network is {predictor!r:.40}: give what seenn_jax.load returns, or a Served"
            )
        self.served = predictor
        self._counters = Counters(predictor.timesteps)
        self._inbox = Inbox(queue, when_full == "wait", predictor.frames, self._counters)
        self._worker = Worker(predictor, slots, ticks_per_call, self._inbox, self._counters)
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Server":
        if self._thread is not None or self._inbox.stopped:
            raise UserError("the server has been begun before: make another one")
        self._worker.compile()
        self._thread = threading.Thread(target=self._run, name="seenn_jax server")
        _UNDISTURBED.begin()
        try:
            self._thread.start()
        except BaseException:
            self._thread = None
            _UNDISTURBED.end()
            raise
        return self

    def _run(self) -> None:
        try:
            self._worker.run()
        finally:
            _UNDISTURBED.end()

    def __exit__(self, *_: Any) -> None:
        self.stop()

    def stop(self) -> None:
        """Take no more, answer what was taken, and end."""
        self._inbox.stop()
        if self._thread is None:
            self._worker.fail_all(Stopped("the server was stopped before it began: begin another"))
        elif self._thread is not threading.current_thread():  # as in a callback of a future
            self._thread.join()

    @property
    def running(self) -> bool:
        """Whether it answers."""
        return self._thread is not None and self._thread.is_alive() and not self._inbox.stopped

    def submit(
        self,
        image: Shaped[Any, "..."],
        *,
        deadline: float | int | None = None,
        exit: float | int | None = None,
        ticks: bool = False,
    ) -> "Future[Answer]":
        """Ask for one image; the future can be cancelled until it has its answer.

        Args:
          image: [H, W, C] (event data [T, H, W, C]), of the shape and dtype that the network takes.
          deadline: in seconds from now. An image that is under way then gets the answer so far,
            which is not `complete`; one without a tick so far fails with `TooLate`. It is looked
            at between calls.
          exit: value of the exit for this image: a threshold, a patience, a price.
          ticks: whether the answer has what was said at each tick.

        Raises:
          UserError: an image of another shape or dtype, a value that the exit can't have, a
            deadline that is not above 0. Of its kind are `Refused`, of a full queue, and `Stopped`.
        """
        return self._put(self._request(image, False, deadline, exit, ticks))

    def submit_all(
        self,
        images: Shaped[Any, "N ..."],
        *,
        deadline: float | int | None = None,
        exit: float | int | None = None,
        ticks: bool = False,
    ) -> "Future[list[Answer]]":
        """Ask for several images, which are answered together, in their order; see `submit`.

        It is cheaper than a future for each. At the deadline those that have not exited have the
        answer so far; where one has none, the request is `TooLate`. Not for event data.
        """
        return self._put(self._request(images, True, deadline, exit, ticks))

    def map(self, images: Iterable[Any], **options: Any) -> Iterator[Answer]:
        """Answers in the order of the images, each of which is submitted as `submit` does.

        All are submitted before it returns.
        """
        futures = [self.submit(image, **options) for image in images]
        return (future.result() for future in futures)

    async def predict(self, image: Shaped[Any, "..."], **options: Any) -> Answer:
        """`submit`, awaited. Who is cancelled while waiting frees the slot."""
        request = self._request(image, False, **options)
        return await self._awaited(request)

    async def predict_all(self, images: Shaped[Any, "N ..."], **options: Any) -> list[Answer]:
        """`submit_all`, awaited."""
        return await self._awaited(self._request(images, True, **options))

    async def _awaited(self, request: Request) -> Any:
        return await asyncio.wrap_future(self._put(request, block=False))

    def session(
        self, *, deadline: float | int | None = None, exit: float | int | None = None
    ) -> "Session":
        """A recording whose frames come one by one; see `submit` for the arguments.

        Raises:
          UserError: a network for still images. Of its kind is `Stopped`.
        """
        if not self.served.frames:
            raise UserError(
                "a session is for event data, and this network takes still images: use `submit`"
            )
        return Session(self, deadline, self._value(exit))

    def counters(self) -> dict[str, Any]:
        """What has happened to images so far.

        `requests`, `answers` (of which `late` are not complete), `refused`, `cancelled`, `failed`,
        `exits` by t, `waiting`, `seconds` of all answers, and `latency`: {quantile: seconds} of the
        latest.
        """
        return {**self._counters.as_dict(), "waiting": self._inbox.queued}

    def check_count(self, count: int) -> None:
        """Raise a UserError for more images than may wait at all, or none."""
        self._inbox.check_count(count)

    def _request(
        self,
        images: Any,
        several: bool,
        deadline: float | int | None = None,
        exit: float | int | None = None,
        ticks: bool = False,
    ) -> Request:
        served = self.served
        if several and served.frames:
            raise UserError("recordings are answered one by one: use `submit` for each")
        shape = (*(served.timesteps,) * served.frames, *served.shape)
        images = _array("images are", images, shape, served.dtype, several)
        count = len(images) if several else 1
        self.check_count(count)
        deadline = _seconds(deadline)
        inputs = images if several else images[None]
        if served.frames:
            inputs = list(images)
        request = Request(
            inputs, self._value(exit), deadline, count=count, single=not several, trace=ticks
        )
        request.ended = True  # no frame comes later
        return request

    def _value(self, exit: float | int | None) -> float | int:
        if exit is None:
            return self.served.value
        if not abs(_number(exit)) <= LARGEST:
            raise UserError(f"`exit` is {exit!r:.40}: give a number, the value of the exit")
        self.served.check(exit)
        return exit

    def _put(self, request: Request, block: bool = True) -> Future:
        self._inbox.put(request, block)
        return request.future


class Session:
    """A recording whose frames come one by one; see `Server.session`.

    Its membranes wait for the next frame in a slot of their own, from the first frame on: as many
    sessions as there are slots are under way, others wait.

    Attributes:
      answer: future of the Answer: set when the network is sure, after T frames, at the deadline,
        or by `end`.
    """

    def __init__(self, server: Server, deadline: float | int | None, value: float | int):
        self._server, self._ended = server, False
        self._request = Request([], value, _seconds(deadline))
        server._inbox.begin(self._request)
        self.answer: Future[Answer] = self._request.future

    def send(self, frame: Shaped[Any, "..."]) -> bool:
        """Show the next frame, [H, W, C]; False where no more is needed.

        Raises:
          UserError: a frame of another shape or dtype; `Refused` or `Stopped` of the first.
        """
        served, request = self._server.served, self._request
        frame = _array("frame is", frame, served.shape, served.dtype)
        if self.answer.done() or self._ended or len(request.inputs) == served.timesteps:
            return False
        if request.inputs:
            self._server._inbox.grow(request, frame)
            return True
        request.inputs = [frame]
        try:
            self._server._put(request)
        except UserError:
            request.inputs = []  # the next frame is the first
            raise
        return not request.over

    def end(self) -> "Future[Answer]":
        """No more frames come: the answer is the one after those that have come."""
        self._ended = True
        if not self._request.inputs:
            self.answer.cancel()
        elif not self.answer.done():
            self._server._inbox.leave(self._request)
        return self.answer


def _array(
    what: str, given: Any, shape: tuple[int, ...], dtype: Any, several: bool = False
) -> np.ndarray:
    """What is given, as the network takes it; a copy, as the caller may fill it anew."""
    try:
        array = np.array(given)
    except (TypeError, ValueError):  # as of rows of several lengths
        found = f"{given!r:.40}, of which NumPy makes no array"
    else:
        if array.shape[several:] == shape and array.dtype == dtype:
            return array
        found = f"{array.dtype.name}{list(array.shape)}"
    wanted = ["N", *shape] if several else [*shape]
    raise UserError(
        f"the {what} {found}, and this network takes {np.dtype(dtype).name}{wanted}: give that "
        "shape and dtype"
    )


def _number(value: Any) -> float:
    """A number as Python's, whose comparisons do not overflow; NaN for what is none."""
    try:
        return float(value) if isinstance(value, numbers.Real) else math.nan
    except OverflowError:
        return math.inf


def _seconds(deadline: float | int | None) -> float | None:
    """A deadline that can be waited for."""
    if deadline is None:
        return None
    seconds = _number(deadline)
    if not 0 < seconds < math.inf:
        raise UserError(f"`deadline` is {deadline!r:.40}: give seconds from now, above 0")
    return seconds


class _Undisturbed:
    """Python's garbage collector while any server runs; see `Server`."""

    def __init__(self) -> None:
        self._lock, self._servers = threading.Lock(), 0

    def begin(self) -> None:
        """Of a server."""
        gc.collect()  # which may end another server, and so not while the lock is held
        with self._lock:
            self._servers += 1
            if self._servers == 1:
                # More than is not: Python 3.12 counts what is immortal, which is little.
                self._frozen = gc.get_freeze_count() > len(gc.get_objects())
            gc.freeze()  # a search for garbage in all that is there would hold every answer up

    def end(self) -> None:
        """Of one."""
        with self._lock:
            self._servers -= 1
            if not (self._servers or self._frozen):  # what the program has frozen stays so
                gc.unfreeze()


_UNDISTURBED = _Undisturbed()
