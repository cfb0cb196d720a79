# `make demo` and `make test` do all the set-up; they need Python 3.11 or later and a C compiler.
PYTHON ?= python3
BIN := .venv/bin
MAED := $(BIN)/maed

.PHONY: demo test lint scripts format docs clean

demo: .venv/installed
	$(MAED) demo

# One thread for each of the workers: PyTorch's own threads would fight over the cores. Tests of a group share a worker,
# and so what it takes long to set up.
test: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 8 --dist loadgroup

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

# Open site/index.html: no server is needed. A warning is an error; the variable silences a notice of the theme.
docs: .venv/docs-installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs --quiet build --strict --clean

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,notebooks,perceiver,report,data,serve,mnist,onnx,tensorboard,umap,xarray]'
	touch $@

.venv/docs-installed: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

clean:
	rm -rf .venv runs site .pytest_cache .ruff_cache .mypy_cache .hypothesis
