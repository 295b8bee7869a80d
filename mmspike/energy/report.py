"""What was counted: rows, totals, and how they are written down."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmspike.energy.costs import Conventions
from mmspike.energy.firing_rate import NeuronRow, add_per_step
from mmspike.energy.formats import report_to_dataframe, report_to_html, report_to_latex
from mmspike.energy.names import part_of
from mmspike.energy.operators import OpCount

if TYPE_CHECKING:
    import pandas as pd

_PJ_PER_MJ = 1e9


@dataclass
class LayerRow:
    """One layer, summed over all its calls and images.

    Attributes:
        name: Name of the module; a second product in one module ends in `` #2``.
        module: Name of the module.
        kind: ``conv``, ``dwconv``, ``deconv``, ``linear``, ``matmul``, ``RepConv as conv`` ...
        input_shape: Shape of what it reads in its first call, time steps folded in.
        output_shape: Shape of what it gives in its first call.
        reads: ``spikes``, ``real values`` or ``image`` (the first layer, if it reads real values).
        calls: Number of calls.
        macs: Multiply-accumulates of one pass on real values (one time step).
        executed: Multiply-accumulates of all time steps that ran.
        spikes: Spikes that entered, per step; of a product of spikes, their coincidences.
        inputs: Inputs, per step.
        synops: Synaptic operations (additions) per step; empty where it reads real values.
    """

    name: str
    module: str
    kind: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    reads: str = "spikes"
    calls: int = 0
    macs: float = 0.0
    executed: float = 0.0
    spikes: list[float] = field(default_factory=list)
    inputs: float = 0.0
    synops: list[float] = field(default_factory=list)

    def add(self, count: OpCount) -> None:
        """Add one call."""
        self.calls += 1
        self.macs += count.macs / count.time_steps
        self.executed += count.macs
        if count.spikes is not None and count.synops is not None:
            self.spikes = add_per_step(self.spikes, count.spikes)
            self.synops = add_per_step(self.synops, count.synops)
            self.inputs += count.inputs

    @property
    def rates(self) -> list[float]:
        """Firing rate of the inputs, per step."""
        return [s / self.inputs if self.inputs else 0.0 for s in self.spikes]

    @property
    def part(self) -> str:
        """The part of the model: its first name, two of a RoI head."""
        return part_of(self.module)


@dataclass
class EnergyReport:
    """Operations, firing rates and energy of a model; numbers are means per image.

    Attributes:
        model: Name of the model's class.
        data: What the images were.
        num_images: How many.
        time_steps: Steps T.
        conventions: By which costs and rules it was counted.
        layers: One row per layer that costs, in the order in which they ran.
        neurons: One row per layer of neurons.
        uncounted: Modules with weights that ran but have no row, because no rule knows them.
    """

    model: str
    data: str
    num_images: int
    time_steps: int
    conventions: Conventions
    layers: list[LayerRow]
    neurons: list[NeuronRow]
    uncounted: list[str] = field(default_factory=list)

    def charged_macs(self, row: LayerRow) -> float:
        """Multiply-accumulates that a layer is charged, over all images; 0 if it reads spikes."""
        if row.reads == "spikes":
            return 0.0
        if row.reads == "image":
            per_step = self.conventions.image_layer == "per_step"
            return row.macs * (self.time_steps // self.frames if per_step else 1)
        return row.executed

    def energy_mj(self, row: LayerRow) -> float:
        """Energy of a layer per image, in millijoules."""
        c = self.conventions
        picojoules = c.ac_pj * sum(row.synops) + c.mac_pj * self.charged_macs(row)
        return picojoules / _PJ_PER_MJ / self.num_images

    def ann_energy_mj(self, row: LayerRow) -> float:
        """Energy of the layer in the same network on real values, one pass, in millijoules."""
        return self.conventions.mac_pj * row.macs / _PJ_PER_MJ / self.num_images

    def row_dict(self, row: LayerRow) -> dict[str, Any]:
        """A layer's numbers, per image; rates, operations and energy as they are reported."""
        n = self.num_images
        spiking = row.reads == "spikes"
        return {
            "name": row.name,
            "part": row.part,
            "kind": row.kind,
            "reads": row.reads,
            "input_shape": list(row.input_shape),
            "output_shape": list(row.output_shape),
            "calls": row.calls / n,
            "macs": row.macs / n,
            "rate": sum(row.rates) / len(row.rates) if spiking else None,
            "rate_per_step": row.rates if spiking else None,
            "synops": sum(row.synops) / n if spiking else None,
            "synops_per_step": [s / n for s in row.synops] if spiking else None,
            "energy_mj": self.energy_mj(row),
            "ann_energy_mj": self.ann_energy_mj(row),
        }

    def sum_up(self, rows: Sequence[LayerRow]) -> dict[str, float | None]:
        """Sums over some rows, per image; no ratio where nothing is spent."""
        n = self.num_images
        energy = sum(map(self.energy_mj, rows))
        ann = sum(map(self.ann_energy_mj, rows))
        return {
            "macs": sum(row.macs for row in rows) / n,
            "real_macs": sum(map(self.charged_macs, rows)) / n,
            "synops": sum(sum(row.synops) for row in rows) / n,
            "energy_mj": energy,
            "ann_energy_mj": ann,
            "ann_ratio": ann / energy if energy else None,
        }

    @property
    def total(self) -> dict[str, float | None]:
        """Sums over the model, per image."""
        return self.sum_up(self.layers)

    @property
    def parts(self) -> dict[str, dict[str, float | None]]:
        """Sums by part of the model, per image; ``heads`` sums up all but backbone and neck."""
        groups: dict[str, list[LayerRow]] = {}
        for row in self.layers:
            groups.setdefault(row.part, []).append(row)
        heads = [part for part in groups if "head" in part]
        if len(heads) > 1:
            groups["heads"] = [row for part in heads for row in groups[part]]
        return {part: self.sum_up(rows) for part, rows in groups.items()}

    @property
    def levels(self) -> int:
        """Largest number of spikes of a neuron's output in one step: D of integer neurons."""
        return max((row.levels for row in self.neurons), default=1)

    @property
    def frames(self) -> int:
        """Binary frames of a step, of a network whose integers are sent as such."""
        return max((row.frames for row in self.neurons), default=1)

    @property
    def firing_rate(self) -> float:
        """Mean over the layers of neurons of their rate over all steps."""
        rates = [sum(row.rates) / len(row.rates) for row in self.neurons]
        return sum(rates) / len(rates) if rates else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Everything, as it goes into JSON."""
        return {
            "model": self.model,
            "data": self.data,
            "num_images": self.num_images,
            "time_steps": self.time_steps // self.frames,
            "levels": self.levels,
            "frames": self.frames,
            "conventions": asdict(self.conventions),
            "total": self.total,
            "parts": self.parts,
            "firing_rate": self.firing_rate,
            "uncounted": self.uncounted,
            "layers": [self.row_dict(row) for row in self.layers],
            "neurons": [
                {"name": row.name, "levels": row.levels, "rate_per_step": row.rates}
                for row in self.neurons
            ],
        }

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``energy.json`` (everything) and ``energy.csv`` (the layers).

        Args:
            folder: Where to; made if it does not exist.

        Returns:
            The files.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / "energy.json", folder / "energy.csv"]
        files[0].write_text(json.dumps(self.to_dict(), indent=1) + "\n")
        rows = [self.row_dict(row) for row in self.layers]
        with files[1].open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]) if rows else [])
            writer.writeheader()
            writer.writerows(
                {k: " ".join(map(str, v)) if isinstance(v, list) else v for k, v in row.items()}
                for row in rows
            )
        return files

    def to_latex(self) -> str:
        """Sums by part as a LaTeX ``tabular`` (package booktabs), conventions as a comment."""
        return report_to_latex(self)

    def to_dataframe(self) -> pd.DataFrame:
        """A line per layer, the columns of :meth:`row_dict`.

        Raises:
            ImportError: If pandas is not installed.
        """
        return report_to_dataframe(self)

    def _repr_html_(self) -> str:
        """Sums by part, as notebooks show a report."""
        return report_to_html(self)
