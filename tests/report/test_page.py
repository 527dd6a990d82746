"""The page is right, whole and safe."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seenn_jax.report.files import write_report
from seenn_jax.report.page import page
from tests.report.made_up import ALL, CONVERSION, Page, made_up, made_up_full, page_of, printed


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
    ],
)
def test_page_shows_each_key(key, value, shown):
    assert shown not in page_of(made_up()).text
    assert shown in page_of(made_up(**{key: value})).text


def test_page_needs_nothing_outside_itself(tmp_path):
    page = Page(write_report(made_up(), tmp_path).read_text(encoding="utf-8"))
    assert not {"script", "link", "img", "iframe", "image"} & set(page.tags)
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids)) > 0
    for name, value in page.attributes:
        if name in ("href", "xlink:href", "src"):
            assert value.removeprefix("#") in ids
        for target in re.findall(r"url\((.*?)\)", value or ""):
            assert target.removeprefix("#") in ids


@settings(deadline=None)
@given(text=st.text(alphabet=st.sampled_from("<>&\"'[]/ bscript={}%$"), max_size=30))
def test_strings_are_shown_as_they_are(text):
    strings = ("threshold_rule", "dataset", "dataset_note", "split", "revision", "device")
    result = made_up(workdir=text, versions={text: text}, sweep=[], **dict.fromkeys(strings, text))
    plain, page = page_of(made_up(sweep=[])), page_of(result)
    extra = [] if result["dataset_note"] else ["p"]
    assert sorted([*page.tags, *extra]) == sorted(plain.tags)
    assert " ".join(text.split()) in page.text


def test_markup_in_strings_is_not_obeyed():
    hostile = '<script>alert("x")</script><b>&amp;'
    html = page(made_up(device=hostile, exit=hostile), curve="", exits="")
    assert "<script" not in html
    assert "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;&lt;b&gt;&amp;amp;" in html
    assert "[bold]runs/[/x]" in printed(made_up(workdir="[bold]runs/[/x]"))


def test_the_points_against_t_are_of_the_same_answers():
    # 90.17 - 90.41, not 90.12 - 90.41: the run in slots rounds otherwise.
    replayed = "(90.17 % replayed from the answers of all ticks at once)"
    assert f"-0.24 points against T = 4 {replayed}" in page_of(made_up()).text
    assert "replayed" not in page_of(made_up_full()).text


def test_the_page_has_the_conversion_where_there_is_one(tmp_path):
    page = write_report(made_up() | {"conversion": CONVERSION}, tmp_path).read_text()
    assert "<td>runs/&lt;one&gt;</td>" in page
    assert "<td>0.0125</td>" in page
    assert "once converted" in page
    assert "once converted" not in write_report(made_up(), tmp_path).read_text()
