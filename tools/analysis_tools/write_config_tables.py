"""Write the tables of configs into the pages that show them, from configs and metafiles.

A page shows a table between ``<!-- configs -->`` and ``<!-- /configs -->``: a README of a folder of
configs that folder's, any other page all of them, each with a link to its folder.
"""

from __future__ import annotations

import argparse
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.fileio import load
from mmengine.registry import MODELS

from mmspike.engine.configs import use_scope

ROOT = Path(__file__).resolve().parents[2]
PART = re.compile(r"(?<=<!-- configs -->\n).*?(?=<!-- /configs -->)", re.DOTALL)
HEAD = ("config", "data", "backbone", "T x D", "schedule", "parameters", "result")


class Entry(NamedTuple):
    """A model of a metafile.

    Attributes:
        path: The config's file, relative to the root.
        data: What it is trained on.
        results: As the metafile has them, each with its ``Source`` and ``Conditions``.
        method: The collection that it belongs to.
        readme: The collection's page, relative to the root.
    """

    path: str
    data: str
    results: list[dict[str, Any]]
    method: str
    readme: str


def entries() -> Iterator[Entry]:
    """All models of the metafiles that ``model-index.yml`` lists."""
    for name in load(str(ROOT / "model-index.yml"))["Import"]:
        metafile = load(str(ROOT / name))
        readmes = {found["Name"]: found["README"] for found in metafile["Collections"]}
        for model in metafile["Models"]:
            method, data = model["In Collection"], model["Metadata"]["Training Data"]
            results = model.get("Results", [])
            yield Entry(model["Config"], data, results, method, readmes[method])


def count_parameters(cfg: Config) -> int:
    """Parameters of a config's model, which is built without memory for them."""
    use_scope(cfg)
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # mmseg's advice on losses and classes
        model = MODELS.build(cfg.model)
    return sum(p.numel() for p in model.parameters())


def schedule(cfg: Config) -> str:
    """How long a training is, and its batch on each GPU."""
    loop, batch = cfg.train_cfg, cfg.train_dataloader.batch_size
    if loop.get("max_epochs"):
        return f"{loop.max_epochs} epochs of {batch}"
    return f"{loop.max_iters:,} iterations of {batch}"


def backbone(cfg: Config) -> str:
    """The backbone's published size, or its widths; its name where it is no Meta-SpikeFormer."""
    arch = cfg.model.backbone.arch
    size = arch if isinstance(arch, str) else f"{', '.join(map(str, arch.embed_dims))} wide"
    name = cfg.model.backbone.type.rpartition(".")[2]
    return size if name == "MetaSpikeFormer" else f"{name}, {size}"


def steps(cfg: Config) -> str:
    """T, and the levels D of neurons that fire integers."""
    time_steps = str(cfg.model.backbone.get("time_steps", 1))
    levels = cfg.model.get("neuron_cfg", {}).get("levels")
    return time_steps if levels is None else f"{time_steps} x {levels}"


@cache
def facts(path: str) -> tuple[str, ...]:
    """Backbone, T and D, schedule and parameters of a config."""
    cfg = Config.fromfile(ROOT / path)
    millions = f"{count_parameters(cfg) / 1e6:.2f} M"
    return backbone(cfg), steps(cfg), schedule(cfg), millions


def row(entry: Entry, page: Path, notes: list[str]) -> list[str]:
    """The cells of a config.

    Args:
        entry: The config.
        page: The page on which the row stands, for the link.
        notes: The conditions of all results so far; those of this one are added.
    """
    name = link(Path(entry.path).stem, entry.path, page, code=True)
    return [name, entry.data, *facts(entry.path), result(entry, notes)]


def link(text: str, path: str, page: Path, code: bool = False) -> str:
    """A link from a page to a file of this repository."""
    text = f"`{text}`" if code else text
    return f"[{text}]({os.path.relpath(ROOT / path, page.parent)})"


def result(entry: Entry, notes: list[str]) -> str:
    """Metrics with their source, and the number of the note that says under which conditions."""
    parts: dict[str, list[str]] = {}
    for found in entry.results:
        if found["Conditions"] not in notes:
            notes.append(found["Conditions"])
        source = f"{found['Source']} ({notes.index(found['Conditions']) + 1})"
        metrics = [f"{name} {value}" for name, value in found["Metrics"].items()]
        parts.setdefault(source, []).extend(metrics)
    texts = [f"{', '.join(metrics)}, {source}" for source, metrics in parts.items()]
    return "; ".join(texts) or "not measured"


def table(page: Path, chosen: Sequence[Entry], methods: bool) -> str:
    """The table of some configs as Markdown, with notes below.

    Args:
        page: The page on which it stands.
        chosen: The configs.
        methods: Whether a first column leads to their methods' pages.
    """
    notes: list[str] = []
    rows = [list(HEAD), ["---"] * len(HEAD), *(row(entry, page, notes) for entry in chosen)]
    if methods:
        links = [link(entry.method, entry.readme, page) for entry in chosen]
        for cells, first in zip(rows, ["method", "---", *links], strict=True):
            cells.insert(0, first)
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    if notes:
        lines += ["", *(f"{number}. {note}" for number, note in enumerate(notes, 1))]
    return "\n".join(["", *lines, "", ""])


def pages() -> list[Path]:
    """Pages that show a table."""
    files = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("configs/**/README.md")]
    return sorted(file for file in files if PART.search(file.read_text()))


def render(page: Path) -> str:
    """A page's text, with its table as it is to be."""
    folder = page.parent.relative_to(ROOT).as_posix()
    everything = list(entries())
    own = [entry for entry in everything if Path(entry.path).parent.as_posix() == folder]
    text = table(page, own or everything, methods=not own)
    return PART.sub(lambda _: text, page.read_text())


def main() -> None:
    """Write the tables, or say which pages differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 if needed")
    args = parser.parse_args()
    old = [page for page in pages() if render(page) != page.read_text()]
    for page in old:
        print(f"{page.relative_to(ROOT)}: {'to be written' if args.check else 'written'}")
        if not args.check:
            page.write_text(render(page))
    if args.check and old:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
