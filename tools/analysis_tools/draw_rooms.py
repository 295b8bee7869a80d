"""Draw the rooms of the package and the one door to the fast paths: docs/images/rooms.png."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

ROOT = Path(__file__).resolve().parents[2]
ROOMS = {  # x, y, width, height, name, what lives there, colour
    "hosts": (0.3, 7.0, 7.0, 1.0, "det/   seg/", "heads for mmdet and mmseg", "#dbe9f6"),
    "models": (0.3, 5.3, 7.0, 1.0, "backbones/   necks/", "the networks", "#dbe9f6"),
    "layers": (0.3, 3.6, 7.0, 1.0, "layers/", "plain torch, as the papers write it", "#dbe9f6"),
    "neurons": (0.3, 1.9, 7.0, 1.0, "neurons/", "LIF: charge, fire, reset", "#dbe9f6"),
    "door": (8.6, 3.6, 3.0, 1.0, "fused/", "the door: run, attend", "#fde3c8"),
    "cpu": (8.6, 1.9, 3.0, 1.0, "fused/cpu/", "bits; norm + neuron", "#fde3c8"),
    "native": (8.6, 0.2, 3.0, 1.0, "native/", "C++ and its calls", "#e6e6e6"),
}
ARROWS = (  # from a point to a point
    ((3.8, 7.0), (3.8, 6.3)),
    ((3.8, 5.3), (3.8, 4.6)),
    ((3.8, 3.6), (3.8, 2.9)),
    ((7.3, 4.1), (8.6, 4.1)),
    ((7.3, 5.8), (9.6, 4.6)),
    ((10.1, 3.6), (10.1, 2.9)),
    ((10.1, 1.9), (10.1, 1.2)),
    ((7.3, 2.2), (8.6, 0.9)),
)


def draw_room(ax: Axes, x: float, y: float, w: float, h: float, *texts: str) -> None:
    """A box with a name and what lives there."""
    name, what, colour = texts
    ax.add_patch(
        FancyBboxPatch((x, y), w, h, boxstyle="round,pad=0.02", fc=colour, ec="#444444", lw=1)
    )
    ax.text(x + w / 2, y + 0.65 * h, name, ha="center", va="center", fontsize=11, weight="bold")
    ax.text(x + w / 2, y + 0.27 * h, what, ha="center", va="center", fontsize=9)


def main() -> None:
    """Draw."""
    fig, ax = plt.subplots(figsize=(7.5, 5.6))
    for room in ROOMS.values():
        draw_room(ax, *room)
    for start, end in ARROWS:
        ax.add_patch(
            FancyArrowPatch(
                start, end, arrowstyle="-|>", mutation_scale=13, lw=1.2, color="#444444"
            )
        )
    ax.text(7.95, 4.25, "asks", ha="center", fontsize=8)
    ax.set_xlim(0, 11.9)
    ax.set_ylim(0, 8.2)
    ax.axis("off")
    out = ROOT / "docs/images/rooms.png"
    out.parent.mkdir(exist_ok=True)
    fig.savefig(out, dpi=110, bbox_inches="tight")
    print(out)


if __name__ == "__main__":
    main()
