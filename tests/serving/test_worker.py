"""What happens between two calls of the device: exits, deadlines and frames at the same moment."""

import asyncio
import gc
import time

import numpy as np
import pytest

import seenn_jax
from seenn_jax.serving import Refused, Server, Stopped, TooLate
from tests.serving.toy import FEATURES, T, every_tick, inputs, toy

NEVER = 1.0  # no confidence exceeds it


def after_reading(server, do):
    """Let `do` happen after each call is read, before its answers are given."""
    worker = server._worker
    read = worker._read

    def read_and_do(*arguments):
        found = read(*arguments)
        do(found)
        return found

    worker._read = read_and_do


def expire(server):
    """Let all deadlines come."""
    inbox = server._inbox
    inbox._deadlines = [(0.0, *rest) for _, *rest in inbox._deadlines]
    inbox._tell()


def recordings(count):
    return inputs(count * T).reshape(count, T, FEATURES)


def test_a_deadline_that_comes_with_the_exit_has_the_answer():
    server, x = Server(toy(), slots=4), inputs(3)
    after_reading(server, lambda found: found and expire(server))
    with server:
        one = server.submit(x[0], deadline=60, exit=0.0)
        assert one.result(10)[3:5] == (1, True)
        several = server.submit_all(x, deadline=60, exit=0.0)
        assert [answer[3:5] for answer in several.result(10)] == [(1, True)] * 3


def test_a_frame_that_comes_with_the_exit_is_not_needed():
    server = Server(toy(frames=True), slots=2)
    x = recordings(1)[0]
    session = server.session(exit=0.0)

    def send(found):
        if found and not session.answer.done():
            assert session.send(x[1])

    after_reading(server, send)
    with server:
        session.send(x[0])
        assert session.answer.result(10).timesteps == 1
        other = server.session(exit=0.0)
        other.send(x[0])
        assert other.answer.result(10).timesteps == 1


def test_what_has_exited_is_told_of_a_failure_too(monkeypatch):
    monkeypatch.setattr("threading.excepthook", lambda args: None)
    server = Server(toy(), slots=4)

    def fail(found):
        if found:
            raise ValueError("a mistake")

    answer = server._worker._answer
    server._worker._answer = lambda ended: (fail(ended), answer(ended))
    with server:
        future = server.submit(inputs(1)[0], exit=0.0)
        with pytest.raises(RuntimeError, match="the server has failed"):
            future.result(10)


def is_quiet(server):
    """Whether calls of the device end where nothing can be done."""
    for _ in range(100):
        calls = server._worker._calls
        time.sleep(0.1)
        if server._worker._calls == calls:
            return True
    return False


def test_sessions_without_a_slot_wait_quietly():
    x = recordings(6)
    with Server(toy(frames=True, value=NEVER), slots=2) as server:
        sessions = [server.session() for _ in x]
        for one, session in zip(x, sessions, strict=True):
            session.send(one[0])
        assert is_quiet(server)
        assert sessions[0].send(x[0, 1])
        sessions[1].end()
        assert sessions[1].answer.result(10).timesteps == 1
    # All are answered as the server stops, each with the frames that it had.
    answers = [session.answer.result(10) for session in sessions]
    assert [answer.timesteps for answer in answers] == [2, 1, 1, 1, 1, 1]
    first = np.asarray(every_tick(x))[1:, 0].argmax(-1)
    assert [answer.number for answer in answers[1:]] == first.tolist()


def test_a_session_may_end_twice_and_as_its_deadline_comes():
    x = recordings(1)[0]
    with Server(toy(frames=True, value=NEVER), slots=2) as server:
        session = server.session(deadline=60)
        session.send(x[0])
        while not server._worker._ticks.any():
            time.sleep(0.001)

        with server._inbox.changed:  # one look of the worker finds all
            session.end()
            session.end()
            expire(server)
        assert session.answer.result(10).timesteps == 1
        other = server.session()
        other.send(x[0])
        assert other.end().result(10).timesteps == 1


def test_a_session_without_a_frame_is_late():
    with Server(toy(frames=True), slots=2) as server:
        session = server.session(deadline=0.01)
        with pytest.raises(TooLate):
            session.answer.result(10)
        assert not session.send(recordings(1)[0, 0])
    assert (server.counters()["requests"], server.counters()["failed"]) == (0, 0)


