"""Processes find each other, and what keeps them from it is named in all of them."""

import contextlib
import json
import socket
import threading
import time

import jax
import numpy as np
import pytest

from seenn_jax import hosts
from seenn_jax.errors import UserError

FIVE = {"JAX_COORDINATOR_ADDRESS": "10.0.0.1:1234", "JAX_NUM_PROCESSES": "5", "JAX_PROCESS_ID": "3"}


def roll_call(processes, patience=20, stranger=False):
    """What is wrong, for each process (a dict of who it says it is); the first one listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    ends, answers = time.monotonic() + patience, [None] * len(processes)

    def run(place, mine):
        ask = hosts._listen if mine["JAX_PROCESS_ID"] == 0 else hosts._report
        answers[place] = ask(address, mine, ends)

    threads = [threading.Thread(target=run, args=each) for each in enumerate(processes)]
    for thread in threads:
        thread.start()
    while stranger:  # until somebody listens
        with (
            contextlib.suppress(ConnectionRefusedError),
            socket.create_connection(tuple(address.split(":")), timeout=10) as connection,
        ):
            connection.sendall(b"GET / HTTP/1.1\r\n")
            stranger = False
    for thread in threads:
        thread.join()
    return answers


def process(index, count=2, jax="1"):
    return {"JAX_PROCESS_ID": index, "JAX_NUM_PROCESSES": count, "jax": jax}


# --- The roll call ---------------------------------------------------------------------------


def test_all_come():
    assert roll_call([process(i, 3) for i in range(3)]) == [None] * 3


def test_one_that_never_comes_is_named():
    answers = roll_call([process(0, 4), process(2, 4)], patience=2, stranger=True)
    assert answers[0] == answers[1]
    assert "of the 4 processes" in answers[0]
    assert "did not come in time: 1, 3;" in answers[0]


def test_a_first_process_that_never_comes():
    (answer,) = roll_call([process(1)], patience=0.5)
    assert "process 0 did not answer at JAX_COORDINATOR_ADDRESS=127.0.0.1:" in answer


@pytest.mark.parametrize(
    ("other", "match"),
    [
        (process(1, 3, jax="2"), r"process 1 differs from process 0: it has jax '2' for '1'"),
        (process(1, 2), r"process 1 differs .* JAX_NUM_PROCESSES 2 for 3"),
        (process(0, 3) | {"JAX_PROCESS_ID": 5}, r"process 5 is one too many"),
    ],
)
def test_one_that_does_not_belong(other, match):
    other = dict(other)
    answers = roll_call([process(0, 3), other])
    assert answers[0] == answers[1]
    with pytest.raises(UserError, match=match):
        raise UserError(answers[0])


def test_two_of_one_number():
    answers = roll_call([process(0, 3), process(1, 3), process(1, 3)])
    assert len(set(answers)) == 1
    assert (
        "two processes have JAX_PROCESS_ID=1: give each its own number, from 0 to 2" in answers[0]
    )


def test_a_port_that_is_taken():
    with socket.create_server(("", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        answer = hosts._listen(address, process(0), time.monotonic() + 1)
    assert f"process 0 can't listen at JAX_COORDINATOR_ADDRESS={address}" in answer


# --- Variables -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"JAX_PROCESS_ID": None}, "JAX_PROCESS_ID is not set"),
        ({"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES is two"),
        ({"JAX_COORDINATOR_ADDRESS": "10.0.0.1"}, r"JAX_COORDINATOR_ADDRESS is 10\.0\.0\.1: set"),
        ({"JAX_PROCESS_ID": "5"}, "JAX_PROCESS_ID is 5 and JAX_NUM_PROCESSES is 5.*from 0 to 4"),
    ],
)
def test_variables_that_cannot_be(monkeypatch, changes, match):
    for name, value in (FIVE | changes).items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=match):
        hosts.join()


def test_the_variables_reach_jax(monkeypatch):
    called = []
    for name, value in FIVE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(hosts, "_roll_call", lambda *a: called.append(a))
    monkeypatch.setattr(jax.distributed, "initialize", lambda *a, **k: called.append((*a, k)))
    hosts.join(7)
    where = ("10.0.0.1:1234", 5, 3)
    assert called == [(*where, 7), (*where, {"initialization_timeout": 7})]


def test_an_environment_that_jax_does_not_know(monkeypatch):
    for name in FIVE:
        monkeypatch.delenv(name, raising=False)

    def initialize(**_):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(UserError, match=r"--multihost found no other processes .*: set JAX_COORD"):
        hosts.join()


# --- The same everywhere ---------------------------------------------------------------------


def test_what_differs_is_named(monkeypatch):
    mine, theirs = {"config.seed": 0, "jax": "1"}, {"config.seed": 123, "jax": "1"}
    both = [json.dumps(each).encode() for each in (mine, theirs)]
    length = max(map(len, both))

    def allgather(x):
        if np.ndim(x) == 0:
            return np.array([len(each) for each in both])
        return np.stack([np.frombuffer(each.ljust(length), np.uint8) for each in both])

    hosts.check_same(mine)  # alone
    monkeypatch.setattr(hosts.multihost_utils, "process_allgather", allgather)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    match = r"process 1 differs from process 0: it has config\.seed 123 for 0; start all"
    with pytest.raises(UserError, match=match):
        hosts.check_same(mine)
    theirs["config.seed"] = 0
    both[1] = json.dumps(theirs).encode()
    hosts.check_same(mine)


def test_what_the_first_makes_is_in_all(monkeypatch):
    said = []

    def allgather(x):  # the second has nothing to say
        mine = [said[0], json.dumps([None, None]).encode()]
        if np.ndim(x) == 0:
            return np.array([len(each) for each in mine])
        return np.stack([np.frombuffer(each.ljust(len(x)), np.uint8) for each in mine])

    monkeypatch.setattr(hosts.multihost_utils, "process_allgather", allgather)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    said.append(json.dumps([["ein Übel"], None]).encode())
    assert hosts.of_first(lambda: 1 / 0) == ["ein Übel"]
    said[0] = json.dumps([None, "no"]).encode()
    with pytest.raises(UserError, match=r"^no$"):
        hosts.of_first(lambda: 1 / 0)
