# Everything from a bare clone: `make demo`, `make test`. Needs Python 3.11 and make; the rest comes from PyPI and Maven
# Central. `make demo ARGS="--speed max"` passes arguments on.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
ARGS ?=
SEEDS ?= 10000

.DEFAULT_GOAL := help
.PHONY: help env kafka kernels demo test simulate soak fuzz chaos chaos-short takeover guards bench picture lint format clean

help:  ## Say what there is to make
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 13

env: $(INSTALLED)  ## Install everything into .venv

kafka: $(INSTALLED)  ## Fetch the local Apache Kafka (45 MB, once a user)
	@$(BIN)/nearshelf broker fetch

kernels: $(INSTALLED)  ## Compile the numba kernels (minutes, once for each version of them)
	@echo "Compiling the kernels, unless they are kept from before ..."
	@$(BIN)/python -m streams.worker.warm

demo: $(INSTALLED)  ## Watch real retail data flow through a real Kafka, and audit the result
	@$(BIN)/nearshelf demo $(ARGS)

test: lint kafka kernels  ## Lint, then run all tests
	$(BIN)/python -m pytest -n 3 --dist loadfile $(ARGS)

simulate: kernels  ## Run 10,000 seeds of the simulation, or SEEDS=n; SEED=n tells that one line by line
	$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED) --trace,--seeds $(SEEDS)) $(ARGS)

soak: kernels  ## A million seeds (a day)
	$(BIN)/python -m tests.simulation --seeds 1000000 $(ARGS)

fuzz: kernels  ## Try a million bad records: nothing stops, no good event is lost (ten minutes)
	$(BIN)/python -m tests.fuzz $(ARGS)

chaos: kafka kernels  ## Break it 1,000 times on a real Kafka, and see that nothing is lost (an hour)
	$(BIN)/python -m tests.chaos --faults 1000 --each-point 30 $(ARGS)

chaos-short: kafka kernels  ## The same for five minutes
	$(BIN)/python -m tests.chaos --minutes 4 --short $(ARGS)

takeover: kafka kernels  ## How long a killed worker's pools are without decisions, with and without standby
	$(BIN)/python -m tests.chaos.takeover $(ARGS)

guards: kafka kernels  ## Take each guard away, one at a time: do the tests miss it? (an hour)
	$(BIN)/python -m tests.guards $(ARGS)

bench: kafka kernels  ## Run all benchmarks into var/bench (hours), or NAMES="kernel state"; ARGS="--size smoke" for small
	$(BIN)/nearshelf bench $(or $(NAMES),all) --size full --out var/bench $(ARGS)

picture:  ## Draw docs/flow.svg from docs/flow.dot (needs Graphviz)
	dot -Tsvg docs/flow.dot -o docs/flow.svg

lint: $(INSTALLED)  ## Check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)  ## Put the code into its form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Stop the local broker; remove its data, the environment and all caches
	@if [ -x $(BIN)/nearshelf ]; then $(BIN)/nearshelf broker stop; fi
	rm -rf var $(VENV) build *.egg-info .pytest_cache .hypothesis .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml config/constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 is needed; found: $(or $(shell "$(PYTHON)" --version 2>/dev/null),none)."; \
	  echo "Install it (Debian, Ubuntu: python3.11 python3.11-venv; others: https://www.python.org/downloads/, pyenv, uv),"; \
	  echo "or name it: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	@"$(PYTHON)" -m venv $(VENV) || { \
	  echo "Python cannot make a virtual environment; its module venv is missing (Debian, Ubuntu: apt install python3.11-venv)."; \
	  exit 1; }
	@echo "Installing Python packages into $(VENV), the first time about a minute ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c config/constraints.txt -e ".[dev]" || { \
	  echo "The packages could not be installed. pip needs PyPI, or a mirror: PIP_INDEX_URL=https://... make ..."; exit 1; }
	@touch $(INSTALLED)
