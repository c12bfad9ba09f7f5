# make serve · make cluster · make install · make demo · make test · make test-unit · make test-long · make coverage · make check · make soak · make bench
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
ANOMALIB_VENV ?= .venv-anomalib
RUN := $(VENV)/bin/python
COMMAND := $(VENV)/bin/roi-anomaly
# Processes that tests share, a file at a time.
PROCESSES ?= 2
# `make coverage` sets these.
COUNT :=
WHICH := not long
# Browsers wait more than they compute.
CONSOLE_PROCESSES ?= 3
# With a core for each process, the libraries' own threads only wait for each other.
PYTEST := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(RUN) -m pytest --numprocesses $(PROCESSES) --dist loadfile --max-worker-restart 0
# Wherever there is Node, and a registry or npm's cache.
TSC := npx --yes --prefer-offline --package typescript@5.9.3 tsc

.PHONY: help serve cluster install demo test test-unit test-long coverage test-console test-docs check format soak soak-nginx bench bench-anomalib bench-anomalib-accuracy pins weights clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

serve: $(COMMAND) ## install, find the weights, start the service on HOST:PORT (127.0.0.1:8000)
	@$(COMMAND) serve

cluster: $(VENV)/.ray ## serve in several replicas on this machine, with Ray (deploy/serve.yaml)
	@$(COMMAND) cluster serve

install: $(COMMAND) ## what the service needs, and the command roi-anomaly

weights: $(COMMAND) ## find and verify the weights
	@$(COMMAND) weights

demo: $(VENV)/.demo ## fit, calibrate and inspect real solar cells; writes a picture
	@$(RUN) -m demo

test: $(VENV)/.dev ## all tests but those of test-long, test-console and test-docs (apt-get install mosquitto openssl)
	@PATH="$$PATH:/usr/sbin" command -v mosquitto >/dev/null || echo "mosquitto is not installed, so the tests of MQTT will fail: apt-get install mosquitto openssl"
	$(PYTEST) $(COUNT) -m "$(WHICH)" --ignore tests/console --ignore tests/fresh_clone

coverage: COUNT := --cov
coverage: WHICH := long or not long
coverage: test ## all tests but those of test-console and test-docs, and what of backend/ they run

test-unit: $(VENV)/.dev ## the quick tests, in some three minutes: no server processes, nothing marked slow
	$(PYTEST) -m "not slow and not long" --ignore tests/integration --ignore tests/soak --ignore tests/console --ignore tests/fresh_clone

test-long: $(VENV)/.dev ## quicker tests again with more data, servers and kills, before a release (needs what test and test-console need)
	$(PYTEST) -m long --ignore tests/fresh_clone

test-console: $(VENV)/.dev ## the console in a real browser before the real service, in some fifteen minutes (apt-get install chromium-headless-shell firefox-esr)
	@{ command -v chromium-headless-shell || command -v chromium || command -v chromium-browser || command -v google-chrome; } >/dev/null || \
	    { echo "no Chromium is installed: apt-get install chromium-headless-shell"; exit 1; }
	$(PYTEST) --numprocesses $(CONSOLE_PROCESSES) -m "not long" tests/console

test-docs: $(VENV)/.dev ## the shell blocks of README, manual and tutorial in a fresh clone and environment
	$(RUN) -m pytest tests/fresh_clone

check: $(VENV)/.dev ## formatting, lint, types, who may import whom, spelling
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/mypy --platform win32 backend # the product alone runs on Windows
	$(VENV)/bin/lint-imports
	$(VENV)/bin/codespell
	@if $(TSC) --version >/dev/null 2>&1; then $(TSC) -p backend/web/jsconfig.json; \
	elif command -v tsc >/dev/null; then tsc -p backend/web/jsconfig.json; \
	else echo "tsc is not installed: types of backend/web are not checked"; fi

format: $(VENV)/.dev ## format and fix
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

