"""A file of the network, whole or not at all."""

import hashlib
import http.client
import logging
import os
import urllib.error
import urllib.request
from pathlib import Path

from seenn_jax.errors import UserError
from seenn_jax.paths import unfinished

_log = logging.getLogger(__name__)
_CHUNK = 2**20  # bytes
_TIMEOUT = 60  # seconds without an answer, or without a byte of it


def download(url: str, md5: str, path: Path) -> None:
    """Fetch `url` to `path`, which appears once its MD5 is found to be this one.

    Raises:
      UserError: it can't be fetched or kept, or is another file.
    """
    by_hand = f"try again, or fetch it in a browser and put it into {path.parent}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished(path.parent) as folder:
            staged = folder / path.name
            found = _fetch(url, staged, path)
            if found != md5:
                raise UserError(
                    f"{url} gave {staged.stat().st_size:,} bytes of MD5 {found} and not {md5}, so "
                    f"that they are not the archive: {by_hand}"
                )
            os.replace(staged, path)
    except urllib.error.HTTPError as error:
        error.close()
        raise UserError(
            f"{url} can't be fetched, its answer is {error.code} ({error.reason}): {by_hand}"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "reason", error)
        raise UserError(f"{url} can't be fetched to {path} ({why}): {by_hand}") from error


def _fetch(url: str, staged: Path, path: Path) -> str:
    """Write what `url` gives to a file; its MD5."""
    digest = hashlib.md5(usedforsecurity=False)
    with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer, staged.open("wb") as file:
        megabytes = int(answer.headers.get("Content-Length") or 0) / 1e6
        _log.info("fetching %s (%.0f MB) to %s", url, megabytes, path)
        while chunk := answer.read(_CHUNK):
            file.write(chunk)
            digest.update(chunk)
    return digest.hexdigest()
