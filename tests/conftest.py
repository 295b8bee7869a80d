"""What the tests share."""

from __future__ import annotations

import gc
import os
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope

import tests.remembered  # noqa: F401
from mmspike.native import library

ROOT = Path(__file__).resolve().parents[1]
if "PYTEST_XDIST_WORKER" in os.environ:  # one of several processes, which share the cores
    os.environ["OMP_NUM_THREADS"] = "1"  # for those that it starts
    torch.set_num_threads(1)
GOLDEN = ROOT / "tests/data/metaspikeformer_v2_tiny.npz"


def pytest_configure():
    if os.environ.get("MMSPIKE_REQUIRE_KERNELS") == "1" and not library.is_available():
        raise pytest.UsageError(
            "MMSPIKE_REQUIRE_KERNELS=1, but the kernels for the CPU were not compiled, or are of "
            "another version: install a C++ compiler, then mmspike again"
        )


def pytest_collection_modifyitems(items):
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(skip)
    if "PYTEST_XDIST_WORKER" in os.environ:  # files with slow tests first, then those with many
        slow = {item.path for item in items if "slow" in item.keywords}
        count = Counter(item.path for item in items)
        items.sort(key=lambda item: (item.path not in slow, -count[item.path], item.path))


def pytest_collection_finish():
    """Leave what was imported out of garbage collections: mmengine collects for every data set."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
    np.random.seed(0)


@contextmanager
def without_tf32():
    """Let a GPU compute float32 in float32, not in TF32 of ten bits, which moves spikes."""
    places = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [place.allow_tf32 for place in places]
    for place in places:
        place.allow_tf32 = False
    try:
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.allow_tf32 = value


@pytest.fixture(autouse=True, scope="module")
def _no_scope_of_other_modules():
    """Begin every file without a default scope, which fixtures of a file may set for all of it."""
    DefaultScope._instance_dict.clear()
    yield
    DefaultScope._instance_dict.clear()


@pytest.fixture(autouse=True)
def _default_scope():
    """Leave mmengine's default scope, which a runner sets, as it was, and begin with new loggers.

    A logger writes to the standard error of the test that first used it.
    """
    before = dict(DefaultScope._instance_dict)
    MMLogger._instance_dict.clear()
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(before)


@pytest.fixture(params=range(len(library.LEVELS)), ids=library.LEVELS)
def instruction_set(request):
    """Let the kernels use each instruction set in turn, by its number."""
    kernels, level = library.loaded(), request.param
    best = kernels.mmspike_level()
    if kernels.mmspike_set_level(level) != level:
        pytest.skip(f"the processor has no {library.LEVELS[level]}")
    yield level
    kernels.mmspike_set_level(best)


@pytest.fixture(scope="session")
def golden():
    """Parameters, inputs and outputs of the published implementation; see tests/data/README.md."""
    with np.load(GOLDEN) as file:
        return {key: file[key] for key in file.files}


@pytest.fixture(scope="session")
def shapes_root(tmp_path_factory):
    """A shapes data set of 8 images."""
    from mmspike.datasets.shapes import ShapesSettings, write_shapes

    root = tmp_path_factory.mktemp("data") / "shapes"
    write_shapes(root, ShapesSettings(num_train=8, num_val=4, seed=7))
    return root


@pytest.fixture(scope="session")
def trained_detector(tmp_path_factory):
    """A tiny Mask R-CNN that predicts, see :class:`tests.trained.Trained`."""
    return _trained("detector", tmp_path_factory)


@pytest.fixture(scope="session")
def trained_segmentor(tmp_path_factory):
    """A tiny Semantic FPN that predicts, see :class:`tests.trained.Trained`."""
    return _trained("segmentor", tmp_path_factory)


@pytest.fixture(scope="session")
def trained_integer_detector(tmp_path_factory):
    """As ``trained_detector``, with integer neurons."""
    return _trained("integer_detector", tmp_path_factory)


@pytest.fixture(scope="session")
def trained_integer_segmentor(tmp_path_factory):
    """As ``trained_segmentor``, with E-SpikeFormer."""
    return _trained("integer_segmentor", tmp_path_factory)


def _trained(kind, tmp_path_factory):
    from tests.trained import trained

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # the workers' own folders lie in it
    return trained(kind, folder / "trained")
