"""Files that are written whole or not at all."""

import os
from pathlib import Path


def put(path: Path, content: bytes) -> None:
    """Write a file so that no reader ever sees a part of it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
