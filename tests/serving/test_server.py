"""Futures: each has its answer once, whatever else happens."""

import asyncio
import concurrent.futures
import gc
import threading
import time

import jax
import numpy as np
import pytest

import seenn_jax
from seenn_jax.exits import prices
from seenn_jax.serving import Refused, Server, Stopped, TooLate, served
from seenn_jax.serving import server as server_module
from tests.serving.toy import FEATURES, T, check_counters, every_tick, inputs, offline, storm, toy

NEVER = 1.0  # no confidence exceeds it
NAMES = ("ant", "bee", "cow")


@pytest.fixture(scope="module")
def shared():
    """A server of the toy network, for tests that leave it running."""
    with Server(toy(), slots=4, queue=64) as server:
        yield server


@pytest.fixture
def held():
    """A server that has not begun, and what begins it."""
    server = Server(toy(), slots=4, queue=8)
    yield server, server.__enter__
    server.stop()


def wanted(x, values):
    """(numbers, timesteps) by the offline engine."""
    numbers, timesteps = offline(x, np.broadcast_to(np.float32(values), len(x)))
    return numbers.tolist(), timesteps.tolist()


def test_an_answer_says_what_the_engine_says(shared):
    x = inputs(40)
    before = shared.counters()
    answers = [future.result() for future in [shared.submit(one) for one in x]]
    numbers, timesteps = wanted(x, toy().value)
    assert [answer.number for answer in answers] == numbers
    assert [answer.name for answer in answers] == [NAMES[number] for number in numbers]
    assert [answer.timesteps for answer in answers] == timesteps
    assert all(answer.complete and answer.seconds > 0 and not answer.ticks for answer in answers)
    after = shared.counters()
    assert after["answers"] - before["answers"] >= 40
    assert sum(after["exits"]) == after["answers"]
    assert 0 < after["latency"][0.5] <= after["latency"][0.9] <= after["latency"][0.99]


def test_answers_of_several_are_in_their_order(shared):
    x = inputs(40, seed=1)
    together = shared.submit_all(x).result()
    mapped = list(shared.map(x))
    numbers, timesteps = wanted(x, toy().value)
    for answers in (together, mapped):
        assert [answer.number for answer in answers] == numbers
        assert [answer.timesteps for answer in answers] == timesteps


def test_a_value_and_all_ticks_of_one_request(shared):
    x = inputs(3)
    futures = [shared.submit(x[i], exit=v, ticks=True) for i, v in enumerate((0.0, 0.7, NEVER))]
    answers = [future.result() for future in futures]
    assert [answer.timesteps for answer in answers] == wanted(x, [0.0, 0.7, NEVER])[1]
    for one, answer in zip(every_tick(x), answers, strict=True):
        one = np.asarray(one[: answer.timesteps])
        assert [number for number, _ in answer.ticks] == one.argmax(-1).tolist()
        sure = np.exp(one).max(-1) / np.exp(one).sum(-1)
        assert [confidence for _, confidence in answer.ticks] == pytest.approx(sure, rel=1e-5)
        assert answer.ticks[-1] == (answer.number, answer.confidence)


def test_awaited(shared):
    async def ask():
        one = asyncio.gather(*[shared.predict(x) for x in inputs(9)])
        return await one, await shared.predict_all(inputs(9), exit=NEVER)

    one, together = asyncio.run(ask())
    assert [answer.timesteps for answer in one] == wanted(inputs(9), toy().value)[1]
    assert [answer.timesteps for answer in together] == [T] * 9


@pytest.mark.parametrize(
    ("image", "options", "said"),
    [
        (np.zeros(3, np.float32), {}, r"float32\[3\].*takes float32\[4\]"),
        (np.zeros(4), {}, r"float64\[4\].*takes float32\[4\]"),
        (np.zeros(4, np.float32), {"deadline": 0}, "`deadline` is 0"),
        (np.zeros(4, np.float32), {"deadline": float("nan")}, "`deadline` is nan"),
        (np.zeros(4, np.float32), {"deadline": float("inf")}, "`deadline` is inf"),
        (np.zeros(4, np.float32), {"exit": 1.5}, "threshold 1.5 is outside"),
        (np.zeros(4, np.float32), {"exit": 10**400}, "`exit` is 1000"),
        (np.zeros(4, np.float32), {"exit": float("nan")}, "`exit` is nan"),
    ],
)
def test_a_mistake_is_told_to_who_makes_it(shared, image, options, said):
    before = shared.counters()
    with pytest.raises(seenn_jax.UserError, match=said):
        shared.submit(image, **options)
    assert shared.counters() == before


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"slots": 1.5}, "`slots` is 1.5: it must be a whole number, at least 1"),
        ({"slots": "3"}, "`slots` is '3': it must be a whole number"),
        ({"slots": None}, "`slots` is None: it must be a whole number"),
        ({"slots": 0}, "`slots` is 0: it must be at least 1"),
        ({"ticks_per_call": 2.0}, "`ticks_per_call` is 2.0: it must be a whole number"),
        ({"queue": None}, "`queue` is None: it must be a whole number"),
        ({"choice": 3}, r"`choice` is 3: give Given\(0\.9\), Target\(1\.2\), Risk\(0\.05\) or"),
        ({"predictor": "digits-resnet8"}, "the network is 'digits-resnet8': give what"),
    ],
)
def test_a_server_that_can_not_be_is_a_sentence(options, said):
    with pytest.raises(seenn_jax.UserError, match=f"^{said}"):
        Server(**{"predictor": toy(), **options})


