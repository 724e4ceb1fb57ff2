# Every target sets itself up: Python 3.10 or later and make are all that is needed.

PYTHON ?= python3
WORKERS ?= 2

ifeq ($(OS),Windows_NT)
BIN := .venv/Scripts
else
BIN := .venv/bin
endif
PY := $(BIN)/python
INSTALLED := .venv/.installed
SPHINX_STRICT := -W -n --keep-going

.DEFAULT_GOAL := help
.PHONY: help book test test-all processors coverage mutants site check-site refresh bench gpu lab lint hooks clean

help:
	@echo "make book     run every notebook on this machine and build the site in _build/html"
	@echo "make test     library tests, and every notebook with its outputs compared"
	@echo "make test-all the same with the slow tests, and those that need Chromium"
	@echo "make processors  the notebooks on every set of instructions, with one and two threads"
	@echo "make coverage say which lines of the library the tests leave out"
	@echo "make mutants  change the library in one place at a time and see whether a test notices"
	@echo "make site     build the site in _build/html from the notebooks as committed"
	@echo "make check-site  look at every page of that site in Chromium"
	@echo "make refresh  run the notebooks in place and normalise them"
	@echo "make bench    measure speed and memory beside the plain forms, draw appendix A"
	@echo "make gpu      on a machine with a GPU: rates, a model, and every notebook, in ten minutes"
	@echo "make lab      install JupyterLab and open the notebooks to work on them"
	@echo "make lint     check style, format, types, and the form of notebooks and pages"
	@echo "make hooks    have git check style and notebooks before every commit"
	@echo "make clean    remove what was built (the environment in .venv stays)"

# The environment. An existing one is kept and brought up to date when pyproject.toml changes.
# --no-compile halves the time: Python compiles at first import what is imported at all.
$(INSTALLED): pyproject.toml
	test -x $(PY) || $(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --no-compile --disable-pip-version-check -e ".[book,test]"
	touch $@

# Runs a copy: the committed notebooks are not touched.
book: $(INSTALLED)
	$(PY) book/tools/refresh.py --output _build/book
	$(BIN)/jupyter-book build --all --quiet --path-output . _build/book $(SPHINX_STRICT)
	@echo
	@$(PY) -m qaconv_lib tables headline
	@echo
	@echo "The book is built: open $(CURDIR)/_build/html/index.html"

PYTEST := -m pytest -n $(WORKERS) --dist loadscope

test: export OMP_NUM_THREADS = 1
test: $(INSTALLED)
	$(PY) $(PYTEST) --nbval --ignore=tests/static -m "not slow and not browser"
	@echo "Left out: slow tests, pages in Chromium (make test-all), form of the text (make lint)."

test-all: export OMP_NUM_THREADS = 1
test-all: $(INSTALLED)
	$(PY) $(PYTEST) --nbval

processors: $(INSTALLED)
	set -e; for instructions in default avx2 avx512; do for threads in 1 2; do \
		echo "$$instructions, threads: $$threads"; export OMP_NUM_THREADS=$$threads; \
		.ci/with_instructions $$instructions $(PY) $(PYTEST) --nbval book tests/test_reproducible.py; \
	done; done

coverage: export OMP_NUM_THREADS = 1
coverage: $(INSTALLED)
	$(PY) -m pip install --quiet --disable-pip-version-check pytest-cov
	$(PY) $(PYTEST) tests \
		--cov=qaconv_lib --cov-report=term-missing:skip-covered --cov-fail-under=95

# Begins anew: mutmut keeps the outcomes of functions that did not change, also when the tests did.
mutants: export OMP_NUM_THREADS = 1
mutants: export HYPOTHESIS_PROFILE = mutants
mutants: $(INSTALLED)
	$(PY) -m pip install --quiet --disable-pip-version-check "mutmut>=3.8"
	rm -rf mutants
	$(BIN)/mutmut run --max-children $(WORKERS)
	$(PY) book/tools/mutation.py

site: $(INSTALLED)
	$(BIN)/jupyter-book build --all --quiet . $(SPHINX_STRICT)
	@echo "The site is built: open $(CURDIR)/_build/html/index.html"

check-site: $(INSTALLED)
	$(PY) book/tools/check_site.py _build/html

refresh: $(INSTALLED)
	$(PY) book/tools/refresh.py
	$(PY) book/tools/refresh.py --headline

bench: $(INSTALLED)
	$(PY) -m qaconv_lib bench
	$(PY) book/tools/refresh.py book/a_making_it_fast.ipynb

gpu: $(INSTALLED)
	$(PY) book/tools/gpu.py

lab: $(INSTALLED)
	$(PY) -m pip install --quiet --disable-pip-version-check jupyterlab
	$(BIN)/jupyter lab book

lint: $(INSTALLED)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check qaconv_lib tests book/exercises
	$(PY) -m mypy
	$(PY) book/tools/refresh.py --check
	$(PY) -m pytest -q tests/static

hooks: $(INSTALLED)
	$(PY) -m pip install --quiet --disable-pip-version-check pre-commit
	$(PY) -m pre_commit install

clean:
	rm -rf _build mutants .coverage .pytest_cache .ruff_cache .mypy_cache .hypothesis
