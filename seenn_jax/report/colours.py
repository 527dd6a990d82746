"""The colours of pictures and page.

Okabe and Ito's hues, told apart under every common colour blindness, made darker or lighter where
the background asks for it. The pictures have the light ones; the page follows the reader's theme.
"""

LIGHT = {
    "paper": "#fdfdfc",
    "ink": "#1d2630",
    "muted": "#5d6874",
    "rule": "#dfe3e7",
    "exits": "#0072b2",
    "static": "#7a5200",
    "chosen": "#c04f00",
    "oracle": "#00795a",
}

DARK = {
    "paper": "#15191e",
    "ink": "#e6eaee",
    "muted": "#9aa5b1",
    "rule": "#313a44",
    "exits": "#56b4e9",
    "static": "#f0c75e",
    "chosen": "#ff8a3d",
    "oracle": "#2fc79b",
}
