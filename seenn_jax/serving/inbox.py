"""What waits on the host: requests in the order in which they came, frames, deadlines."""

import collections
import functools
import heapq
import itertools
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np

from seenn_jax.errors import UserError
from seenn_jax.serving.answers import Answer, Counters, Refused, Stopped

SPARE = 64  # of what is over, kept in a queue at least until it is cleared away
STOPPED = "the server has been stopped: start another one"
LONGEST = 3600.0  # seconds of one sleep; a condition refuses to wait for very many


class Asked(Future):
    """A future that says when it is cancelled: a callback for each that isn't would cost more."""

    leave: Callable[[], None] | None = None
    session: "Request | None" = None  # whose answer it is, for who holds nothing else of it

    def cancel(self) -> bool:
        """As of every future."""
        cancelled, leave = super().cancel(), self.leave  # which another thread may take away
        if cancelled and leave is not None:
            leave()
        return cancelled


class Request:
    """Images that are answered together: one, several, or the frames of one.

    Attributes:
      future: pending until the answer is set, so that it can be cancelled until then.
      inputs: [n, ...]; of a sample with frames the list of those that have come.
      count: n.
      given: how many of the inputs are on the device, or were.
      rows: there, with the position of each.
      answers: so far, of each position.
      over: answered, cancelled, failed or too late.
      ended: no more frames come.
      sure: it has exited, and no more frames are needed.
      outside: it has no place in the queue yet.
      timed: its deadline is looked at.
    """

    __slots__ = (
        *("answers", "began", "count", "deadline", "ended", "future", "given", "inputs", "left"),
        *("outside", "over", "rows", "single", "sure", "timed", "trace", "value", "__weakref__"),
    )

    def __init__(
        self,
        inputs: Any,
        value: float | int,
        seconds: float | int | None = None,
        *,
        count: int = 1,
        single: bool = True,
        trace: bool = False,
    ):
        self.future = Asked()
        self.inputs, self.value, self.count, self.single = inputs, value, count, single
        self.began = time.perf_counter()
        self.deadline = None if seconds is None else self.began + seconds
        self.trace, self.given, self.left = trace, 0, count
        self.rows: dict[int, int] = {}
        self.answers: list[Answer | None] = [None] * count
        self.over = self.ended = self.sure = self.timed = False
        self.outside = True


class Piece(NamedTuple):
    """Inputs of a request that go to the device together."""

    request: Request
    position: int  # of the first
    frame: int
    inputs: np.ndarray  # [m, ...]


