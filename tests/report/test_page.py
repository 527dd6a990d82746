"""The page is right, whole and safe."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seenn_jax.report.files import write_report
from seenn_jax.report.page import page
from tests.report.made_up import (
    ALL,
    CONVERSION,
    Page,
    example,
    made_up,
    made_up_details,
    made_up_full,
    made_up_old,
    made_up_single,
    page_of,
    printed,
)


@ALL
def test_page_shows_every_figure(result):
    page = page_of(result)
    for t, (accuracy, share) in enumerate(
        zip(result["static_accuracy"], result["exit_shares"], strict=True), start=1
    ):
        assert f"{t} {100 * accuracy:.2f} % {100 * share:.2f} %" in page.text
    for row in result["sweep"]:
        cells = f"{row['threshold']:.6f} {100 * row['accuracy']:.2f} %"
        assert f"{cells} {row['average_timesteps']:.3f}" in page.text
    assert f"{100 * result['accuracy']:.2f} %" in page.text
    assert f"oracle {result['oracle_aet']:.3f}" in page.text
    for key in ("exit", "threshold_rule", "dataset", "split", "seed", "revision", "device"):
        assert str(result[key]) in page.text
    for name, version in result["versions"].items():
        assert f"{name} {version}" in page.text


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("exit", "entropy", "entropy"),
        ("knob", "patience", "patience rule"),
        ("threshold", 0.12345678901234, "0.12345678901234"),
        ("threshold_rule", "as given on the command line", "as given on the command line"),
        ("accuracy", 0.7654, "76.54 %"),
        ("average_timesteps", 2.345, "2.345"),
        ("aet", 2.718, "2.718"),
        ("oracle_aet", 1.618, "1.618"),
        ("num_samples", 4321, "4,321 samples"),
        ("dataset", "svhn", "svhn"),
        ("dataset_note", "half of it", "half of it"),
        ("split", "train", "train"),
        ("seed", 918273, "918273"),
        ("revision", "0123abc", "0123abc"),
        ("versions", {"jax": "9.9"}, "jax 9.9"),
        ("device", "TPU v5", "TPU v5"),
        ("workdir", "elsewhere", "elsewhere"),
        ("checkpoint_step", 7654321, "step 7,654,321"),
        ("images_per_second", 55555.0, "55,555"),
        (
            "calibration",
            {"ece": 0.0123, "bins": made_up()["calibration"]["bins"]},
            "at the exit is 1.23 %",
        ),
    ],
)
def test_page_shows_each_key(key, value, shown):
    assert shown not in page_of(made_up()).text
    assert shown in page_of(made_up(**{key: value})).text


@ALL
def test_page_is_whole_with_details_and_without(result):
    with_details, without = page_of(result, made_up_details()), page_of(result)
    for heading in ("Images", "Training", "Config"):
        assert f" {heading} " in with_details.text
        assert heading not in without.text
    for found in (with_details, without):
        assert found.tags.count("h1") == found.tags.count("main") == 1
        assert "None " not in found.text.replace("None: every answer is right", "")


def test_page_needs_nothing_outside_itself(tmp_path):
    report = write_report(made_up(), tmp_path, made_up_details()).read_text(encoding="utf-8")
    page = Page(report)
    assert not {"link", "iframe", "image"} & set(page.tags)
    assert page.tags.count("img") == 49
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids)) > 0
    for name, value in page.attributes:
        if name == "src":
            assert value.startswith("data:image/png;base64,")
        if name in ("href", "xlink:href", "for"):
            assert value.removeprefix("#") in ids
    assert not re.search(r"https?://|url\(|@import|fetch\(", re.sub(r"base64,\S+", "", report))


def test_what_is_not_text_says_what_it_is():
    page = page_of(made_up(), made_up_details())
    named = [value for name, value in page.attributes if name in ("aria-label", "alt")]
    assert len(named) >= 49 + 5
    assert all(named)
    # Every figure is a picture with a name; what the script shows is told as it changes.
    assert page.attributes.count(("role", "img")) >= 5
    assert {"output", "label"} <= set(page.tags)


def test_the_headline_leads_the_page():
    html = page(made_up())
    (title,) = re.findall(r"<title>(.*)</title>", html)
    (heading,) = re.findall(r"<h1>(.*)</h1>", html)
    assert title == "cifar10: 3.4 times fewer timesteps, 90.12 % of answers right"
    assert heading.replace("\N{NO-BREAK SPACE}", " ") == title.removeprefix("cifar10: ")


def test_colours_are_those_of_the_readers_theme():
    html = page(made_up(), made_up_details())
    for variable in set(re.findall(r"var\((--\w+)\)", html)):
        assert html.count(f"{variable}: #") == 2, variable  # once light, once dark
    style = html[: html.index("</style>")]
    assert "#" not in re.sub(r"--\w+: #[0-9a-f]{6};|background: #000", "", style)


# --- Classes -----------------------------------------------------------------------------------


def test_classes_that_take_longest_come_first():
    text = page_of(made_up()).text
    # Of dogs half take one timestep and half two; of cats 3000, 500, 250 and 250 take 1 to 4.
    order = ["dog 5,000 99.96 % 1.500", "cat 4,000 75.00 % 1.438", "fox 1,000 100.00 % 1.000"]
    assert [text.count(row) for row in order] == [1, 1, 1]
    assert text.index(order[0]) < text.index(order[1]) < text.index(order[2])
    bars = dict(page_of(made_up()).attributes)
    assert "aria-label" in bars
    assert "50.00 % at t = 1, 50.00 % at t = 2" in page(made_up())


def test_the_confusion_matrix_by_hand():
    html = page(made_up())
    rows = re.findall(r"<tr>.*?</tr>", html[html.index('<table class="confusion">') :], re.S)
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.S) for row in rows[1:4]]
    assert cells == [["3,000", "990", "10"], ["2", "4,998", ""], ["", "", "1,000"]]
    # As dark as the root of its share: of 4,000 cats 990 are taken for dogs.
    assert f"--share: {55 * (990 / 4000) ** 0.5:.1f}%" in rows[1]
    assert rows[1].count('class="right"') == 1


def test_of_many_classes_the_pairs_that_are_confused_most_are_listed():
    many = [
        {"class": f"number {i}", "samples": 1, "right": 1, "exit_counts": [i == 29, i != 29, 0, 0]}
        for i in range(30)
    ]
    html = page(made_up(by_class=many))
    assert '<table class="confusion">' not in html
    assert '<th scope="row">number 0</th><td>number 1</td><td>990</td>' in html
    assert "All 30 classes" in html
    shown = html[html.index('id="classes"') : html.index("All 30 classes")]
    assert shown.count('<th scope="row">') == 20
    assert "number 29" not in shown


def test_nothing_wrong_and_classes_without_samples():
    classes = [
        {"class": "cat", "samples": 9, "right": 9, "exit_counts": [9, 0, 0, 0]},
        {"class": "dog", "samples": 0, "right": 0, "exit_counts": [0, 0, 0, 0]},
    ]
    text = page_of(made_up(by_class=classes, mistakes=[])).text
    assert "None: every answer is right." in text
    assert "dog" not in text


# --- Images, training, config ------------------------------------------------------------------


def test_an_image_stands_with_its_label_answer_and_timesteps():
    page = page_of(made_up(), made_up_details())
    alt = [value for name, value in page.attributes if name == "alt"]
    assert alt[0] == "labelled cat, answered cat at timestep 1, 87.50 % sure"
    assert alt[-1] == "labelled cat, answered fox at timestep 3, 75.00 % sure"
    assert "cat → fox" in page.text
    all_right = made_up_details(
        examples={"easiest": [example()], "hardest": [example()], "wrong": []}
    )
    assert "The surest come first." not in page_of(made_up(), all_right).text


def test_the_config_tells_what_differs_and_all():
    text = page_of(made_up(), made_up_details()).text
    assert "What differs from the defaults: setting value default model.width 24 16 All 3" in text
    assert 'data.note "" ""' in text
    same = made_up_details(config=[("epochs", 30, 30)])
    assert "Nothing differs from the defaults." in page_of(made_up(), same).text


def test_a_run_without_metrics_has_no_training_curves():
    page = page_of(made_up(), made_up_details(training=[]))
    assert "Training" not in page.text
    assert "Config" in page.text


# --- Text of others ----------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(text=st.text(alphabet=st.sampled_from("<>&\"'[]/ bscript={}%$"), max_size=30))
def test_strings_are_shown_as_they_are(text):
    strings = ("threshold_rule", "dataset", "dataset_note", "split", "revision", "device")
    classes = [row | {"class": text} for row in made_up()["by_class"]]
    result = made_up(workdir=text, versions={text: text}, sweep=[], by_class=classes)
    details = made_up_details(config=[("data.note", text, "")])
    for kind in details.examples.values():
        kind[:] = [each._replace(label=text, answer=text) for each in kind]
    plain = page_of(made_up(sweep=[]), made_up_details(config=[("data.note", "a", "")]))
    page = page_of(result | dict.fromkeys(strings, text), details)

    for tag in ("script", "img", "a", "b", "i", "section", "h1", "h2", "ul", "li", "span", "svg"):
        assert page.tags.count(tag) == plain.tags.count(tag)
    assert " ".join(text.split()) in page.text


def test_markup_in_strings_is_not_obeyed():
    hostile = '</script><script>alert("x")</script><!--<b>&amp;'
    result = made_up(device=hostile, exit=hostile, knob=hostile)
    result["by_class"] = [row | {"class": hostile} for row in result["by_class"]]
    wrong = [example(label=hostile, answer=hostile)]
    examples = {"easiest": [], "hardest": [], "wrong": wrong}
    details = made_up_details(examples=examples, config=[(hostile, hostile, None)])
    html, plain = page(result, details), page(made_up(), details._replace(config=[]))
    assert "alert(&quot;x" in html.replace("&#34;", "&quot;")
    assert 'alert("x' not in html
    assert "<!--" not in html
    assert html.count("</script>") == plain.count("</script>") == 2
    (data,) = re.findall(r'<script type="application/json" id="sweep">(.*)</script>', html)
    assert json.loads(data)["name"] == hostile
    assert "[bold]runs/[/x]" in printed(made_up(workdir="[bold]runs/[/x]"))


# --- Optional parts ----------------------------------------------------------------------------


def test_the_points_against_t_are_of_the_same_answers():
    # 90.17 - 90.41, not 90.12 - 90.41: the run in slots rounds otherwise.
    replayed = "(90.17 % replayed from the answers of all ticks at once)"
    assert f"-0.24 points against T = 4 {replayed}" in page_of(made_up()).text
    assert "replayed" not in page_of(made_up_full()).text
    same = made_up(replayed_accuracy=0.9012 + 1e-9)  # in another precision
    assert "replayed" not in page_of(same).text


def test_the_page_has_the_conversion_where_there_is_one():
    html = page(made_up() | {"conversion": CONVERSION})
    assert '<th scope="row">runs/&lt;one&gt;</th>' in html
    assert "<td>0.0125</td>" in html
    assert "once converted" in html
    assert "once converted" not in page(made_up())


def test_the_slider_is_there_where_a_threshold_can_be_moved():
    html = page(made_up())
    (data,) = re.findall(r'<script type="application/json" id="sweep">(.*)</script>', html)
    slider = json.loads(data)
    assert f'max="{len(slider["rows"]) - 1}"' in html
    assert f'value="{slider["used"]}"' in html
    assert "<script" not in page(made_up_full())
    assert "<script" in page(made_up_single())


def test_a_result_of_an_older_version_has_a_page():
    text = page_of(made_up_old()).text
    assert "By class" not in text
    assert "Confidence" not in text
    assert "3.4 times fewer timesteps" in text
