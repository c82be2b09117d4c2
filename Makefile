# Four words: run, test, check, bench. Each sets up what it needs (deploy/setup.sh).
.PHONY: run test check bench lock

run:
	@deploy/setup.sh run
	@.venv/bin/andon demo

test:
	@deploy/setup.sh test
	@.venv/bin/pytest -q $(ARGS)

check:
	@deploy/setup.sh run
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports

bench:
	@deploy/setup.sh test
	@.venv/bin/python -m bench $(ARGS)

# Renew the exact pins after a change of pyproject.toml; needs uv.
lock:
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url \
	    --extra edge pyproject.toml -o locks/edge.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url \
	    --extra edge --extra demo --extra dev pyproject.toml -o locks/dev.txt
