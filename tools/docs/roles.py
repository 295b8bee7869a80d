"""Lets the site show Sphinx's roles in docstrings, such as ``:func:`~mmspike.energy.measure```.

An extension of griffe's, by which mkdocstrings reads the package; ``mkdocs.yml`` names it. A name
becomes a link where the site describes it.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_ROLE = re.compile(r":(?:class|data|exc|func|meth|mod|attr):`(~?)([\w.]+)`")


def as_link(match: re.Match[str]) -> str:
    """Turn a role into a link that is plain code where nothing is described under its name."""
    short, name = match[1], match[2]
    text = name.rsplit(".", 1)[-1] if short else name
    return f'<autoref identifier="{name}" optional><code>{text}</code></autoref>'


class Roles(Extension):
    """Rewrites the roles in all docstrings."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite those of one object, once it was read."""
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(as_link, obj.docstring.value)
