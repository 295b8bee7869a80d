from __future__ import annotations

import pytest

from tests.conftest import without_tf32


@pytest.fixture(autouse=True)
def _without_tf32():
    with without_tf32():
        yield
