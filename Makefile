# The one task file that people and CI share. `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRA_VENV := .venv-sklearn-extra
# Two workers with one thread each suit two cores; more threads only fight one another.
PYTEST ?= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

RUNTIME_STAMP := $(VENV)/.installed-runtime
DEV_STAMP := $(VENV)/.installed-dev
EXTRA_STAMP := $(EXTRA_VENV)/.installed
# As in tests/ultralytics/installed.py.
ULTRALYTICS := 8.2.103 8.4.0 8.4.190
ULTRALYTICS_STAMPS := .ultralytics/helpers/.installed $(ULTRALYTICS:%=.ultralytics/%/.installed)
PIP_TARGET := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade

DOCS_VENV := .venv-docs
DOCS_BIN := $(DOCS_VENV)/bin
DOCS_STAMP := $(DOCS_VENV)/.installed
DOCS_PORT ?= 8000

.PHONY: help install setup quick demo docs docs-serve test test-all contract test-sklearn-extra test-ultralytics test-optuna \
  test-timm test-segmentation test-openretina test-deploy test-outside test-browser zoo graph lint format clean
.DEFAULT_GOAL := help

help:
	@echo "make setup               create $(VENV) and install the project with its tools"
	@echo "make install             create $(VENV) and install what a run needs"
	@echo "make quick               install what a run needs, then prune a small YOLOv8 in two minutes: a first look"
	@echo "make demo                install what a run needs, then prune a YOLOv8 on handwritten digits"
	@echo "make test                setup, then the tests without the slow ones"
	@echo "make test-all            setup, then every test"
	@echo "make contract            setup, then every recipe with every module; writes docs/contract.md"
	@echo "make docs                build the documentation site in build/docs, and check its links"
	@echo "make docs-serve          the same, then serve it on http://localhost:$(DOCS_PORT)"
	@echo "make test-sklearn-extra  check the scikit-learn-extra backend in an environment of its own"
	@echo "make test-ultralytics    read, score and prune files that installed ultralytics versions write"
	@echo "make test-optuna         sweep for two objectives with an installed hydra-optuna-sweeper"
	@echo "make test-timm           train and prune classifiers of an installed timm"
	@echo "make test-segmentation   train and prune networks of an installed segmentation_models_pytorch"
	@echo "make test-openretina     train and prune core-readout models of an installed openretina"
	@echo "make test-deploy         export to OpenVINO, and run every file in an environment without this package"
	@echo "make test-outside        the four above that are homes of others: ultralytics to openretina"
	@echo "make test-browser        open report pages in chromium: requests, errors, axe-core, widths (PAGES=..., SHOTS=folder)"
	@echo "make zoo                 prune library models beside torch-pruning; writes docs/zoo.md (hours; ZOO=tv is one library)"
	@echo "make graph               time how groups are found and cut, beside torch-pruning"
	@echo "make lint                ruff (lint and format) and mypy --strict"
	@echo "make format              let ruff rewrite the files"
	@echo "PYTHON=python3.12 make setup chooses another interpreter (3.11 or later)"

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
	  echo "$(PYTHON) was not found: install Python 3.11 or later, or say PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is $$($(PYTHON) -V 2>&1): 3.11 or later is needed, say PYTHON=python3.12 for example"; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV)

# A stamp is older than pyproject.toml only when the dependencies may have changed.
$(RUNTIME_STAMP): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[all]'
	@touch $@

$(DEV_STAMP): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[all,dev]'
	@touch $(RUNTIME_STAMP) $@

install: $(RUNTIME_STAMP)

setup: $(DEV_STAMP)

quick: $(RUNTIME_STAMP)
	$(BIN)/python train.py experiment=quick
	@echo
	@echo "Above: a detector that was trained, pruned to half of its MACs, and trained on. Next:"
	@echo "  look at it       $(BIN)/python -m lightning_prune predict FOLDER --source PHOTOS --save"
	@echo "  ship it          $(BIN)/python -m lightning_prune export FOLDER (needs: $(BIN)/pip install -e '.[onnx]')"
	@echo "  long enough      make demo"
	@echo "  your own model   docs/your_own_model.md"
	@echo "  all methods      docs/methods/index.md; make docs-serve shows the pages in a browser"

demo: $(RUNTIME_STAMP)
	$(BIN)/python train.py +pruning=sequential_activation

test: $(DEV_STAMP)
	$(PYTEST)

test-all: $(DEV_STAMP)
	$(PYTEST) -m ""

contract: $(DEV_STAMP)
	CONTRACT_MATRIX=docs/contract.md $(PYTEST) -m "" tests/contract

