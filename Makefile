# The README's two commands are `make demo` and `make test`; both work on a machine that has
# nothing but Python 3.11 or newer and make. Everything Python goes into .venv.
BIN := .venv/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
PY := $(BIN)/python
DISPLAYED := scripts/with_display.sh
PYTEST := $(DISPLAYED) $(PY) -m pytest -n logical --dist worksteal

# Programs that the tests start need not compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test test-all check bench docs docs-serve figures screenshots clean system-packages

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

demo: .venv/installed-all system-packages  ## write a sample movie and session and open them in napari
	$(DISPLAYED) $(PY) -m napari_mrcz.plugin.demo

test: .venv/installed-dev system-packages  ## run the tests, those in a real Qt window included
	$(PYTEST) -m "not slow" $(ARGS)

test-all: .venv/installed-dev system-packages  ## run the thorough and long tests too
	$(PYTEST) --hypothesis-profile thorough $(ARGS)

check: .venv/installed-dev system-packages  ## ruff, mypy, the napari manifest
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy
	$(PY) -m npe2 validate napari-mrcz

bench: .venv/installed-dev system-packages  ## measure the budgets and print their table
	$(DISPLAYED) $(PY) -m benchmarks $(ARGS)

figures: .venv/installed-dev  ## draw docs/figures from simulated sessions
	$(PY) -m benchmarks.figures $(ARGS)

docs: .venv/installed-dev .venv/installed-docs system-packages  ## write the generated pages, and build the site in build/site
	$(PY) scripts/command_line_docs.py
	$(PY) scripts/reference_docs.py
	$(PY) scripts/field_docs.py
	$(PY) -m sphinx -q -W --keep-going -c docs . build/site

docs-serve: docs  ## build the site and show it at http://localhost:8000
	$(PY) -m http.server --directory build/site

screenshots: .venv/installed-dev system-packages  ## take the pictures of README and docs from the real window
	$(DISPLAYED) $(PY) scripts/screenshots.py $(ARGS)

clean:  ## remove the environment and all that was built
	rm -rf .venv build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache demo*.png demo*.mrcz demo-session
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One environment; the stamp says which extra is in it, and is redone when pyproject.toml changes.
.venv/installed-%: pyproject.toml | $(PY)
	$(PY) -m pip install --quiet --editable ".[$*]"
	@touch $@

$(PY):
	scripts/make_venv.sh .venv

system-packages:
	@scripts/system_packages.sh
