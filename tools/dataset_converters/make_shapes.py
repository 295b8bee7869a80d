"""Generate the shapes data set: circles, squares and triangles, instances and label maps.

With --layout folders, images to classify: one shape each, in a folder for each class.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path

from mmspike.datasets.shapes import (
    OneShapeSettings,
    ShapesSettings,
    write_class_folders,
    write_shapes,
)


def main() -> None:
    """Read the arguments and write the data set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "root", nargs="?", help="folder to write (data/shapes; data/shapes_folders)"
    )
    parser.add_argument(
        "--layout",
        choices=["dense", "folders"],
        default="dense",
        help="instances and label maps, or a folder for each class (dense)",
    )
    for field in fields(ShapesSettings):
        flag = f"--{field.name.replace('_', '-')}"
        kind, one = type(field.default), getattr(OneShapeSettings, field.name)
        usual = f"{field.default}" + (f"; in folders {one}" if one != field.default else "")
        parser.add_argument(flag, type=kind, default=argparse.SUPPRESS, help=usual)
    parser.add_argument(
        "--overwrite", action="store_true", help="replace shapes with other settings"
    )
    args = vars(parser.parse_args())
    root, overwrite, layout = (args.pop(name) for name in ("root", "overwrite", "layout"))
    root = Path(root or {"dense": "data/shapes", "folders": "data/shapes_folders"}[layout])
    try:
        if layout == "dense":
            written = write_shapes(root, ShapesSettings(**args), overwrite, progress=print)
        else:
            settings = OneShapeSettings(**args)
            written = write_class_folders(root, settings, overwrite, progress=print)
    except (ValueError, FileExistsError) as error:
        sys.exit(f"make_shapes: {error}")
    print(f"{root}: written" if written else f"{root}: already there")


if __name__ == "__main__":
    main()
