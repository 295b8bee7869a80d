"""Generate the shapes data set: circles, squares and triangles, instances and label maps."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path

from mmspike.datasets.shapes import ShapesSettings, write_shapes


def main() -> None:
    """Read the arguments and write the data set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", nargs="?", default="data/shapes", help="folder to write")
    for field in fields(ShapesSettings):
        flag = f"--{field.name.replace('_', '-')}"
        kind = type(field.default)
        parser.add_argument(flag, type=kind, default=field.default, help=f"{field.default}")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace shapes with other settings"
    )
    args = vars(parser.parse_args())
    root, overwrite = Path(args.pop("root")), args.pop("overwrite")
    try:
        written = write_shapes(root, ShapesSettings(**args), overwrite, progress=print)
    except (ValueError, FileExistsError) as error:
        sys.exit(f"make_shapes: {error}")
    print(f"{root}: written" if written else f"{root}: already there")


if __name__ == "__main__":
    main()
