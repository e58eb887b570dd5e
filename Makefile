# Each target makes its own environment in .venv; all they need is Python 3.11 with pip and venv, and a package index.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed

.PHONY: demo test lint slow bench fuzz clean

demo: $(STAMP)
	$(VENV)/bin/quiesce replay

test: $(STAMP) lint
	$(VENV)/bin/pytest -q -n 2

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

slow: $(STAMP)
	$(VENV)/bin/pytest -q -n 2 -m slow

bench: $(STAMP)
	$(VENV)/bin/python bench/run.py

fuzz: $(STAMP)
	$(VENV)/bin/python fuzz/run.py --seconds 300 --jobs 2
	$(VENV)/bin/python fuzz/run.py --large --jobs 2

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV)