@pytest.mark.usefixtures("unchecked")
def test_a_request_of_other_types(shared):
    ragged = r"\[\[1\], \[1, 2\]\], of which NumPy makes no array, and this network takes float32\["
    for submit in (shared.submit, shared.submit_all):
        with pytest.raises(seenn_jax.UserError, match=f"^the images are {ragged}"):
            submit([[1], [1, 2]])
    for options in ({"deadline": "3"}, {"deadline": -(10**400)}, {"exit": "0.5"}):
        with pytest.raises(seenn_jax.UserError, match=f"^`{next(iter(options))}` is "):
            shared.submit(inputs(1)[0], **options)
    for number in (np.float16, np.float32, np.int8):
        assert shared.submit(inputs(1)[0], deadline=number(60), exit=number(1)).result().complete


def test_what_is_not_finite_fails_alone(shared):
    x = inputs(6)
    x[2, 1] = np.inf
    futures = [shared.submit(one, exit=NEVER) for one in x]
    several = shared.submit_all(x)
    with pytest.raises(seenn_jax.UserError, match="not finite"):
        futures.pop(2).result()
    with pytest.raises(seenn_jax.UserError, match="not finite"):
        several.result()
    assert all(future.result().timesteps == T for future in futures)


def test_a_full_queue_refuses_or_waits(held):
    server, begin = held
    futures = [server.submit(one) for one in inputs(6)]
    with pytest.raises(Refused, match=r"6 images wait already, and the server lets 8 wait"):
        server.submit_all(inputs(3))
    with pytest.raises(seenn_jax.UserError, match="has 9 images, and the server lets 8 wait"):
        server.submit_all(inputs(9))
    futures += [server.submit(one) for one in inputs(2)]
    server._inbox.wait = True
    threads = [threading.Thread(target=lambda: futures.append(server.submit(inputs(1)[0])))]
    threads[0].start()

    async def ask():
        return await server.predict(inputs(1)[0])

    threads.append(threading.Thread(target=lambda: asyncio.run(ask())))
    threads[1].start()
    assert server.counters()["waiting"] == 8
    begin()
    for thread in threads:
        thread.join()
    concurrent.futures.wait(futures)
    assert len(futures) == 9
    assert server.counters()["answers"] == server.counters()["requests"] == 10
    assert server.counters()["refused"] == 3


def test_a_cancelled_future_frees_its_place(held):
    server, begin = held
    futures = [server.submit(one) for one in inputs(8)]
    for future in futures[1::2]:
        assert future.cancel()
    begin()
    assert len(concurrent.futures.wait(futures).done) == 8
    server.stop()
    counters = server.counters()
    assert (counters["answers"], counters["cancelled"], counters["waiting"]) == (4, 4, 0)
    assert not futures[0].cancel()


def test_deadlines(held):
    server, begin = held
    late = server.submit(inputs(1)[0], deadline=1e-6)
    soon = server.submit(inputs(1)[0], deadline=60)
    time.sleep(0.001)
    begin()
    with pytest.raises(TooLate, match="before the first tick"):
        late.result()
    assert isinstance(late.exception(), TimeoutError)
    assert soon.result().complete
    assert server.counters()["failed"] == 1


def test_a_stopped_server_answers_what_it_took_and_takes_no_more():
    with Server(toy(), slots=2, ticks_per_call=3, queue=50) as server:
        assert server.running
        futures = [server.submit(one, exit=NEVER) for one in inputs(50)]
    assert not server.running
    assert {future.result().timesteps for future in futures} == {T}
    with pytest.raises(Stopped):
        server.submit(inputs(1)[0])
    server.stop()


