"""Joining the processes of several hosts through `jax.distributed`, and seeing that they agree."""

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from seenn_jax import provenance
from seenn_jax.errors import UserError

VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
PATIENCE = 300  # seconds that processes wait for each other at the start, as in JAX


def join(patience: int = PATIENCE) -> None:
    """Join the processes of several hosts; to be called before any computation.

    `JAX_COORDINATOR_ADDRESS` (host:port of process 0), `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`
    say which they are; where none is set, JAX asks the environment: Cloud TPU, Slurm, Open MPI.

    Raises:
      UserError: a variable that can't be; a process that does not come within `patience` seconds,
        is one too many or runs other versions; an environment that JAX does not know.
    """
    given = {name: os.environ.get(name) for name in VARIABLES}
    if not any(given.values()):
        try:
            jax.distributed.initialize(initialization_timeout=patience)
        except (ValueError, RuntimeError) as error:
            raise UserError(
                f"--multihost found no other processes ({error}): set {', '.join(VARIABLES)}, or "
                "leave the flag out on a single host"
            ) from error
        return
    address, count, index = _checked(given)
    _roll_call(address, count, index, patience)
    jax.distributed.initialize(address, count, index, initialization_timeout=patience)


def check_same(mine: dict[str, Any]) -> None:
    """Raise a UserError, in every process, where one has another value of something than the first.

    Args:
      mine: this process's values, by name; at most a few kilobytes of JSON.
    """
    if jax.process_count() == 1:
        return
    everyone = _of_all(json.dumps(mine, default=str))
    for process, theirs in enumerate(everyone):
        _check_equal(process, theirs, everyone[0])


def of_first(make: Callable[[], Any]) -> Any:
    """What process 0 makes, a value of JSON, in every process; its UserError too."""
    value, error = None, None
    if jax.process_index() == 0:
        try:
            value = make()
        except UserError as mistake:
            if jax.process_count() == 1:
                raise
            error = str(mistake)
    if jax.process_count() > 1:
        value, error = _of_all(json.dumps([value, error]))[0]
        if error:
            raise UserError(error)
    return value


def _of_all(text: str) -> list[Any]:
    """What each process says, in JSON, by process and in every one of them."""
    content = text.encode()
    length = int(np.max(multihost_utils.process_allgather(np.int32(len(content)))))
    padded = np.frombuffer(content.ljust(length), np.uint8)
    return [json.loads(row.tobytes()) for row in multihost_utils.process_allgather(padded)]


def wait_for_all(where: str) -> None:
    """Wait until every process has come to the same place of the program."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(where)


def _checked(given: dict[str, str | None]) -> tuple[str, int, int]:
    """(address, number of processes, which one this is) of the environment variables."""
    for name, value in given.items():
        good = value and (value.isdigit() if name != VARIABLES[0] else _port(value))
        if not good:
            raise UserError(
                f"--multihost needs {', '.join(VARIABLES)}, and {name} is {value or 'not set'}: "
                "set them to the address of process 0 (host:port), the number of processes, and "
                "which of them this is, from 0"
            )
    address, *numbers = (str(given[name]) for name in VARIABLES)
    count, index = map(int, numbers)
    if index >= count:
        raise UserError(
            f"JAX_PROCESS_ID is {index} and JAX_NUM_PROCESSES is {count}: processes are numbered "
            f"from 0 to {count - 1}; raise the one or lower the other"
        )
    return address, count, index


def _port(address: str) -> bool:
    host, colon, port = address.rpartition(":")
    return bool(host and colon and port.isdigit())


def _check_equal(process: int, theirs: dict, first: dict) -> None:
    differing = sorted(k for k in theirs | first if theirs.get(k) != first.get(k))
    if differing:
        what = ", ".join(f"{k} {theirs.get(k)!r} for {first.get(k)!r}" for k in differing)
        raise UserError(
            f"process {process} differs from process 0: it has {what}; start all processes with "
            "the same command, config and versions"
        )


def _roll_call(address: str, count: int, index: int, patience: float) -> None:
    """See that every process has come, once, with the same versions, before JAX joins them.

    JAX ends a process where another one does not come, without a word about which. Process 0
    listens at the coordinator's address until all the others have said who they are, or `patience`
    has run out, and tells each what is wrong, if anything is.
    """
    mine = {"JAX_PROCESS_ID": index, "JAX_NUM_PROCESSES": count, **provenance.versions()}
    ends = time.monotonic() + patience
    error = _listen(address, mine, ends) if index == 0 else _report(address, mine, ends)
    if error:
        raise UserError(error)


def _listen(address: str, mine: dict, ends: float) -> str | None:
    """What process 0 does in the roll call: what is wrong, or None."""
    count, came, error, connections = mine["JAX_NUM_PROCESSES"], {0}, None, []
    with contextlib.ExitStack() as stack:
        try:
            server = socket.create_server(("", int(address.rpartition(":")[2])))
        except OSError as failure:
            return (
                f"process 0 can't listen at JAX_COORDINATOR_ADDRESS={address} "
                f"({failure.strerror}): choose another port"
            )
        stack.enter_context(server)
        while error is None and len(came) < count:
            server.settimeout(max(ends - time.monotonic(), 1e-3))
            try:
                connection = stack.enter_context(server.accept()[0])
                connection.settimeout(5)
                theirs = json.loads(connection.makefile().readline())
                process = theirs["JAX_PROCESS_ID"]
                _check_equal(process, theirs, mine | {"JAX_PROCESS_ID": process})
            except UserError as differs:
                error = str(differs)
            except TimeoutError:
                if time.monotonic() >= ends:
                    missing = ", ".join(str(i) for i in range(count) if i not in came)
                    error = (
                        f"of the {count} processes of JAX_NUM_PROCESSES these did not come in "
                        f"time: {missing}; start them, or see whether they reach {address}"
                    )
                continue
            except (OSError, ValueError, KeyError, TypeError, RecursionError):
                continue  # not one of ours
            if error is None and process >= count:
                error = (
                    f"process {process} is one too many: there are {count}, numbered from 0 to "
                    f"{count - 1}"
                )
            if process in came:
                error = (
                    f"two processes have JAX_PROCESS_ID={process}: give each its own number, from "
                    f"0 to {count - 1}"
                )
            came.add(process)
            connections.append(connection)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.sendall((json.dumps(error) + "\n").encode())
    return error


def _report(address: str, mine: dict, ends: float) -> str | None:
    """What the other processes do in the roll call: what is wrong, or None."""
    host, _, port = address.rpartition(":")
    while True:
        left = ends - time.monotonic()
        if left <= 0:
            return (
                f"process 0 did not answer at JAX_COORDINATOR_ADDRESS={address} in time: start it, "
                "correct the address, or see whether all places are taken by other processes"
            )
        try:
            with socket.create_connection((host, int(port)), timeout=left) as connection:
                # Process 0 waits as long as this one and then still has to answer.
                connection.settimeout(left + 10)
                connection.sendall((json.dumps(mine) + "\n").encode())
                return json.loads(connection.makefile().readline())
        except (OSError, ValueError, RecursionError):
            time.sleep(min(0.2, max(left, 0)))
