"""What the docs name is there, their commands are what the tools take, and their Python runs."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import runpy
import subprocess
import sys
from itertools import pairwise

import pytest
import yaml
from mmengine.config import Config

import mmspike.registry  # noqa: F401  for "mmspike::" and "mmseg::" in configs
from tests.conftest import ROOT
from tests.tools.helpers import run

DOCS = ROOT / "docs"
REFERENCE = sorted((DOCS / "reference").glob("*.md"))
PAGES = sorted([ROOT / "README.md", *DOCS.glob("*.md"), *(ROOT / "configs").rglob("README.md")])
NOTEBOOK = DOCS / "notebooks/quickstart.ipynb"


def blocks(page, language):
    """The text of a page's blocks of code, without their indentation."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", page.read_text(), re.M | re.S)
    return [re.sub(rf"^{indent}", "", text, flags=re.M) for indent, text in found]


def commands_of(page):
    """Blocks of shell, and commands in the text of a page; H and W are numbers of pixels there."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.M | re.S)
    inline = re.findall(r"`((?:[A-Z_]+=\S+ )*(?:python|make) [^`]+)`", text)
    inline = (" ".join(command.split()).replace(" H W", " 64 64") for command in inline)
    return [*blocks(page, "sh"), *inline]


def name_of(page):
    return str(page.relative_to(ROOT))


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


@pytest.mark.parametrize("page", [*PAGES, *REFERENCE], ids=name_of)
def test_files_that_pages_name_are_there(page):
    text = page.read_text()
    named = re.findall(
        r"\b((?:tools|configs|docs|mmspike|tests)/[\w/.-]+\.(?:py|sh|md|h|cpp|cu|png))", text
    )
    missing = sorted({n for n in named if not (ROOT / n).exists()})
    assert missing == []
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text)]
    assert [x for x in links if x and "://" not in x and not (page.parent / x).exists()] == []


def files_in(nav):
    for entry in nav:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            yield from [value] if isinstance(value, str) else files_in(value)


def test_the_site_leads_to_every_page():
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    files = [*DOCS.rglob("*.md"), *DOCS.rglob("*.ipynb")]
    pages = {str(p.relative_to(DOCS).with_suffix(".md")) for p in files}
    assert sorted(files_in(config["nav"])) == sorted(pages)


@pytest.mark.parametrize("page", [*REFERENCE, DOCS / "models.md"], ids=name_of)
def test_what_the_reference_describes_is_there(page):
    for name in re.findall(r"^::: (\S+)$", page.read_text(), re.M):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            module, _, attribute = name.rpartition(".")
            assert hasattr(importlib.import_module(module), attribute), name


# Commands. A shell runs each block with stand-ins for programs, which write down their arguments.

PROGRAMS = ("python", "pip", "make", "tools/dist_train.sh", "tools/dist_test.sh")
STAND_IN = '#!/bin/bash\nprintf "%s\\0" "{name}" "$@" >> "$CALLS"\nprintf "\\n" >> "$CALLS"\n'


def calls_of(page, folder):
    """Arguments of each program that the commands of a page call, the program first."""
    for name in PROGRAMS:
        file = folder / ("" if "/" in name else "bin") / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(STAND_IN.format(name=name))
        file.chmod(0o755)
    record = folder / "calls"
    record.touch()
    environment = {"PATH": str(folder / "bin"), "CALLS": str(record)}
    for block in commands_of(page):
        script = f"set -euo pipefail\n{block}"
        done = subprocess.run(
            ["/bin/bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{done.stderr}\n{block}"
    return [line.split("\0")[:-1] for line in record.read_text().splitlines()]


class Parsed(Exception):
    """Carries what a tool has read of its command line."""


def parse(tool, arguments, monkeypatch):
    """What a tool makes of its arguments, before it does anything."""
    original = argparse.ArgumentParser.parse_args

    def stop(self, *args, **kwargs):
        raise Parsed(original(self, *args, **kwargs))

    path = ROOT / tool
    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        patch.setattr(sys, "argv", [str(path), *arguments])
        patch.syspath_prepend(path.parent)
        try:
            runpy.run_path(str(path), run_name="__main__")
        except Parsed as parsed:
            return parsed.args[0]
        except SystemExit as error:
            pytest.fail(f"{tool} {arguments}: {error}")
    return argparse.Namespace()  # it takes none


def is_placeholder(word):
    return re.fullmatch(r"[A-Z][A-Z_]*", word) is not None


OPTIONAL = {"metainfo"}  # what data sets take, and configs leave to the data set


def check_config(file, options):
    if is_placeholder(str(file)):
        return
    cfg = Config.fromfile(ROOT / file)
    for key in options or {}:
        parent = cfg
        for part in key.split(".")[:-1]:
            if part in OPTIONAL:
                break
            parent = parent[int(part)] if isinstance(parent, list | tuple) else parent[part]
        assert isinstance(parent, dict | list), key


def check_python(arguments, monkeypatch):
    if arguments[:2] == ["-m", "pytest"]:
        assert all((ROOT / word).exists() for word in arguments if word.startswith("tests/"))
        return
    tool, *rest = arguments
    read = parse(tool, rest, monkeypatch)
    configs = [getattr(read, "config", None), *(getattr(read, "configs", None) or [])]
    for config in filter(None, configs):
        check_config(config, getattr(read, "cfg_options", None))


def check_pip(arguments):
    text = (ROOT / "setup.py").read_text()
    for flag, value in pairwise(arguments):
        if flag in ("-c", "-r"):
            assert (ROOT / value).exists(), value
        if flag == "-e":
            extras = re.findall(r"\w+", value)
            assert all(f'"{extra}": [' in text for extra in extras), value


@pytest.mark.parametrize("page", [p for p in PAGES if commands_of(p)], ids=name_of)
def test_tools_take_the_commands_of_a_page(page, tmp_path, monkeypatch):
    makefile = (ROOT / "Makefile").read_text()
    for program, *arguments in calls_of(page, tmp_path):
        if program == "make":
            targets = [word for word in arguments if "=" not in word]
            assert all(re.search(rf"^{target}:", makefile, re.M) for target in targets), targets
        elif program == "pip":
            check_pip(arguments)
        elif program == "python":
            check_python(arguments, monkeypatch)
        else:
            config, processes, *options = arguments
            assert processes.isdigit()
            tool = program.replace("dist_", "").replace(".sh", ".py")
            check_python([tool, config, *options], monkeypatch)


# Python. The blocks of a page are one script, which runs in a process and a folder of its own.

GIVEN = {
    "energy.md": """
