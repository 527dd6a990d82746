"""The page in a real browser: no error, no overflow, and a slider that moves the numbers."""

import json
import shutil

import pytest

from seenn_jax.evaluation.evaluate import evaluate
from seenn_jax.report.files import write_report
from tests.report.made_up import ENERGY, example, made_up, made_up_details, made_up_guarantee

sync_api = pytest.importorskip("playwright.sync_api", reason="needs the extra `browser`")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser():
    installed = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    with sync_api.sync_playwright() as api:
        try:
            # Containers have no user for the sandbox, and the page is our own.
            browser = api.chromium.launch(executable_path=installed, args=["--no-sandbox"])
        except sync_api.Error:
            pytest.skip("needs Chromium: `playwright install chromium`, or a package `chromium`")
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """`(path, width, **options) -> page`, in which nothing may go wrong."""
    contexts, complaints = [], []

    def open_page(path, width=1280, **options):
        contexts.append(browser.new_context(viewport={"width": width, "height": 800}, **options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(request.url))
        page.goto(path.resolve().as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture(scope="module")
def digits(trained, tmp_path_factory):
    """The report of a run."""
    details = []
    result = evaluate(trained, details=details.append)
    return write_report(result, tmp_path_factory.mktemp("digits"), *details)


@pytest.fixture(scope="module")
def crowded(tmp_path_factory):
    """A report of everything there can be, with long names, many classes and many timesteps."""
    long = "a_name_without_a_place_to_break_it_" * 3
    classes = [
        {"class": f"{long}{i}", "samples": 9999, "right": 9000, "exit_counts": [300] * 32}
        for i in range(20)
    ]
    mistakes = [{"label": i, "answer": 19 - i, "count": 999} for i in range(20)]
    result = made_up_guarantee() | {
        **{"energy": ENERGY, "by_class": classes, "mistakes": mistakes, "timesteps": 32},
        **{"exit_shares": [1 / 32] * 32, "static_accuracy": [0.9] * 32, "average_timesteps": 9.9},
        **{"confidence_by_timestep": made_up()["confidence_by_timestep"] * 8},
        **{"device": long, "workdir": long, "dataset": long, "dataset_note": long},
        "sweep": [
            {"threshold": i / 9, "accuracy": 0.9, "average_timesteps": 1 + 3 * i} for i in range(10)
        ],
    }
    memory = ENERGY["memory"] | {"by_timestep": ENERGY["memory"]["by_timestep"] * 8}
    result["energy"] = ENERGY | {"by_timestep": ENERGY["by_timestep"] * 8, "memory": memory}
    details = made_up_details(config=[(long, long, long)])
    details.examples["wrong"][:] = [example(label=long, answer=long)] * 24
    return write_report(result, tmp_path_factory.mktemp("crowded"), details)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("report", ["digits", "crowded"])
def test_nothing_overflows(report, width, scheme, visit, request):
    page = visit(request.getfixturevalue(report), width, color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    # What scrolls by itself may be wider.
    outside = page.evaluate(
        """(width) => [...document.querySelectorAll("main *")]
            .filter((each) => !each.closest(".scroll") && !each.closest("svg"))
            .filter((each) => each.getBoundingClientRect().right > width)
            .map((each) => each.outerHTML.slice(0, 200))""",
        width,
    )
    assert outside == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 25, 30)"
    assert dark == (scheme == "dark")


def shown(page):
    names = ("threshold", "average", "headline")
    found = {name: page.text_content(f"[data-shows={name}]") for name in names}
    return found | {"shares": page.locator("[data-share]").all_text_contents()}


def test_the_slider_moves_the_numbers(digits, visit):
    result = json.loads((digits.parent / "result.json").read_text())
    page = visit(digits)
    slider, point = page.locator("#threshold"), page.locator("#here")
    assert slider.is_visible()
    first = shown(page)
    assert first["average"] == f"{result['average_timesteps']:.3f}"
    assert first["shares"] == [f"{100 * share:.2f} %" for share in result["exit_shares"]]
    assert page.locator("#back").is_disabled()
    assert point.get_attribute("d") == ""
    places = set()
    # To both ends by the keyboard, which are the ends of the sweep.
    for key, row in (("Home", result["sweep"][0]), ("End", result["sweep"][-1])):
        slider.press(key)
        found = shown(page)
        assert found["threshold"] == f"{row['threshold']:.6g}"
        assert found["average"] == f"{row['average_timesteps']:.3f}"
        assert f"{100 * row['accuracy']:.2f} % of answers right" in found["headline"]
        assert found["shares"] == [f"{100 * count / 360:.2f} %" for count in row["exit_counts"]]
        widths = page.locator("[data-bar]").evaluate_all("(bars) => bars.map((b) => b.style.width)")
        wanted = [100 * count / 360 for count in row["exit_counts"]]
        assert [float(width.removesuffix("%")) for width in widths] == pytest.approx(
            wanted, abs=0.01
        )
        assert found["headline"] in slider.get_attribute("aria-valuetext")
        places.add(point.bounding_box()["x"])
    assert len(places) == 2
    page.click("#back")
    assert shown(page) == first


def test_the_page_works_without_its_script(digits, visit):
    page = visit(digits, java_script_enabled=False)
    assert not page.locator("#threshold").is_visible()
    assert page.locator("summary", has_text="rows of the confidence exit").is_visible()
    assert page.locator("[data-share]").first.text_content().endswith(" %")


def test_the_keyboard_reaches_what_can_be_moved_and_shows_where_it_is(digits, visit):
    page = visit(digits)
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        tag, outline = page.evaluate(
            """[document.activeElement.tagName,
                getComputedStyle(document.activeElement).outlineStyle]"""
        )
        reached.append(tag)
        if tag == "BODY":
            break
        assert outline == "solid", tag
    assert {"A", "INPUT", "SUMMARY"} <= set(reached)


def test_print_is_on_white_and_without_what_only_a_screen_can_use(digits, visit):
    page = visit(digits, color_scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(253, 253, 252)"
    assert not page.locator("nav").is_visible()
    assert not page.locator("#threshold").is_visible()
    assert page.locator("h1").is_visible()
