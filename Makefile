# Each command prepares .venv in this checkout first, when it is missing or when
# pyproject.toml has changed since.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

# TensorFlow's start-up messages would hide our own output.
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: test check coverage test-arithmetics matrix demo docs notebooks package api \
  results lint format clean

# The types are checked beside the tests, for that is the work of one core.
test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(BIN)/mypy >$(VENV)/types.txt 2>&1 & types=$$!; \
	  $(BIN)/python -m pytest -n 2 --dist worksteal; tests=$$?; \
	  wait $$types; types=$$?; echo mypy; cat $(VENV)/types.txt; \
	  test $$tests = 0 && test $$types = 0

# What speaks of the files that changed since main, in less than two minutes.
check: $(STAMP)
	$(BIN)/python scripts/check.py

# A table of the lines that tests run, and an error where a room has under 95% of them.
ROOMS := attacks beam configs data files keras lib robustness tools
coverage: $(STAMP)
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n 2 --dist worksteal $(TESTS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --skip-covered
	@for room in $(ROOMS); do echo "nsl/$$room" && $(BIN)/coverage report \
	  --format=total --fail-under=95 --include="nsl/$$room/*" || under=1; done; \
	  test -z "$$under"

# The public names and signatures that tests/public_api_test.py compares.
api: $(STAMP)
	$(BIN)/python -m scripts.public_api

# Some ten minutes: the wheel and the source archive, used outside the checkout.
# EXTRAS=none,plot uses some.
package: $(STAMP)
	$(BIN)/python scripts/package.py $(if $(EXTRAS),--extras=$(EXTRAS))

# Some ten minutes: the tests of what is trained, once for each arithmetic.
test-arithmetics: $(STAMP)
	$(BIN)/python benchmarks/arithmetics.py -- -n 2 --dist worksteal

# Hours, once: the oldest and the newest TensorFlow and Keras of each Python. What is
# finished is kept in matrix/. ONLY=3.13-newest (or others, with commas) runs some.
matrix: $(STAMP)
	$(BIN)/python benchmarks/matrix.py $(if $(ONLY),--only=$(ONLY)) -- \
	  -n 2 --dist worksteal

demo: $(STAMP)
	$(BIN)/python examples/digits.py --output_dir=demo

# Every warning of the build is an error (mkdocs.yml).
docs: export NO_MKDOCS_2_WARNING := 1
docs: $(STAMP)
	$(BIN)/mkdocs build --quiet
	@echo "open site/index.html"

# Minutes: executes the notebook of each page. PAGES=docs/guides/tables.md executes some.
notebooks: $(STAMP)
	$(BIN)/python scripts/notebooks.py $(PAGES)

# Hours. DATA is a folder of data sets; examples whose data is not there are left out.
results: $(STAMP)
	$(BIN)/python benchmarks/results.py $(if $(DATA),--data_dir=$(DATA))

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) demo dist matrix sbom site results .coverage*

# uv takes a fifth of the time that pip takes. It is told to compile, for without bytecode
# an import of TensorFlow takes three times as long: once, or, where Python must not write
# any (PYTHONDONTWRITEBYTECODE), in each of the many processes that the tests start.
$(STAMP): pyproject.toml
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	  for python in python3 python3.13 python3.12 python3.11; do \
	    if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	      2>/dev/null; then \
	      echo "making $(VENV) with $$($$python --version)"; \
	      $$python -m venv --clear $(VENV); exit; \
	    fi; \
	  done; \
	  echo "nsl needs Python 3.11, 3.12 or 3.13 (TensorFlow runs on these);" \
	    "none was found on PATH. Install one, for example with" \
	    "'apt install python3.12 python3.12-venv' or from python.org." >&2; \
	  exit 1; }
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/python -m uv pip install --quiet --compile-bytecode --editable '.[dev]'
	@touch $@
