"""Files that come with the package, and files that are written: whole, never over another one."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from seenn_jax.errors import UserError

_UNFINISHED = "seenn_jax-unfinished-"  # a name that nobody else gives


def shipped(name: str) -> Path:
    """A folder that comes with the package: within it once installed, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    return package / name if (package / name).is_dir() else package.parent / name


def put(path: Path, content: bytes) -> None:
    """Write a file so that no reader ever sees a part of it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        error.filename = str(path)  # which a full disk does not say
        raise
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def unfinished(parent: Path) -> Iterator[Path]:
    """A new folder in `parent` for what is not whole yet, deleted at the end.

    Those that killed processes have left there are deleted too: who works in one has it locked.
    """
    for left in parent.glob(f"{_UNFINISHED}*"):
        with contextlib.suppress(OSError), _locked(left):
            shutil.rmtree(left)
    with contextlib.ExitStack() as stack:
        yield _made(parent, stack)


def _made(parent: Path, stack: contextlib.ExitStack) -> Path:
    """A new folder that is locked until `stack` ends, and then deleted.

    Another process that sees it before it is locked deletes it: then there will be another one.
    """
    while True:
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=_UNFINISHED))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        try:
            stack.enter_context(_locked(folder))
        except (BlockingIOError, FileNotFoundError):
            continue
        except OSError:  # a file system without locks
            return folder
        if folder.exists():
            return folder


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder; an OSError where another process has it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def check_new(setting: str, path: Path) -> None:
    """Raise a UserError unless a new file can be written to `path`, the value of `setting`."""
    if path.exists():
        raise UserError(f"`{setting}`={path} exists already: give the name of a new file")
    if not path.parent.is_dir():
        raise UserError(
            f"`{setting}`={path}: there is no folder {path.parent}; make it, or use another"
        )
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise UserError(
            f"`{setting}`={path} can't be written ({error.strerror}): use another folder"
        ) from error
