"""What is written can be read: the contrast that WCAG 2.2 asks for, in light and in dark."""

import pytest

from seenn_jax.report.colours import DARK, LIGHT


def luminance(colour):
    """Relative luminance of "#rrggbb", as WCAG defines it."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    brighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


def test_contrast_by_hand():
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("name", sorted(LIGHT.keys() - {"paper", "rule"}))
def test_every_colour_can_be_read_on_paper(colours, name):
    assert contrast(colours[name], colours["paper"]) >= 4.5


def test_both_themes_have_the_same_colours():
    assert LIGHT.keys() == DARK.keys()
