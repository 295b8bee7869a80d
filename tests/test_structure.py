"""Rules of the structure: who may look into whom, what is known where, how long things are."""

from __future__ import annotations

import ast
import re

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "mmspike"
MODULES = sorted(PACKAGE.rglob("*.py"))
ABOVE = (
    "layers",
    "backbones",
    "necks",
    "det",
    "seg",
    "cls",
    "deploy",
    "checkpoints",
    "energy",
    "engine",
)
EVERY = ("archs", "installed")  # rooms that all may import
MAY_IMPORT = {  # rooms that a room's files may import, beside itself and those
    "archs": (),
    "installed": (),
    "registry": (),
    "published": ("registry",),
    "quiet": (),
    "torchvision_operators": (),
    "native": (),
    "neurons": ("registry", "native"),
    "layers": ("neurons", "fused", "registry"),
    "fused": ("native", "neurons", "layers"),
    "checkpoints": ("neurons", "layers"),
    "backbones": ("layers", "neurons", "fused", "registry", "checkpoints"),
    "necks": ("layers", "neurons", "fused", "registry"),
    "energy": ("layers", "neurons", "fused"),
    "datasets": ("registry",),
    "det": ("layers", "neurons", "fused", "registry"),
    "seg": ("layers", "necks", "neurons", "fused", "registry", "energy", "checkpoints"),
    "cls": ("layers", "neurons", "fused", "registry", "checkpoints"),
    "deploy": ("layers", "neurons", "fused", "backbones"),
    "engine": (
        "layers",
        "energy",
        "checkpoints",
        "registry",
        "deploy",
        "fused",
        "native",
        "datasets",
    ),
}
LONGER_FILES = {
    "energy/counter.py": "one class that follows a model while it runs",
    "energy/provenance.py": "a table of operators, and one rule for each kind of them",
    "native/conv.py": "one call after the other, of four lines each",
}
LONGER_FUNCTIONS = {
    "fused/cuda/backward.py:backward": "one kernel, that keeps what it read in registers",
}


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path):
    """Names of modules of this package that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mmspike"):
            whole = node.module == "mmspike"
            yield from ([f"mmspike.{a.name}" for a in node.names] if whole else [node.module])
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith("mmspike"))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_arrows(path):
    room = room_of(path)
    if room == "__init__":
        return
    for name in imported(path):
        other = name.split(".")[1]
        assert other in (room, *EVERY, *MAY_IMPORT[room]), f"{room} looks into {name}"
        if room in ABOVE and other == "fused":
            assert name.count(".") == 1, f"{room} looks behind the door: {name}"


FORBIDDEN = {
    "is_compiling": ("fused", "neurons", "deploy"),
    "PackedSpikes": ("fused",),
    "is_watched": ("fused",),
    "carrier": ("fused",),
    "hasattr(": ("registry", "checkpoints", "engine", "det", "seg", "cls", "fused"),
}
"""What only these rooms know; there, ``hasattr`` asks modules of the hosts, never ours."""


@pytest.mark.parametrize("word", FORBIDDEN)
def test_what_is_known_where(word):
    found = [p for p in MODULES if word in p.read_text() and room_of(p) not in FORBIDDEN[word]]
    assert found == []


def test_layers_and_what_stands_on_them_know_no_types_of_kernels():
    found = [
        str(path)
        for path in MODULES
        if room_of(path) in ("layers", "backbones", "necks", "det", "seg", "cls")
        and re.search(r"is_grad_enabled|is_autocast_enabled|\bnative\b", path.read_text())
    ]
    assert found == []


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_length(path):
    name = str(path.relative_to(PACKAGE))
    text = path.read_text()
    if name not in LONGER_FILES:
        assert text.count("\n") <= 250, "split it, or say here why not"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            if f"{name}:{node.name}" not in LONGER_FUNCTIONS:
                assert lines <= 45, f"{node.name} has {lines} lines"
