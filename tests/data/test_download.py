"""What is fetched is whole and the right file, or is not there."""

import hashlib
import socket

import pytest

from seenn_jax.data.download import download
from seenn_jax.errors import UserError

CONTENT = bytes(range(256)) * 5000  # over one chunk
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


@pytest.fixture
def server(serve, tmp_path):
    """The address of a server with `file.bin`."""
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "file.bin").write_bytes(CONTENT)
    (folder / "cut.bin").write_bytes(CONTENT)
    return serve(folder)


def test_a_file_arrives(server, tmp_path):
    path = tmp_path / "cache" / "file.bin"
    download(f"{server}/file.bin", MD5, path)
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("file", "md5", "why"),
    [
        ("file.bin", "0" * 32, rf"gave 1,280,000 bytes of MD5 {MD5} and not 0{{32}}"),
        ("cut.bin", MD5, "640000|gave 640,000 bytes"),
        ("gone.bin", MD5, r"can't be fetched, its answer is 404 \(File not found\)"),
    ],
)
def test_nothing_else_arrives(server, tmp_path, file, md5, why):
    path = tmp_path / "cache" / file
    with pytest.raises(UserError, match=why) as caught:
        download(f"{server}/{file}", md5, path)
    assert f"{server}/{file}" in str(caught.value)
    assert f"put it into {path.parent}" in str(caught.value)
    assert list(path.parent.iterdir()) == []


def test_no_connection(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/file.bin"
        with pytest.raises(UserError, match=r"can't be fetched to .*refused.*: try again, or"):
            download(url, MD5, tmp_path / "file.bin")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match="can't be fetched to"):
        download(f"{server}/file.bin", MD5, tmp_path / "file" / "file.bin")
