"""The report is right, whole and safe; the figures are made up and mean nothing."""

import io
import json
import math
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from seenn_jax.evaluation.report import (
    _page,
    _thin,
    print_conversions,
    print_result,
    write_report,
)


def made_up(**changes):
    """A made-up result of a confidence exit, T = 4, with a sweep of 200 thresholds."""
    thresholds = [0.2 + 0.7999 * i / 199 for i in range(200)]
    effort = [(math.exp(6 * i / 199) - 1) / (math.exp(6) - 1) for i in range(200)]
    result = {
        "exit": "confidence",
        "threshold": 0.6291234567,
        "threshold_rule": "chosen on validation: fewest timesteps within 0.1 point of all 4",
        "accuracy": 0.9012,
        "replayed_accuracy": 0.9017,
        "average_timesteps": 1.1734,
        "exit_shares": [0.8777, 0.0921, 0.0098, 0.0204],
        "static_accuracy": [0.8715, 0.8893, 0.9034, 0.9041],
        "sweep": [
            {
                "threshold": threshold,
                "accuracy": 0.8715 + 0.0326 * (1 - math.exp(-40 * share)),
                "average_timesteps": 1 + 2.9 * share,
            }
            for threshold, share in zip(thresholds, effort, strict=True)
        ],
        "guarantee": None,
        "policy": None,
        "aet": 1.3358,
        "oracle_aet": 1.1519,
        "oracle_accuracy": 0.9411,
        "num_samples": 10000,
        "timesteps": 4,
        "dataset": "cifar10",
        "dataset_note": "the pixels of this copy were JPEG-compressed",
        "split": "test",
        "seed": 1723,
        "revision": "4f1c2ab90d3e",
        "versions": {"python": "3.12.4", "jax": "0.11.2", "flax": "0.12.10"},
        "device": "NVIDIA H100 80GB HBM3",
        "workdir": "runs/cifar10",
        "checkpoint_step": 3344,
        "images_per_second": 19560.4,
    }
    assert changes.keys() <= result.keys()
    return result | changes


CONVERSION = {
    "ann_accuracy": 0.9312,
    "timesteps": [1, 8],
    "accuracy": [0.7001, 0.9275],
    "layers": [
        {"place": "stem", "threshold": 1.25, "error": [0.2, 0.0125]},
        {"place": "blocks.0.neuron1", "threshold": 2.5, "error": [0.4, 0.03125]},
    ],
    "workdir": "runs/<one>",
    "dataset": "cifar10",
    "split": "test",
    "activation": "qcfs",
    "quantization_levels": 8,
    "dtype": "float32",
}


ENERGY = {
    "at_exit": {
        "synaptic_operations": 1_234_567.0,
        "macs": 162_000.5,
        "picojoules": 1_856_312.0,
        "picojoules_stem_each_timestep": 2e9,
    },
    "by_timestep": [
        {
            "synaptic_operations": t * 1e6,
            "macs": 150_000.0,
            "picojoules": t * 900_000.0,
            "picojoules_stem_each_timestep": t * 1_000_000.0,
        }
        for t in (1, 2, 3, 4)
    ],
    "policy_macs": 0,
    "ann": {"macs": 5_000_000, "picojoules": 23_000_000.0},
    "layers": [
        {"place": "stem", "receives": "pixels", "macs": 150_000, "operations": 150_000.0},
        {"place": "blocks.0.conv1", "receives": "spikes", "macs": 4e6, "operations": 1_234_567.0},
    ],
    "rates": [{"place": "stem", "rate": 0.3125}, {"place": "blocks.0.neuron1", "rate": 0.0525}],
}


def made_up_full(**changes):
    return made_up(
        exit="full",
        threshold=None,
        threshold_rule="none: every sample runs all timesteps",
        accuracy=0.9041,
        replayed_accuracy=0.9041,
        average_timesteps=4.0,
        exit_shares=[0.0, 0.0, 0.0, 1.0],
        sweep=[],
        images_per_second=None,
        dataset_note=None,
        **changes,
    )


