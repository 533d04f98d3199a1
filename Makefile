# One environment in $(VENV), made anew whenever pyproject.toml or constraints.txt change: first what running needs, then
# what development adds.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUNS := $(VENV)/runs
INSTALLED := $(VENV)/installed
TEST := OMP_NUM_THREADS=1 $(BIN)/pytest
WORKERS := -n 2 --dist worksteal

# What exercises other packages: files, the command line, plots, peers, numerics, training.
LOWEST := $(VENV)-lowest
TOUCHES := fused philox angles files_arrays files_netcdf files_rasters files_text cli cli_conventions console

.PHONY: demo test test-slow test-lowest coverage check types docs wheel bench bench-quick clean

demo: $(RUNS)
	@echo "Train a small model of bricks for 70 seconds, then draw 128 samples and compare them, in about 30 more:"
	$(BIN)/circsde train texture:brick --process local --crop 64 --size 16 --steps 25 --seconds 70 --out out/demo
	$(BIN)/circsde diagnose out/demo --force
	@echo "Held-out windows, how they synchronise, and samples: $(CURDIR)/out/demo/diagnosis.png"

test: $(INSTALLED)
	$(TEST) $(WORKERS) -m "not slow"

test-slow: $(INSTALLED)
	$(TEST) $(WORKERS) -m slow

coverage: $(INSTALLED)
	$(TEST) $(WORKERS) -m "not slow" --cov --cov-report=term-missing:skip-covered

test-lowest: $(LOWEST)/installed
	@# what another numba has compiled lies beside the source
	OMP_NUM_THREADS=1 NUMBA_CACHE_DIR=$(abspath $(LOWEST))/compiled $(LOWEST)/bin/pytest -n 2 -m "not slow" -W ignore::DeprecationWarning \
		-W "ignore:numpy.ndarray size changed:RuntimeWarning" \
		$(TOUCHES:%=tests/test_%.py)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/vulture

types: $(INSTALLED)
	$(BIN)/mypy

docs: $(INSTALLED)
	rm -rf docs/_build docs/reference
	OMP_NUM_THREADS=1 $(BIN)/sphinx-build --quiet -W --keep-going -E docs docs/_build/html
	$(BIN)/pytest --quiet --noconftest tests/test_site.py
	@echo "The first page is $(CURDIR)/docs/_build/html/index.html"

bench: $(INSTALLED)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[bench]'
	$(BIN)/python benchmarks

wheel: $(INSTALLED)
	VENV=$(VENV) .ci/wheel

bench-quick: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks

clean:
	rm -rf $(VENV) $(LOWEST) build dist out docs/_build docs/reference .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage

$(RUNS): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@echo "Install circsde and what it runs on, some 70 packages with torch, into $(VENV): a minute, or what the network takes"
	$(BIN)/pip install --quiet --no-compile -c constraints.txt -e .  # what is imported is compiled then: a minute less
	touch $@

$(INSTALLED): $(RUNS)
	@echo "Install what tests, checks and documents need, some 100 packages, into $(VENV): another minute"
	$(BIN)/pip install --quiet --no-compile -c constraints.txt -e '.[dev]'
	$(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null || true  # many processes import it; templates do not compile
	touch $@

$(LOWEST)/installed: pyproject.toml constraints.txt .ci/lowest.py
	$(PYTHON) -m venv $(LOWEST)
	$(PYTHON) .ci/lowest.py >$(LOWEST)/constraints.txt
	$(LOWEST)/bin/pip install --quiet --only-binary :all: -c $(LOWEST)/constraints.txt -e '.[test,dask]'
	touch $@