@pytest.mark.parametrize("deadline", [None, 60])
@pytest.mark.parametrize("begun", [True, False])
def test_a_session_without_a_frame_is_told_of_a_stop(begun, deadline):
    server = Server(toy(frames=True), slots=2)
    if begun:
        server.__enter__()
    session, refused = server.session(deadline=deadline), server.session()
    forgotten, cancelled = server.session(deadline=deadline).answer, server.session().end()
    frame = recordings(1)[0, 0]
    with pytest.raises(seenn_jax.UserError, match="give that shape"):
        refused.send(frame[:1])
    server.stop()
    for answer in (session.answer, refused.answer, forgotten):
        with pytest.raises(Stopped):
            answer.result(0)
    assert cancelled.cancelled()
    assert not session.send(frame)
    with pytest.raises(Stopped):
        server.session()
    assert (server.counters()["requests"], server.counters()["failed"]) == (0, 0)


def test_a_session_without_a_frame_is_told_of_a_failure(monkeypatch):
    monkeypatch.setattr("threading.excepthook", lambda args: None)
    server = Server(toy(frames=True), slots=2)
    monkeypatch.setattr(server._worker, "_read", lambda *_: 1 / 0)
    with server:
        session, other = server.session(), server.session()
        other.send(recordings(1)[0, 0])
        for answer in (session.answer, other.answer):
            with pytest.raises(RuntimeError, match="the server has failed: ZeroDivisionError"):
                answer.result(10)


def test_a_session_that_is_given_up_leaves_nothing_behind():
    server = Server(toy(frames=True), slots=2)
    server.session()
    server.session().end()
    gc.collect()
    assert not server._inbox._sessions
    server.stop()


def test_a_deadline_that_comes_before_the_first_frame_is_let_in_keeps_no_place():
    server, x = Server(toy(frames=True), slots=2, queue=1), recordings(1)[0]
    session, put = server.session(deadline=60), server._put

    def expire_and_put(request):  # the session has looked at its answer by then
        expire(server)
        server._worker._clear()
        return put(request)

    server._put = expire_and_put
    assert not session.send(x[0])
    server._put = put
    assert (server.counters()["requests"], server.counters()["waiting"]) == (0, 0)
    other = server.session(exit=0.0)
    assert other.send(x[0])
    with server:
        assert other.answer.result(10).complete


def test_a_deadline_that_comes_after_the_first_frame_is_let_in_is_counted():
    server, x = Server(toy(frames=True), slots=2, queue=1), recordings(1)[0]
    session, end = server.session(deadline=60), server._worker._end

    def send_and_end(request):
        session.send(x[0])
        end(request)

    server._worker._end = send_and_end
    expire(server)
    server._worker._clear()
    counters = server.counters()
    assert (counters["requests"], counters["failed"], counters["waiting"]) == (1, 1, 0)
    server.stop()


ENDS = [SystemExit, asyncio.CancelledError, KeyboardInterrupt, pytest.fail.Exception]


@pytest.mark.parametrize("error", ENDS)
def test_what_a_callback_raises_ends_nothing_else(error, caplog):
    server = Server(toy(), slots=2)
    futures = [server.submit(one, exit=NEVER) for one in inputs(6)]

    def end(_):
        raise error("enough")

    for future in futures:
        future.add_done_callback(end)
    with server:
        assert all(future.result(10).timesteps == T for future in futures)
        assert server.submit(inputs(1)[0]).result(10).complete
    assert "a callback of a future has raised" in caplog.text
    assert "enough" in caplog.text


def test_a_callback_does_not_wait_for_room_that_it_keeps():
    server, said = Server(toy(), slots=1, queue=2, when_full="wait"), []

    def ask_more(_):
        try:
            for one in inputs(3):
                server.submit(one)
        except Refused as error:
            said.append(str(error))

    server.submit(inputs(1)[0]).add_done_callback(ask_more)
    with server:
        while not said:
            time.sleep(0.001)
    assert server.counters()["answers"] == server.counters()["requests"] == 3
