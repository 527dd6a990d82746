"""The console that the programs print to."""

import sys
from typing import Any

import jax
from rich.console import Console

from seenn_jax.cli.start import silence


class _Patient(Console):
    """A console that falls silent where nobody reads on (`| head -1`), instead of ending all."""

    def on_broken_pipe(self) -> None:
        """Called by rich."""
        silence(sys.stderr if self.stderr else sys.stdout)


def patient_console(**options: Any) -> Console:
    """Of several processes the first prints. Paths may hold what rich takes for more."""
    return _Patient(markup=False, emoji=False, quiet=jax.process_index() > 0, **options)
