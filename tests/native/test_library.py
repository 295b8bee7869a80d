"""Which library is loaded, and what happens where there is none."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mmspike.native import library
from tests.conftest import ROOT


@pytest.fixture
def no_library(tmp_path):
    file = tmp_path / "kernels.so"
    file.write_bytes(b"no library")
    return file


def test_a_library_that_cannot_be_loaded_is_left_alone(tmp_path, monkeypatch):
    name = f"_kernels{library.EXTENSION_SUFFIXES[0]}"
    (tmp_path / name).write_bytes(b"no library")
    said = []
    monkeypatch.delenv("MMSPIKE_KERNELS", raising=False)
    monkeypatch.setattr(library, "__file__", str(tmp_path / "library.py"))
    monkeypatch.setattr(library, "print_log", lambda text, *_, **__: said.append(text))
    assert library.library.__wrapped__() is None
    assert f"kernels of version {library.VERSION} are wanted" in said[0]


def test_another_library_can_be_named(no_library, monkeypatch):
    said = []
    monkeypatch.setattr(library, "print_log", lambda text, *_, **__: said.append(text))
    monkeypatch.setenv("MMSPIKE_KERNELS", str(no_library))
    assert library.library.__wrapped__() is None
    assert said[0].startswith(f"{no_library}: ")


def test_a_named_library_that_is_not_there_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("MMSPIKE_KERNELS", str(tmp_path / "none.so"))
    with pytest.raises(FileNotFoundError, match=r"MMSPIKE_KERNELS=.*none\.so is no file"):
        library.library.__wrapped__()


@pytest.mark.parametrize("required", ["0", "1"])
def test_a_run_of_the_tests_fails_without_kernels_where_they_are_required(required, no_library):
    env = {"MMSPIKE_KERNELS": str(no_library), "MMSPIKE_REQUIRE_KERNELS": required}
    tests = "tests/native/test_arguments.py"  # skipped as a whole without kernels
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", tests]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, check=False
    )
    said = done.stdout + done.stderr
    assert ("MMSPIKE_REQUIRE_KERNELS=1, but" in said) == (required == "1"), said
    assert done.returncode == (
        pytest.ExitCode.USAGE_ERROR if required == "1" else pytest.ExitCode.NO_TESTS_COLLECTED
    ), said