# scikit-learn-extra 0.3 needs NumPy 1, Python 3.11 and an older scikit-learn.
$(EXTRA_STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { \
	  echo "scikit-learn-extra needs Python 3.11: say PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(EXTRA_VENV)
	$(EXTRA_VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
	  'numpy<2' 'scikit-learn<1.6' 'scikit-learn-extra>=0.3' 'torch==2.13.*' kneed numba pytest
	@touch $@

test-sklearn-extra: $(EXTRA_STAMP)
	$(EXTRA_VENV)/bin/python -m pytest -o addopts= -p no:cacheprovider \
	  tests/functional/selection/test_kmedoids_sklearn_extra.py

# The pages are read, nothing of the package is imported: its dependencies are not installed.
$(DOCS_STAMP): pyproject.toml
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"], sep="\n")' > $(DOCS_VENV)/requirements.txt
	$(DOCS_BIN)/python -m pip install --quiet --disable-pip-version-check -r $(DOCS_VENV)/requirements.txt
	@touch $@

docs: $(DOCS_STAMP)
	$(DOCS_BIN)/python docs/site/pages.py build/site
	NO_MKDOCS_2_WARNING=1 $(DOCS_BIN)/mkdocs build --strict --config-file build/site/mkdocs.yml
	$(DOCS_BIN)/python docs/site/check.py build/docs
	@echo "open build/docs/index.html, or say make docs-serve, which can be searched too"

docs-serve: docs
	$(DOCS_BIN)/python -m http.server $(DOCS_PORT) --bind localhost --directory build/docs

# AGPL: installed beside the environment, run in processes of its own, never imported by us.
.ultralytics/helpers/.installed: tests/ultralytics/requirements.txt | $(DEV_STAMP)
	$(PIP_TARGET) --target $(@D) -r $<
	@touch $@

.ultralytics/%/.installed: | $(DEV_STAMP)
	$(PIP_TARGET) --target $(@D) ultralytics==$*
	@touch $@

test-ultralytics: $(DEV_STAMP) $(ULTRALYTICS_STAMPS)
	$(PYTEST) -m "" tests/ultralytics
	PYTHONPATH=.ultralytics/$(lastword $(ULTRALYTICS)):.ultralytics/helpers $(PYTEST) -m "" tests/outside/ultralytics

# Optuna 2 and what it pins stay out of the environment.
.optuna/.installed: | $(DEV_STAMP)
	$(PIP_TARGET) --target $(@D) 'hydra-optuna-sweeper==1.3.*' 'optuna>=2.10,<3' 'sqlalchemy<2' \
	  'alembic<1.14' Mako colorlog cmaes
	@touch $@

test-optuna: $(DEV_STAMP) .optuna/.installed
	PYTHONPATH=.optuna $(BIN)/python -m pytest tests/cli/test_optuna.py

# timm reads its published weights with huggingface_hub, imported even where none are fetched.
.outside/timm/.installed: tests/outside/timm/requirements.txt | $(DEV_STAMP)
	$(PIP_TARGET) --target $(@D) -r $<
	@touch $@

test-timm: $(DEV_STAMP) .outside/timm/.installed
	PYTHONPATH=.outside/timm OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "" tests/outside/timm
	PYTHONPATH=.outside/timm OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_readme.py -k image_folder

# Only segmentation networks need it, and it brings a client of a model hub.
.outside/segmentation/.installed: tests/outside/segmentation/requirements.txt | $(DEV_STAMP)
	$(PIP_TARGET) --target $(@D) -r $<
	@touch $@

test-segmentation: $(DEV_STAMP) .outside/segmentation/.installed
	PYTHONPATH=.outside/segmentation $(PYTEST) -m "" tests/vision tests/outside/segmentation
	PYTHONPATH=.outside/segmentation $(PYTEST) -m "" tests/test_readme.py -k smp

# Only models of neurons need it, and it asks for notebooks and MLflow, which they do without.
.outside/openretina/.installed: tests/outside/openretina/requirements.txt | $(DEV_STAMP)
	$(PIP_TARGET) --target $(@D) -r $<
	@touch $@

test-openretina: $(DEV_STAMP) .outside/openretina/.installed
	PYTHONPATH=.outside/openretina OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "" tests/outside/openretina
	PYTHONPATH=.outside/openretina $(BIN)/python -m pytest tests/test_readme.py -k openretina

# Runtimes that are big and needed by few; and one environment that has no torch and nothing of ours.
.outside/openvino/.installed: tests/outside/openvino/requirements.txt | $(DEV_STAMP)
	$(PIP_TARGET) --target $(@D) -r $<
	@touch $@

.outside/plain/.installed: tests/outside/openvino/plain.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

test-deploy: $(DEV_STAMP) .outside/openvino/.installed .outside/plain/.installed
	PYTHONPATH=.outside/openvino OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "" tests/outside/openvino

# Node packages stay out of the environment; chromium has to be there.
.browser/.installed: tests/browser/package.json
	@mkdir -p $(@D)
	cp $< $(@D)
	npm install --prefix $(@D) --silent --no-audit --no-fund --no-package-lock --ignore-scripts
	@touch $@

test-browser: $(DEV_STAMP) .browser/.installed
	BROWSER=1 PAGES="$(PAGES)" SHOTS="$(SHOTS)" OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/browser

test-outside: test-ultralytics test-timm test-segmentation test-openretina

# Of several licences, AGPL among them: beside the environment, as above.
.zoo/.installed: benchmarks/zoo_requirements.txt | $(DEV_STAMP)
	$(PIP_TARGET) --target $(@D) -r $<
	@touch $@

zoo: $(DEV_STAMP) .zoo/.installed
	PYTHONPATH=.zoo OMP_NUM_THREADS=1 $(BIN)/python benchmarks/zoo.py --resume --table docs/zoo.md $(ZOO)

graph: $(DEV_STAMP) .zoo/.installed
	PYTHONPATH=.zoo OMP_NUM_THREADS=1 $(BIN)/python benchmarks/graph.py

lint: $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(DEV_STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(EXTRA_VENV) $(DOCS_VENV) .ultralytics .optuna .outside .zoo .browser dist build .mypy_cache .pytest_cache .ruff_cache
