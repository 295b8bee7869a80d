"""Shows notebooks as pages of the site, with the outputs that are stored in them.

A hook of mkdocs', which ``mkdocs.yml`` names.
"""

from __future__ import annotations

import json
import re
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each notebook, beside it."""
    for file in [f for f in files if f.src_uri.endswith(".ipynb")]:
        text = as_markdown(json.loads(file.content_string), file.src_uri.rsplit("/", 1)[-1])
        page = file.src_uri.removesuffix(".ipynb") + ".md"
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Let links of other pages lead to a notebook's page instead of the file."""
    if page.file.src_uri.startswith("notebooks/"):
        return markdown
    return re.sub(r"(\]\([^)]+)\.ipynb\)", r"\1.md)", markdown)


def as_markdown(notebook: dict[str, Any], name: str) -> str:
    """Write the cells of a notebook as Markdown, with a link to the file under the title."""
    cells = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            cells.append(source)
            continue
        cells.append(f"```python\n{source}\n```")
        cells.extend(filter(None, map(_output, cell["outputs"])))
    cells.insert(1, f"[The notebook as a file]({name})")
    return "\n\n".join(cells) + "\n"


def _output(output: dict[str, Any]) -> str:
    picture = output.get("data", {}).get("image/png")
    if picture:
        return f"![output](data:image/png;base64,{''.join(picture).strip()})"
    text = "".join(output.get("text", []))
    return f"```text\n{text.rstrip()}\n```" if text else ""
