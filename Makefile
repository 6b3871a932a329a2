# make demo: environment, then the main job on the embedded default. make test: environment, linters, all tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint docs wheel stress gpu clean

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $(READY)

demo: $(READY)
	$(BIN)/python scripts/demo.py --out demo_output

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy eca_zoo

test: lint
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal

docs: $(READY)
	$(BIN)/python scripts/generate_docs.py

wheel: $(READY)
	$(BIN)/python -m build --wheel --no-isolation

stress: $(READY)
	$(BIN)/python scripts/stress.py --kills 20

# With CPUs alone it says that there is no GPU and runs what needs none. TIMM names a checkout of timm for comparisons.
gpu: $(READY)
	PYTHONPATH=scripts $(BIN)/python -m gpu_hour --report gpu_report.md $(if $(TIMM),--timm $(TIMM))

clean:
	rm -rf $(VENV) build dist demo_output .mypy_cache .ruff_cache .pytest_cache .hypothesis