class Inbox:
    """A bounded queue between those who ask and the one thread that answers.

    Args:
      most: images that may wait.
      wait: whether requests wait outside for room where there is none.
      frames: whether a request is a sample whose frames come one by one.
    """

    def __init__(self, most: int, wait: bool, frames: bool, counters: Counters):
        self.most, self.wait, self.frames, self.counters = most, wait, frames, counters
        lock = threading.RLock()
        self.changed, self._room = threading.Condition(lock), threading.Condition(lock)
        self.queued = 0  # images that wait for a row
        self.thread: int | None = None  # that makes room, and so can't wait for it
        self.stopped = False
        self._waiting: collections.deque[Request] = collections.deque()
        self._outside: collections.deque[Request] = collections.deque()
        self._growing: collections.deque[Request] = collections.deque()  # with a row and new frames
        # Sessions, which are to be told of a stop before they have sent anything, too.
        self._sessions: weakref.WeakSet[Request] = weakref.WeakSet()
        self._deadlines: list[tuple[float, int, Request]] = []
        self._leaving: list[Request] = []  # cancelled, or without more frames
        self._over = self._gone = 0  # of those that wait, and of those outside
        self._timed = 0  # requests with a deadline that are not over
        self._news = self._sleeps = False  # since `sleep`
        self._number = itertools.count()

    def check_count(self, count: int) -> None:
        """Raise a UserError for more images than may wait at all, or none."""
        if not count:
            raise UserError("there are no images: give at least one")
        if count > self.most:
            raise UserError(
                f"the request has {count} images, and the server lets {self.most} wait "
                "(`queue`): send fewer at a time, or raise `queue`"
            )

    def put(self, request: Request, block: bool = True) -> None:
        """Let a request of a count that can be in, in the order in which they come.

        Args:
          block: return when it is in. Otherwise its future alone tells of a stop before that.

        Raises:
          Refused: there is no room, and requests do not wait for it.
          Stopped: the server takes no more.
        """
        with self.changed:
            if self.stopped:
                raise Stopped(STOPPED)
            if request.over:  # a session whose deadline came as it sent its first frame
                return
            if not (self._outside or self.queued + request.count > self.most):
                self._let_in(request)
            elif not self.wait or (block and self.thread == threading.get_ident()):
                self.counters.refused += request.count
                raise Refused(
                    f"{self.queued} images wait already, and the server lets {self.most} wait "
                    f"(`queue`): ask again later with {request.count}, or raise `queue`"
                )
            else:
                self._outside.append(request)
            self.counters.requests += request.count
            request.future.leave = functools.partial(self.leave, request)
            if request.future.cancelled():  # before it could say so
                self._leaving.append(request)
            self.watch(request)
            while block and request.outside:
                self._room.wait()
        future = request.future
        ended = block and future.done() and not future.cancelled()
        if ended and isinstance(future.exception(), Stopped):
            raise Stopped(STOPPED)

    def begin(self, request: Request) -> None:
        """Know a session, of which no frame has come.

        Raises:
          Stopped: the server takes no more.
        """
        with self.changed:
            if self.stopped:
                raise Stopped(STOPPED)
            self._sessions.add(request)
            request.future.session = request
            self.watch(request)

    def watch(self, request: Request) -> None:
        """Look at a request's deadline from now on."""
        with self.changed:
            if request.deadline is not None and not request.timed:
                heapq.heappush(self._deadlines, (request.deadline, next(self._number), request))
                self._timed += 1
                request.timed = True
            self._tell()

    def _let_in(self, request: Request) -> None:
        request.outside = False
        self.queued += request.count
        self._waiting.append(request)

    def _let_in_others(self) -> None:
        """Those that wait outside, as far as there is room."""
        while self._outside:
            request = self._outside[0]
            if request.over:
                self._gone -= 1
            elif self.queued + request.count <= self.most:
                self._let_in(request)
            else:
                break
            self._outside.popleft()
        self._room.notify_all()

    def leave(self, request: Request) -> None:
        """Let the answering thread know that a request was cancelled, or has no more frames."""
        with self.changed:
            self._leaving.append(request)
            self._tell()

    def grow(self, request: Request, frame: np.ndarray) -> None:
        """Add a frame to a sample."""
        with self.changed:
            request.inputs.append(frame)
            if request.given:
                self._growing.append(request)
            self._tell()

    def take(self, room: int, rows: int) -> list[Piece]:
        """What goes to the device next: at most `room` inputs, of which `rows` are first ones."""
        with self.changed:
            pieces = self._frames(room)
            room -= len(pieces)
            while self._waiting and room and rows:
                request = self._waiting[0]
                if request.over:
                    self._waiting.popleft()
                    self._over -= 1
                    continue
                taken = 1 if self.frames else min(room, rows, request.count - request.given)
                given = request.given
                inputs = request.inputs[given : given + taken]
                pieces.append(Piece(request, given, 0, np.asarray(inputs)))
                request.given += taken
                room, rows, self.queued = room - taken, rows - taken, self.queued - taken
                if request.given >= request.count:
                    self._waiting.popleft()
                    if self.frames:
                        self._growing.append(request)
            if pieces:
                self._let_in_others()
            return pieces + self._frames(room)

    def _frames(self, room: int) -> list[Piece]:
        """Frames of samples that have a row."""
        pieces: list[Piece] = []
        while self._growing and len(pieces) < room:
            request, given = self._growing[0], self._growing[0].given
            if request.over or request.sure or given == len(request.inputs):
                self._growing.popleft()
                continue
            pieces.append(Piece(request, 0, given, request.inputs[given][None]))
            request.given += 1
        return pieces

    def forget(self, request: Request) -> None:
        """Free what a request takes that is over."""
        if request.given == request.count and not request.timed:
            return
        with self.changed:
            if request.outside:
                request.outside = False
                self._gone += 1
                if self._gone > SPARE + len(self._outside) // 2:
                    self._outside = collections.deque(x for x in self._outside if not x.over)
                    self._gone = 0
            elif request.given < request.count:
                self.queued -= request.count - request.given
                self._over += 1
            self._let_in_others()
            if self._over > SPARE + len(self._waiting) // 2:
                self._waiting = collections.deque(x for x in self._waiting if not x.over)
                self._over = 0
            self._timed -= request.timed
            if len(self._deadlines) > SPARE + 2 * self._timed:
                self._deadlines = [x for x in self._deadlines if not x[2].over]
                heapq.heapify(self._deadlines)

    def drain(self) -> list[Request]:
        """All that waits, which then waits no more."""
        with self.changed:
            waiting, self._waiting = self._waiting, collections.deque()
            return [request for request in waiting if not request.over]

    def leaving(self) -> list[Request]:
        """Requests that were cancelled or have no more frames, since this was asked last."""
        with self.changed:
            found, self._leaving = self._leaving, []
            return found

    def expired(self) -> list[Request]:
        """Requests whose deadline has come."""
        found: list[Request] = []
        with self.changed:
            while self._deadlines and self._deadlines[0][0] <= time.perf_counter():
                found.append(heapq.heappop(self._deadlines)[2])
        return [request for request in found if not request.over]

    def sleep(self) -> None:
        """Wait for news since this was called last, or until a deadline comes."""
        with self.changed:
            if not self._news:
                first = self._deadlines[0][0] if self._deadlines else None
                seconds = LONGEST if first is None else first - time.perf_counter()
                self._sleeps = True
                self.changed.wait(min(max(0.0, seconds), LONGEST))
                self._sleeps = False
            self._news = False

    def _tell(self) -> None:
        self._news = True
        if self._sleeps:
            self.changed.notify_all()

    def turned_away(self) -> list[Request]:
        """After a stop those outside, and sessions of which no frame has come; each once."""
        with self.changed:
            if not self.stopped:
                return []
            silent = [request for request in self._sessions if request.future.leave is None]
            outside = [request for request in (*self._outside, *silent) if not request.over]
            self._outside, self._gone = collections.deque(), 0
            self._sessions.clear()
            return outside

    @property
    def empty(self) -> bool:
        """Whether nothing waits, inside or outside."""
        return not (self.queued or self._outside or self._sessions)

    def stop(self) -> None:
        """Take no more."""
        with self.changed:
            self.stopped = True
            self._tell()
