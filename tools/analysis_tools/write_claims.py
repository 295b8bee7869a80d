"""Write the README's numbers of speed and memory, from the table in docs/benchmarks.md."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs/benchmarks.md"
README = ROOT / "README.md"

DEPLOYED, TRAINING, SHARE = 9, 7, 13
"""Columns of the table: times eager of the deployed model and of the training path, and memory."""


def claims() -> dict[str, str]:
    """What the rows of the backbone span, by the name of the claim.

    Raises:
        SystemExit: If the table is not there.
    """
    text = TABLE.read_text()
    table = re.search(r"<!-- begin of the table -->(.*?)<!-- end of the table -->", text, re.S)
    if table is None:
        raise SystemExit(f"write_claims: {TABLE}: no table between its marks")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table[1].splitlines()]
    rows = [row for row in rows if row[:1] == ["backbone"]]
    inference = [row for row in rows if row[4] == "inference"]
    steps = [row for row in rows if row[4] == "training step"]
    return {
        "deployed": _span([float(row[DEPLOYED]) for row in inference], 1),
        "training": _span([float(row[TRAINING]) for row in steps], 1),
        "memory": _span([float(row[SHARE].removesuffix("%")) for row in steps], 0),
    }


def _span(numbers: list[float], digits: int) -> str:
    return f"{min(numbers):.{digits}f} to {max(numbers):.{digits}f}"


def written() -> str:
    """The README with these numbers.

    Raises:
        SystemExit: If it has no place for one of them.
    """
    text = README.read_text()
    for name, span in claims().items():
        text, count = re.subn(rf"(<!-- {name} -->).*?(<!-- /{name} -->)", rf"\g<1>{span}\2", text)
        if count != 1:
            raise SystemExit(f"write_claims: {README} needs <!-- {name} -->...<!-- /{name} -->")
    return text


def main() -> None:
    """Write, or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="end with 1 if it would change")
    args = parser.parse_args()
    text = written()
    if args.check and text != README.read_text():
        raise SystemExit("write_claims: README.md is not what docs/benchmarks.md says; run it")
    README.write_text(text)


if __name__ == "__main__":
    main()
