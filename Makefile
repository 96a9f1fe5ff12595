# From outside come Python >= 3.11 with venv, a C++ compiler and make; everything else lives in .venv.

PYTHON ?= python3
BIN := .venv/bin
SOURCES := $(wildcard lumigraph/kernels/csrc/*)

# What `make demo` scans: a folder or zip of photos, or a video. The default is rendered on the spot.
SAMPLE := demo/sample
PHOTOS ?= $(SAMPLE)/images
SECONDS ?= 60
KILLS ?= 1000

SERVICE := tests/server tests/jobs tests/live
PHOTOS_AND_PAGES := tests/web tests/captures

PAGES := $(shell find web/src web/public -type f 2>/dev/null) $(wildcard web/*.js web/*.ts web/*.json web/*.html)

.PHONY: docs help setup native web demo test check format bench soak clean

help:
	@echo 'make setup     Python packages into .venv, the kernels compiled in place'
	@echo 'make demo      photos of a made-up scene -> a 3D scene, to be watched in a browser   [PHOTOS=folder|zip|video] [SECONDS=60]'
	@echo 'make web       the pages of the studio, by Node'
	@echo 'make test      all tests'
	@echo 'make check     ruff, mypy --strict, clang-format, tsc, eslint, prettier'
	@echo 'make docs      the documentation as a site, in build/site'
	@echo 'make format    let ruff, clang-format and prettier rewrite the sources'
	@echo 'make bench     kernels, training and poses, timed; appends to benchmarks/results'
	@echo 'make soak      kills workers and servers 1000 times, then looks whether anything was lost   [KILLS=1000]'
	@echo 'make clean     forget what was compiled'

setup: .venv/installed build/native/installed lumigraph/server/static/index.html
native: build/native/installed
web: lumigraph/server/static/index.html

# torch comes first, alone and pinned, so that nothing else decides its version. Where the index offers a CUDA build, that is
# what arrives, gigabytes of it, and it works too: to save the room, install PyTorch's CPU build into .venv beforehand.
# The package itself is installed without its kernels: those are compiled in the source tree by the rule below, so that
# there is one copy of them and rebuilding one is never shadowed by another.
.venv/installed: pyproject.toml
	test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv || \
	    { echo 'no venv could be made: on Debian, apt-get install python3-venv' >&2; exit 1; }
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

# The studio's pages, by Node 20; a wheel carries them, so that nobody else needs it.
web/node_modules/installed: web/package-lock.json
	cd web && npm ci --no-audit --no-fund
	touch $@

lumigraph/server/static/index.html: web/node_modules/installed $(PAGES)
	cd web && npm run build

# Judges of glTF files that are not ours.
tests/formats/gltf/node_modules/installed: tests/formats/gltf/package-lock.json
	cd tests/formats/gltf && npm ci --no-audit --no-fund
	touch $@

# Viewers of other projects, in which exported files are looked at.
tests/web/viewers/node_modules/installed: tests/web/viewers/package-lock.json
	cd tests/web/viewers && npm ci --no-audit --no-fund
	touch $@

demo: setup
ifeq ($(PHOTOS),$(SAMPLE)/images)
	test -d $(PHOTOS) || $(BIN)/lumigraph sample $(SAMPLE)
endif
	$(BIN)/python examples/demo.py '$(PHOTOS)' --seconds $(SECONDS)
	@echo 'demo/run/report.html    figures and held-out views beside their photos'
	@echo 'demo/run/rgb.mp4        a flight around the scene'
	@echo 'demo/run/scene.ply      the gaussians, for any splat viewer'
	@echo 'lumigraph up --data demo/studio      the same in a browser, to walk through'

# Three lanes of about the same length, since what waits for a browser or for processes of its own leaves a core idle.
# OpenMP's threads would spin on the cores of the other lanes.
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
