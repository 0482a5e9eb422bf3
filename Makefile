# Two commands do everything: `make demo` and `make test`. The rest is for who works on the project.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench chaos incidents lock clean

help:
	@echo "make demo   run the whole line on embedded defaults (about a minute)"
	@echo "make test   lint, type-check and run every test"
	@echo "make bench  print the first benchmark's table"
	@echo "make chaos  crash tests at length: worker, monitor, joiner; 100 kills, 1,000,000 events (about fifteen minutes)"
	@echo "make incidents  let things go wrong on the composed services, and print who is called when (about two minutes)"
	@echo "make lock   resolve the pinned versions anew"
	@echo "make clean  remove the environment and caches"

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "fraudstream needs Python 3.11 or newer: run make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@$(BIN)/python -c 'import lightgbm' 2>/dev/null || { echo "LightGBM needs the OpenMP runtime: install libgomp1 (Debian, Ubuntu), libgomp (Fedora) or libomp (macOS), then run make again"; exit 1; }
	@# Compile the kernels once, not at the first event.
	$(BIN)/python -c 'from state.windows import warm; warm()'
	$(BIN)/python -c 'from models.ensemble import warm; warm()'
	@touch $@

demo: $(READY)
	$(BIN)/fraudstream demo

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Most of a crash test is waiting for a session or a transaction to time out, so several run side by side.
test: lint
	$(BIN)/python -m pytest -n 3 --dist worksteal

bench: $(READY)
	PYTHONPATH=.:tests:tests/bench $(BIN)/python tests/bench/all.py

chaos: $(READY)
	$(BIN)/python -m pytest --timeout 3600 --chaos-kills 100 --chaos-events 1000000 tests/stream/test_crash.py
	$(BIN)/python -m pytest --timeout 3600 --monitor-kills 12 tests/stream/test_monitor.py -k kills
	PYTHONPATH=.:tests:tests/bench $(BIN)/python tests/bench/joiner.py --decisions 1000000 --kills 5

incidents: $(READY)
	$(BIN)/python -m pytest -q -s tests/deploy/test_incident.py

# uv resolves for every supported Python at once; only hashes and versions are kept, no addresses.
COMPILE := pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header
lock: $(READY)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv $(COMPILE) pyproject.toml --extra cpu --extra train --extra monitor --extra dev --upgrade --output-file requirements.txt
	@# What the images hold is a part of it, at the same versions.
	for engine in cpu gpu; do $(BIN)/uv $(COMPILE) pyproject.toml deploy/image.in --extra $$engine --extra train --extra monitor \
	  --constraint requirements.txt --upgrade --output-file deploy/requirements-$$engine.txt || exit 1; done

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build *.egg-info
