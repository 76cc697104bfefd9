# make book         environment, every chapter for the demo's subjects, the HTML book
# make test         environment, tests
# make clean        remove what was generated (runs, caches), keep the environment
# make environment  only the environment; PYTHON=python3.12 chooses another interpreter
# make book JOBS=1  one chapter at a time, for a machine with little memory
# make lock         resolve pyproject.toml anew into requirements.lock (needs uv)

PYTHON ?= python3
VENV ?= .venv
PROFILE ?= demo
JOBS ?= 2

.PHONY: book test clean environment lock

book: environment
	$(VENV)/bin/eeglib run --profile $(PROFILE) --jobs $(JOBS)
	$(VENV)/bin/eeglib book --profile $(PROFILE)

test: environment
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 --dist loadfile

environment: $(VENV)/.installed

# The stamp comes last: an installation that was interrupted starts again.
$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make $(MAKECMDGOALS) PYTHON=python3.12"; \
	  exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "$(PYTHON) cannot make a virtual environment. On Debian and Ubuntu: apt install python3-venv"; \
	  exit 1; }
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

clean:
	rm -rf runs build _build eeglib.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

lock:
	uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 \
	  --no-annotate --no-emit-index-url --no-emit-find-links \
	  --custom-compile-command 'make lock' --output-file requirements.lock
