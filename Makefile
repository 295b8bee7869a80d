# Everything on a fresh machine with Python 3.11 and gcc:
#   make demo-seg  install ready wheels if needed, generate data, train a segmentor, evaluate, draw pictures
#   make demo      the same with a detector; compiles mmcv's operators first, if that was not done
#                  (both with another model: make demo CONFIG=configs/mask_rcnn_espikeformer_shapes.py)
#   make demo-cls  train a classifier, fine-tune it by distillation, and start a segmentor from it
#   make compare   neurons and time steps on small images, three seeds each: the tables of docs/comparing.md
#   make test      install if needed, operators too, lint, run the tests
#   make gpu       on a machine with a GPU: its tests, and the table in docs/benchmarks.md, in four minutes
#   make coverage  which lines no test runs
#   make sanitize  the kernels' tests, and random shapes, under gcc's sanitizers
#   make docs      the documentation as a site, into build/site
# TORCH names what pip installs first; give your CUDA build there (see docs/getting_started.md). TORCHVISION is
# the one that goes with it.
PYTHON ?= python3.11
TORCH ?= torch==2.13.0
TORCHVISION ?= torchvision==0.28.0
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install -c requirements/constraints.txt
STAMP := $(VENV)/.installed
OPERATORS_STAMP := $(VENV)/.installed-operators
DEMO ?= work_dirs/demo
DEMO_SEG ?= work_dirs/demo-seg
DEMO_CLS ?= work_dirs/demo-cls

.PHONY: install install-full demo demo-seg demo-cls compare test gpu lint coverage sanitize docs clean
install: $(STAMP)
	@$(BIN)/python tools/check_install.py

install-full: $(OPERATORS_STAMP)
	@$(BIN)/python tools/check_install.py --operators

