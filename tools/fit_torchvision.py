"""Let torchvision be imported beside a torch for CPUs, by every Python of this environment.

Writes a startup file beside it, where its compiled part is of another torch, and nothing elsewhere.
mmspike/torchvision_operators.py says why; `make install` runs this.
"""

from __future__ import annotations

import argparse

from mmspike.torchvision_operators import write_startup_file


def main() -> None:
    """Write the file, and say so."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    file = write_startup_file()
    if file:
        print(f"torchvision is of another torch; what is Python in it works, by {file}")


if __name__ == "__main__":
    main()