soak: $(VENV)/.dev ## long runs that try to break what is promised: over four hours; needs Chromium and redis-server, the last one root
	$(RUN) -m soak.files --uploads 20000
	$(RUN) -m soak.api --cases 10000
	$(RUN) -m soak.slow
	$(RUN) -m soak.large
	$(RUN) -m soak.crash --rounds 200
	$(RUN) -m soak.processes --workers 2 --minutes 10
	$(RUN) -m soak.processes --workers 4 --minutes 10
	$(RUN) -m soak.mixed --minutes 60 --out docs/soak.png
	$(RUN) -m soak.crash --rounds 50 --store moto --fails
	$(RUN) -m soak.processes --workers 2 --minutes 10 --store moto
	$(RUN) -m soak.processes --workers 2 --minutes 10 --store moto --fails
	$(RUN) -m soak.processes --workers 2 --minutes 10 --store moto --sites 2
	$(RUN) -m soak.replica_fits --rounds 10
	$(RUN) -m soak.cluster
	$(RUN) -m soak.console --minutes 60
	$(RUN) -m soak.unwritable

bench: $(VENV)/.dev ## the measured claims, side by side
	$(RUN) -m benchmarks

bench-anomalib: $(VENV)/.dev $(ANOMALIB_VENV)/.installed ## our engine beside anomalib's, which gets an environment of its own
	$(RUN) -m benchmarks.anomalib_side $(ANOMALIB_VENV)/bin/python

bench-anomalib-accuracy: $(VENV)/.dev $(ANOMALIB_VENV)/.installed ## our accuracy beside anomalib's: make … DATA="FOLDER …", in MVTec layout
	$(RUN) -m benchmarks.anomalib_side.accuracy $(ANOMALIB_VENV)/bin/python --data $(DATA)

soak-nginx: $(VENV)/.dev ## prove docker/nginx.conf with a real nginx (apt-get install nginx-light openssl)
	$(RUN) -m soak.nginx

PIN := $(VENV)/bin/uv pip compile --universal --python-version 3.10 --no-header --no-annotate

pins: $(VENV)/.dev ## recompile the pinned requirements from requirements/service.in
	$(PIN) requirements/service.in -o backend/requirements.txt
	$(PIN) --generate-hashes -c backend/requirements.txt requirements/service.in -o requirements/hashed.txt

clean: ## remove the virtual environments
	rm -rf $(VENV) $(ANOMALIB_VENV)

$(VENV)/bin/python:
	@echo "Making a virtual environment in $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.11")'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# A stamp per set of requirements: nothing is installed twice.
$(VENV)/.serve: requirements/hashed.txt | $(VENV)/bin/python
	@echo "Installing what the service needs (once, some 230 MB to download)"
	$(RUN) -m pip install --disable-pip-version-check --require-hashes -r $<
	@touch $@

# The project itself, where it lies. Nothing is downloaded: what builds it has come with the hashes above.
$(COMMAND): pyproject.toml | $(VENV)/.serve
	$(RUN) -m pip install --disable-pip-version-check --quiet --no-index --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.demo: demo/requirements.txt backend/requirements.txt | $(COMMAND)
	@echo "Installing what the demo needs (once)"
	$(RUN) -m pip install --disable-pip-version-check -r $<
	@touch $@

$(VENV)/.ray: requirements/ray.txt requirements/cluster.txt | $(COMMAND)
	@echo "Installing what the cluster needs (once, some 150 MB to download)"
	$(RUN) -m pip install --disable-pip-version-check -r $< -r requirements/cluster.txt
	@touch $@

$(VENV)/.dev: requirements/dev.txt requirements/cluster.txt requirements/ray.txt demo/requirements.txt backend/requirements-torch.txt backend/requirements-mqtt.txt backend/requirements.txt | $(COMMAND)
	@echo "Installing what development needs, torch included (once, some 640 MB more where torch is a CPU build)"
	$(RUN) -m pip install --disable-pip-version-check -r $<
	@touch $@ $(VENV)/.demo $(VENV)/.ray

$(ANOMALIB_VENV)/.installed: benchmarks/anomalib_side/requirements.txt | $(VENV)/bin/python
	@echo "Installing anomalib in $(ANOMALIB_VENV) (once, 2.0 GB on disk where torch is a CPU build)"
	$(RUN) -m venv $(ANOMALIB_VENV)
	$(ANOMALIB_VENV)/bin/python -m pip install --disable-pip-version-check -r $<
	@touch $@