def frozen():
    """Whether the garbage collector leaves most objects alone; Python 3.12 counts immortal ones."""
    return gc.get_freeze_count() > len(gc.get_objects())


@pytest.fixture
def unfrozen(monkeypatch):
    """The garbage collector as of a program without a server; afterwards as before."""
    monkeypatch.setattr(server_module, "_UNDISTURBED", server_module._Undisturbed())
    before = frozen()
    gc.unfreeze()
    yield
    gc.unfreeze()
    if before:
        gc.freeze()


@pytest.mark.usefixtures("unfrozen")
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_collector_leaves_alone_what_was_there_while_any_server_runs(order):
    servers = [Server(toy(), slots=2).__enter__() for _ in range(2)]
    for number in order:
        assert frozen()
        servers[number].stop()
    assert not frozen()
    gc.freeze()
    servers[0].stop()
    assert frozen()


@pytest.mark.usefixtures("unfrozen")
def test_what_the_program_has_frozen_stays_so():
    gc.freeze()
    with Server(toy(), slots=2):
        pass
    assert frozen()


@pytest.mark.usefixtures("unfrozen")
def test_garbage_that_owns_a_server_may_stop_it():
    class Owner:
        def __init__(self, server):
            self.server, self.itself = server, self

        def __del__(self):
            self.server.stop()

    thread = Owner(Server(toy(), slots=2).__enter__()).server._thread
    # A cycle, which is found when the other begins.
    with Server(toy(), slots=2):
        assert not thread.is_alive()
        assert frozen()
    assert not frozen()


