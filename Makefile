# `make demo` and `make test` do all their own set-up; a second run re-uses it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TOOLS := contracts/node_modules/.package-lock.json
INTEROP := tests/interop/node_modules/.package-lock.json
CLIENTS := tests/evm/node_modules/.package-lock.json

.PHONY: setup demo test lint soak slither clean docs

setup: $(STAMP) $(TOOLS) $(INTEROP) $(CLIENTS)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

# anvil, the Solidity compiler, OpenZeppelin and forge, from npm packages alone. `install --no-save` takes the
# lock file's versions and digests; `ci` would refuse it, because it lacks the binaries of other platforms.
$(TOOLS): contracts/package.json contracts/package-lock.json $(STAMP)
	$(BIN)/python -m p2pos.devnet.tools npm install --no-save --ignore-scripts --no-audit --no-fund --silent --prefix contracts
	touch $@

# js-libp2p and IPFS tools, for the tests that they understand us.
$(INTEROP): tests/interop/package.json tests/interop/package-lock.json $(STAMP)
	$(BIN)/python -m p2pos.devnet.tools npm install --no-save --ignore-scripts --no-audit --no-fund --silent --prefix tests/interop
	touch $@

# Another Ethereum client and other wallets' libraries, for the tests that they and we agree.
$(CLIENTS): tests/evm/package.json tests/evm/package-lock.json $(STAMP)
	$(BIN)/python -m p2pos.devnet.tools npm install --no-save --ignore-scripts --no-audit --no-fund --silent --prefix tests/evm
	touch $@

demo: setup
	$(BIN)/python scripts/demo.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Two modules at a time: most tests wait for processes to start. A module's tests share what they start, so it stays whole;
# the longest begin first (tests/conftest.py), so that no core is idle at the end.
test: lint
	$(BIN)/python -m pytest -m 'not soak' -n 2 --dist loadscope --no-loadscope-reorder $(ARGS)

soak: setup
	$(BIN)/python -m pytest -m soak $(ARGS)

# Known kinds of faults in the contract; in an environment of its own, which it makes.
slither: setup
	$(BIN)/python scripts/slither.py

docs: setup
	$(BIN)/python scripts/make_docs.py
	$(BIN)/python scripts/make_dashboard.py

clean:
	rm -rf $(VENV) .venv-slither contracts/node_modules contracts/out contracts/cache .mypy_cache .pytest_cache .ruff_cache
	rm -rf .p2pos demo-summary.json
