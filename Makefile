# medbench: every command a reader or an author needs. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup book edition text html chapter notebooks test test-full lint clean

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PROFILE ?= laptop
DEVICE ?= auto
NAME ?=
PIP_ARGS ?=
PYTEST_ARGS ?=

PY := .venv/bin/python
INSTALLED := .venv/.installed
BOOK := $(PY) -m medbench.book
# a test that ends its process is a failure; another process in its place would wait for files that nobody hands out
PYTEST := $(PY) -m pytest -n logical --maxprocesses 8 --dist loadfile --max-worker-restart 0

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '\n  PROFILE=smoke|laptop|full  DEVICE=auto|cpu|cuda  NAME=05_performer  PIP_ARGS="..." for pip\n'

setup: $(INSTALLED)  ## create .venv and install requirements.txt (the other targets do it by themselves)

$(INSTALLED): requirements.txt pyproject.toml
	@"$(PYTHON)" -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"medbench needs Python 3.11 or newer, this is {v.major}.{v.minor}; say make PYTHON=/path/to/python3.11")'
	@test -x $(PY) || "$(PYTHON)" -m venv .venv
	$(PY) -m pip install $(PIP_ARGS) -r requirements.txt
	$(PY) -m pip install $(PIP_ARGS) --quiet --no-deps --no-build-isolation --editable .
	@touch $@

book: $(INSTALLED)  ## execute what is stale on this device, check it and render the book into _build/
	@$(BOOK) build --profile $(PROFILE) --device $(DEVICE)

chapter: $(INSTALLED)  ## execute one chapter: make chapter NAME=05_performer PROFILE=smoke DEVICE=cpu
	@$(BOOK) chapter "$(NAME)" --profile $(PROFILE) --device $(DEVICE)

edition: $(INSTALLED)  ## take the executed chapters and their records over into book/, to be committed
	@$(BOOK) edition --profile $(PROFILE) --device $(DEVICE)

text: $(INSTALLED)  ## put changed text into the committed chapters; executes nothing
	@$(BOOK) text

html: $(INSTALLED)  ## render the committed edition; executes nothing
	@$(BOOK) html

notebooks: $(INSTALLED)  ## bring notebooks/*.ipynb in line with their notebooks/*.py
	@$(BOOK) notebooks

test: $(INSTALLED)  ## the tests without the slow ones
	$(PYTEST) -m "not slow" $(PYTEST_ARGS)

test-full: test  ## all tests: those of `make test`, then the slow ones
	$(PYTEST) -m slow $(PYTEST_ARGS)

lint: $(INSTALLED)  ## ruff over the code, the twins of the notebooks and the numbers in prose
	$(PY) -m ruff check .
	@$(BOOK) lint

clean:  ## remove what was built (_build and caches); .venv and the cache of trained runs stay
	rm -rf _build .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
