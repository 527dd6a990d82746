"""Files that come with the package, and files that are written: whole, never over another one."""

import os
import tempfile
from pathlib import Path

from seenn_jax.errors import UserError


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
