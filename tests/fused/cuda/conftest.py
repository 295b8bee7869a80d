from __future__ import annotations

import pytest

from mmspike.fused import door
from mmspike.fused.cuda.engine import CUDAEngine
from mmspike.fused.memory import ByteEngine
from tests.conftest import without_tf32
from tests.fused.cuda.helpers import DEVICE, STANDS_IN


@pytest.fixture(autouse=True)
def _without_tf32():
    with without_tf32():
        yield


@pytest.fixture
def cuda_engine(monkeypatch):
    """The engine; on a CPU with interpreted kernels, or with a stand-in for them."""
    if STANDS_IN:
        from tests.fused.cuda import stand_in

        stand_in.put_in(monkeypatch)
    monkeypatch.setenv("MMSPIKE_FUSED_CUDA", "1")
    monkeypatch.setattr(door, "ENGINES", (CUDAEngine(DEVICE), ByteEngine()))
