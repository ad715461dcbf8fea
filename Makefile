# Two commands matter: `make demo` and `make test`. Both build the environment first.
# uv is used where it is installed, otherwise venv + pip.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
INPUT  ?=
OUTPUT ?= demo/dataset
SET    ?=
WORKERS ?= 2
ARGS   ?=
LOADERS ?= webdataset
PARALLEL = -n $(WORKERS) --dist loadgroup
FAST   := not ray and not browser and not training and not slow

.PHONY: help env demo test test-fast test-docs test-exports coverage check docs bench fuzz clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 12

# Without extras: all that the demo needs. With [dev]: torch and the models as well, for tests and training.
$(VENV)/.ready $(VENV)/.ready-dev: pyproject.toml
	@echo "installing packages into $(VENV): a minute or two, and only when pyproject.toml has changed"
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

test: env  ## run all tests on two processes: make test WORKERS=0 on one
	@$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

test-fast: env  ## run the tests without Ray, training and browsers: under 3 minutes
	@$(BIN)/python -m pytest $(PARALLEL) -m "$(FAST)" $(ARGS)

test-docs: env  ## run every command of the README and the docs
	@$(BIN)/python -m pytest tests/docs $(ARGS)

test-exports: env  ## read exports with the trainers' own loaders: make test-exports LOADERS="webdataset energon diffsynth"
	@for name in $(LOADERS); do \
	  [ -x .venv-loaders/$$name/bin/python ] || $(PYTHON) -m venv .venv-loaders/$$name; \
	  .venv-loaders/$$name/bin/python -m pip install --quiet --disable-pip-version-check -r tests/exports/loaders/requirements-$$name.txt || exit 1; \
	done
	@REPRISE_LOADERS=.venv-loaders $(BIN)/python -m pytest tests/exports -rs $(ARGS)

coverage: env  ## run the fast tests, and fail if they cover less than the floor in pyproject.toml
	@$(BIN)/python -m pytest -m "$(FAST)" --cov --cov-report=term:skip-covered $(ARGS)

check: env  ## lint, format, docstrings and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

docs: env  ## build the documentation site into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet && echo "site/index.html"

bench: env  ## run every benchmark once
	@$(BIN)/python -m benchmarks

fuzz: env  ## fuzz lists, captions and configs for SECONDS=60 each; skipped where atheris does not install
	@wanted="atheris>=3,<4"; if uv pip install -q --python $(BIN)/python "$$wanted" 2>/dev/null \
		|| $(BIN)/python -m pip install -q "$$wanted"; then \
		for target in list caption config; do \
			$(BIN)/python -m tests.fuzz $$target -max_total_time=$(or $(SECONDS),60) || exit 1; \
		done; \
	else echo "atheris does not install here: nothing is fuzzed"; fi

clean:  ## remove the environment and the demo
	rm -rf $(VENV) demo site
