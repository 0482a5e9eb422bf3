# Two commands do everything: `make demo` and `make test`. The rest is for who works on the project.
PYTHON ?= python3
VENV   ?= .venv
SEED   ?= 20260101
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench bench-quick soak chaos incidents swaps lock lock-peers clean

help:
	@echo "make demo   run the whole line on embedded defaults (about a minute)"
	@echo "make test   lint, type-check and run every test"
	@echo "make bench  measure ours beside the peers (hours; PART=\"peers latency\" for some of it, COMPARE=an earlier run's JSON)"
	@echo "make bench-quick  ours, the null pipeline and the batched loop by hand, in under three minutes"
	@echo "make soak   an hour of steady load: memory, file handles, lag, latency (MINUTES=60)"
	@echo "make chaos  a storm at length over 1,000,000 events, and 1,000,000 fuzzed inputs; monitor and joiner killed (SEED=... draws another)"
	@echo "make incidents  let things go wrong on the composed services, and print who is called when (about two minutes)"
	@echo "make swaps  60 promotions while two workers score 200,000 events, each killed in the middle of one"
	@echo "make lock   resolve the pinned versions anew"
	@echo "make clean  remove the environment and caches"

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "fraudstream needs Python 3.11 or newer: run make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@$(BIN)/python -c 'import lightgbm' 2>/dev/null || { echo "LightGBM needs the OpenMP runtime: install libgomp1 (Debian, Ubuntu), libgomp (Fedora) or libomp (macOS), then run make again"; exit 1; }
	@# Compile the kernels once, not at the first event; the windows' take as long as all others, on another core.
	$(BIN)/python -c 'from state.windows import warm; warm()' & windows=$$!; \
	  $(BIN)/python -c 'from models.ensemble import warm; warm()' && $(BIN)/python -c 'from stream.codec import warm_codec; warm_codec()' \
	  && wait $$windows || { kill $$windows 2>/dev/null; exit 1; }
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

BENCH := PYTHONPATH=.:tests:tests/bench:tests/bench/peers $(BIN)/python tests/bench/all.py
bench: $(READY)
	$(BENCH) $(PART) $(if $(COMPARE),--compare $(COMPARE))

MINUTES ?= 60
soak: $(READY)
	PYTHONPATH=.:tests:tests/bench:tests/bench/peers $(BIN)/python tests/bench/soak.py --minutes $(MINUTES)

bench-quick: $(READY)
	$(BENCH) --quick $(if $(COMPARE),--compare $(COMPARE))

chaos: $(READY)  # CI=true: what is missing fails, or the storm would be green without it
	CI=true $(BIN)/python -m pytest --timeout 7200 --chaos --chaos-seed $(SEED) --fuzzed 1000000 \
	  tests/stream/test_chaos.py tests/stream/test_full_disk.py tests/stream/test_fuzz.py tests/stream/test_transaction_columns.py
	CI=true $(BIN)/python -m pytest --timeout 3600 --monitor-kills 12 tests/stream/test_monitor.py -k kills
	PYTHONPATH=.:tests:tests/bench $(BIN)/python tests/bench/joiner.py --decisions 1000000 --kills 5

incidents: $(READY)
	$(BIN)/python -m pytest -q -s tests/deploy/test_incident.py

swaps: $(READY)
	$(BIN)/python -m pytest --timeout 3600 --promotions 60 --promotion-events 200000 tests/stream/test_promotions.py -k many_promotions

# uv resolves for every supported Python at once; only hashes and versions are kept, no addresses.
COMPILE := pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header
lock: $(READY)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv $(COMPILE) pyproject.toml --extra cpu --extra train --extra monitor --extra dev --upgrade --output-file requirements.txt
	@# What the images hold is a part of it, at the same versions.
	for engine in cpu gpu; do $(BIN)/uv $(COMPILE) pyproject.toml deploy/image.in --extra $$engine --extra train --extra monitor \
	  --constraint requirements.txt --upgrade --output-file deploy/requirements-$$engine.txt || exit 1; done

# The peers of the benchmark are never in our own environment: what each one's holds is pinned beside it.
PEERS := tests/bench/peers/requirements
lock-peers: $(READY)
	$(BIN)/python -m pip install --quiet uv
	for peer in $(PEERS)/*.in; do $(BIN)/uv pip compile --python-version 3.11 --python-platform x86_64-manylinux_2_31 \
	  --generate-hashes --no-annotate --no-header --upgrade $$peer --output-file $${peer%.in}.txt || exit 1; done

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build *.egg-info
