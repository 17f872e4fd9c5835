# Two commands matter: `make run` does the main job, `make test` checks everything. Each sets up what it needs.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PROFILE ?= quick
# Notebooks' kernels wait for each other without keeping a core busy.
WORKERS ?= 2
# Drawn inputs are the same in every `make test`; `make abuse` draws new ones.
PYTEST  := OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --nbval-lax \
           --nbval-sanitize-with tests/nbval_sanitize.cfg --hypothesis-seed=0
# A busy machine shows a bar where a quiet one has finished; compared cells are those of a run without bars.
QUIET   := ADVLIB_PROGRESS=/dev/null
NUMBERS := tests/notebooks/test_numbers.py
LOWEST  := ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 OPENBLAS_CORETYPE=Haswell OMP_NUM_THREADS=1

.PHONY: run test abuse paper report data bench notebooks lock clean help

run: data            ## set up, get the data, run every notebook (quick profile), write the report
	$(BIN)/advlib run --profile $(PROFILE)

# The order counts: the numbers in test_numbers.py are those of the notebooks that have just run. The last two lines do
# the same again, as the oldest processor would, for the notebooks whose numbers depend on the arithmetic.
test: data           ## set up, then test the library and the compendium, every notebook, and its numbers
	$(BIN)/ruff check .
	runs=$$(mktemp -d) && trap 'rm -rf "$$runs"' EXIT && export ADVLIB_RUNS="$$runs/native" && \
	$(QUIET) $(PYTEST) notebooks && \
	$(PYTEST) tests/advlib tests/compendium tests/abuse tests/notebooks/test_structure.py \
	   tests/notebooks/test_reading.py tests/notebooks/test_defects.py && \
	$(PYTEST) $(NUMBERS) && \
	sensitive=$$($(BIN)/python tests/expected/derive.py --sensitive) && \
	export ADVLIB_RUNS="$$runs/lowest" ADVLIB_CACHE="$$runs/lowest/cache" && \
	env $(LOWEST) $(QUIET) $(PYTEST) $$(printf 'notebooks/%s.ipynb ' $$sensitive) && \
	$(PYTEST) $$(printf '$(NUMBERS)::test_a_fresh_run_lies_in_its_bands[%s] ' $$sensitive)

# Thousands of damaged files, kills and drawn inputs more than `make test` has; it writes docs/reliability.md.
abuse: data          ## what goes wrong, tried at length; writes docs/reliability.md (an hour and more)
	rm -f results/runs/abuse.json
	ADVLIB_ABUSE=full OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --reliability \
	   tests/abuse $$($(BIN)/python tests/abuse/reliability.py)

paper: data          ## every notebook at the papers' own settings (hours)
	$(BIN)/advlib run --profile paper

report: $(READY)     ## rebuild the site from the runs there are; it opens from disk
	$(BIN)/advlib report

data: $(READY)       ## fetch and check the data sets
	$(BIN)/advlib data fetch

bench: data          ## time both engines against their peers
	$(BIN)/python -m benchmarks

notebooks: data      ## rerun the notebooks and store outputs and reference results in the tree
	$(BIN)/advlib run --profile quick --update-reference

# `make lock UPGRADE=` adds what pyproject.toml has new, and leaves all other versions as they are.
UPGRADE ?= --upgrade
lock:                ## renew requirements.lock, environment.yml and docs/licences.md from pyproject.toml
	uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 $(UPGRADE) --quiet --generate-hashes \
	   --no-annotate --custom-compile-command "make lock" -o requirements.lock
	{ sed '/- pip:$$/q' environment.yml; \
	  grep -E '^[A-Za-z0-9]' requirements.lock | sed -E 's/^/      - /; s/ *\\$$//'; } > environment.tmp
	mv environment.tmp environment.yml
	cp environment.yml .binder/environment.yml
	$(BIN)/python -m compendium.licences

# The stamp is written last, so an interrupted installation is taken up again by the next make.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	   { echo "advlib needs Python 3.11 or newer; name one with: make PYTHON=python3.11"; exit 1; }
	@echo "Setting up $(VENV) from requirements.lock (about 6 GB with the CUDA parts of torch; minutes the first time)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --require-hashes \
	   -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e .
	@touch $(READY)

clean:               ## remove what runs left behind; data and environment stay
	rm -rf results/runs results/cache build

help:
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12
