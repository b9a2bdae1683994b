# The two commands of the README: `make run` and `make test`. Each sets up what it needs, and is instant the second time.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# NixOS can't run pip's; its development shell brings one.
RUFF   ?= $(BIN)/ruff
# What is compiled is kept, also where a container says otherwise: each of two hundred starts, and each run, would do it anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: run check test compiled compiled-wheel compiled-tests clients chaos fuzz lint types format bench limits failover screenshots constraints release clean

run: $(VENV)/.run
	@$(BIN)/aimux serve --or-demo

# Before each commit: what a minute and a half can tell.
check: lint types
	$(BIN)/pytest $(PARALLEL) -q -m 'not slow and not long'

# Everything, in parallel; what takes a special program or minutes runs in CI (`.ci/run`), or by its name:
# make test TESTS=tests/soak
TESTS    ?=
PARALLEL ?= --numprocesses=auto --dist=loadfile
test: lint types
	$(BIN)/pytest $(PARALLEL) $(TESTS)

# The real client programs, pinned, into .cache/clients (1.3 GB): tests/clients drives them where they are.
clients: $(STAMP)
	@$(BIN)/python -m tests.clients.install .cache/clients

# A real aimux, two hundred clients, and everything that can go wrong, for SECONDS; a ledger decides. CI does it too.
# The seed is printed, and SEED= takes it again.
SECONDS ?= 60
chaos: $(STAMP)
	AIMUX_CHAOS=$(SECONDS) AIMUX_CHAOS_SEED=$(SEED) $(BIN)/pytest tests/chaos/test_chaos.py

# Everything that parses foreign bytes, SECONDS for each target (of about thirty). The seed is printed, and SEED= takes it
# again; what fails is kept in tests/fuzz/corpus, for every later `make test` too. ARGS='-k config' for some of them. Then
# new examples for the tests that `make test` gives the same each time.
fuzz: $(STAMP)
	AIMUX_FUZZ=$(SECONDS) AIMUX_FUZZ_SEED=$(SEED) $(BIN)/pytest tests/fuzz $(ARGS)
	$(BIN)/pytest $(PARALLEL) --hypothesis-profile=new -m hypothesis

lint: $(STAMP)
	$(RUFF) check .
	$(RUFF) format --check .

# On macOS too, where nobody runs the tests: what Linux alone has would be missed at the moment of need.
types: $(STAMP)
	$(BIN)/mypy
	$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin aimux providers

format: $(STAMP)
	$(RUFF) check --fix . && $(RUFF) format .

# What the image is built with, by version and hash: again after each change of dependencies, or for newer ones.
PIN := pip compile --quiet --no-header --no-annotate --generate-hashes --upgrade --python-version 3.13 --python-platform linux
constraints: $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv $(PIN) pyproject.toml --output-file deploy/container/requirements.txt
	$(BIN)/python -c 'import tomllib; read = tomllib.load(open("pyproject.toml", "rb")); \
	  print(*read["build-system"]["requires"], *read["tool"]["aimux"]["compiler"], sep="\n")' \
	  | $(BIN)/uv $(PIN) - --output-file deploy/container/build-requirements.txt

# Whether this commit is a release: version, changelog, manifests and tag agree, and wheel and sdist (dist/) work.
release: $(STAMP)
	@$(BIN)/python .ci/release.py

# One table, from one run: bench/README.md. ARGS=--quick for a glance; ARGS=--check counts instructions instead, and fails
# where they are above the table's. PEERS=1 installs LiteLLM (0.8 GB) and Link.Assistant.Router (by cargo, minutes) into
# .cache/peers, and measures them, too.
bench: $(STAMP)
	@$(BIN)/python -m bench $(if $(PEERS),--peers) $(ARGS)

# The wheel with the hot path in machine code (CONTRIBUTING.md), and the hot path's tests on what it brings.
COMPILED := build/compiled
compiled: compiled-wheel
	@$(MAKE) --no-print-directory compiled-tests

compiled-wheel: $(STAMP)
	rm -rf $(COMPILED) && mkdir -p $(COMPILED)
	AIMUX_COMPILE=1 $(BIN)/python -m build --wheel --no-isolation --outdir $(COMPILED)/wheel
	$(BIN)/python -m zipfile -e $(COMPILED)/wheel/*.whl $(COMPILED)

# Without bytecode: who runs the tests beside it writes some, and a copy would find a file that is gone a moment later.
compiled-tests: $(STAMP)
	tar -cf - --exclude=__pycache__ tests docs bench pyproject.toml flake.nix config.example.yaml | tar -xf - -C $(COMPILED)
	cd $(COMPILED) && COMPILED=1 PYTHONPATH=$$PWD $(abspath $(BIN))/python -m pytest -p no:cacheprovider $(PARALLEL) \
	  tests/compiled tests/http tests/front tests/relay tests/accounts tests/metering tests/limits tests/logs tests/gateway tests/fuzz \
	  tests/plugin tests/contracts/test_providers.py tests/providers

# A month of a team under limits, simulated: whom they refuse wrongly, and by how much they are overrun. ARGS=--write keeps it.
limits: $(STAMP)
	@$(BIN)/python -m bench.limits $(ARGS)

# Every page of the dashboard, in both themes and two widths, into docs/images. Takes Chromium.
screenshots: $(STAMP)
	@$(BIN)/python -m tests.control.dashboard.screenshots docs/images

# 10,000 requests over five accounts that fail all the time; the suite has a shorter run.
failover: $(STAMP)
	AIMUX_FAILOVER_REQUESTS=10000 $(BIN)/pytest tests/soak/test_failover.py -o log_cli=true -o log_cli_level=INFO

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# Until it had the name of today, pip knew it as aimux: both at once would load every provider twice.
define forget-the-old-name
	@$(BIN)/python -m pip uninstall -qq --disable-pip-version-check --yes aimux
endef

$(VENV)/.run: pyproject.toml | $(VENV)/bin/python
	$(forget-the-old-name)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(STAMP): pyproject.toml | $(VENV)/bin/python
	$(forget-the-old-name)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.run

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
