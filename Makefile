# Every target sets up .venv by itself. CI calls `check` and `test`.
SHELL := /bin/bash
export SACCADE_REPOSITORY ?= repository
unexport PYTHONDONTWRITEBYTECODE # every process of a test would compile this package again
PYTHON := .venv/bin/python
READY := .venv/.ready
SIDE_BY_SIDE := -n auto --dist loadfile
UNMARKED ?= not gpu and not matrix and not slow
RECIPES := $(sort $(wildcard models/recipes/*.yaml))

.PHONY: setup demo export export-all serve serve-fake test test-again test-quick test-slow test-matrix matrix matrix-ultralytics check fix train recover evaluate bench test-gpu bench-gpu bench-peers chaos soak fuzz golden-update docs check-distribution constrain image image-check clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt .ci/setup
	.ci/setup
	touch $@

demo: export ## export, gate, publish, serve, predict: the whole job; exits 0
	$(PYTHON) -m saccade.export.cli.demo --repository $(SACCADE_REPOSITORY)

export: $(READY) ## the three reference networks into $(SACCADE_REPOSITORY), as far as processors serve them
	.venv/bin/saccade-export run $(RECIPES) --repository $(SACCADE_REPOSITORY) --variant fp32 --variant int8-cpu

export-all: $(READY) ## every variant of them, those for GPUs too, measured by emulation
	.venv/bin/saccade-export run $(RECIPES) --repository $(SACCADE_REPOSITORY)

serve: export ## keep serving on port 8000
	.venv/bin/saccade serve

serve-fake: $(READY) ## the HTTP side without any runtime, for work on clients
	SACCADE_BACKEND=fake .venv/bin/saccade serve

test: $(READY) ## everything but what needs a GPU or minutes per test
	$(PYTHON) -m pytest $(SIDE_BY_SIDE) -m "$(UNMARKED)"

test-again: $(READY) ## what failed last, alone
	$(PYTHON) -m pytest --last-failed --last-failed-no-failures none

test-slow: $(READY) ## tests that take minutes each; `make test UNMARKED="not gpu and not matrix"` runs them with the others
	$(PYTHON) -m pytest -m "slow and not gpu and not matrix"

test-matrix: $(READY) ## ten networks of every kind through the whole product: minutes
	$(PYTHON) -m pytest -m matrix tests/matrix

matrix: $(READY) ## every network of the matrix into tests/matrix/RESULTS.md: an hour, resumable
	$(PYTHON) -m tests.matrix

matrix-ultralytics: $(READY) ## our answers beside Ultralytics' own into tests/matrix/ULTRALYTICS.md: an hour, 6 GB, resumable
	$(PYTHON) -m tests.matrix.ultralytics --setup
	$(PYTHON) -m tests.matrix.ultralytics --run $(MATRIX_ULTRALYTICS)

test-quick: $(READY) ## unit, contract and architecture tests: seconds
	$(PYTHON) -m pytest $(SIDE_BY_SIDE) -m "not gpu and not slow" tests/unit tests/contract tests/architecture

check: $(READY) ## format, lint, types
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy

fix: $(READY)
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

train: $(READY) ## the three checkpoints in models/checkpoints from scratch
	$(PYTHON) -m saccade.models.training.all

recover: $(READY) ## the 2:4 weights in models/checkpoints from the dense ones: an hour of one core
	set -e; for model in classifier detector segmenter; do .venv/bin/saccade-export recover \
	  models/recipes/digits-$$model.yaml --out models/checkpoints/digits-$$model.sparse24.safetensors; done

evaluate: $(READY) ## the checkpoints' figures on the test split
	$(PYTHON) -m saccade.models.training.evaluate

bench: export ## start-up, memory, deploy against bare graph, served against limit
	$(PYTHON) -m tests.load.bench --repository $(SACCADE_REPOSITORY)

chaos: $(READY) ## processes killed and stopped, bad versions, lost repository under load, with a ledger of every request
	$(PYTHON) -m tests.load.chaos --times $(or $(TIMES),3)

soak: $(READY) ## everything at once for MINUTES=30, with a verdict
	$(PYTHON) -m tests.load.soak --minutes $(or $(MINUTES),30)

fuzz: $(READY) ## coverage-guided, MINUTES=1 over all targets; keeps what it learns in .saccade/fuzz
	$(PYTHON) -m tests.fuzz --minutes $(or $(MINUTES),1)

test-gpu: $(READY) ## on the GPU of this machine; LEAK_SECONDS=600 for the long leak check
	$(PYTHON) -m pytest -m gpu tests/gpu --leak-seconds $(or $(LEAK_SECONDS),20)

bench-gpu: $(READY) ## plans, backends and the server on this GPU, into report-gpu.json and report-gpu.md; resumable
	$(PYTHON) -m tests.load.gpu_bench $(GPU_BENCH)

bench-peers: $(READY) ## saccade beside FastAPI, LitServe, BentoML, Ray Serve, Triton, into report-peers.json, .md and .png; resumable
	$(PYTHON) -m tests.load.peers --setup
	$(PYTHON) -m tests.load.peers $(BENCH_PEERS)

golden-update: $(READY) ## rewrites goldens; read the diff
	$(PYTHON) -m pytest tests --golden-update -k golden

image: ## the serving image, without a daemon (root, Debian's buildah and debootstrap)
	k8s/image/build_image.sh serve-cpu

image-check: image ## runs it confined as in Kubernetes
	k8s/image/check_image.sh serve-cpu $(SACCADE_REPOSITORY)

docs: $(READY) ## what is generated: settings, alerts for Prometheus Operator, charts
	$(PYTHON) -m tests.support.settings_table
	$(PYTHON) -m tests.support.prometheus_rule
	$(PYTHON) -m tests.load.gpu_plots tests/load/results/h200-2026-11-28.json --only bare
	$(PYTHON) -m tests.load.peers --report tests/load/results/peers-2026-11-30.json --render

check-distribution: $(READY) ## fit for a package index: builds, checks, and resolves every extra from wheels alone; minutes
	.ci/distribution

constrain: $(READY) ## new pins and hashes in constraints.txt
	.ci/constrain

clean: ## environment, caches and work files; published versions stay
	rm -rf .venv .saccade .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
