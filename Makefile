# Everything happens in .venv; the scripts are what CI and people both run.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
.DEFAULT_GOAL := help

.PHONY: help
help: ## Say what each target does
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: install
install: $(STAMP) ## Make .venv with the product, its embedded servers, its demo and its tests

$(STAMP): pyproject.toml constraints.txt
	@scripts/install "$(PYTHON)" "$(VENV)"
	@touch $@

.PHONY: demo
demo: install ## Train, stream and find real anomalies, on embedded servers
	$(VENV)/bin/ganomaly-stream demo

.PHONY: test
test: install ## Run every test
	@scripts/test

.PHONY: lint
lint: install ## Check style and types, change nothing
	@scripts/lint

.PHONY: bench
bench: install ## Measure: false alarms against their budget, and a worker at rest
	$(VENV)/bin/python benchmarks/false_alarms.py
	$(VENV)/bin/python benchmarks/at_rest.py

.PHONY: quality
quality: install ## Measure the detector on real data: make quality DATA=DIR, up to three hours
	$(VENV)/bin/python benchmarks/quality.py --data $(DATA)

.PHONY: bench-streams
bench-streams: install ## Measure the observations a second that one worker takes on one core
	$(VENV)/bin/python benchmarks/streams.py

.PHONY: bench-swaps
bench-swaps: install ## Measure what a new version each second costs the records that come meanwhile
	$(VENV)/bin/python benchmarks/swaps.py

.PHONY: bench-poison
bench-poison: install ## Measure what a stream with anomalies in it teaches the next version
	$(VENV)/bin/python benchmarks/poison.py

.PHONY: refresh
refresh: install ## Let a stream drift and its weights refresh themselves, and draw it: make refresh DATA=DIR
	$(VENV)/bin/python benchmarks/refresh.py --data $(DATA)

.PHONY: replay
replay: install ## Compare the stream with the file on real series: make replay DATA=DIR, half an hour
	$(VENV)/bin/python benchmarks/replay.py --data $(DATA)

.PHONY: episodes
episodes: install ## Draw what alerts make of a real series' incidents: make episodes DATA=DIR
	$(VENV)/bin/python benchmarks/episodes.py --data $(DATA)

.PHONY: format
format: install ## Bring the code into its format
	@scripts/format

.PHONY: lock
lock: ## Write constraints.txt anew from what pyproject.toml allows today
	@scripts/lock "$(PYTHON)"

.PHONY: up
up: ## Start Kafka, Redis and a worker with Docker Compose
	docker compose up --build --detach --wait

.PHONY: down
down: ## Stop them; their volumes stay
	docker compose down

.PHONY: clean
clean: ## Remove .venv, caches and build output
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
