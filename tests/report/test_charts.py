"""The marks of the page's charts lie where they should, by hand."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seenn_jax.report import charts
from tests.report.made_up import made_up, made_up_full, made_up_old, made_up_policy, made_up_single


def labels(axis):
    return [label for _, label in axis.ticks]


@pytest.mark.parametrize(
    ("average", "timesteps", "place"),
    [(1, 4, 0), (4, 4, 1), (1.75, 4, 0.5), (1.12, 4, 0.2), (2, 2, 1), (1, 1, 0.5)],
)
def test_the_axis_of_timesteps_is_stretched_near_one(average, timesteps, place):
    assert charts.stretched(average, timesteps) == pytest.approx(place)


@pytest.mark.parametrize(
    ("timesteps", "expected"),
    [
        (1, ["1"]),
        (2, ["1", "1.03", "1.1", "1.3", "1.5", "2"]),
        (4, ["1", "1.1", "1.3", "1.5", "2", "3", "4"]),
        (10, ["1", "1.1", "1.5", "2", "3", "4", "6", "8", "10"]),
    ],
)
def test_the_ticks_of_timesteps(timesteps, expected):
    assert labels(charts.timesteps_axis(timesteps)) == expected


@given(st.integers(1, 300))
def test_ticks_of_timesteps_never_touch(timesteps):
    axis = charts.timesteps_axis(timesteps)
    places = [place for place, _ in axis.ticks]
    assert all(b - a >= charts.APART for a, b in itertools.pairwise(places))
    assert labels(axis)[-1] == str(timesteps)
    assert timesteps == 1 or (places[0], places[-1]) == (0, 100)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (87.15, 90.41, ["87 %", "88 %", "89 %", "90 %", "91 %"]),
        (99.95, 100, ["99.95 %", "99.96 %", "99.97 %", "99.98 %", "99.99 %", "100 %"]),
        (100, 100, ["99 %", "99.5 %", "100 %"]),
        (0, 0, ["0 %", "0.5 %", "1 %"]),
    ],
)
def test_an_axis_of_accuracies_has_round_ticks_within_its_bounds(low, high, ticks):
    axis = charts.linear_axis(low, high, (0, 100), " %")
    assert labels(axis) == ticks
    assert [axis.ticks[0][0], axis.ticks[-1][0]] == pytest.approx([0, 100])


@given(st.floats(0, 100), st.floats(0, 100))
def test_what_an_axis_is_for_lies_on_it(a, b):
    axis = charts.linear_axis(min(a, b), max(a, b), (0, 100))
    for value in (a, b):
        assert -1e-6 <= axis.at(value) <= 100 + 1e-6


def test_a_line_and_a_dot():
    x, y = (charts.linear_axis(0, 10, (0, 10)) for _ in range(2))
    assert charts.line(x, y, [(0, 0), (5, 10)]) == "M0.00,100.00 50.00,0.00"
    assert charts.dot(x, y, 2, 3) == "M20.00,70.00h0"


def test_the_curve_goes_through_what_was_used():
    result = made_up()
    found = charts.curve(result)
    assert found["used"].removesuffix("h0").removeprefix("M") in found["sweep"]
    # 1.1734: the root of 0.1734 / 3; between 87 and 91 %.
    across, down = map(float, found["used"][1:-2].split(","))
    assert across == pytest.approx(24.04, abs=0.01)
    assert down == pytest.approx(100 * (91 - 90.12) / 4, abs=0.01)
    assert found["static"].count("h0") == 4
    assert found["beside"] == ""
    assert charts.curve(made_up_policy())["beside"].count(",") == 2


def test_the_slider_says_what_the_sweep_says():
    result = made_up()
    slider = charts.curve(result)["slider"]
    assert len(slider["rows"]) == len(result["sweep"]) + 1
    used = slider["rows"][slider["used"]]
    assert used["shows"] == {
        "threshold": "0.629123",
        "average": "1.173",
        "headline": "3.4 times fewer timesteps, 90.12 % of answers right",
    }
    assert used["shares"] == ["87.77 %", "9.21 %", "0.98 %", "2.04 %"]
    last, row = slider["rows"][-1], result["sweep"][-1]
    assert last["shows"]["average"] == f"{row['average_timesteps']:.3f}" == "3.900"
    assert f"{100 * row['accuracy']:.2f} %" in last["shows"]["headline"]
    assert last["shares"] == ["10.00 %", "90.00 %", "0.00 %", "0.00 %"]


def test_the_slider_knows_two_hundred_thresholds_of_a_longer_sweep():
    sweep = [
        {"threshold": i / 999, "accuracy": 0.9, "average_timesteps": 1 + i / 999}
        for i in range(1000)
    ]
    rows = charts.curve(made_up(sweep=sweep))["slider"]["rows"]
    assert 150 < len(rows) <= charts.SWEEP + 1
    assert (rows[0]["shows"]["average"], rows[-1]["shows"]["average"]) == ("1.000", "2.000")


def test_without_a_sweep_there_is_no_slider_and_without_counts_it_has_no_shares():
    assert charts.curve(made_up_full())["slider"] is None
    rows = charts.curve(made_up_old())["slider"]["rows"]
    assert {len(row["shares"]) for row in rows} == {0, 4}  # those of the one used are known
    assert charts.curve(made_up_single())["used"].startswith("M50.00,")


def test_the_bars_of_a_calibration_curve():
    found = charts.reliability(made_up()["calibration"])
    third = pytest.approx(100 / 3)
    assert found["bars"] == [
        {"x": third, "width": third, "height": pytest.approx(55.56), "few": True},
        {"x": pytest.approx(200 / 3), "width": third, "height": pytest.approx(90.25), "few": False},
    ]
    assert found["rows"][1:] == [
        ["33 to 67 %", "9", "45.00 %", "55.56 %"],
        ["67 to 100 %", "9,991", "93.75 %", "90.25 %"],
    ]


def test_confidence_of_right_and_wrong_answers_stands_side_by_side():
    found = charts.confidences(made_up()["confidence_by_timestep"])
    assert [mark["kind"] for mark in found["marks"]] == ["right", "wrong"] * 3 + ["right"]
    # Of four timesteps the first is an eighth from the left; its right answers 0.14 / 4 before.
    assert found["marks"][0]["range"] == "M9.00,50.00 9.00,10.00"
    assert found["marks"][1]["middle"] == "M16.00,80.00 16.00,60.00"
    assert found["rows"][1] == ["1", "right", "50.0 %", "60.0 %", "70.0 %", "80.0 %", "90.0 %"]
    assert labels(charts.confidences([{"right": None, "wrong": None}] * 17)["x"]) == [
        *("1", "4", "7", "10", "13", "16")
    ]


def test_training_is_a_chart_of_the_loss_and_one_of_accuracies():
    metrics = [
        {"step": 9, "epoch": 1, "train/loss": 2.5, "train/accuracy": 0.25},
        {
            **{"step": 18, "epoch": 2, "train/loss": -1.25, "train/accuracy": 0.5},
            **{f"validation/accuracy_{t}": 0.5 + t / 16 for t in (1, 2, 3, 4)},
        },
    ]
    loss, accuracy = charts.training(metrics)
    assert [(line["name"], line["last"]) for line in loss["lines"]] == [("train loss", "-1.25")]
    assert loss["lines"][0]["path"].startswith("M0.00,")
    assert labels(loss["x"]) == ["1", "2"]
    assert [(line["name"], line["last"]) for line in accuracy["lines"]] == [
        ("train accuracy", "50 %"),
        ("validation accuracy at t = 1", "56.25 %"),
        ("validation accuracy at t = 4", "75 %"),
    ]


def test_of_a_policy_the_accuracies_have_names():
    row = {"epoch": 1, "train/reward": 0.5, "validation/accuracy_all_timesteps": 1.0}
    (chart,) = charts.training([row])  # no loss, and a single epoch: a dot
    assert chart["lines"][0]["path"].startswith("M50.00,")
    assert chart["lines"][0]["path"].endswith("h0")
    assert [line["name"] for line in chart["lines"]] == ["validation accuracy all timesteps"]
    assert charts.training([]) == []
