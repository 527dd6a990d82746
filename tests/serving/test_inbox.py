"""Who waits for a place in the queue gets one in turn, or is told why not."""

import asyncio
import threading
import time

import pytest

import seenn_jax
from seenn_jax.serving import Server, Stopped, TooLate
from tests.serving.toy import inputs, toy


@pytest.fixture
def narrow():
    """A server of one slot whose queue has four places, and has not begun."""
    server = Server(toy(), slots=1, queue=4, when_full="wait")
    yield server
    server.stop()


def outside(server, count):
    """Wait until so many requests wait for a place."""
    while len(server._inbox._outside) < count:
        time.sleep(0.001)


def test_places_are_given_in_turn(narrow):
    """To tasks of one loop and to several images, too, which need more room."""
    ended = []

    async def ask():
        tasks = []
        for number in range(40):
            asked = narrow.predict_all(inputs(4)) if number == 20 else narrow.predict(inputs(1)[0])
            tasks.append(asyncio.ensure_future(asked))
            tasks[-1].add_done_callback(lambda _, number=number: ended.append(number))
        await asyncio.sleep(0)
        assert len(narrow._inbox._outside) == 36
        narrow.__enter__()
        await asyncio.gather(*tasks)

    asyncio.run(ask())
    assert ended == list(range(40))


def test_who_is_cancelled_outside_is_not_computed(narrow):
    futures = [narrow.submit(one) for one in inputs(4)]

    async def ask():
        task = asyncio.ensure_future(narrow.predict(inputs(1)[0]))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(ask())
    narrow.__enter__()
    assert all(future.result().complete for future in futures)
    narrow.stop()
    counters = narrow.counters()
    assert (counters["requests"], counters["answers"], counters["cancelled"]) == (5, 4, 1)


def test_many_that_go_away_outside_cost_little(narrow):
    """Neither time nor memory."""
    for one in inputs(4):
        narrow.submit(one)

    async def ask():
        tasks = [asyncio.ensure_future(narrow.predict(inputs(1)[0])) for _ in range(3000)]
        await asyncio.sleep(0)
        for task in tasks[1:]:
            task.cancel()
        await asyncio.wait(tasks[1:])
        narrow._worker._clear()
        assert len(narrow._inbox._outside) < 100
        narrow.__enter__()
        assert (await tasks[0]).complete

    asyncio.run(ask())


def test_a_deadline_counts_outside_too(narrow):
    futures = [narrow.submit(one) for one in inputs(4)]

    async def ask():
        task = asyncio.ensure_future(narrow.predict(inputs(1)[0], deadline=1e-6))
        await asyncio.sleep(0.001)
        narrow.__enter__()
        with pytest.raises(TooLate):
            await task

    asyncio.run(ask())
    assert all(future.result().complete for future in futures)


def test_a_stop_is_told_outside(narrow):
    """And to those inside of a server that never began."""
    futures, said = [narrow.submit(one) for one in inputs(4)], []

    def ask():
        with pytest.raises(Stopped):
            narrow.submit(inputs(1)[0])
        said.append("thread")

    async def ask_too():
        task = asyncio.ensure_future(narrow.predict(inputs(1)[0]))
        await asyncio.to_thread(outside, narrow, 2)
        await asyncio.to_thread(narrow.stop)
        with pytest.raises(Stopped):
            await task
        said.append("task")

    thread = threading.Thread(target=ask)
    thread.start()
    outside(narrow, 1)
    asyncio.run(ask_too())
    thread.join()
    assert sorted(said) == ["task", "thread"]
    for future in futures:
        with pytest.raises(Stopped):
            future.result()


@pytest.mark.parametrize("late", [False, True])
def test_a_stop_finds_those_who_have_left_the_line(narrow, late):
    for one in inputs(4):
        narrow.submit(one)

    async def ask():
        deadline = 0.02 if late else None
        asked = [narrow.predict(inputs(1)[0], deadline=deadline) for _ in range(5)]
        tasks = [asyncio.ensure_future(one) for one in (*asked, narrow.predict(inputs(1)[0]))]
        await asyncio.sleep(0)
        if not late:
            for task in tasks[:-1]:
                task.cancel()
            await asyncio.sleep(0)
        await asyncio.sleep(0.03)
        with narrow._inbox.changed:  # the worker sees all at once
            narrow.__enter__()
            narrow._inbox.stop()
        await asyncio.to_thread(narrow.stop)
        return await asyncio.gather(*tasks, return_exceptions=True)

    *gone, last = asyncio.run(ask())
    kind = TooLate if late else asyncio.CancelledError
    assert all(isinstance(one, kind) for one in gone)
    assert isinstance(last, Stopped)
    counters = narrow.counters()
    assert (counters["requests"], counters["answers"]) == (10, 4)
    assert (counters["cancelled"], counters["failed"]) == ((0, 6) if late else (5, 1))


def test_more_than_may_wait_at_all(narrow):
    with pytest.raises(seenn_jax.UserError, match="has 5 images, and the server lets 4 wait"):
        narrow.submit_all(inputs(5))