import torch
from mmengine.config import Config
import mmspike.registry
from mmspike.engine.inputs import build_model, noise_batch
cfg = Config.fromfile("configs/semantic_fpn_metaspike_shapes.py")
model, batches = build_model(cfg, None, "cpu"), [noise_batch(cfg, (128, 128))]
""",
}
"""What a page's blocks take as given."""
HEAD = """
import os
os.chdir({folder!r})
"""
LOAD = """
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
import mmspike.registry
cfg = Config.fromfile({file!r})
cfg.model.backbone.init_cfg = None
init_default_scope(cfg.default_scope)
MODELS.build(cfg.model)
"""
HOOKS = """
import mmspike.registry
from mmengine.registry import HOOKS
for hook in custom_hooks:
    HOOKS.build(hook)
"""


def folder_with_configs(folder):
    """A folder in which configs can be read, and written beside one another."""
    (folder / "configs").mkdir()
    (folder / "work_dirs").mkdir()
    for entry in (ROOT / "configs").iterdir():
        (folder / "configs" / entry.name).symlink_to(entry)
    return folder


def script_of(page, folder):
    """The blocks of a page as a script; a config is read, and its model built."""
    lines = [HEAD.format(folder=str(folder)), GIVEN.get(page.name, "")]
    for number, block in enumerate(blocks(page, "python")):
        if "_base_ = " in block:
            file = folder / f"configs/block_{number}.py"
            file.write_text(block)
            lines.append(LOAD.format(file=str(file)))
        else:
            lines.append(block)
            lines.append(HOOKS if block.startswith("custom_hooks") else "")
    return "\n".join(lines)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=name_of)
def test_python_of_a_page_runs(page, tmp_path):
    folder = folder_with_configs(tmp_path)
    script = folder / "page.py"
    script.write_text(script_of(page, folder))
    run(script)


def test_the_notebook_trains_predicts_and_draws(tmp_path):
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert sum("STEPS = 900" in cell for cell in code) == 1
    code = [cell.replace("STEPS = 900", "STEPS = 20") for cell in code]  # for time's sake
    script = tmp_path / "notebook.py"
    end = "assert len(runner.message_hub.get_scalar('train/loss').data[0]) == 20\nplt.close('all')"
    script.write_text("\n".join([HEAD.format(folder=str(tmp_path)), *code, end]))
    run(script)


def test_numbers_of_the_readme_are_those_of_the_benchmarks():
    run("analysis_tools/write_claims.py", "--check")