@pytest.mark.usefixtures("unfrozen")
def test_a_server_without_a_thread_leaves_nothing_behind(monkeypatch):
    server = Server(toy(), slots=2)

    def none(_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(server_module.threading.Thread, "start", none)
        with pytest.raises(RuntimeError, match="new thread"):
            server.__enter__()
    assert not frozen()
    assert not server.running
    server.stop()


@pytest.mark.usefixtures("unfrozen")
def test_a_callback_may_stop_the_server():
    server = Server(toy(), slots=2).__enter__()
    server.submit(inputs(1)[0]).add_done_callback(lambda _: server.stop())
    server._thread.join(10)
    assert not server.running
    assert not frozen()


def test_a_server_begins_once():
    with Server(toy(), slots=2) as server, pytest.raises(seenn_jax.UserError, match="begun before"):
        server.__enter__()
    with pytest.raises(seenn_jax.UserError, match="begun before"):
        server.__enter__()


def test_a_deadline_may_be_far_away(shared):
    assert shared.submit(inputs(1)[0], deadline=1e300).result().complete
    late = shared.submit(inputs(1)[0], deadline=1e300, exit=NEVER)
    time.sleep(0.05)  # it sleeps meanwhile
    assert late.result().complete
    assert shared.submit(inputs(1)[0]).result().complete


def test_what_is_submitted_is_the_callers_again(held):
    server, begin = held
    x = inputs(3)
    numbers, _ = wanted(x, NEVER)
    buffer, futures = np.empty_like(x[0]), []
    for one in x:
        buffer[:] = one
        futures.append(server.submit(buffer, exit=NEVER))
    begin()
    assert [future.result().number for future in futures] == numbers


def test_a_failing_device_leaves_nobody_waiting(held, monkeypatch):
    server, begin = held
    futures = [server.submit(one) for one in inputs(8)]
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    begin_ = server._worker._read
    monkeypatch.setattr(server._worker, "_read", lambda *_: begin_(None))
    begin()
    for future in futures:
        with pytest.raises(RuntimeError, match="the server has failed: TypeError"):
            future.result()
    with pytest.raises(Stopped):
        server.submit(inputs(1)[0])


def test_frames_that_come_one_by_one():
    x = inputs(6 * T).reshape(6, T, FEATURES)
    cumulative = np.asarray(every_tick(x))
    with Server(toy(frames=True, value=NEVER), slots=4, queue=6) as server:
        whole = [server.submit(one) for one in x]
        for one, future in zip(cumulative, whole, strict=True):
            assert future.result().number == one[-1].argmax()
        # More sessions than slots: those that wait begin when others end.
        sessions = [server.session(exit=0.99 if i == 0 else None) for i in range(6)]
        for frame in range(3):
            for one, session in zip(x, sessions, strict=True):
                assert session.send(one[frame]) or session.answer.done()
        time.sleep(0.05)
        assert not any(session.answer.done() for session in sessions[1:])
        for session in sessions[1:5]:
            session.end()
        answers = [session.answer.result() for session in sessions[1:5]]
        assert [answer.timesteps for answer in answers] == [3] * 4
        assert not any(answer.complete for answer in answers)
        assert [answer.number for answer in answers] == cumulative[1:5, 2].argmax(-1).tolist()
        for frame in range(3, T):
            assert sessions[5].send(x[5, frame])
        last = sessions[5].answer.result()
        assert (last.timesteps, last.complete) == (T, True)
        assert not sessions[5].send(x[5, 0])
        assert server.session().end().cancelled()
        with pytest.raises(seenn_jax.UserError, match="one by one"):
            server.submit_all(x)
        with pytest.raises(seenn_jax.UserError, match=r"frame is float32\[6, 4\]"):
            sessions[0].send(x[0])
        timed = server.session(deadline=0.05)
        timed.send(x[0, 0])
        assert timed.answer.result()[3:5] == (1, False)
        open_one = server.session()
        open_one.send(x[0, 0])
    assert open_one.answer.result().timesteps == 1  # of a server that stops


def test_a_session_that_was_refused_may_begin_later():
    server, x = Server(toy(frames=True, value=NEVER), slots=2, queue=1), inputs(T)
    first, second = server.session(), server.session()
    assert first.send(x[0])
    with pytest.raises(Refused):
        second.send(x[0])
    with server:
        while server.counters()["waiting"]:
            time.sleep(0.001)
        for frame in x:
            assert second.send(frame)
        assert second.answer.result().timesteps == T
        assert first.end() is first.answer
        assert not first.send(x[1])
    assert first.answer.result().timesteps == 1


def test_sessions_are_for_event_data(shared):
    with pytest.raises(seenn_jax.UserError, match="still images"):
        shared.session()


@pytest.mark.parametrize(
    ("count", "ticks"), [(500, 1), (500, 3), pytest.param(20_000, 2, marks=pytest.mark.slow)]
)
def test_everything_at_once(count, ticks):
    """Deadlines, cancellations, a full queue, failures; each answered once, rightly."""
    with Server(toy(), slots=8, ticks_per_call=ticks, queue=40) as server:
        counts = storm(server, count, seed=ticks)
    check_counters(server, counts)
    assert counts.total() == count
    ends = ("answered", "cancelled", "too late", "not finite")
    assert min(counts[end] for end in ends) > 0
    assert sorted(server._worker._free) == list(range(server._worker.rows))


def test_each_program_has_run_a_tick_before_the_first_request():
    plain, ran = toy(), []

    def step(params, state, inputs):
        jax.debug.callback(lambda: ran.append(len(inputs)))
        return plain.step(params, state, inputs)

    with Server(plain._replace(step=step), slots=16, ticks_per_call=2) as server:
        jax.effects_barrier()
        assert set(ran) == set(server._worker.widths)  # a loop without a sample has no tick
        x = inputs(20)
        answers = server.submit_all(x).result()
    numbers, timesteps = wanted(x, plain.value)
    assert [answer.number for answer in answers] == numbers
    assert [answer.timesteps for answer in answers] == timesteps


def test_a_loaded_run_answers_as_predict(trained):
    run = seenn_jax.load(trained)
    images = run.dataset.test.images[:60]
    exit, choice = "confidence", seenn_jax.Given(0.4)
    found = run.predict(images, exit=exit, choice=choice)
    assert len(set(found.timesteps)) > 1
    with Server(run, slots=16, exit=exit, choice=choice) as server:
        answers = server.submit_all(images).result()
        assert set(server._worker._programs) == set(server._worker.widths)  # beforehand
        with pytest.raises(seenn_jax.UserError, match=r"threshold 5\.5"):
            server.submit(images[0], exit=5.5)
    assert [answer.number for answer in answers] == found.classes.tolist()
    assert [answer.timesteps for answer in answers] == found.timesteps.tolist()
    assert tuple(answer.name for answer in answers) == found.names
    confidence = [answer.confidence for answer in answers]
    np.testing.assert_allclose(confidence, found.confidence, rtol=1e-5)


def test_a_policy_is_asked_once_for_each_image(trained_policy):
    run = seenn_jax.load(trained_policy)
    images = run.dataset.test.images[:60]
    what = served(run, "policy")
    assert what.beforehand is not None
    price = 0.5
    choices = run.policy_choices(images)
    wanted = {p: prices.exit_times(choices, (1, 3), p).tolist() for p in (0.0, price)}
    with Server(what, slots=16) as server:
        for asked, times in wanted.items():
            answers = server.submit_all(images, exit=asked).result()
            assert [answer.timesteps for answer in answers] == times
