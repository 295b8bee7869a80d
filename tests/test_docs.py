"""What the docs name is there: tests, files, options."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def test_tests_that_the_page_of_promises_names_are_there():
    text = (ROOT / "docs/reliability.md").read_text()
    rows = [row for row in text.splitlines() if row.startswith("| ") and "tests/" in row]
    assert len(rows) >= 40
    for row in rows:
        file = None
        for name in re.findall(r"`([^`]+)`", row.rsplit("|", 2)[1]):
            path, _, test = name.rpartition("::") if "::" in name else (name, "", "")
            if name.startswith("tests/"):
                file = ROOT / (path or name)
                assert file.exists(), name
            if not name.startswith("tests/") and "::" not in name:
                test = name
            if test and file is not None and test.startswith("test_"):
                where = file.read_text()
                assert f"def {test.partition('[')[0]}(" in where, f"{file.name} has no {test}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_files_that_pages_name_are_there(page):
    text = page.read_text()
    named = re.findall(
        r"\b((?:tools|configs|docs|mmspike|tests)/[\w/.-]+\.(?:py|sh|md|h|cpp|cu|png))", text
    )
    missing = sorted({n for n in named if not (ROOT / n).exists()})
    assert missing == []
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text)]
    assert [x for x in links if x and "://" not in x and not (page.parent / x).exists()] == []
