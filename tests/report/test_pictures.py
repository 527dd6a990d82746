"""The pictures follow the reader's theme, and name what decides."""

import re

import pytest

from seenn_jax.report.files import write_report
from seenn_jax.report.pictures import draw_curve
from tests.report.made_up import made_up, made_up_full, made_up_policy


def test_page_pictures_follow_the_theme(tmp_path):
    html = write_report(made_up(), tmp_path).read_text()
    svgs = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    assert len(svgs) == 2
    for svg in svgs:
        assert "var(--exits)" in svg
        assert not re.search(r"#[0-9a-f]{6}\b", svg)
    for variable in set(re.findall(r"var\((--\w+)\)", html)):
        assert html.count(f"{variable}: #") == 2  # once light, once dark


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
