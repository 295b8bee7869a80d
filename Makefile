# Everything on a fresh machine with Python 3.11 and gcc:
#   make demo      install if needed, generate data, train a detector, evaluate, draw pictures
#   make demo-seg  the same with a segmentor
#   make test      install if needed, lint, run the tests
#   make gpu       on a machine with a GPU: its tests, and the table in docs/benchmarks.md, in four minutes
#   make coverage  which lines no test runs
#   make sanitize  the kernels' tests, and random shapes, under gcc's sanitizers
# TORCH names what pip installs first; give your CUDA build there (see README.md).
PYTHON ?= python3.11
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := work_dirs/demo
DEMO_SEG := work_dirs/demo-seg

.PHONY: install demo demo-seg test gpu lint coverage sanitize clean
install: $(STAMP)
	@$(BIN)/python tools/check_install.py

# mmcv is compiled against the installed torch (12 minutes on two cores; pip keeps the wheel).
# spikingjelly asks for torchvision and torchaudio, which only its data sets import.
$(STAMP): Makefile setup.py $(wildcard mmspike/native/csrc/*) requirements/stack.txt \
          requirements/constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -c requirements/constraints.txt $(TORCH) setuptools wheel ninja packaging
	MMCV_WITH_OPS=1 $(BIN)/pip install -c requirements/constraints.txt --no-build-isolation onedl-mmcv
	$(BIN)/pip install -c requirements/constraints.txt --no-deps spikingjelly
	$(BIN)/pip install -c requirements/constraints.txt -r requirements/stack.txt
	$(BIN)/pip install --no-deps --no-build-isolation -e .
	touch $@

demo: install
	$(BIN)/python tools/dataset_converters/make_shapes.py data/shapes --overwrite
	$(BIN)/python tools/train.py configs/mask_rcnn_metaspike_shapes.py --work-dir $(DEMO)
	$(BIN)/python tools/analysis_tools/report_run.py configs/mask_rcnn_metaspike_shapes.py \
	    "$$(cat $(DEMO)/last_checkpoint)" $(DEMO)

demo-seg: install
	$(BIN)/python tools/dataset_converters/make_shapes.py data/shapes --overwrite
	$(BIN)/python tools/train.py configs/semantic_fpn_metaspike_shapes.py --work-dir $(DEMO_SEG)
	$(BIN)/python tools/analysis_tools/report_run.py configs/semantic_fpn_metaspike_shapes.py \
	    "$$(cat $(DEMO_SEG)/last_checkpoint)" $(DEMO_SEG)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A process for every core; a file's tests stay in one of them and share what they set up.
test: lint
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

coverage: install
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --cov --cov-report=term-missing:skip-covered

# GPU_PYTHON: a Python with the stack and a CUDA build of torch, if that is not .venv's.
GPU_PYTHON ?= $(BIN)/python
gpu:
	$(GPU_PYTHON) tools/analysis_tools/benchmark_gpu.py --write-docs

# The kernels once more, beside those in use; whatever they read or write outside of their arguments, and
# undefined behaviour, ends the run. libasan, and for exceptions libstdc++, have to be loaded before Python.
SANITIZED := build/sanitize
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all -Wno-psabi
sanitize: install
	rm -rf $(SANITIZED)
	CFLAGS="$(SANITIZE)" CXXFLAGS="$(SANITIZE)" LDFLAGS="$(SANITIZE)" $(BIN)/python setup.py -q build_ext \
	    --build-lib $(SANITIZED) --build-temp $(SANITIZED)
	grep -q __asan_report $(SANITIZED)/mmspike/native/_kernels*  # or the flags were not taken
	export MMSPIKE_KERNELS=$$(echo $(CURDIR)/$(SANITIZED)/mmspike/native/_kernels*) MMSPIKE_REQUIRE_KERNELS=1 \
	    OMP_WAIT_POLICY=passive ASAN_OPTIONS=detect_leaks=0 \
	    LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libstdc++.so)" && \
	$(BIN)/python -m pytest -q --capture=sys tests/native tests/neurons/test_kernels.py \
	    tests/fused/test_norm.py tests/fused/test_convolution.py tests/fused/test_spikes.py && \
	$(BIN)/python -m tests.native.fuzz --seconds 100

clean:
	rm -rf $(VENV) build *.egg-info mmspike/.mim
