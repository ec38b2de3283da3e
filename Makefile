PYTHON ?= python3
PIP_EXTRA ?=
PYTEST_ARGS ?= -m "not slow" -n auto --dist worksteal

BIN := .venv/bin
STAMP := .venv/.installed
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint docs

help: ## show this text
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-7s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo 'PYTHON=python3.12         another interpreter, 3.11 or newer, for a new .venv'
	@echo 'PIP_EXTRA="--extra-index-url https://download.pytorch.org/whl/cpu"'
	@echo '                          the small CPU build of torch, for a machine without a GPU'
	@echo 'PYTEST_ARGS="tests/unit"  other arguments for pytest; empty runs the slow tests too'

setup: $(STAMP) ## make .venv and install what is needed, at the tested versions

demo: $(STAMP) ## run a small search from end to end
	$(BIN)/python -m search demo

test: lint ## lint, then run all tests but the slow ones
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(STAMP) ## style, format, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo

docs: $(STAMP) ## build the documentation site into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo 'build/site/index.html'

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": make setup PYTHON=python3.12")'
	@echo 'Installing into .venv; the first time takes some minutes'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(PIP_EXTRA) --editable '.[dev]'
	@touch $@
