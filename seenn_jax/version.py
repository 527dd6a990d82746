"""The version of the package."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("seenn_jax")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "unknown"
