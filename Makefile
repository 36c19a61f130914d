PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo docs generate install lint test test-all

install: $(STAMP)

# --no-compile: a module is compiled at its first import, most modules never.
# torch first and by its exact version, so that the rest finds it there. PyPI's build for Linux brings
# gigabytes of CUDA; PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu leads to a CPU build.
$(STAMP): pyproject.toml constraints.txt
	@echo "1 of 3: an environment in $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "2 of 3: PyTorch; with CUDA, as PyPI has it for Linux, these are gigabytes"
	@$(BIN)/pip install --quiet --no-compile --progress-bar on --constraint constraints.txt torch
	@echo "3 of 3: ajour and what it needs, about 1 GB"
	@$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	@touch $@
	@echo "installed"

# The main job on the bundled model: dense.mp4, sparse.mp4, compare.mp4 and report.json in out/.
generate: $(STAMP)
	$(BIN)/ajour generate --out out

# The page: http://127.0.0.1:7860
demo: $(STAMP)
	$(BIN)/ajour demo

# The guides and the API reference: build/docs/index.html. Broken links and docstrings are errors.
docs: $(STAMP)
	$(BIN)/python -m sphinx -W --keep-going --quiet docs build/docs

# The type checker sees the package as it is installed: the folders under one name.
lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/types && mkdir -p build/types/ajour
	ln -s $(CURDIR)/accel/* $(CURDIR)/processors $(CURDIR)/pipelines $(CURDIR)/search $(CURDIR)/demo build/types/ajour/
	MYPYPATH=build/types $(BIN)/mypy

test: lint
	$(BIN)/pytest -n 2 --dist loadgroup

# Also the tests marked slow: more cases of what `make test` shows.
test-all: lint
	$(BIN)/pytest -n 2 --dist loadgroup --slow
