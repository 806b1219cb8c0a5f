# The two commands that matter: `make demo` walks the whole road, `make test` runs the tests.
# Both make their own virtual environment first; nothing else has to be installed by hand.

PYTHON ?= $(firstword $(foreach v,python3.11 python3.12 python3.13 python3,$(shell command -v $(v) 2>/dev/null)))
VENV := .venv
BIN := $(VENV)/bin
# The OpenCV wheel with windows needs libGL from the system; servers and containers take the headless one.
OPENCV := $(shell $(PYTHON) -c "import ctypes; ctypes.CDLL('libGL.so.1')" 2>/dev/null && echo gui || echo headless)
INSTALLED := $(VENV)/.installed

.PHONY: install demo test test-aarch64 debian lint format docs docs-serve docs-commands bench bench-guard bench-check peers wheel clean

install: $(INSTALLED)  ## the environment alone, in .venv

demo: $(INSTALLED)  ## the whole road on the synthetic world: extract, train, distil, build, run
	$(BIN)/edgekit demo -o demo

test: $(INSTALLED)  ## all tests
	$(BIN)/python -m pytest -q

test-aarch64: $(INSTALLED)  ## the runtime on 64-bit Arm, in QEMU; as root, ten minutes (tests/aarch64/check.py)
	$(BIN)/python tests/aarch64/check.py

debian:  ## what some tests need of Debian and are skipped without, with that reason: a browser, an X server, ...; as root
	apt-get install -y --no-install-recommends chromium ffmpeg python3-opencv xdotool xvfb \
		python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good

lint: $(INSTALLED)  ## style, types and the import rule of the rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --python-version 3.10 runtime/edgekit_runtime  # JetPack 6 has that
	$(BIN)/lint-imports --no-cache

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(INSTALLED)  ## the pages as a site, in site/; a link that leads nowhere is an error
	$(BIN)/zensical build --clean --strict

docs-serve: $(INSTALLED)  ## the same at http://localhost:8000, built again as one writes
	$(BIN)/zensical serve

docs-commands: $(INSTALLED)  ## docs/reference/commands.md, from the commands themselves
	$(BIN)/python scripts/commands_page.py

bench: $(INSTALLED)  ## all benchmarks, into benchmarks/results/; an hour in which nothing else should be running
	$(BIN)/python -m pytest benchmarks -q --benchmark-json

# ONLY="-k inference" for some of them.
bench-check: $(INSTALLED)  ## what got slower, of what takes no minutes: ratios beside those of the committed baseline
	mkdir -p build
	$(BIN)/python -m pytest benchmarks -q -m "not long" $(ONLY) --benchmark-json=build/bench.json
	$(BIN)/python benchmarks/check.py build/bench.json

bench-guard: $(INSTALLED)  ## a few ratios, with wide margins: what every commit has to keep
	$(BIN)/python -m pytest benchmarks -q -m guard

peers: $(INSTALLED)  ## what benchmarks compare with, in environments of their own, which they else make when needed
	$(BIN)/python benchmarks/peer.py

wheel: $(INSTALLED)  ## both wheels into dist/
	$(BIN)/python -m build --wheel --no-isolation --outdir dist runtime
	$(BIN)/python -m build --wheel --no-isolation --outdir dist .

clean:
	rm -rf $(VENV) .peers .cache build dist demo site

$(INSTALLED): constraints.txt pyproject.toml runtime/pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))" || \
		{ echo "edgekit needs Python 3.11 to 3.13; say which: make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip uninstall --quiet --yes opencv-python $(if $(filter gui,$(OPENCV)),opencv-python-headless) 2>/dev/null
	$(BIN)/python -m pip install --quiet --constraint constraints.txt \
		--editable './runtime[openvino,$(OPENCV)]' --editable '.[dev]'
	touch $@
