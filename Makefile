# `make demo` and `make test` need Python 3.10 to 3.12 and a package index, nothing else.
# The environment is the work of tools/bootstrap.py; here we only find an interpreter for it.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: bench-speed help demo test test-compiled lint benchmark

# The first one that really runs: a pyenv shim exists for versions that are not active, and
# some systems ship a python3 without venv.
BOOTSTRAP = for python in .venv/bin/python python3 python3.12 python3.11 python3.10; do \
	if $$python -c "import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))" \
		2>/dev/null; then exec $$python tools/bootstrap.py $(1); fi; done; \
	echo "No Python 3.10, 3.11 or 3.12 with the modules venv and ensurepip was found." >&2; exit 1

PYTEST = -m pytest -n 2 --dist worksteal

help:
	@echo "make demo           train, evaluate and look at the modules on generated images"
	@echo "make test           run the whole test suite"
	@echo "make test-compiled  build the real mmcv in .venv-compiled/ and run the suite on it"
	@echo "make bench-speed    what we add to the price of the network, an hour; ARGS='loss --rounds 3' for a part"
	@echo "make lint           ruff and mypy"
	@echo "make benchmark      the detector benchmark; PRESET=cpu (default), gpu or tiny"

demo:
	@$(call BOOTSTRAP,run)
	@.venv/bin/python -m mmdet_softpl demo

test:
	@$(call BOOTSTRAP,test)
	@.venv/bin/python $(PYTEST)

test-compiled:
	@bash tools/make_compiled_env.sh
	@.venv-compiled/bin/python $(PYTEST)

lint:
	@$(call BOOTSTRAP,lint)
	@.venv/bin/python -m ruff format --check .
	@.venv/bin/python -m ruff check .
	@.venv/bin/python -m mypy mmdet_softpl

PRESET ?= cpu

benchmark:
	@$(call BOOTSTRAP,run)
	@.venv/bin/python benchmarks/longtail/run.py --preset $(PRESET)

bench-speed:
	@$(call BOOTSTRAP,test)
	@OMP_WAIT_POLICY=passive .venv/bin/python -W ignore -m benchmarks.speed.run $(ARGS)
