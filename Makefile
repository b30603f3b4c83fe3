# Two commands on a fresh machine: `make demo` and `make test`. Needs Python 3.11 to 3.13 and the package registry.
.PHONY: demo papers test fast ui ray check lock clean
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
RAY := $(VENV)/.ray-ready
# a worker that dies fails the run: with another in its place the two may wait for each other for ever
WORKERS := --max-worker-restart 0 --numprocesses
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export DO_NOT_TRACK := true
export UV_LINK_MODE := copy
# a run starts some hundred processes, the tests some thousand: each would compile the project anew
unexport PYTHONDONTWRITEBYTECODE

demo: $(READY)
	geoloc demo $(if $(PROFILE),--profile $(PROFILE))

papers: $(READY)
	geoloc demo --profile papers

ui: $(READY)
	geoloc ui

ray: $(RAY)

# three on two cores: some tests wait for half a minute
test: $(RAY)
	pytest $(WORKERS) 3 --dist loadfile --no-loadscope-reorder

fast: $(READY)
	pytest -m "not slow" $(WORKERS) 2

check: $(READY)
	ruff check .
	ruff format --check .
	mypy

# uv installs what the lock names, file by file checked against its hashes; the project itself is installed editable
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
		|| { echo "geoloc: error: $(PYTHON) is $$($(PYTHON) --version); expected Python 3.11 to 3.13; try: make PYTHON=python3.12"; exit 2; }
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	sed -n '/^uv==/,/# via/p' requirements.lock \
		| $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement /dev/stdin
	$(VENV)/bin/uv pip sync --quiet --require-hashes --compile-bytecode --python $(VENV)/bin/python requirements.lock
	$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --no-deps --no-build-isolation --editable .
	@touch $(READY)

# what `engine: {kind: ray}` needs beyond that: a fifth of a gigabyte, which the demo does without
$(RAY): requirements-ray.lock $(READY)
	$(VENV)/bin/uv pip install --quiet --require-hashes --compile-bytecode --python $(VENV)/bin/python --requirement requirements-ray.lock
	@touch $(RAY)

lock: $(READY)
	uv pip compile pyproject.toml --extra deploy --extra dev --extra setup --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --prerelease if-necessary-or-explicit --quiet --output-file requirements.lock
	python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["ray"])' \
		| uv pip compile - --constraint requirements.lock --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --prerelease if-necessary-or-explicit --quiet --output-file requirements-ray.lock

clean:
	rm -rf .state data/raw data/corpora data/labels data/datasheets data/leaks data/boundaries data/weights data/features \
		data/texts data/text_features data/cells data/models data/truth data/answers data/scores data/summaries data/leaderboard .dvc/cache .dvc/tmp