def made_up_single(**changes):
    return made_up(
        timesteps=1,
        accuracy=0.8715,
        replayed_accuracy=0.8715,
        average_timesteps=1.0,
        exit_shares=[1.0],
        static_accuracy=[0.8715],
        sweep=[
            {"threshold": t, "accuracy": 0.8715, "average_timesteps": 1.0} for t in (0.3, 0.6, 0.9)
        ],
        aet=1.0,
        oracle_aet=1.0,
        **changes,
    )


def made_up_guarantee():
    return made_up(
        guarantee={
            "threshold": 0.6291234567,
            "certified": True,
            "loss": "disagreement",
            "eps": 0.0173,
            "delta": 0.0951,
            "n": 5123,
            "empirical_risk": 0.01234,
            "p_value": 0.0667,
            "average_timesteps": 1.1888,
            "reported_risk": 0.01432,
        }
    )


def made_up_policy(collapsed_to=None):
    return made_up(
        exit="policy",
        threshold=0.0,
        threshold_rule="the most probable candidate of the policy",
        policy={
            "candidates": [1, 2, 4],
            "beta": 0.375,
            "macs": 12_580_000,
            "network_macs": 2_285_000_000,
            "collapsed_to": collapsed_to,
            "confidence": {
                "threshold": 0.8125,
                "accuracy": 0.9034,
                "average_timesteps": 1.1738,
                "sweep": [
                    {"threshold": 0.1, "accuracy": 0.87, "average_timesteps": 1.0},
                    {"threshold": 1.0, "accuracy": 0.904, "average_timesteps": 4.0},
                ],
            },
        },
    )


ALL = pytest.mark.parametrize(
    "result", [made_up(), made_up_full(), made_up_single(), made_up_guarantee(), made_up_policy()]
)


