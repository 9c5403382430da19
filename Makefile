# Two commands matter: `make run` and `make test`. Each sets up `.venv` by itself and only once.
PYTHON ?= python3
# Another build of torch, with whatever pip needs to find it (in a fresh clone or after `make clean`):
#   make run TORCH="torch==2.13.0+cpu --extra-index-url WHEELS-OF-THAT-BUILD"
TORCH ?= torch==2.13.0
# Two for each of the two cores that suffice: many tests wait for other processes (six take no less time).
WORKERS ?= 4
# Of the order of the tests and of their random draws: the same each time, so that what passes here passes there. Another
# number is another order: what fails then depends on what ran before it, which is a fault.
SEED ?= 1
SPEC ?= examples/native_defects.yaml
SEEDS ?= 20

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PACKAGES := instruments simulation policies orchestrator workflows

.PHONY: run serve test environments lint bench gpu-check docs clean smoke-deploy help

help:
	@echo "make run | serve | test | lint | bench | gpu-check | docs | smoke-deploy | clean"

run: .venv/installed
	$(BIN)/stempilot run $(SPEC)

serve: .venv/installed
	$(BIN)/stempilot serve

# Unit tests come first (tests/conftest.py keeps that order), then the rest. A file goes to one process whole, so that an
# installation its tests share is started once. Some hundred processes are started: they keep what they compile.
test: .venv/installed-dev
	@$(MAKE) --no-print-directory -j4 environments
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder \
	  --randomly-seed=$(SEED)

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: .venv/installed
	mkdir -p benchmarks/results
	$(BIN)/stempilot bench loop_overhead --seeds 3 --out benchmarks/results/loop_overhead.json
	$(BIN)/stempilot bench first_world --seeds $(SEEDS) --out benchmarks/results/first_world.json
	$(BIN)/python benchmarks/page.py --out benchmarks/results/page.json

# On a machine with a GPU: checks every result against the CPU, then times it.
gpu-check: .venv/installed
	mkdir -p benchmarks/results
	$(BIN)/python -m benchmarks.gpu --out benchmarks/results/gpu.json

smoke-deploy: .venv/installed-dev
	$(BIN)/python -m deploy.smoke_deploy

docs: .venv/installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf .venv site build dist

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "stempilot needs Python 3.11 or later; $(PYTHON) is missing or older. Name another: make PYTHON=python3.12 run"; exit 1; }
	@$(PYTHON) -m venv .venv || { \
	  echo "$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv"; rm -rf .venv; exit 1; }

# torch comes first and stays out of the pins, so that TORCH may name another build of it.
.venv/pins.txt: constraints.txt | .venv/bin/python
	@grep -v '^torch==' constraints.txt > $@

.venv/torch: .venv/pins.txt
	@echo "Setting up .venv (once; torch is large)"
	$(PIP) install -c .venv/pins.txt $(TORCH)
	@touch $@

.venv/installed: .venv/torch pyproject.toml
	$(PIP) install -c .venv/pins.txt -e .
	@touch $@

.venv/installed-dev: .venv/installed
	$(PIP) install -c .venv/pins.txt -e ".[dev,docs]"
	@touch $@

environments: .venv/ophyd-async/installed .venv/nion/installed .venv/micromanager/installed .venv/instamatic/installed \
  .venv/merlin/installed

# Libraries that run in a Python of their own, out of process: every version is pinned, so nothing has to be resolved. Where
# one cannot be had its tests are skipped, and fail where CI=true.
.venv/%/installed: environments/%.txt | .venv/bin/python
	@echo "Setting up .venv/$* (once)"
	@rm -rf .venv/$* && .venv/bin/python -m venv --without-pip .venv/$*
	@$(PIP) --python .venv/$*/bin/python install --no-deps --no-compile -r $< && touch $@ || \
	  echo ".venv/$* could not be set up; what needs it is skipped" >&2
