"""The console and the page say the same of a result."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seenn_jax.report.words import headline, thin, with_chosen
from tests.report.made_up import (
    ENERGY,
    made_up,
    made_up_full,
    made_up_guarantee,
    made_up_policy,
    made_up_single,
    page_of,
    printed,
)


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


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "3.4 times fewer timesteps, 90.12 % of answers right"),
        ({"average_timesteps": 1.0}, "4.0 times fewer timesteps, 90.12 % of answers right"),
        ({"average_timesteps": 3.9}, "2.5 % fewer timesteps, 90.12 % of answers right"),
        ({"average_timesteps": 3.9999}, "0.0025 % fewer timesteps, 90.12 % of answers right"),
        ({"average_timesteps": 4.0}, "All 4 timesteps, 90.12 % of answers right"),
        ({"timesteps": 1, "average_timesteps": 1.0}, "One timestep, 90.12 % of answers right"),
        ({"network": "ANN"}, "The ordinary network, run once: 90.12 % of answers right"),
        ({"network": "converted"}, "3.4 times fewer timesteps, 90.12 % of answers right"),
    ],
)
def test_the_headline_is_in_plain_words(changes, said):
    result = made_up() | changes
    assert headline(result) == said
    assert printed(result).strip().startswith(said)


def test_full_has_no_threshold():
    page = page_of(made_up_full())
    assert "range" not in [value for name, value in page.attributes if name == "type"]
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


def test_energy_is_shown_where_it_was_counted():
    result = made_up() | {"energy": ENERGY}
    out, page = printed(result), page_of(result)
    for text in (" ".join(out.split()), page.text):
        assert "at the exit 1.235 M 0.162 M 1,856.3 nJ 2.000 mJ" in text
        assert "t = 4 4.000 M 0.150 M 3,600.0 nJ 4,000.0 nJ" in text
        assert "5.000 M 23,000.0 nJ" in text
        assert "5.25 % (blocks.0.neuron1) to 31.25 % (stem) fire in a timestep." in text
        assert "Moving data is left out of it" in text
        assert "at the exit 700.0 kB 12.5 kB 2,144.0 nJ 4,000.3 nJ" in text
        assert "t = 4 2,400.0 kB 3.1 kB 30,000.0 nJ 33,600.0 nJ" in text
        assert "as an ANN 900.0 kB 3.1 kB 12,000.0 nJ 35,000.0 nJ" in text
        assert "every weight is read once" in text
        assert "of the policy" not in text
    assert all(len(line) <= 80 for line in out.splitlines())
    assert "t = 3" in page.text
    assert "t = 3" not in out
    assert "blocks.0.conv1 spikes 4.000 M 1.235 M AC" in page.text
    assert "stem 31.25 %" in page.text
    assert "Energy" not in page_of(made_up()).text
    policy = printed(result | {"energy": ENERGY | {"policy_macs": 12_500_000}})
    assert "with 12.500 M MACs of the policy at the exit" in " ".join(policy.split())


def test_thin_is_even_over_average_timesteps():
    sweep = [{"threshold": i / 400, "average_timesteps": 1 + i / 100} for i in range(300, -1, -1)]
    kept = [row["average_timesteps"] for row in thin(sweep, rows=4)]
    assert kept == [1.0, 2.0, 3.0, 4.0]
    assert thin(sweep, rows=301) == sweep[::-1]


def test_what_was_used_is_a_row_of_the_sweep():
    rows = with_chosen(made_up(), [])
    assert [row["exit_counts"] for row in rows] == [[8777, 921, 98, 204]]
    sweep = [{"threshold": 0.6291234567, "accuracy": 0.0, "average_timesteps": 9.0}]
    assert with_chosen(made_up(), sweep) == rows


@settings(deadline=None)
@given(
    steps=st.lists(st.floats(1, 4), min_size=1, max_size=40),
    rows=st.integers(2, 12),
)
def test_thin_keeps_the_ends(steps, rows):
    sweep = [
        {"threshold": float(i), "average_timesteps": average} for i, average in enumerate(steps)
    ]
    kept = thin(sweep, rows)
    averages = [row["average_timesteps"] for row in kept]
    assert 1 <= len(kept) <= rows
    assert all(row in sweep for row in kept)
    assert averages == sorted(averages)
    assert (averages[0], averages[-1]) == (min(steps), max(steps))
