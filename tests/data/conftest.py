"""What several of these files share."""

import zlib

import pytest

from tests.data.listed import Listed


@pytest.fixture
def data_dir(tmp_path, monkeypatch):
    """An empty data folder and an empty cache folder, and no way to the user's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def listed(picture, encoded):
    """`(count, numbers of truncated ones) -> source`."""

    def make(count, corrupt=()):
        files = [encoded(picture(i)) for i in range(count)]
        return Listed([f[: len(f) // 2] if i in corrupt else f for i, f in enumerate(files)])

    return make


@pytest.fixture
def folder(tmp_path, picture, encoded):
    """`(path below it, how many images)`: write these images."""

    def write(path, count=1):
        (tmp_path / path).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            data = encoded(picture(zlib.crc32(f"{path}{i}".encode())))
            (tmp_path / path / f"{i:02}.JPEG").write_bytes(data)
        return f"folder:{tmp_path}"

    return write
