# `make` prints this help. Every target sets up what it needs.
PYTHON ?= python3
CACHE ?= $(HOME)/.cache/cxr-lens
LOCK := $(shell cat constraints.txt pyproject.toml | sha256sum | cut -c1-16)
VENV ?= $(CACHE)/venv-$(LOCK)
BIN := $(VENV)/bin
READY := $(VENV)/.ready-$(shell pwd | sha256sum | cut -c1-8)

.DEFAULT_GOAL := help
.PHONY: help install run test test-cpus test-all check bench demo screenshots

help: ## print this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(READY) ## build the virtual environment (outside the clone, keyed by the lock file)

$(READY):
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --progress-bar off -c constraints.txt torch torchvision
	$(BIN)/python -m pip install --progress-bar off -c constraints.txt -e ".[dev,small,labels,metrics]"
	@touch $@

run: install ## open the dashboard
	$(BIN)/streamlit run dashboard/app.py

test: install ## run the tests (under 12 minutes on two cores)
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder

test-cpus: install ## run the numeric tests as six other processors compute; CPUS="OMP_NUM_THREADS=2" runs only this
	$(BIN)/python -m tests.cpus $(CPUS)

test-all: install ## run all tests, the slow ones too
	$(BIN)/python -m pytest

check: install ## lint and types
	$(BIN)/ruff format --check core training dashboard tests
	$(BIN)/ruff check core training dashboard tests
	$(BIN)/mypy

bench: install ## measure speeds, as ratios against a baseline of the same run; PARTS="rates one_image" measures only these
	$(BIN)/python -m training.bench $(PARTS)

demo: install ## train the demo bundles anew into assets/bundles (about an hour on two cores)
	$(BIN)/python -m training.cli train --preset phantom --bundles assets/bundles

screenshots: install ## take the pictures in docs/screenshots
	$(BIN)/python -m tests.browser.screenshots
