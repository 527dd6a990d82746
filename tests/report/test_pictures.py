"""The pictures name what decides, on the axis of the page."""

import pytest

from seenn_jax.report.pictures import draw_curve
from tests.report.made_up import made_up, made_up_full, made_up_policy, made_up_single


@pytest.mark.parametrize(
    ("result", "used"),
    [
        (made_up(), ["confidence exit, every threshold", "threshold used, 0.6291"]),
        (
            made_up(exit="patience", knob="patience", threshold=3),
            ["patience exit, every patience", "patience used, 3"],
        ),
        (
            made_up_policy(),
            [
                "policy exit, every price",
                "confidence exit (SEENN-I), every threshold",
                "price used, 0",
            ],
        ),
        (made_up_full(), []),
    ],
    ids=lambda value: value["exit"] if isinstance(value, dict) else "",
)
def test_the_curve_names_the_value_of_the_exit(result, used):
    labels = draw_curve(result).axes[0].get_legend_handles_labels()[1]
    common = {"all samples run t timesteps", "oracle AET, 1.15"}
    assert set(labels) == {*used, *common}


def test_the_axis_of_timesteps_is_stretched_near_one():
    axes = draw_curve(made_up()).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        *("1", "1.1", "1.3", "1.5", "2", "3", "4")
    ]
    left, middle, right = axes.transData.transform([(1, 90), (1.75, 90), (4, 90)])[:, 0]
    assert middle == pytest.approx((left + right) / 2)
    low, high = axes.get_xlim()
    assert 0.9 < low < 1
    assert 4 < high < 4.5
    low, high = draw_curve(made_up_single()).axes[0].get_xlim()
    assert low < 1 < high
