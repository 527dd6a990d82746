"""One training at a time in a workdir, and no lock that outlives its process."""

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from seenn_jax.errors import UserError
from seenn_jax.run import lock

# A process with the lock, in which it is killed.
HOLDER = """
import fcntl, json, os, sys
file = open(sys.argv[1], "a+")
fcntl.flock(file, fcntl.LOCK_EX)
json.dump({"host": "elsewhere", "process": os.getpid()}, file)
file.flush()
print("held", flush=True)
sys.stdin.read()
"""


def test_another_training_is_named_until_it_is_killed(tmp_path):
    command = [sys.executable, "-S", "-c", HOLDER, str(tmp_path / lock.FILE)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        named = f"{tmp_path} is being trained already, by process {holder.pid} on elsewhere: wait"
        with pytest.raises(UserError, match=named), lock.only_one(tmp_path):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with lock.only_one(tmp_path):
        held = json.loads((tmp_path / lock.FILE).read_text())
        assert held == {"host": socket.gethostname(), "process": os.getpid()}
    assert list(tmp_path.iterdir()) == []


def test_two_in_one_process(tmp_path):
    with lock.only_one(tmp_path):
        with pytest.raises(UserError, match="is being trained already"), lock.only_one(tmp_path):
            pass
        assert (tmp_path / lock.FILE).exists()  # it is the other's
    with lock.only_one(tmp_path):
        pass


def test_a_folder_that_stays_empty_goes(tmp_path):
    with lock.only_one(tmp_path / "a" / "b"):
        pass
    assert list(tmp_path.iterdir()) == []
    with lock.only_one(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "run.json").touch()
    assert (tmp_path / "a" / "b" / "run.json").exists()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match="file/run can't be made"),
        lock.only_one(tmp_path / "file" / "run"),
    ):
        pass


@pytest.mark.parametrize(
    ("host", "process", "held"),
    [
        (socket.gethostname(), os.getppid(), True),
        (socket.gethostname(), 2**22 + 1, False),  # above the largest number of a process
        (socket.gethostname(), 10**30, False),
        ("elsewhere", 1, True),
    ],
)
def test_where_the_file_system_has_no_locks(tmp_path, monkeypatch, host, process, held):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    (tmp_path / lock.FILE).write_text(json.dumps({"host": host, "process": process}))
    if not held:
        with lock.only_one(tmp_path):
            pass
        return
    with pytest.raises(UserError) as caught, lock.only_one(tmp_path):
        pass
    assert f"by process {process} on {host}: wait" in str(caught.value)
    assert ("or delete" in str(caught.value)) == (host == "elsewhere")
