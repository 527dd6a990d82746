# make demo: install, train on digits, evaluate with early exit, write the report.
# make tpu-check: compile for the TPUs of Colab (v5e-1, v6e-1), on a machine without one, and see
# whether the programs fit.
# make test: lint and the tests that CI runs. make test-slow: the long ones.
# make soak: kills, full disks, damage, for hours; SOAK=--only=kills for one kind of them.
# make docs: the documentation, into site/.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo lint test test-slow soak docs tpu-check

install: .venv/installed

.venv/installed: requirements.txt requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[test]'
	touch $@

demo: install
	$(BIN)/python train.py --config=configs/digits.py
	$(BIN)/python evaluate.py --workdir=runs/digits --exit=confidence

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow"

test-slow: install
	$(BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[browser,notebook]'
	$(BIN)/python -m pytest -q -n 2 -m slow

soak: install
	$(BIN)/python benchmarks/soak.py --json=results/reliability.json $(SOAK)
	$(BIN)/python benchmarks/print_results.py

docs: install
	$(BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[docs]'
	$(BIN)/mkdocs build --strict --quiet

# libtpu apart: where it is installed beside jax, jax looks for a TPU.
tpu-check: install
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .tpu \
	  "$$($(BIN)/python -c 'from importlib.metadata import requires as r; print(next(x for x in r("jax") if x.startswith("libtpu")).split(";")[0])')"
	JAX_PLATFORMS=cpu ALLOW_MULTIPLE_LIBTPU_LOAD=1 TPU_SKIP_MDS_QUERY=1 \
	  TPU_LIBRARY_PATH=.tpu/libtpu/libtpu.so \
	  $(BIN)/python benchmarks/tpu_check.py $(FLAGS)
