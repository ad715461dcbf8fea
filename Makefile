# Two commands matter: `make demo` and `make test`. Both build the environment first.
# uv is used where it is installed, otherwise venv + pip.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
INPUT  ?=
OUTPUT ?= demo/dataset
SET    ?=

.PHONY: env demo test check bench clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 12

# Without extras: all that the demo needs. With [dev]: torch and the models as well, for tests and training.
$(VENV)/.ready $(VENV)/.ready-dev: pyproject.toml
	@wanted='.$(if $(findstring dev,$@),[dev])'; if command -v uv >/dev/null 2>&1; then \
	  [ -x $(BIN)/python ] || uv venv --quiet $(VENV) --python $(PYTHON); \
	  uv pip install --quiet --python $(BIN)/python -e "$$wanted"; \
	else \
	  [ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV); \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -e "$$wanted"; \
	fi
	@touch $@

env: $(VENV)/.ready-dev  ## create the whole environment in .venv

demo: $(VENV)/.ready  ## curate the demo videos, or your own: make demo INPUT=folder
	@$(BIN)/python -m pipelines.demo $(if $(INPUT),--input "$(INPUT)") --output "$(OUTPUT)" $(SET)

test: env  ## run the tests
	@$(BIN)/python -m pytest

check: env  ## lint, format and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: env  ## run every benchmark once
	@$(BIN)/python -m benchmarks

clean:  ## remove the environment and the demo
	rm -rf $(VENV) demo
