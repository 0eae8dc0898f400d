# `make demo` shows the whole road; `make test` runs the tests. Both set up all they need, on a bare Debian machine, as root.
VENV   := .venv
BIN    := $(VENV)/bin
PYTHON ?= $(shell command -v python3.11 || command -v python3)
STAMP  := $(VENV)/.setup-done

.PHONY: setup demo check test bench clean
setup: $(STAMP)

$(STAMP): pyproject.toml packaging/system-packages.txt packaging/setup packaging/fetch-docker packaging/unpack-debian packaging/build-clientgo \
          tests/apiserver/clientgo/main.go $(wildcard hatch_build.py)
	packaging/setup $(VENV) $(PYTHON)
	@touch $@

demo: setup
	$(BIN)/python examples/demo.py

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: setup
	$(BIN)/python -m pytest $(TESTS)

bench: setup
	packaging/fetch-docker --engine $(VENV)/docker || echo "make bench: the Docker of today cannot be had: measured beside what is installed" >&2
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build dist
