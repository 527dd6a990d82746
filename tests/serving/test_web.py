"""HTTP: images in, JSON out, and a status with one sentence for all else."""

import asyncio
import io
import itertools
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seenn_jax.data.files import fitted
from seenn_jax.serving import Server, web
from tests.serving.toy import T, toy
from tests.serving.toy import step as step_of_features

ROOT = Path(__file__).parents[2]
SHAPE = (2, 2, 1)


def step(params, state, images):
    return step_of_features(params, state, images.reshape(-1, 4) / 64 - 2)


SEEING = toy(step=step, shape=SHAPE, dtype=np.dtype(np.uint8))


def frame(image):
    return fitted(image, SHAPE)


def pictures(count):
    return np.random.default_rng(0).integers(0, 256, (count, *SHAPE), np.uint8)


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.fixture(scope="module")
def server():
    with Server(SEEING, slots=4, queue=20) as server:
        yield server


async def called(app, path, body=b"", method="POST", parts=1, stays=True):
    """(status, headers, body) of an application, without a network between."""
    path, _, query = path.partition("?")
    scope = {"type": "http", "method": method, "path": path, "headers": [], "http_version": "1.1"}
    scope |= {"query_string": query.encode(), "root_path": ""}
    cuts = np.linspace(0, len(body), parts + 1).astype(int)
    coming = [
        {"type": "http.request", "body": body[a:b], "more_body": b < len(body)}
        for a, b in itertools.pairwise(cuts)
    ]
    sent = []

    async def receive():
        if coming:
            return coming.pop(0)
        if stays:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(x.get("body", b"") for x in sent[1:])


@pytest.fixture
def ask(server):
    def call(path, body=b"", limits=None, **options):
        app = web.application(server, limits or web.Limits(10_000, frame))
        status, headers, text = asyncio.run(called(app, path, body, **options))
        if headers["content-type"] == "application/json":
            return status, json.loads(text)
        return status, text.decode()

    return call


def test_an_image_and_a_batch(ask, server, encoded):
    images = pictures(9)
    wanted = list(server.map(images))
    status, several = ask("/predict", npy(images), parts=3)
    assert status == 200
    for image, answer, found in zip(images, wanted, several, strict=True):
        assert ask("/predict", encoded(image[..., 0], "PNG"))[1].keys() == found.keys()
        assert found["milliseconds"] > 0
        del found["milliseconds"]
        assert found == {
            "class": answer.number,
            "name": answer.name,
            "confidence": pytest.approx(answer.confidence, abs=1e-6),
            "timesteps": answer.timesteps,
            "complete": True,
        }
    status, one = ask("/predict", npy(images[0]))
    assert (status, one["class"]) == (200, wanted[0].number)


def test_an_image_of_any_format_and_size_is_brought_to_the_networks(ask, encoded, picture):
    big = picture(1)
    for kind in ("PNG", "WEBP", "JPEG"):
        assert ask("/predict", encoded(big, kind))[0] == 200
    status, said = ask("/predict", encoded(big), web.Limits(10_000, frame, resize=False))
    assert status == 422
    assert said == {
        "error": "the image has 32 x 24 pixels, and this server takes 2 x 2: send that, or start "
        "the server with resize"
    }


def test_all_ticks_and_a_value(ask):
    status, found = ask("/predict?ticks=all&exit=1", npy(pictures(1)[0]))
    assert (status, found["timesteps"], len(found["ticks"])) == (200, T, T)
    last = found["ticks"][-1]
    assert [last[key] for key in last] == [found[key] for key in ("class", "name", "confidence")]


BAD = [
    ("/predict", b"", 422, "the body is empty"),
    ("/predict", b"no image", 400, "can't be read (it is no JPEG, PNG, BMP, WEBP)"),
    ("/predict", b"\x89PNG\r\n\x1a\n", 400, "it is cut short"),
    ("/predict", bytes(10_001), 413, "the body has more than 10,000 bytes"),
    ("/predict", bytes(200_000), 413, "the body has more than 10,000 bytes"),
    ("/predict", npy(np.zeros((2, 3, 3, 1), np.uint8)), 422, "uint8[2, 3, 3, 1], and this network"),
    ("/predict", npy(np.zeros((2, *SHAPE))), 422, "the .npy is float64[2, 2, 2, 1], of 64 bytes"),
    ("/predict", npy(np.zeros((0, *SHAPE), np.uint8)), 422, "there are no images"),
    ("/predict", npy(np.zeros((21, *SHAPE), np.uint8)), 422, "has 21 images, and the server lets"),
    ("/predict", npy(pictures(2))[:-1], 422, "of 7 bytes"),
    ("/predict", npy(pictures(2))[:30], 422, "no header"),
    ("/predict", b"\x93NUMPY\x09\x00", 422, "no header"),
    ("/predict", npy(np.array([{}])), 422, "the .npy is object[1]"),
    ("/predict?exit=2", npy(pictures(1)), 422, "threshold 2.0 is outside"),
    ("/predict?exit=nan", npy(pictures(1)), 422, "exit is 'nan': give a number"),
    ("/predict?deadline=0", npy(pictures(1)), 422, "deadline is 0"),
    ("/predict?deadline=1e-9", npy(pictures(1)), 504, "before the first tick"),
    ("/predict?path=/etc/passwd", npy(pictures(1)), 422, "the query has path='/etc/passwd'"),
    ("/../weights", b"", 404, "Not Found"),
]


