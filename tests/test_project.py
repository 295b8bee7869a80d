"""Files around the code say the same: versions, and what CI and commits are checked with."""

from __future__ import annotations

import re
from importlib import metadata

import pytest
import yaml
from packaging.requirements import Requirement

import mmspike
from tests.conftest import ROOT


def read(name):
    return yaml.safe_load((ROOT / name).read_text())


def constraints():
    lines = (ROOT / "requirements/constraints.txt").read_text().splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {requirement.name: requirement.specifier for requirement in found}


def test_one_version():
    assert read("CITATION.cff")["version"] == mmspike.__version__
    released = re.search(r"^## (\S+) \((\S+)\)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert released[1] == mmspike.__version__
    assert released[2] == read("CITATION.cff")["date-released"]


def test_commits_are_checked_with_the_ruff_of_ci():
    (repo,) = read(".pre-commit-config.yaml")["repos"]
    needs = {hook["id"]: hook["additional_dependencies"] for hook in repo["hooks"]}
    for hook in ("ruff-check", "ruff-format"):
        (ruff,) = needs[hook]
        assert Requirement(ruff).specifier == constraints()["ruff"]
    assert metadata.version("ruff") in constraints()["ruff"]


def test_ci_runs_the_pythons_that_setup_claims():
    setup = (ROOT / "setup.py").read_text()
    claimed = set(re.findall(r"Programming Language :: Python :: (3\.\d+)", setup))
    matrix = read(".github/workflows/ci.yml")["jobs"]["test"]["strategy"]["matrix"]["include"]
    assert {entry["python"] for entry in matrix} == claimed
    oldest = re.search(r'"torch>=([\d.]+)"', setup)[1]
    assert any(entry["torch"].startswith(f"{oldest}.") for entry in matrix)


@pytest.mark.parametrize("form", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")))
def test_issue_forms(form):
    content = yaml.safe_load(form.read_text())
    assert {"name", "description", "body"} <= content.keys()
    ids = [entry["id"] for entry in content["body"]]
    assert len(ids) == len(set(ids))
    assert all(entry["attributes"]["label"] for entry in content["body"])
