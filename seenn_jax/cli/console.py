"""The console that the programs print to."""

import sys
from collections.abc import Iterable
from typing import Any

import jax
from rich.console import Console
from rich.segment import Segment

from seenn_jax.cli.start import printable, silence


class _Patient(Console):
    """A console that falls silent where nobody reads on (`| head -1`), instead of ending all.

    What it colours or moves is its own doing: text has no control characters.
    """

    def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
        """What rich is to write."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else printable(segment.text)
            yield segment._replace(text=text)

    def on_broken_pipe(self) -> None:
        """Called by rich."""
        silence(sys.stderr if self.stderr else sys.stdout)


def patient_console(**options: Any) -> Console:
    """Of several processes the first prints. Paths may hold what rich takes for more."""
    return _Patient(markup=False, emoji=False, quiet=jax.process_index() > 0, **options)
