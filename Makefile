# `make demo` and `make test` do all the set-up; they need Python 3.11 or later and a C compiler.
PYTHON ?= python3
BIN := .venv/bin
MAED := $(BIN)/maed

.PHONY: demo test lint format clean

demo: .venv/installed
	$(MAED) run photos --config photos --data.permute 0 --out runs/photos
	$(MAED) run digits --config digits --out runs/digits
	@echo
	@echo "Reports: runs/photos/report.html (recovered layout), runs/digits/report.html (Perceivers compared)"

# One thread for each of the workers: PyTorch's own threads would fight over the cores.
test: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 8

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,tensorboard,umap]'
	touch $@

clean:
	rm -rf .venv runs .pytest_cache .ruff_cache .mypy_cache .hypothesis
