.PHONY: run test test-optimized check lock

run:
	python3 -m venv .venv && .venv/bin/pip install -q -r requirements.lock && .venv/bin/python main.py

test:
	python3 -m venv .venv && .venv/bin/pip install -q -r requirements.lock && .venv/bin/python -m pytest -q

# The same as the runs' own programs are compiled, and what takes minutes: before a release.
test-optimized:
	XLA_FLAGS=--xla_backend_optimization_level=3 .venv/bin/python -m pytest -q -m "not gpu and not tpu and not parity"

# What a change must pass before it is tested; pre-commit runs the same.
check:
	.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy

# Needs uv (https://docs.astral.sh/uv). One lock serves Python 3.11 to 3.13 on Linux and macOS.
lock:
	uv pip compile pyproject.toml --universal --python-version 3.11 --extra test --generate-hashes \
		--no-emit-index-url --no-emit-find-links --no-annotate --no-header -o requirements.lock
