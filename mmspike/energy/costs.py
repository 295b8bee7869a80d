"""What an operation costs, and by which conventions operations are counted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Conventions:
    """Costs and rules of counting; they are written into every report.

    Attributes:
        mac_pj: Energy of a multiply-accumulate, in picojoules.
        ac_pj: Energy of an accumulate, in picojoules.
        source: Where the two come from.
        image_layer: Whether the layer that reads the image is charged ``"once"`` (the image is the
            same at every step) or ``"per_step"``, T times; papers differ.
        borders: ``"formula"`` counts as papers do, as if every output of a convolution had a full
            window of inputs; a layer then costs its rate times its MACs. ``"exact"`` leaves out
            what zero padding, strides and cropping leave out, spike by spike.

    Raises:
        ValueError: If a cost is not positive, or a rule is none of the above.
    """

    mac_pj: float = 4.6
    ac_pj: float = 0.9
    source: str = "45 nm, 32-bit float: Horowitz, ISSCC 2014, doi 10.1109/ISSCC.2014.6757323"
    image_layer: str = "once"
    borders: str = "formula"

    def __post_init__(self) -> None:
        for name in ("mac_pj", "ac_pj"):
            if not getattr(self, name) > 0:
                raise ValueError(f"Conventions: {name} must be positive, got {getattr(self, name)}")
        for name, known in (
            ("image_layer", ("once", "per_step")),
            ("borders", ("formula", "exact")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"Conventions: {name} must be one of {known}, got {getattr(self, name)!r}"
                )
