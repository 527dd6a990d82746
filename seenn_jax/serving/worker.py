"""The one thread that talks to the device: what comes goes up, what is answered comes down."""

import collections
import functools
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental.layout import Format, Layout

from seenn_jax import devices
from seenn_jax.errors import UserError
from seenn_jax.serving.answers import Answer, Counters, Stopped, TooLate
from seenn_jax.serving.core import (
    WORDS,
    Packed,
    Served,
    State,
    advance,
    arrivals_of,
    empty,
    packed,
)
from seenn_jax.serving.inbox import STOPPED, Inbox, Piece, Request

_log = logging.getLogger(__name__)
AHEAD = 2  # calls under way, at most
NEWS = 0.1  # weight of the latest call in what is known of the calls before
# Where fewer samples are under way, a call computes so many sixteenths of the slots: a tick of
# fewer is shorter. Each is a program of its own.
SIXTEENTHS = (1, 2, 4, 6, 8, 12, 16)


class Worker:
    """Calls of `core.advance`, one after the other, for what an inbox has.

    A call starts before the one before it has ended where something new waits, so that the device
    never waits for the host, and otherwise as soon as it has. Only then are answers given.

    Args:
      served: what is served.
      slots: S.
      ticks: of a call, at most.
      inbox: what is asked.
    """

    def __init__(self, served: Served, slots: int, ticks: int, inbox: Inbox, counters: Counters):
        self.served, self.inbox, self.counters = served, inbox, counters
        # Slots that a call computes; the inputs that go up with it are at most `ticks` times these.
        self.widths = sorted({max(1, slots * part // 16) for part in SIXTEENTHS})
        self.slots, self.ticks, self.room = slots, ticks, slots * ticks
        self.rows = rows = slots + AHEAD * self.room
        # Said, so that what a call returns is placed as it was.
        self._device = device = jax.local_devices()[0]
        self._state = self._empty()
        # As leaves: a call has no classes of parameters to look through.
        leaves, tree = jax.tree.flatten(served.params)

        def call(width, leaves, state, inputs, words):
            arrivals = arrivals_of(inputs, words)
            state, seen = advance(served, ticks, tree.unflatten(leaves), state, arrivals, width)
            return state, packed(seen)

        self._jit = functools.partial(
            devices.for_inference, call, static_argnums=0, donate_argnums=2
        )
        self._params = jax.device_put(leaves, device)
        self._programs: dict[int, jax.stages.Compiled] = {}  # by width; of `compile`
        self._calls = 0
        self._stay = 1.0  # share of samples that a call leaves under way, as of late
        self._flying: collections.deque[tuple[int, Packed]] = collections.deque()
        self._free = list(range(rows))
        # Of each row: its request; the call that brought it; whether it is under way; its inputs
        # that have gone up, T where all ticks see the same; its ticks, as of the last call read.
        self._owner: list[Request | None] = [None] * rows
        self._since = np.zeros(rows, np.int64)
        self._active = np.zeros(rows, bool)
        self._given = np.zeros(rows, np.int32)
        self._ticks = np.zeros(rows, np.int32)
        self._dropped = np.zeros(rows, np.int32)
        # Of the last call read; a row may have another sample by now.
        self._times: list[int] = []
        self._classes: list[int] = []
        self._confidence: list[float] = []
        self._seen: Packed | None = None
        self._traces: tuple[np.ndarray, np.ndarray] | None = None
        self._ending: list[Request] = []  # without more frames
        self._exited: list[tuple[Request, int, int]] = []  # and not answered yet; as `_read` says
        # Whether the last call had all samples, and moved none: what has a slot waits for a frame.
        self._whole = self._stuck = False

    def compile(self) -> None:
        """Compile, and run each program once with a sample: the first of a service would wait.

        The parameters lie as the widest reads them: else each call would transpose some.
        """
        where = jax.sharding.SingleDeviceSharding(self._device)
        formats = [Format(Layout.AUTO, where)] * len(self._params)
        shapes = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in self._params]
        for width in reversed(self.widths):
            inputs, words = self._nothing(width)
            words[0] = 0  # an input of zeros, in the first row
            jitted = self._jit(in_shardings=(formats, None, None, None))
            program = jitted.lower(width, shapes, self._state, inputs, words).compile()
            if not self._programs:
                formats = program.input_formats[0][0]
                self._params = jax.device_put(self._params, formats)
            self._programs[width] = program
            self._state, seen = program(self._params, self._state, inputs, words)
            jax.block_until_ready(seen.latest)
        del self._state
        self._state = self._empty()

    def _empty(self) -> State:
        return jax.device_put(empty(self.served, self.slots, self.rows), self._device)

    def _nothing(self, width: int) -> tuple[np.ndarray, np.ndarray]:
        """A call of nothing: its inputs, and what is said of them and of rows."""
        room = width * self.ticks
        words = np.zeros(len(WORDS) * room + self.rows, np.int32)
        words[:room] = self.rows
        return np.zeros((room, *self.served.shape), self.served.dtype), words

    def run(self) -> None:
        """Answer until the inbox is stopped and all that it took is answered."""
        self.inbox.thread = threading.get_ident()
        try:
            while not (self._turn() is False and self._at_end()):
                pass
        except BaseException as error:
            self.inbox.stop()
            self.fail_all(RuntimeError(f"the server has failed: {error!r}"))
            raise

    def _at_end(self) -> bool:
        inbox = self.inbox
        if inbox.stopped and inbox.empty and not self._active.any():
            return True
        if not (inbox.stopped and self._end_open_ones()):
            inbox.sleep()
        return False

    def _end_open_ones(self) -> bool:
        """After a stop no more frames come: whether there was a sample that waited for one."""
        found = [self._owner[row] for row in np.flatnonzero(self._active)]
        waiting = [x for x in found if x is not None and not x.ended]
        for request in waiting:
            request.ended = True
        self._ending += waiting
        return bool(waiting)

    def _turn(self) -> bool:
        """Start what can be started, and answer what has ended; False for nothing to do."""
        changed = self._clear()
        while len(self._flying) < AHEAD and self._dispatch():
            pass
        if not self._flying:
            return changed
        number, seen = self._flying.popleft()
        jax.block_until_ready(seen.latest)
        self._exited = self._read(number, seen)
        if not self._flying:
            self._dispatch()
        self._answer(self._exited)
        self._exited = []
        return True

    def _runnable(self) -> bool:
        stuck = self._stuck and not self._dropped.any()  # which would free a slot
        return not stuck and bool(np.any(self._active & (self._ticks < self._given)))

    def _dispatch(self) -> bool:
        """Start a call, if there is anything to do."""
        pieces = self.inbox.take(self.room, len(self._free))
        if pieces or (not self._flying and self._runnable()):
            inputs = sum(len(piece.inputs) for piece in pieces)
            fresh = sum(len(piece.inputs) for piece in pieces if not piece.frame)
            # Of those in a call that flies, so many stay as of late. Where it is more, some wait.
            active = int(self._active.sum())
            some = active * (self._stay if self._flying else 1)
            needed = max(fresh + some, -(-inputs // self.ticks))
            width = next((w for w in self.widths if w >= needed), self.widths[-1])
            self._whole = width >= min(fresh + active, self.slots)
            self._start(pieces, width)
            return True
        return False

    def _start(self, pieces: list[Piece], width: int) -> None:
        self._calls += 1
        inputs, words = self._nothing(width)
        words[-self.rows :] = self._dropped
        self._dropped[:] = 0
        if pieces:
            self._seat(pieces, inputs, words[: -self.rows].reshape(len(WORDS), -1))
        self._state, seen = self._programs[width](self._params, self._state, inputs, words)
        seen.latest.copy_to_host_async()
        self._flying.append((self._calls, seen))

    def _seat(self, pieces: list[Piece], inputs: np.ndarray, words: np.ndarray) -> None:
        """Give rows to fresh samples, and write what comes with the call."""
        rows: list[int] = []
        frames: list[int] = []
        values: list[float] = []
        fresh: list[int] = []
        for request, position, frame, some in pieces:
            count = len(some)
            if frame:
                mine = list(request.rows)
            else:
                mine = self._free[-count:]
                del self._free[-count:]
                fresh += mine
                for row in mine:
                    self._owner[row], request.rows[row] = request, position
                    position += 1
            rows += mine
            frames += [frame] * count
            values += [request.value] * count
        all_inputs = [piece.inputs for piece in pieces]
        np.concatenate(all_inputs, out=inputs[: len(rows)], casting="no")
        bits = np.asarray(values, np.float32).view(np.int32)
        words[:, : len(rows)] = rows, frames, bits
        self._since[fresh] = self._calls
        self._active[fresh], self._ticks[fresh] = True, 0
        # A sample's frames come in their order, and the latest of a call counts.
        self._given[rows] = np.add(frames, 1) if self.served.frames else self.served.timesteps

    def _read(self, number: int, seen: Packed) -> list[tuple[Request, int, int]]:
        """What a call has left: (request, position, row) of the samples that exited."""
        times, done, classes, bits = np.asarray(seen.latest)
        done, confidence = done.astype(bool), bits.view(np.float32)
        # Lists: an answer takes single items, which of arrays are slow.
        self._times, self._classes = times.tolist(), classes.tolist()
        self._confidence, self._seen, self._traces = confidence.tolist(), seen, None
        mine = self._active & (self._since <= number)
        self._stuck = self._whole and not np.any(self._ticks[mine] != times[mine])
        self._ticks[mine] = times[mine]
        if ran := np.count_nonzero(mine):
            left = 1 - np.count_nonzero(mine & done) / ran
            self._stay += NEWS * (left - self._stay)
        rows = np.flatnonzero(mine & done).tolist()
        ended: list = []
        for row in rows:
            request = self._owner[row]
            request.sure = self.served.frames
            ended.append((request, request.rows.pop(row), row))
        self._vacate(rows)
        return ended

    def _vacate(self, rows: list[int]) -> None:
        self._active[rows] = False
        for row in rows:
            self._owner[row] = None
        self._free += rows

    def _answer(self, ended: list[tuple[Request, int, int]]) -> None:
        now = time.perf_counter()
        for request, position, row in ended:
            if request.over:
                continue
            answer = self._answer_of(request, row, True, now)
            if answer.confidence != answer.confidence:
                self._fail(request, _not_finite())
                continue
            request.answers[position] = answer
            request.left -= 1
            if not request.left:
                self._finish(request)

    def _answer_of(self, request: Request, row: int, complete: bool, now: float) -> Answer:
        number, ticks = self._classes[row], self._times[row]
        return Answer(
            number,
            self.served.names[number],
            self._confidence[row],
            ticks,
            complete,
            now - request.began,
            self._all_ticks(row, ticks) if request.trace else (),
        )

    def _all_ticks(self, row: int, ticks: int) -> tuple[tuple[int, float], ...]:
        if self._traces is None:
            seen = self._seen
            self._traces = np.asarray(seen.all_classes), np.asarray(seen.all_confidence)
        classes, confidence = (x[row, :ticks].tolist() for x in self._traces)
        return tuple(zip(classes, confidence, strict=True))

    def _clear(self) -> bool:
        """Settle what is cancelled, too late or without more frames; False for nothing."""
        changed = False
        for request in self.inbox.leaving():
            if request.over:
                continue
            if request.future.cancelled():
                self._end(request)
                self._tell(request)
                changed = True
            else:
                request.ended = True
                self._ending.append(request)
        late = self.inbox.expired()
        ending = [request for request in self._ending if not request.over]
        done = [request for request in ending if self._has_run(request)]
        self._ending = [request for request in ending if request not in done]
        for request in (*late, *done):
            if not request.over:  # by a callback, or as it is both
                self._settle(request)
        outside = self.inbox.turned_away()
        for request in outside:
            self._fail(request, Stopped(STOPPED))
        return changed or bool(late or done or outside)

    def _has_run(self, request: Request) -> bool:
        """Whether all frames that have come have been run."""
        return all(self._ticks[row] == len(request.inputs) for row in request.rows) and bool(
            request.rows
        )

    def _settle(self, request: Request) -> None:
        """Answer with what there is so far."""
        now = time.perf_counter()
        for row, position in request.rows.items():
            if self._ticks[row]:
                request.answers[position] = self._answer_of(request, row, False, now)
        if None in request.answers:
            self._fail(request, TooLate("the deadline came before the first tick: allow more time"))
        elif any(answer.confidence != answer.confidence for answer in request.answers):
            self._fail(request, _not_finite())
        else:
            self._finish(request)

    def _finish(self, request: Request) -> None:
        self._end(request)
        if self._tell(request):
            self.counters.answered(request.answers)  # type: ignore[arg-type]
            answers = request.answers[0] if request.single else request.answers
            _set(request.future.set_result, answers)

    def _fail(self, request: Request, error: Exception) -> None:
        self._end(request)  # from then on a session can't send its first frame
        came = request.future.leave is not None  # not so of one that has sent nothing
        if self._tell(request):
            self.counters.failed += request.count * came
            _set(request.future.set_exception, error)

    def _tell(self, request: Request) -> bool:
        """Whether the future still waits for an answer; one that was cancelled is counted."""
        waits, came = request.future.set_running_or_notify_cancel(), request.future.leave
        request.future.leave = request.future.session = None  # or the two would hold each other
        if not waits and came:
            self.counters.cancelled += request.count
        return waits

    def _end(self, request: Request) -> None:
        """Free what a request takes."""
        request.over = True
        rows = list(request.rows)
        self._dropped[rows] = True
        self._vacate(rows)
        request.rows.clear()
        self.inbox.forget(request)

    def fail_all(self, error: Exception) -> None:
        """After a mistake of ours or of the device nobody is to wait for ever."""
        known = (*self._owner, *(request for request, *_ in self._exited))
        under_way = {id(x): x for x in known if x is not None}
        for request in (*under_way.values(), *self.inbox.drain(), *self.inbox.turned_away()):
            if not request.over:
                self._fail(request, error)


def _set(put: Callable[[Any], None], value: Any) -> None:
    """Give a future what it waits for; what its callbacks raise is theirs."""
    try:
        put(value)
    except BaseException:  # futures catch each Exception, and no CancelledError or SystemExit
        _log.exception("a callback of a future has raised what would have ended the server")


def _not_finite() -> UserError:
    return UserError(
        "a logit of this image is not finite: give finite pixels, or see whether the network has "
        "learnt"
    )
