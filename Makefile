# make demo    run the first notebook without a browser, and show what came out
# make lab     JupyterLab, opened on the first notebook
# make test    all tests            make test ARGS="tests/record -x"
# make check   formatting, lint, types, import layers
# make soak    long campaigns of faults, an hour or two; writes docs/soak.md    make soak ARGS="--only cycles"
# make clean   remove what the other targets left; distclean removes .venv too
#
# Only Python >= 3.11 has to be there. PYTHON=/path/to/python3.12 chooses one.

PYTHON ?=
ARGS ?=
BIN := .venv/bin
# Named, because ruff would also put the Python in README.md into its own form.
SOURCES := jupyter_train tests benchmarks tools notebooks

# JupyterLab wants to be told that root is meant.
ROOT_FLAG := $(shell [ "$$(id -u)" = 0 ] && echo --allow-root)

.PHONY: help env demo lab test soak check lint form types layers format clean distclean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

env:
	@sh tools/setup.sh "$(PYTHON)"

demo: env
	@$(BIN)/python tools/demo.py

lab: env
	$(BIN)/jupyter lab $(ROOT_FLAG) notebooks/01-first-run.ipynb

test: env
	$(BIN)/python -m pytest $(ARGS)

soak: env
	$(BIN)/python -m benchmarks soak $(ARGS)

# Separate targets, so that `make -k check` shows everything that is wrong at once.
check: lint form types layers

lint: env
	$(BIN)/ruff check $(SOURCES)

form: env
	$(BIN)/ruff format --check $(SOURCES)

types: env
	$(BIN)/mypy
	$(BIN)/mypy tools

layers: env
	$(BIN)/lint-imports

format: env
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

clean:
	rm -rf demo-output test-artifacts build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +

distclean: clean
	rm -rf .venv
