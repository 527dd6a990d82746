"""Names and arrays of a checkpoint file of other software, judged by its content and not its name.

What is read runs no code, and needs no other software.
"""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors

from seenn_jax.errors import UserError
from seenn_jax.interop import torch_files

WRAPPERS = ("state_dict", "model", "model_state_dict", "net")  # what a state dict lies in
PREFIX = "module."  # before each name, of a model that was trained under DataParallel
# Of .safetensors.
DTYPES: dict[str, Any] = {
    **{f"{kind}{8 * size}": f"<{kind.lower()}{size}" for kind in "IU" for size in (1, 2, 4, 8)},
    **{"F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": jnp.bfloat16, "BOOL": "?"},
}
DENSEST = 1100  # bytes of numbers in one of a file, at most: as much as deflate can


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Names and arrays of a file; halves and bfloat16 as float32.

    Args:
      path: of what `torch.save` wrote (a state dict, alone or as one of `WRAPPERS`), of a
        .safetensors or of a .npz, whatever its name.

    Raises:
      UserError: the file can't be read, is damaged, or holds something else.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"there is no checkpoint file at {path} ({error.strerror}): give the path of a .pth, "
            ".safetensors or .npz"
        ) from error
    return _plain(path, _state_in(path, _read(path, content)))


def _read(path: Path, content: bytes) -> Any:
    _check_kind(path, content)
    for is_one, load, what in _READERS:
        if is_one(content):
            try:
                return load(content)
            except torch_files.Unreadable as error:
                raise _unreadable(path, what, error) from error
            except Exception as error:  # of any kind, where a file is damaged
                raise _unreadable(path, what, error) from error
    raise UserError(
        f"{path} is no checkpoint: what torch.save wrote, .safetensors and .npz can be read"
    )


def _unreadable(path: Path, what: str, error: Exception) -> UserError:
    why = " ".join(str(error).split())[:300] or type(error).__name__
    return UserError(f"{path} can't be read as {what} ({why}): get it again, or give another file")


def _check_kind(path: Path, content: bytes) -> None:
    """Say what is often found in the place of a checkpoint."""
    start = content[:200].lstrip().lower()
    for found, why in (
        (not content, "is empty"),
        (start.startswith(b"<"), "is a web page, such as one on which a download is confirmed"),
        (start.startswith(b"version https://git-lfs"), "is the pointer of a file in Git LFS"),
    ):
        if found:
            raise UserError(f"{path} {why}, and no checkpoint: download the file itself")


def _is_npz(content: bytes) -> bool:
    return content[:2] == b"PK"  # as all archives begin, cut ones too


def _npz(content: bytes) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > DENSEST * len(content):
        raise ValueError(f"it speaks of {size:,} bytes of numbers and has {len(content):,}")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)


def _is_safetensors(content: bytes) -> bool:
    return content[8:9] == b"{" and int.from_bytes(content[:8], "little") <= len(content)


def _safetensors(content: bytes) -> dict[str, np.ndarray]:
    return {
        name: np.frombuffer(about["data"], DTYPES[about["dtype"]]).reshape(about["shape"])
        for name, about in safetensors.deserialize(content)
    }


# Whether it is one, how it is read, what it is called. The length with which a .safetensors begins
# may look like a pickle's first byte.
_READERS = (
    (_is_safetensors, _safetensors, "a .safetensors file"),
    (torch_files.is_one, torch_files.load, "what torch.save wrote"),
    (_is_npz, _npz, "a .npz file"),
)


def _state_in(path: Path, found: Any) -> Mapping[str, Any]:
    """The state dict in what a file holds."""
    if isinstance(found, Mapping):
        for name in WRAPPERS:
            if isinstance(found.get(name), Mapping):
                found = found[name]
                break
    if not isinstance(found, Mapping):
        raise UserError(
            f"{path} holds a {type(found).__name__} and no state dict: give a file of what "
            f"state_dict() gives, alone or as one of {', '.join(WRAPPERS)}"
        )
    if not found:
        raise UserError(f"{path} holds a state dict without tensors: give another file")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, np.ndarray):
            raise UserError(
                f"{path} has {name!r}, a {type(value).__name__} and no tensor: give a file of what "
                f"state_dict() gives, alone or as one of {', '.join(WRAPPERS)}"
            )
    return found


def without_prefix(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """A state dict without `PREFIX`, where all names have it."""
    if not all(name.startswith(PREFIX) for name in state):
        return state
    return {name.removeprefix(PREFIX): array for name, array in state.items()}


def _plain(path: Path, state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    plain = {}
    for name, array in without_prefix(state).items():
        if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
            raise UserError(f"{path} has {name!r} of {array.dtype.name}: give a file of numbers")
        wide = array.dtype.itemsize < 4 and array.dtype.kind in "fV"
        plain[name] = np.array(array, np.float32 if wide else None)
        if not np.all(np.isfinite(plain[name])):
            raise UserError(f"{path} has {name!r} with numbers that are not finite: get it again")
    return plain