@pytest.mark.parametrize(("path", "body", "status", "said"), BAD, ids=[case[3] for case in BAD])
def test_a_mistake_is_a_status_and_a_sentence(ask, path, body, status, said):
    found, error = ask(path, body)
    assert found == status
    assert error.keys() == {"error"}
    assert said in error["error"]
    assert "\n" not in error["error"]


@pytest.mark.parametrize(
    "header",
    [
        *("{'descr': (", "{1: 2, 'a': 3}", "(" * 5000, "+".join("1" * 4500)),
        *(
            f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
            for descr, shape in [
                ("'|u1'", "(-1, -1, 2, 2, 1)"),
                ("'|u1'", "(True, 2, 2, 1)"),
                ("'|u1'", f"({'1,' * 70})"),
                ("'|u1'", f"(0x{'F' * 8000},)"),
                ("()", "(1,)"),
                ("'f4,('", "(1,)"),
            ]
        ),
    ],
    ids=range(10),
)
def test_a_header_that_can_not_be_is_a_sentence(ask, header):
    text = header.encode() + b"\n"
    body = b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text + bytes(4)
    with warnings.catch_warnings(action="ignore"):  # of Python's parser
        status, found = ask("/predict", body, web.Limits(20_000, frame))
    assert status == 422
    assert found["error"].startswith("the .npy ")


def test_a_bomb_is_refused_before_it_is_decoded(ask, monkeypatch):
    monkeypatch.setattr(web, "MOST_PIXELS", 99)
    file = io.BytesIO()
    Image.new("L", (10, 10)).save(file, "PNG")
    status, said = ask("/predict", file.getvalue())
    assert (status, "10 x 10 pixels, more than 99" in said["error"]) == (400, True)


def test_few_images_are_decoded_at_once(server, monkeypatch, encoded):
    started, go, decode = [], threading.Event(), web.decode

    def held(*arguments, **options):
        started.append(threading.current_thread())
        assert go.wait(10)
        return decode(*arguments, **options)

    monkeypatch.setattr(web, "decode", held)
    app = web.application(server, web.Limits(10_000, frame))
    images = pictures(3 * web.DECODERS)

    async def ask():
        bodies = [encoded(image[..., 0], "PNG") for image in images]
        tasks = [asyncio.ensure_future(called(app, "/predict", body)) for body in bodies]
        while len(started) < web.DECODERS:
            await asyncio.sleep(0)
        # What needs no decoding does not wait for them.
        assert (await called(app, "/predict", npy(images[0])))[0] == 200
        await asyncio.sleep(0.05)
        assert len(started) == web.DECODERS
        go.set()
        return await asyncio.gather(*tasks)

    try:
        assert [status for status, *_ in asyncio.run(ask())] == [200] * len(images)
    finally:
        go.set()
    assert len(set(started)) == web.DECODERS


def test_recordings():
    x = np.random.default_rng(0).integers(0, 256, (3, T, *SHAPE), np.uint8)
    with Server(SEEING._replace(frames=True), slots=4, queue=8) as server:
        app = web.application(server, web.Limits(10_000, None))
        status, _, text = asyncio.run(called(app, "/predict", npy(x)))
        wanted = [server.submit(one).result().number for one in x]
        assert [found["class"] for found in json.loads(text)] == wanted
        status, _, text = asyncio.run(called(app, "/predict", b"image"))
        assert (status, b"takes recordings" in text) == (422, True)
        for count, said in ((9, b"has 9 images, and the server lets 8"), (0, b"no images")):
            many = np.zeros((count, *x.shape[1:]), np.uint8)
            status, _, text = asyncio.run(called(app, "/predict", npy(many)))
            assert (status, said in text) == (422, True)
        assert server.counters()["requests"] == 6


