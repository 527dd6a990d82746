"""What pyproject.toml can't say: configs/ and weights/ lie in the package once it is installed."""

from setuptools import find_packages, setup

SHIPPED = ("configs", "weights")

setup(
    packages=[*find_packages(include=["seenn_jax*"]), *(f"seenn_jax.{name}" for name in SHIPPED)],
    package_dir={f"seenn_jax.{name}": name for name in SHIPPED},
)
