"""What tests of trainings share."""

from __future__ import annotations

import pytest

from mmspike.datasets.shapes import ShapesSettings, write_shapes
from tests.engine.tiny import SIZE


@pytest.fixture(scope="session")
def tiny_shapes(tmp_path_factory):
    """Data of which two processes do not get equal shares."""
    root = tmp_path_factory.mktemp("data") / "tiny_shapes"
    write_shapes(root, ShapesSettings(num_train=7, num_val=5, size=SIZE, seed=7))
    return root