def test_the_state_of_the_server(ask, server):
    assert ask("/predict", npy(pictures(1)[0]))[0] == 200
    assert ask("/healthz", method="GET") == (200, {"status": "ok"})
    status, text = ask("/metrics", method="GET")
    counters = server.counters()
    assert status == 200
    found = dict(re.findall(r"^(\w+(?:{.*})?) (\S+)$", text, re.MULTILINE))
    assert int(found["seenn_answers_total"]) == counters["answers"]
    assert int(found['seenn_exits_total{timesteps="1"}']) == counters["exits"][0]
    assert float(found['seenn_latency_seconds{quantile="0.99"}']) == counters["latency"][0.99]
    assert set(re.findall(r"# TYPE (\w+)", text)) >= {"seenn_queue_length", "seenn_exits_total"}


def test_a_full_and_a_stopped_server(ask):
    server = Server(SEEING, slots=4, queue=1)
    app = web.application(server, web.Limits(10_000, frame))
    server.submit(pictures(1)[0])
    status, headers, text = asyncio.run(called(app, "/predict", npy(pictures(1))))
    assert (status, headers["retry-after"]) == (429, "1")
    assert b"ask again later" in text
    server.stop()
    assert asyncio.run(called(app, "/predict", npy(pictures(1))))[0] == 503
    assert asyncio.run(called(app, "/healthz", method="GET"))[0] == 503


def test_a_client_that_goes_away_frees_its_place():
    server = Server(SEEING, slots=4, queue=4)
    app = web.application(server, web.Limits(10_000, frame))
    status, _, _ = asyncio.run(called(app, "/predict", npy(pictures(4)), stays=False))
    assert status == 499
    with server:
        assert len(server.submit_all(pictures(4)).result()) == 4
    assert server.counters()["cancelled"] == 4


def test_the_page_asks_nobody_else(ask):
    status, text = ask("/", method="GET")
    assert status == 200
    assert not re.search(r"https?://|@import|src=|<link", text)


@pytest.fixture
def started(environment):
    """`(*flags) -> (address, process)` of `python -m seenn_jax serve` on the weights of digits."""
    processes = []

    def start(*flags):
        command = [sys.executable, "-m", "seenn_jax", "serve", "--weights=digits-resnet8"]
        command += ["--port=0", "--slots=4", *flags]
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        for line in process.stdout:
            if "Listening on " in line:
                return re.search(r"http://[\d.:]+", line)[0], process
        raise AssertionError("it has not begun")

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.slow
def test_the_program_answers_over_loopback_and_stops_gracefully(started, encoded):
    import seenn_jax
    from seenn_jax.data import digits

    images = digits.still()[1].images[:200]
    address, process = started()
    with urllib.request.urlopen(f"{address}/predict", npy(images)) as response:
        found = json.load(response)
    wanted = seenn_jax.load("digits-resnet8").predict(images)
    assert [one["class"] for one in found] == wanted.classes.tolist()
    assert [one["timesteps"] for one in found] == wanted.timesteps.tolist()
    with urllib.request.urlopen(f"{address}/predict", encoded(images[3, ..., 0], "PNG")) as one:
        assert json.load(one)["class"] == wanted.classes[3]
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert "201 images were answered" in process.stdout.read()


@pytest.mark.slow
def test_the_page_in_a_browser(started, tmp_path):
    api = pytest.importorskip("playwright.sync_api", reason="needs the extra `browser`")
    from seenn_jax.data import digits

    path = tmp_path / "digit.png"
    Image.fromarray(digits.still()[1].images[0, ..., 0]).save(path)
    address, _ = started()
    installed = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    with api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=installed, args=["--no-sandbox"])
        except api.Error:
            pytest.skip("needs Chromium: `playwright install chromium`, or a package `chromium`")
        page, complaints = browser.new_page(), []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        page.fill("#exit", "1")
        page.set_input_files("#file", path)
        page.wait_for_selector("#ticks li:nth-child(4)")
        assert re.search(r"% sure after 4 timesteps", page.inner_text("#said"))
        assert page.locator("#ticks li").count() == 4
        other = tmp_path / "text.png"
        other.write_text("no image")
        page.set_input_files("#file", other)
        page.get_by_text("no JPEG").wait_for()
        browser.close()
    assert [text for text in complaints if "400" not in text and "favicon" not in text] == []