# Ready wheels only. mmcv-lite is mmcv without compiled operators; its mmengine is not the one used here.
# spikingjelly asks for torchaudio, which only its data sets import. torchvision would bring a torch with CUDA;
# beside one for CPUs its Python code works (mmspike/torchvision_operators.py), and classification needs no more.
$(STAMP): Makefile setup.py $(wildcard mmspike/native/csrc/*) requirements/stack.txt \
          requirements/classification.txt requirements/constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH) setuptools wheel
	$(BIN)/pip show -q onedl-mmcv 2>/dev/null || $(PIP) --no-deps mmcv-lite
	$(PIP) --no-deps spikingjelly
	$(PIP) -r requirements/stack.txt
	$(PIP) --no-deps $(TORCHVISION) -r requirements/classification.txt
	$(BIN)/pip install --no-deps --no-build-isolation -e .
	$(BIN)/python tools/fit_torchvision.py
	touch $@

# mmcv-lite and onedl-mmcv are the same files: the one goes when the other is there to take its place.
OPERATORS_WHEEL := build/operators
$(OPERATORS_STAMP): $(STAMP)
	@if $(BIN)/pip show -q onedl-mmcv 2>/dev/null; then touch $@; else \
	    echo "Detection needs mmcv's operators, which are compiled now: some 12 minutes on two cores, once, \
	since pip keeps the wheel." && \
	    rm -rf $(OPERATORS_WHEEL) && \
	    $(PIP) -q ninja packaging && \
	    MMCV_WITH_OPS=1 $(BIN)/pip wheel -q -c requirements/constraints.txt --no-build-isolation --no-deps \
	        -w $(OPERATORS_WHEEL) onedl-mmcv && \
	    $(BIN)/pip uninstall -q -y mmcv-lite && \
	    $(BIN)/pip install -q --no-deps $(OPERATORS_WHEEL)/*.whl && \
	    rm -rf $(OPERATORS_WHEEL) && touch $@; fi

demo: CONFIG = configs/mask_rcnn_metaspike_shapes.py
demo: install-full
	$(BIN)/python tools/dataset_converters/make_shapes.py data/shapes --overwrite
	$(BIN)/python tools/train.py $(CONFIG) --work-dir $(DEMO)
	$(BIN)/python tools/analysis_tools/report_run.py $(CONFIG) \
	    "$$(cat $(DEMO)/last_checkpoint)" $(DEMO)

demo-seg: CONFIG = configs/semantic_fpn_metaspike_shapes.py
demo-seg: install
	$(BIN)/python tools/dataset_converters/make_shapes.py data/shapes --overwrite
	$(BIN)/python tools/train.py $(CONFIG) --work-dir $(DEMO_SEG)
	$(BIN)/python tools/analysis_tools/report_run.py $(CONFIG) \
	    "$$(cat $(DEMO_SEG)/last_checkpoint)" $(DEMO_SEG)

# A teacher with ReLU, a spiking classifier at T = 1, and the same at T = 4 with what the teacher says; then the
# segmentor as wide as they are on images of that size, from the weights of T = 1 and from none, for as many steps.
CLS := configs/classification/metaspikeformer-1m
SHAPES := shapes-64x64.py
STEPS := 400
SEG_OPTIONS = --cfg-options train_cfg.max_iters=$(STEPS) train_cfg.val_interval=50 param_scheduler.1.begin=200 \
    param_scheduler.1.end=$(STEPS) default_hooks.checkpoint.interval=$(STEPS) default_hooks.logger.interval=10 \
    data_root=data/shapes64/ train_dataloader.batch_size=8 model.data_preprocessor.size=[64,64] \
    model.backbone.attn_init_size=[64,64] model.neck.in_channels=[16,32,64,96] \
    model.backbone.arch.embed_dims=[16,32,64,96]
demo-cls: install
	$(BIN)/python tools/dataset_converters/make_shapes.py data/shapes_folders --layout folders --overwrite
	$(BIN)/python tools/dataset_converters/make_shapes.py data/shapes64 --size 64 --overwrite
	$(BIN)/python tools/train.py $(CLS)-relu_t1_1xb32-6e_$(SHAPES) --work-dir $(DEMO_CLS)/teacher
	$(BIN)/python tools/train.py $(CLS)_t1_1xb32-9e_$(SHAPES) --work-dir $(DEMO_CLS)/t1
	$(BIN)/python tools/train.py $(CLS)-distilled_t4_1xb32-2e_$(SHAPES) --work-dir $(DEMO_CLS)/t4
	$(BIN)/python tools/test.py $(CLS)-distilled_t4_1xb32-2e_$(SHAPES) $(DEMO_CLS)/t4/epoch_2.pth --deploy \
	    --work-dir $(DEMO_CLS)/test
	$(BIN)/python tools/analysis_tools/report_run.py $(CLS)_t1_1xb32-9e_$(SHAPES) $(DEMO_CLS)/t1/epoch_9.pth $(DEMO_CLS)/t1
	$(BIN)/python tools/analysis_tools/report_run.py $(CLS)-distilled_t4_1xb32-2e_$(SHAPES) $(DEMO_CLS)/t4/epoch_2.pth \
	    $(DEMO_CLS)/t4
	$(BIN)/python tools/train.py configs/semantic_fpn_metaspike_shapes.py --work-dir $(DEMO_CLS)/seg-scratch $(SEG_OPTIONS)
	$(BIN)/python tools/train.py configs/semantic_fpn_metaspike_shapes.py --work-dir $(DEMO_CLS)/seg-pretrained \
	    $(SEG_OPTIONS) model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=$(DEMO_CLS)/t1/epoch_9.pth
	$(BIN)/python tools/analysis_tools/compare_curves.py pretrained=$(DEMO_CLS)/seg-pretrained \
	    "from scratch"=$(DEMO_CLS)/seg-scratch --metric mIoU --out $(DEMO_CLS)/transfer.png

# Meta-SpikeFormers of 1M on images of 64 x 64 pixels, of a segmentor and a detector: LIF at T = 1 and T = 4,
# integers of D = 4, and the ANN twin. Some two hours on two cores.
PARTS := t1 t4 t1-d4
SMALL := train_dataloader.batch_size=8 model.backbone.attn_init_size=[64,64] \
    model.backbone.arch.embed_dims=[32,48,64,96] model.neck.in_channels=[32,48,64,96] data_root=data/shapes64/
compare: install-full
	$(BIN)/python tools/dataset_converters/make_shapes.py data/shapes64 --size 64
	$(BIN)/python tools/analysis_tools/compare.py --twin --seeds 3 --work-dir work_dirs/compare-seg \
	    $(PARTS:%=configs/semantic_fpn/semantic-fpn_metaspikeformer-4m_%_1xb4-1300it_shapes-128x128.py) --cfg-options $(SMALL) \
	    model.data_preprocessor.size=[64,64] train_cfg.max_iters=1000 train_cfg.val_interval=250 param_scheduler.1.begin=500 \
	    param_scheduler.1.end=1000 default_hooks.checkpoint.interval=1000
	$(BIN)/python tools/analysis_tools/compare.py --twin --seeds 3 --work-dir work_dirs/compare-det \
	    $(PARTS:%=configs/mask_rcnn/mask-rcnn_metaspikeformer-4m_%_1xb4-1k_shapes-128x128.py) --cfg-options $(SMALL) \
	    train_dataloader.dataset.pipeline.2.scale='(64,64)' val_dataloader.dataset.pipeline.1.scale='(64,64)' \
	    test_dataloader.dataset.pipeline.1.scale='(64,64)' train_cfg.max_iters=600 train_cfg.val_interval=300 \
	    param_scheduler.1.begin=300 param_scheduler.1.end=600 default_hooks.checkpoint.interval=600 \
	    model.train_cfg.rcnn.sampler.num=64 model.train_cfg.rpn_proposal.nms_pre=200 \
	    model.train_cfg.rpn_proposal.max_per_img=200

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A process for every core; a file's tests stay in one of them and share what they set up. Files begin in the
# order of tests/conftest.py: one of slow tests at the end would leave the other cores idle.
test: install-full lint
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

coverage: install
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder --cov --cov-report=term-missing:skip-covered

# GPU_PYTHON: a Python with the stack and a CUDA build of torch, if that is not .venv's.
GPU_PYTHON ?= $(BIN)/python
gpu:
	$(GPU_PYTHON) tools/analysis_tools/benchmark_gpu.py --write-docs

# The kernels once more, beside those in use; whatever they read or write outside of their arguments, and
# undefined behaviour, ends the run. libasan, and for exceptions libstdc++, have to be loaded before Python.
SANITIZED := build/sanitize
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all -Wno-psabi
sanitize: install-full
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

# In an environment of its own: pages are built from docs/ and from docstrings, without importing the package.
DOCS_VENV := .venv-docs
DOCS_STAMP := $(DOCS_VENV)/.installed
$(DOCS_STAMP): requirements/docs.txt
	test -x $(DOCS_VENV)/bin/python || $(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/pip install -q -r requirements/docs.txt
	touch $@

docs: $(DOCS_STAMP)
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build --strict --quiet --site-dir build/site
	@echo "build/site/index.html"

clean:
	rm -rf $(VENV) $(DOCS_VENV) build *.egg-info mmspike/.mim
