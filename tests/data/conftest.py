"""What several of these files share."""

import functools
import http.server
import subprocess
import sys
import threading
import zlib
from pathlib import Path

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


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Files of a folder; of `cut.bin` half of what is announced."""

    def log_message(self, *_):
        """Say nothing."""

    def do_GET(self):
        if self.path != "/cut.bin":
            super().do_GET()
            return
        data = Path(self.directory, "cut.bin").read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2])


@pytest.fixture
def serve(monkeypatch):
    """`folder -> address` of a server of its files."""
    monkeypatch.setenv("no_proxy", "*")
    running = []

    def start(folder):
        handler = functools.partial(Quiet, directory=str(folder))
        served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((served, thread))
        return f"http://127.0.0.1:{served.server_port}"

    yield start
    for served, thread in running:
        served.shutdown()
        served.server_close()
        thread.join()


@pytest.fixture
def run_twice():
    """`(code) -> what two fresh Python processes, one after the other, did with it`."""

    def run(code):
        command = [sys.executable, "-c", code]
        return [subprocess.run(command, capture_output=True, text=True) for _ in range(2)]

    return run
