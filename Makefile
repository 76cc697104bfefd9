# make book         environment, every chapter for the demo's subjects, the HTML book
# make test         environment, tests
# make lab          the chapters without solutions in JupyterLab, in the folder lab/; works offline
# make clean        remove what was generated (runs, caches), keep the environment and lab/
# make environment  only the environment; PYTHON=python3.12 chooses another interpreter
#                   SMALL=1 without what only tests and benchmarks need; with TORCH_INDEX=... (the
#                   address that PyTorch's page shows for your system) PyTorch without CUDA
# make book JOBS=1  one chapter at a time, for a machine with little memory
# make lock         resolve pyproject.toml anew into requirements.lock (needs uv)

PYTHON ?= python3
VENV ?= .venv
PROFILE ?= demo
JOBS ?= 2
SMALL ?=
TORCH_INDEX ?=

.PHONY: book test lab clean environment lock

book: environment
	$(VENV)/bin/eeglib run --profile $(PROFILE) --jobs $(JOBS)
	$(VENV)/bin/eeglib book --profile $(PROFILE)

test: environment
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 --dist loadfile

# Students work on copies of the notebooks, and of the demo's results: the run itself stays as it is.
lab: environment
	[ -e runs/demo/group/09_summarize_group/metrics.json ] || $(VENV)/bin/eeglib run --jobs $(JOBS)
	[ -e lab/01_download_data.ipynb ] || $(VENV)/bin/eeglib student-notebooks lab
	[ -e lab/runs/demo ] || { mkdir -p lab/runs/part && cp -R runs/demo/group runs/demo/sub-* lab/runs/part && mv lab/runs/part lab/runs/demo; }
	cd lab && $(abspath $(VENV))/bin/jupyter lab --LabApp.news_url=None --LabApp.extension_manager=readonly \
	  --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate $(LAB_OPTIONS)

environment: $(VENV)/.installed

# The stamp comes last: an installation that was interrupted starts again.
$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make $(MAKECMDGOALS) PYTHON=python3.12"; \
	  exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "$(PYTHON) cannot make a virtual environment. On Debian and Ubuntu: apt install python3-venv"; \
	  exit 1; }
ifneq ($(SMALL),)
	# Only what is asked for, in the versions of the lock.
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c requirements.lock \
	  $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) --editable '.[lab]'
else
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
endif
	touch $@

clean:
	rm -rf runs build _build eeglib.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

lock:
	uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 \
	  --no-annotate --no-emit-index-url --no-emit-find-links \
	  --custom-compile-command 'make lock' --output-file requirements.lock