class Page(HTMLParser):
    """The text and the tags of a page; fails where a tag is not closed in its turn."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.pieces = [], [], [], []
        self.feed(page)
        self.close()
        assert self.open == []
        self.text = " ".join(self.pieces)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "svg"} & set(self.open):
            self.pieces.append(" ".join(data.split()))


def page_of(result):
    """The page without its pictures, which take most of the time to make."""
    return Page(_page(result, curve="", exits=""))


def printed(result, **options):
    file = io.StringIO()
    print_result(result, Console(file=file, width=80, force_terminal=False, **options))
    return file.getvalue()


@ALL
def test_json_round_trip(result, tmp_path):
    page = write_report(result, tmp_path / "evaluation" / "confidence")
    assert page == tmp_path / "evaluation" / "confidence" / "report.html"
    assert json.loads((page.parent / "result.json").read_text()) == result
    names = {path.name for path in page.parent.iterdir()}
    assert names == {"result.json", "curve.png", "exits.png", "report.html"}
    for name in ("curve.png", "exits.png"):
        assert (page.parent / name).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_a_second_report_replaces_the_first(tmp_path):
    write_report(made_up(), tmp_path)
    write_report(made_up(accuracy=0.5), tmp_path)
    assert json.loads((tmp_path / "result.json").read_text())["accuracy"] == 0.5
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_json_cannot_hold_is_refused_before_writing(value, tmp_path):
    write_report(made_up(), tmp_path)
    before = (tmp_path / "result.json").read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        write_report(made_up(aet=value), tmp_path)
    assert (tmp_path / "result.json").read_bytes() == before


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    write_report(made_up(), tmp_path)
    before = (tmp_path / "result.json").read_bytes()

    def full_disk(self, content):
        with self.open("wb") as file:
            file.write(content[:10])
        raise OSError("no space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_report(made_up(accuracy=0.5), tmp_path)
    assert (tmp_path / "result.json").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 4


def test_a_guarantee_is_shown_whole_on_the_console_and_on_the_page():
    result = made_up_guarantee()
    rows = [
        "largest risk eps 0.0173",
        "delta 0.0951",
        "calibration samples n 5,123",
        "threshold 0.629123",
        "average timesteps on them 1.189",
        "risk on them 0.01234",
        "certified yes",
        "risk on the test split 0.01432",
    ]
    for text in (printed(result), page_of(result).text):
        assert all(row in " ".join(text.split()) for row in rows)
    result["guarantee"]["certified"] = False
    assert "certified no: all T run" in " ".join(printed(result).split())
    assert "guarantee" not in (printed(made_up()) + page_of(made_up()).text).lower()


def test_a_policy_is_shown_with_its_cost_and_with_seenn_1_beside_it():
    for text in (printed(made_up_policy()), page_of(made_up_policy()).text):
        text = " ".join(text.split())
        assert "price of a timestep 0 nats, the most probable candidate of the policy" in text
        assert "candidates 1, 2, 4, beta 0.375" in text
        assert "policy network 12.58 MMAC (0.55 % of one dense timestep)" in text
        assert "SEENN-I (confidence 0.8125) on the same network, replayed from the" in text
        assert "answers of all ticks at once: 90.34 % at 1.174 timesteps; the policy" in text
        assert "replayed likewise: 90.17 %, -0.17 points from it" in text
        assert "collapsed" not in text
    collapsed = " ".join(printed(made_up_policy(collapsed_to=2)).split())
    assert "the policy has collapsed: t = 2 for every sample" in collapsed


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


def test_page_pictures_follow_the_theme(tmp_path):
    html = write_report(made_up(), tmp_path).read_text()
    svgs = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    assert len(svgs) == 2
    for svg in svgs:
        assert "var(--exits)" in svg
        assert not re.search(r"#[0-9a-f]{6}\b", svg)
    for variable in set(re.findall(r"var\((--\w+)\)", html)):
        assert html.count(f"{variable}: #") == 2  # once light, once dark


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
    html = _page(made_up(device=hostile, exit=hostile), curve="", exits="")
    assert "<script" not in html
    assert "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;&lt;b&gt;&amp;amp;" in html
    assert "[bold]runs/[/x]" in printed(made_up(workdir="[bold]runs/[/x]"))


def test_the_points_against_t_are_of_the_same_answers():
    # 90.17 - 90.41, not 90.12 - 90.41: the run in slots rounds otherwise.
    replayed = "(90.17 % replayed from the answers of all ticks at once)"
    assert f"-0.24 points against T = 4 {replayed}" in page_of(made_up()).text
    assert "replayed" not in page_of(made_up_full()).text


def test_full_has_no_threshold():
    page = page_of(made_up_full())
    assert "details" not in page.tags
    assert "no threshold: every sample runs all timesteps" in page.text
    assert "+0.00 points against T = 4" in page.text
    assert "images per second" not in page.text
    text = printed(made_up_full())
    assert "accuracy 90.41 % at 4.000 timesteps on average (T = 4)" in text
    assert "no threshold" in text
    assert "images/s" not in text
    assert "None" not in text + page.text


def test_single_timestep():
    page = page_of(made_up_single())
    assert "1 87.15 % 100.00 %" in page.text
    assert "+0.00 points against T = 1" in page.text
    assert "accuracy 87.15 % at 1.000 timesteps on average (T = 1)" in printed(made_up_single())


def test_console_at_80_columns():
    text = printed(made_up())
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "\x1b" not in text
    flat = " ".join(text.split())
    assert "cifar10, test split, 10,000 samples, confidence exit" in flat
    assert "runs/cifar10, checkpoint of step 3,344" in flat
    assert "the pixels of this copy were JPEG-compressed" in flat
    for t, accuracy, share in (
        (1, "87.15 %", "87.77 %"),
        (2, "88.93 %", "9.21 %"),
        (3, "90.34 %", "0.98 %"),
        (4, "90.41 %", "2.04 %"),
    ):
        assert f"{t} {accuracy} {share}" in flat
    assert "accuracy 90.12 % at 1.173 timesteps on average (T = 4)" in flat
    assert "confidence threshold 0.629123, chosen on validation: fewest timesteps" in flat
    assert "0.629123 90.12 % 1.173 used" in flat
    assert "AET 1.336, oracle AET 1.152 timesteps" in flat
    assert "19,560 images/s" in flat
    assert len(text.splitlines()) < 35


def test_console_that_knows_only_ascii():
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print_result(made_up(), Console(file=file, width=80, force_terminal=False))
    file.flush()
    assert b"90.12 %" in file.buffer.getvalue()


def test_thin_is_even_over_average_timesteps():
    sweep = [{"threshold": i / 400, "average_timesteps": 1 + i / 100} for i in range(300, -1, -1)]
    kept = [row["average_timesteps"] for row in _thin(sweep, rows=4)]
    assert kept == [1.0, 2.0, 3.0, 4.0]


@settings(deadline=None)
@given(
    steps=st.lists(st.floats(1, 4), min_size=1, max_size=40),
    rows=st.integers(2, 12),
)
def test_thin_keeps_the_ends(steps, rows):
    sweep = [
        {"threshold": float(i), "average_timesteps": average} for i, average in enumerate(steps)
    ]
    kept = _thin(sweep, rows)
    averages = [row["average_timesteps"] for row in kept]
    assert 1 <= len(kept) <= rows
    assert all(row in sweep for row in kept)
    assert averages == sorted(averages)
    assert (averages[0], averages[-1]) == (min(steps), max(steps))


# --- Conversion ------------------------------------------------------------------------------


def printed_conversions(reports):
    console = Console(file=io.StringIO(), width=80)
    print_conversions(reports, console)
    return console.file.getvalue()


def test_one_conversion_is_printed_with_its_layers():
    out = printed_conversions([CONVERSION])
    for figure in ("in %", "qcfs, L 8", "93.12", "70.01", "92.75", "1.250", "0.0125", "0.0312"):
        assert figure in out
    assert out.index("stem") < out.index("blocks.0.neuron1")


def test_several_conversions_are_printed_as_a_grid():
    relu = CONVERSION | {"activation": "relu", "quantization_levels": None, "ann_accuracy": 0.5}
    out = printed_conversions([CONVERSION, relu])
    assert out.index("93.12") < out.index("50.00")
    assert "relu" in out
    assert "stem" not in out


def test_the_page_has_the_conversion_where_there_is_one(tmp_path):
    page = write_report(made_up() | {"conversion": CONVERSION}, tmp_path).read_text()
    assert "<td>runs/&lt;one&gt;</td>" in page
    assert "<td>0.0125</td>" in page
    assert "once converted" in page
    assert "once converted" not in write_report(made_up(), tmp_path).read_text()


@pytest.mark.parametrize(
    ("network", "said"),
    [("converted", ", converted network"), ("ANN", ", the ANN itself"), ("spiking", "exit\n")],
)
def test_the_kind_of_network_is_said(network, said):
    console = Console(file=io.StringIO(), width=100)
    print_result(made_up() | {"network": network}, console)
    assert f"confidence exit{said.removeprefix('exit')}" in console.file.getvalue()


# --- Energy ----------------------------------------------------------------------------------


def test_energy_is_shown_where_it_was_counted():
    result = made_up() | {"energy": ENERGY}
    out, page = printed(result), page_of(result)
    for text in (" ".join(out.split()), page.text):
        assert "at the exit 1.235 M 0.162 M 1,856.3 nJ 2.000 mJ" in text
        assert "t = 4 4.000 M 0.150 M 3,600.0 nJ 4,000.0 nJ" in text
        assert "5.000 M 23,000.0 nJ" in text
        assert "5.25 % (blocks.0.neuron1) to 31.25 % (stem) fire in a timestep." in text
        assert "Moving data is left out" in text
        assert "of the policy" not in text
    assert all(len(line) <= 80 for line in out.splitlines())
    assert "t = 3" in page.text
    assert "t = 3" not in out
    assert "blocks.0.conv1 spikes 4.000 M 1.235 M AC" in page.text
    assert "stem 31.25 %" in page.text
    assert "Energy" not in page_of(made_up()).text
    policy = printed(result | {"energy": ENERGY | {"policy_macs": 12_500_000}})
    assert "with 12.500 M MACs of the policy at the exit" in " ".join(policy.split())
