"""Spiking networks as NIR graphs, out and in (https://neuroir.org)."""

from seenn_jax.interop.nir.read import FromFile, read
from seenn_jax.interop.nir.write import BUILDERS, build_graph, check_path, export, write

__all__ = ["BUILDERS", "FromFile", "build_graph", "check_path", "export", "read", "write"]
