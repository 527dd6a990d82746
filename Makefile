# make demo: install, train on digits, evaluate with early exit, write the report.
# make test: lint and the tests that CI runs. make test-slow: the long ones.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test test-slow

install: .venv/installed

.venv/installed: requirements.txt requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[test]'
	touch $@

demo: install
	$(BIN)/python train.py --config=configs/digits.py
	$(BIN)/python evaluate.py --workdir=runs/digits --exit=confidence

test: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow"

test-slow: install
	$(BIN)/python -m pytest -q -n 2 -m slow
