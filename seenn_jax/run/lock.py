"""One training at a time in a workdir: a lock that its process holds, and the kernel lets go."""

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from seenn_jax import hosts
from seenn_jax.errors import UserError
from seenn_jax.run import folder

FILE = ".lock"


@contextlib.contextmanager
def only_one(workdir: Path) -> Iterator[None]:
    """Hold the lock of `workdir`, a folder that is made if need be, and goes if it stays empty.

    It is a file with the host and the process, which the process has locked: where that was
    killed, the kernel has let it go. On a file system without locks a process of this host that
    runs no more has let it go too. Of several processes of one run the first holds it.

    Raises:
      UserError: another training holds it; the folder can't be made or written to.
    """
    with contextlib.ExitStack() as held:
        hosts.of_first(lambda: _take(workdir, held))
        yield


def _take(workdir: Path, held: contextlib.ExitStack) -> None:
    new = [path for path in (workdir, *workdir.parents) if not path.exists()]
    folder.make(workdir)
    held.callback(_remove_empty, new)
    path = workdir / FILE
    while True:
        try:
            file = held.enter_context(path.open("a+"))
        except OSError as error:
            raise UserError(
                f"{workdir} can't be written to ({error.strerror}): give a --workdir that can"
            ) from error
        _lock(file, workdir)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                break  # and not one that its holder has deleted meanwhile
    held.callback(path.unlink, missing_ok=True)  # while it is still locked
    file.truncate(0)
    json.dump({"host": socket.gethostname(), "process": os.getpid()}, file)
    file.flush()


def _lock(file: IO[str], workdir: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    except BlockingIOError:
        locked = True
    except OSError:  # a file system that has no locks
        locked = False
    file.seek(0)
    try:
        holder = json.loads(file.read())
        host, process = holder["host"], int(holder["process"])
    except (ValueError, KeyError, TypeError, RecursionError):  # it has just been made
        host, process = "", 0
    here = host == socket.gethostname()
    if locked or (process and not (here and not _runs(process))):
        # Where a lock tells nothing, one may have been killed on another host.
        who = f"process {process} on {host}" if process else "another process"
        gone = "" if locked or here else f", or delete {workdir / FILE} if that has ended"
        raise UserError(
            f"{workdir} is being trained already, by {who}: wait until that ends"
            f"{gone}, or give another --workdir"
        )


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # of another user
        return True
    return process != os.getpid()


def _remove_empty(folders: list[Path]) -> None:
    for path in folders:  # the deepest first
        with contextlib.suppress(OSError):  # it holds something
            path.rmdir()
