# `make` prints this help. Every target sets up what it needs. CPU=1 with any of them leaves out what serves a GPU.
PYTHON ?= python3
CACHE ?= $(HOME)/.cache/cxr-lens
CPU_ONLY := $(filter 1,$(CPU))
LOCK := $(shell cat requirements.lock pyproject.toml | sha256sum | cut -c1-16)
VENV ?= $(CACHE)/venv-$(LOCK)$(if $(CPU_ONLY),-cpu)
BIN := $(VENV)/bin
READY := $(VENV)/.ready-$(shell pwd | sha256sum | cut -c1-8)

# The lock file names every package, so that nothing is resolved; `pip check` sees whether they fit.
INSTALL := $(BIN)/python -m pip install --progress-bar off --no-deps
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
GPU_SIDE := torch|torchvision|triton|nvidia-.*|cuda-.*
# Builds without CUDA carry "+cpu" in their version, but for macOS, where there are no others.
version = $(shell sed -n 's/^$(1)==\([^ ]*\).*/\1/p' requirements.lock)
cpu_build = "$(1)==$(version)+cpu ; sys_platform != 'darwin'" "$(1)==$(version) ; sys_platform == 'darwin'"

EXTRAS := dev docs small labels metrics dicom-export
COMPILE := $(CACHE)/lock-tools/bin/uv pip compile --quiet --custom-compile-command "make lock" pyproject.toml \
	--universal --python-version 3.11 --fork-strategy fewest

.DEFAULT_GOAL := help
.PHONY: help install lock sbom dependencies browser orthanc run test test-cpus test-all test-wheel check docs notebook bench demo screenshots

help: ## print this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(READY) ## build the virtual environment (outside the clone, keyed by the lock file)

$(READY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "CXR Lens needs Python 3.11 or newer; this is %s. Name one: make PYTHON=python3.11" % sys.version.split()[0])'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
ifeq ($(CPU_ONLY),)
	$(INSTALL) --require-hashes -r requirements.lock
else
	awk '/^[a-z]/ { left_out = $$1 ~ /^($(GPU_SIDE))==/ } !left_out' requirements.lock >$(VENV)/cpu.lock
	$(INSTALL) --require-hashes -r $(VENV)/cpu.lock
	$(INSTALL) --index-url $(TORCH_CPU_INDEX) $(foreach name,torch torchvision,$(call cpu_build,$(name)))
endif
	$(INSTALL) --no-build-isolation -e .
	$(BIN)/python -m pip check
	@touch $@

lock: ## write the lock files anew from pyproject.toml; UPGRADE=1 takes the newest releases
	@test -x $(CACHE)/lock-tools/bin/uv || $(PYTHON) -m venv $(CACHE)/lock-tools
	$(CACHE)/lock-tools/bin/python -m pip install --quiet uv
	$(COMPILE) -o constraints.txt --all-extras --annotation-style line $(if $(UPGRADE),--upgrade)
	$(COMPILE) -o requirements.lock -c constraints.txt $(EXTRAS:%=--extra %) --generate-hashes --no-annotate

sbom: ## write what the lock file brings as CycloneDX: build/sbom.json
	@test -x $(CACHE)/sbom-tools/bin/cyclonedx-py || { $(PYTHON) -m venv $(CACHE)/sbom-tools && $(CACHE)/sbom-tools/bin/python -m pip install --quiet cyclonedx-bom==7.5.0; }
	@mkdir -p build
	$(CACHE)/sbom-tools/bin/cyclonedx-py requirements requirements.lock --pyproject pyproject.toml --output-reproducible --of JSON -o build/sbom.json

dependencies: install ## write the tables of docs/dependencies.md anew
	$(BIN)/python -m tests.dependencies

run: install ## open the dashboard
	$(BIN)/python -m training.cli dashboard

browser: install ## find a browser for the tests, or bring one
	@$(BIN)/python -m tests.browser.find

orthanc: install ## find a DICOMweb server for the tests, or bring one
	@$(BIN)/python -m tests.orthanc

test: browser ## run the tests (under 12 minutes on two cores)
	$(BIN)/python -m pytest -m "not slow and not long" -n 2 --dist loadfile --no-loadscope-reorder

test-long: browser ## run those that take over three seconds each (tests/long.txt)
	$(BIN)/python -m pytest -m "long and not slow" -n 2 --dist loadfile --no-loadscope-reorder

test-cpus: install ## run the numeric tests as six other processors compute; CPUS="OMP_NUM_THREADS=2" runs only this
	$(BIN)/python -m tests.cpus $(CPUS)

test-all: browser ## run all tests, the slow ones too
	$(BIN)/python -m pytest

test-wheel: ## build the wheel, install it without extras outside the clone, and use it from an empty folder
	PYTHON=$(PYTHON) CACHE=$(CACHE) .ci/wheel

check: install ## lint, types, and the JavaScript's tests
	$(BIN)/ruff format --check core training dashboard tests docs cxr_lens
	$(BIN)/ruff check core training dashboard tests docs cxr_lens
	$(BIN)/mypy
	PYTHON=$(BIN)/python CACHE=$(CACHE) .ci/javascript

docs: install ## build the documentation as a site: build/docs/index.html
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -c docs -d build/docs.cache . build/docs

notebook: install ## run docs/notebook.ipynb and keep what it shows
	$(BIN)/python -m tests.notebook

bench: install ## measure speeds, as ratios against a baseline of the same run; PARTS="rates one_image" measures only these; KEEP=1 renews docs/speeds.md
	$(BIN)/python -m training.bench.speeds $(PARTS) $(if $(KEEP),--keep)

demo: install ## train the demo bundles anew into assets/bundles (about an hour on two cores)
	$(BIN)/python -m training.cli train --preset phantom --bundles assets/bundles

screenshots: browser ## take the pictures in docs/screenshots
	$(BIN)/python -m tests.browser.screenshots
