"""What is printed colours itself, and nothing that it says does."""

import io

from rich.table import Table
from rich.text import Text

from seenn_jax.cli.console import patient_console

NOTE = "clear\x1b[2J\x1b]0;title\x9b31m"


def test_controls_of_text_are_shown():
    file = io.StringIO()
    console = patient_console(file=file, force_terminal=True, color_system="truecolor", width=99)
    console.print(NOTE, highlight=False)
    console.print(Text(NOTE, style="bold"))
    table = Table("class")
    table.add_row(NOTE)
    console.print(table)
    shown = file.getvalue()
    assert shown.count(r"clear\x1b[2J\x1b]0;title\x9b31m") == 2
    assert shown.count(r"│ clear\x1b[2J") == 1
    assert "\x1b[1m" in shown  # its own
    for command in ("\x1b[2J", "\x1b]", "\x9b"):
        assert command not in shown
