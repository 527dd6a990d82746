"""What an evaluation found, shown: on the console, as JSON, as pictures and as one HTML page."""

from seenn_jax.report.console import print_conversions, print_result
from seenn_jax.report.files import write_report

__all__ = ["print_conversions", "print_result", "write_report"]
