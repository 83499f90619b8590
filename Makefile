# `make demo` and `make test` need nothing done first but Python 3.11 or newer with pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup demo test test-slow lint clean

setup: $(VENV)/.installed

# torch first and alone: DeepSpeed's build looks for it.
$(VENV)/.installed: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet "$$(sed -n 's/^\(torch==[^ ]*\).*/\1/p' requirements.txt)"
	$(BIN)/pip install --quiet -r requirements-dev.txt
	touch $@

demo: setup
	$(BIN)/python -m demo

test: setup lint
	$(BIN)/python -m pytest -q -m "not slow" -n 2 --dist loadfile

test-slow: setup
	$(BIN)/python -m pytest -q -m slow

lint: setup
	$(BIN)/ruff check .

clean:
	rm -rf $(VENV) .demo
