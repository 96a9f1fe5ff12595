# Requirements: Python >= 3.11 with venv, a C++ compiler and make. All else is installed into .venv.

PYTHON ?= python3
BIN := .venv/bin
SOURCES := $(wildcard lumigraph/kernels/csrc/*)

# Input of `make demo`: a folder or zip of photos, or a video. The default is rendered first.
SAMPLE := demo/sample
PHOTOS ?= $(SAMPLE)/images
SECONDS ?= 60
KILLS ?= 1000

SERVICE := tests/server tests/jobs tests/live
PHOTOS_AND_PAGES := tests/web tests/captures

PAGES := $(shell find web/src web/public -type f 2>/dev/null) $(wildcard web/*.js web/*.ts web/*.json web/*.html)

.PHONY: docs help setup native web demo test check format bench soak clean

help:
	@echo 'make setup     install Python packages into .venv, compile the kernels in place'
	@echo 'make demo      reconstruct a synthetic scene from its photos; watch it in a browser   [PHOTOS=folder|zip|video] [SECONDS=60]'
	@echo 'make web       build the pages of the studio with Node'
	@echo 'make test      run all tests'
	@echo 'make check     run ruff, mypy --strict, clang-format, tsc, eslint, prettier'
	@echo 'make docs      build the documentation site in build/site'
	@echo 'make format    format the sources with ruff, clang-format and prettier'
	@echo 'make bench     time kernels, training and poses; append to benchmarks/results'
	@echo 'make soak      kill workers and servers 1000 times, then check that no job is lost   [KILLS=1000]'
	@echo 'make clean     delete compiled files'

setup: .venv/installed build/native/installed lumigraph/server/static/index.html
native: build/native/installed
web: lumigraph/server/static/index.html

# torch is installed first, alone and pinned, so that no other package decides its version. An index with a CUDA build
# delivers gigabytes, which work too. To save space, install the CPU build of PyTorch into .venv beforehand.
# The package itself is installed without its kernels. The rule below compiles them in the source tree, so there is only
# one copy, and a rebuilt kernel is never shadowed by another.
.venv/installed: pyproject.toml
	test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv || \
	    { echo 'cannot create a venv; on Debian: apt-get install python3-venv' >&2; exit 1; }
	$(BIN)/pip install --no-deps torch==2.13.0
	$(BIN)/pip install 'cmake>=3.18' ninja
	$(BIN)/pip install --config-settings=wheel.cmake=false -e '.[dev,formats,heic,postgres]'
	touch $@

build/native/installed: CMakeLists.txt $(SOURCES) | .venv/installed
	$(BIN)/cmake -S . -B build/native -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) \
	    -DPython_EXECUTABLE=$(abspath $(BIN)/python)
	$(BIN)/cmake --build build/native
	$(BIN)/cmake --install build/native --prefix .
	touch $@

# The pages of the studio, built with Node 20. A wheel contains them, so users need no Node.
web/node_modules/installed: web/package-lock.json
	cd web && npm ci --no-audit --no-fund
	touch $@

lumigraph/server/static/index.html: web/node_modules/installed $(PAGES)
	cd web && npm run build

# Independent validators of glTF files.
tests/formats/gltf/node_modules/installed: tests/formats/gltf/package-lock.json
	cd tests/formats/gltf && npm ci --no-audit --no-fund
	touch $@

# Viewers of other projects, which open exported files.
tests/web/viewers/node_modules/installed: tests/web/viewers/package-lock.json
	cd tests/web/viewers && npm ci --no-audit --no-fund
	touch $@

demo: setup
ifeq ($(PHOTOS),$(SAMPLE)/images)
	test -d $(PHOTOS) || $(BIN)/lumigraph sample $(SAMPLE)
endif
	$(BIN)/python examples/demo.py '$(PHOTOS)' --seconds $(SECONDS)
	@echo 'demo/run/report.html    metrics, and held-out photos next to their renderings'
	@echo 'demo/run/rgb.mp4        a flight around the scene'
	@echo 'demo/run/scene.ply      the gaussians, for any splat viewer'
	@echo 'lumigraph up --data demo/studio      walk through the scene in a browser'

# Three parallel groups of similar length, because tests that wait for a browser or a process leave a core idle.
# More OpenMP threads would spin on the cores of the other groups.
test: export OMP_NUM_THREADS = 1
test: setup tests/formats/gltf/node_modules/installed tests/web/viewers/node_modules/installed
	cd web && npm test
	@mkdir -p build; \
	$(BIN)/python -m pytest $(PHOTOS_AND_PAGES) > build/pages.log 2>&1 & pages=$$!; \
	$(BIN)/python -m pytest $(SERVICE) > build/service.log 2>&1 & service=$$!; \
	$(BIN)/python -m pytest $(patsubst %,--ignore=%,$(PHOTOS_AND_PAGES) $(SERVICE)); rest=$$?; \
	echo 'servers and jobs:'; wait $$service; service=$$?; cat build/service.log; \
	echo 'pages in a browser, and photos:'; wait $$pages; pages=$$?; cat build/pages.log; \
	exit $$((rest | service | pages))

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict lumigraph
	$(BIN)/clang-format --dry-run -Werror $(SOURCES)
	cd web && npm run check
	$(MAKE) --no-print-directory docs

# A link or a reference without a target is an error.
docs: setup
	$(BIN)/sphinx-build -q -W --keep-going -b html docs build/site

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(SOURCES)
	cd web && npm run format

soak: setup
	$(BIN)/python -m tests.jobs.soak --kills $(KILLS)

bench: setup
	$(BIN)/python -m benchmarks.run

clean:
	rm -rf build lumigraph/kernels/*.so lumigraph/server/static
