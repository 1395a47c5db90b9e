# ctrlift: every target makes its own .venv and installs what it needs.
#   make install PIP_ARGS="--extra-index-url <an index with CPU builds of torch>"

PYTHON   ?= python3.11
PIP_ARGS ?=
JOBS     ?= 2

VENV    := .venv
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.installed
# A library of other source than this is refused, and then everything is slower.
SOURCES := $(wildcard service/compiled/source/* service/engines/kernel/source/*)
DEMO    := demo
# One thread a process: two test workers on two cores, and runs that repeat to the bit.
THREADS := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

.DEFAULT_GOAL := help
.PHONY: help install demo serve test check bench break clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## make .venv and install everything (PIP_ARGS=... goes to pip)

$(STAMP): pyproject.toml constraints.txt $(SOURCES)
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found: install Python 3.11, or say make PYTHON=/path/to/python3.11"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --progress-bar on $(PIP_ARGS) --constraint constraints.txt --editable '.[train,torchscript,dev]'
	@$(BIN)/python -m service.engines.kernel.build --optional
	@$(BIN)/python -m service.compiled.build --optional
	@touch $@

demo: $(STAMP) ## train on MovieLens-100k and a trial, export, serve, ask for real users (minutes)
	$(BIN)/ctrlift demo --folder $(DEMO)

serve: $(STAMP) ## serve what `make demo` made on 127.0.0.1:8000
	@test -f $(DEMO)/service.toml || { echo "nothing to serve yet: run make demo first"; exit 2; }
	$(BIN)/ctrlift serve --config $(DEMO)/service.toml

test: $(STAMP) ## run the whole test suite
	$(THREADS) $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup

check: $(STAMP) ## lint, types and tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(THREADS) $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup

bench: $(STAMP) ## run every benchmark and print its numbers
	$(BIN)/python -m benchmarks

break: $(STAMP) ## break the code line by line and see that a test turns red each time
	$(THREADS) $(BIN)/python -m breakages

clean: ## remove caches and what the demo made (keeps .venv)
	rm -rf $(DEMO) .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
