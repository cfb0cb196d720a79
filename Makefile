# `make demo` and `make test` do all the set-up; they need Python 3.11 or later and a C compiler.
PYTHON ?= python3
BIN := .venv/bin
MAED := $(BIN)/maed

SITE = $(wildcard .venv/lib/python3*/site-packages)
EXTRAS := perceiver,report,data,serve,mnist,onnx,tensorboard,umap,xarray
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

# One thread for each of the workers: PyTorch's own threads would fight over the cores. Tests of a group share a worker,
# and so what it takes long to set up; tests/conftest.py has the order. Processes that tests start read compiled modules.
TESTS := -m pytest -n auto --maxprocesses 8 --dist loadgroup --no-loadscope-reorder
QUICK := -m "not slow and not browser"
test test-quick coverage torture torture-quick lowest installed: export OMP_NUM_THREADS = 1
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-quick coverage torture torture-quick bench bench-quick lowest wheels dist installed lint scripts \
  format docs clean

demo: .venv/installed
	$(MAED) demo

test: .venv/installed
	$(BIN)/python $(TESTS)

test-quick: .venv/installed
	$(BIN)/python $(TESTS) $(QUICK)

# The share of the package's lines that the tests run, those of the processes that they start included.
coverage: .venv/installed
	$(BIN)/coverage erase
	$(BIN)/coverage run $(TESTS) -q
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# Kills, damage, full disks and malformed files (docs/reliability.md): about an hour, recorded; and the short form.
torture: .venv/installed
	$(BIN)/python benchmarks/torture.py long

torture-quick: .venv/installed
	$(BIN)/python benchmarks/torture.py quick

# Everything that takes time, side by side (docs/performance.md): about 20 minutes, and four. Both resume.
bench: .venv/installed
	$(BIN)/python benchmarks/bench.py run && $(BIN)/python benchmarks/bench.py docs

bench-quick: .venv/installed
	$(BIN)/python benchmarks/bench.py run --quick && $(BIN)/python benchmarks/bench.py docs

# The quick tests with the lowest versions that pyproject.toml allows of what users install (.ci/lowest.txt).
lowest: .venv-lowest/installed
	.venv-lowest/bin/python $(TESTS) $(QUICK) -q

# Every version of constraints.txt is to be had as a wheel for the newest Python that pyproject.toml names. Only what the
# index says of a wheel is read, so that nothing large is downloaded.
wheels: .venv/installed
	$(PIP) install --dry-run --use-feature=fast-deps --no-deps --only-binary=:all: --python-version 3.13 \
	  --target .venv-wheels --requirement constraints.txt

# The wheel and the source distribution, in dist/: the same bytes from the same commit, for the time of the commit stands
# in the files, and constraints.txt has the version of what builds them.
dist: .venv/installed
	rm -rf dist
	$(PIP) install -c constraints.txt build twine
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) PIP_CONSTRAINT=constraints.txt $(BIN)/python -m build --outdir dist
	$(BIN)/python -m twine check --strict dist/*

# The wheel with every extra in an environment of its own. From there run the examples, the notebooks and every block of
# README and docs that no line above it keeps from being run; commands are shortened, the demo is not.
INSTALLED := tests/test_docs.py tests/test_readme.py tests/test_examples.py tests/test_notebooks.py tests/test_export.py \
  tests/test_extending.py tests/test_integrations.py::test_the_pages_run
installed: dist
	rm -rf .venv-installed
	$(PYTHON) -m venv .venv-installed
	.venv-installed/bin/python -m pip --quiet --disable-pip-version-check install -c constraints.txt \
	  "$$(echo dist/maed-*.whl)[all,notebooks]" hypothesis pytest pytest-xdist x-transformers
	.venv-installed/bin/python $(TESTS) --installed $(INSTALLED)
	cd .venv-installed && bin/maed demo --overwrite

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry src

# The scripts of the pages: linted, type-checked, and what only computes is tested. Needs node and npm.
scripts:
	@if ! command -v npm >/dev/null; then echo "npm is missing: the scripts of the pages were not checked" >&2; \
	elif ! npm ci --silent --no-audit --no-fund; then echo "npm cannot install what checks them: the scripts of the pages were not checked" >&2; \
	else npm run -s lint && npm run -s types && npm test --silent; fi

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Open site/index.html: no server is needed. A warning is an error.
docs: .venv/docs-installed
	$(BIN)/python docs/build.py

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) install -c constraints.txt pip
	$(PIP) install -c constraints.txt -e '.[dev,notebooks,$(EXTRAS)]'
	touch $@

# PyTorch is the one that is installed already, with what its GPU builds bring: it is as in constraints.txt, and large.
.venv-lowest/installed: .venv/installed .ci/lowest.txt
	rm -rf .venv-lowest
	$(PYTHON) -m venv --without-pip .venv-lowest
	for found in $(SITE)/torch $(SITE)/torchgen $(SITE)/functorch $(SITE)/torch-* $(SITE)/nvidia* $(SITE)/triton*; do \
	  if [ -e $$found ]; then ln -s ../../../../$$found .venv-lowest/lib/python3*/site-packages/; fi; done
	$(BIN)/python -m pip --python .venv-lowest/bin/python --quiet --disable-pip-version-check install \
	  --no-compile -c .ci/lowest.txt -e '.[$(EXTRAS)]' pytest pytest-xdist hypothesis polars selenium
	touch $@

.venv/docs-installed: .venv/installed
	$(PIP) install -c constraints.txt -e '.[docs]'
	touch $@

clean:
	rm -rf .venv .venv-lowest .venv-installed runs site .site .cache .coverage .coverage.* .pytest_cache .ruff_cache .mypy_cache .hypothesis
