"""A feature pyramid whose every convolution reads spikes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from mmspike.layers.arguments import are_counts, check_norm, is_count, refuse_unless
from mmspike.layers.conv import ONE_SIGMA_RATE, spike_conv
from mmspike.layers.init_log import InitLog
from mmspike.layers.time import ordinary_map, per_step
from mmspike.neurons.arguments import check_config
from mmspike.registry import MODELS

_EXTRA_SOURCES = ("on_input", "on_lateral", "on_output")


@MODELS.register_module()
class SpikeFPN(InitLog):
    """Feature pyramid network on spike sequences, with one level per distinct stride.

    Every arrow of weights is ``neuron, convolution, norm``; potentials (real values) are summed.
    With maps of strides 4, 8, 16, 16, as a Meta-SpikeFormer gives them, and ``num_outs=5``::

        16 --1x1--+
        16 --1x1--+-> 16 --3x3--> 16 --> 32 --> 64   (made here: subsampled, or by convolutions)
                      | x2
         8 --1x1--+-> 8 --3x3--> 8
                      | x2
         4 --1x1--+-> 4 --3x3--> 4

    Source: "Feature Pyramid Networks for Object Detection" (arXiv 1612.03144), section 3; maps of
    one stride are summed, the deeper one taking the place of the level above.

    Args:
        in_channels: Channels of the incoming maps.
        out_channels: Channels of every level.
        num_outs: Levels to give, at least one per distinct stride; those above are made here.
        in_strides: Strides of the incoming maps, finest first: each the one before, or twice it.
        add_extra_convs: How levels above the incoming ones are made: ``False`` subsamples the
            topmost one, ``"on_input"``, ``"on_lateral"`` or ``"on_output"`` convolves with stride 2
            from the last incoming map, the topmost sum or the topmost level; ``True`` is
            ``"on_input"``.
        norm_cfg: Config of the norms; ``None`` means ``dict(type="BN")``.
        neuron_cfg: Config of the neurons; ``None`` means ``dict(type="mmspike.LIF")``.
        decode: ``None`` returns sequences, which spiking heads read; ``"mean"`` their average over
            time, which any ordinary head takes.
        init_cfg: OpenMMLab's initialisation.

    Attributes:
        out_strides: Strides of the levels, doubling; what the heads' configs are checked against.

    Raises:
        TypeError: If ``neuron_cfg`` is no config.
        ValueError: If the arguments do not fit one another.
    """

    takes_sequences = True

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int,
        num_outs: int,
        in_strides: Sequence[int] = (4, 8, 16, 16),
        add_extra_convs: bool | str = False,
        norm_cfg: dict[str, Any] | None = None,
        neuron_cfg: dict[str, Any] | None = None,
        decode: str | None = None,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        expected = "None or 'mean'"
        refuse_unless(decode in (None, "mean"), "SpikeFPN", "decode", expected, decode)
        self.decode = decode
        check_config("SpikeFPN: neuron_cfg", neuron_cfg)
        self._check_types(in_channels, out_channels, num_outs, in_strides, norm_cfg)
        self.in_channels = list(in_channels)
        self.out_channels = out_channels
        self.in_strides = list(in_strides)
        strides = sorted(set(self.in_strides))
        self._check(num_outs, strides, add_extra_convs)
        self.num_outs = num_outs
        self.add_extra_convs = "on_input" if add_extra_convs is True else add_extra_convs
        self.level_of_input = [strides.index(s) for s in self.in_strides]
        self.num_levels = len(strides)
        self.out_strides = [strides[0] * 2**i for i in range(num_outs)]

        common: dict[str, Any] = {
            "norm_cfg": norm_cfg or {"type": "BN"},
            "neuron_cfg": neuron_cfg,
            "init_rate": ONE_SIGMA_RATE,
        }
        self.lateral_convs = nn.ModuleList(
            spike_conv(c, out_channels, 1, **common) for c in self.in_channels
        )
        self.fpn_convs = nn.ModuleList(
            spike_conv(out_channels, out_channels, 3, **common) for _ in strides
        )
        self.extra_convs = nn.ModuleList()
        if self.add_extra_convs:
            first = self.in_channels[-1] if self.add_extra_convs == "on_input" else out_channels
            self.extra_convs.extend(
                spike_conv(out_channels if i else first, out_channels, 3, stride=2, **common)
                for i in range(num_outs - self.num_levels)
            )

        self.make_only(range(num_outs))

    @property
    def gives_sequences(self) -> bool:
        """Whether levels have a time axis, ``[T, B, C, H, W]``."""
        return self.decode is None

    def make_only(self, levels: Iterable[int]) -> None:
        """Compute no more than some levels; what makes none of them takes no gradient.

        Args:
            levels: Levels that are read, 0 the finest.
        """
        top = self.num_levels - 1
        read = set(levels)
        above = max(read) - top  # levels on top of those of the incoming maps
        self._outs = {i for i in read if i <= top}
        if above > 0 and self.add_extra_convs in (False, "on_output"):
            self._outs.add(top)
        self._extras = max(above, 0)
        on_sums = above > 0 and self.add_extra_convs == "on_lateral"
        self._finest = min(self._outs | ({top} if on_sums else set()), default=self.num_levels)
        lateral = {
            c
            for c, n in zip(self.lateral_convs, self.level_of_input, strict=True)
            if n >= self._finest
        }
        needed = {
            *lateral,
            *(self.fpn_convs[i] for i in self._outs),
            *self.extra_convs[: self._extras],
        }
        for conv in (*self.lateral_convs, *self.fpn_convs, *self.extra_convs):
            if conv not in needed:
                conv.requires_grad_(False)

    @staticmethod
    def _check_types(
        in_channels: Any, out_channels: Any, num_outs: Any, in_strides: Any, norm_cfg: Any
    ) -> None:
        several = {"in_channels": in_channels, "in_strides": in_strides}
        for name, value in several.items():
            refuse_unless(are_counts(value), "SpikeFPN", name, "a list of numbers above 0", value)
        for name, value in {"out_channels": out_channels, "num_outs": num_outs}.items():
            refuse_unless(is_count(value), "SpikeFPN", name, "a number above 0", value)
        check_norm("SpikeFPN", norm_cfg, out_channels)

    def _check(self, num_outs: int, strides: list[int], add_extra_convs: bool | str) -> None:
        if len(self.in_channels) != len(self.in_strides):
            raise ValueError(
                f"SpikeFPN: in_channels={self.in_channels} and in_strides={self.in_strides} "
                "must name the same maps"
            )
        doubling = [strides[0] * 2**i for i in range(len(strides))]
        if self.in_strides != sorted(self.in_strides) or strides != doubling:
            raise ValueError(
                "SpikeFPN: in_strides must be those of the backbone's maps, finest first, each "
                f"equal to the one before or twice it; got {self.in_strides}"
            )
        if num_outs < len(strides):
            raise ValueError(
                f"SpikeFPN: num_outs={num_outs}, but in_strides={self.in_strides} make "
                f"{len(strides)} levels"
            )
        if not isinstance(add_extra_convs, bool) and add_extra_convs not in _EXTRA_SOURCES:
            raise ValueError(
                f"SpikeFPN: add_extra_convs must be a bool or one of {_EXTRA_SOURCES}, "
                f"got {add_extra_convs!r}"
            )

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
        """Build the pyramid.

        Args:
            inputs: One ``[T, B, C, H, W]`` per entry of ``in_channels``, membrane potentials.

        Returns:
            One ``[T, B, out_channels, H', W']`` per entry of ``out_strides``, or
            ``[B, out_channels, H', W']`` with ``decode="mean"``; ``None`` for levels that
            :meth:`make_only` leaves out.

        Raises:
            ValueError: If the number of maps or their axes are wrong.
        """
        if len(inputs) != len(self.in_channels) or any(x.dim() != 5 for x in inputs):
            raise ValueError(
                f"SpikeFPN takes {len(self.in_channels)} maps [T, B, C, H, W], "
                f"got shapes {[tuple(x.shape) for x in inputs]}"
            )
        sums: list[Tensor | None] = [None] * self.num_levels
        for i in reversed(range(len(inputs))):
            level = self.level_of_input[i]
            if level < self._finest:
                break
            lateral = self.lateral_convs[i](inputs[i])
            if sums[level] is not None:
                lateral = lateral + sums[level]
            elif level + 1 < self.num_levels:
                lateral = lateral + _resize(sums[level + 1], lateral.shape[-2:])
            sums[level] = lateral
        outs = [
            conv(x) if i in self._outs else None
            for i, (conv, x) in enumerate(zip(self.fpn_convs, sums, strict=True))
        ]
        source: Any = {"on_input": inputs[-1], "on_lateral": sums[-1]}.get(
            str(self.add_extra_convs), outs[-1]
        )
        for i in range(self._extras):
            source = self.extra_convs[i](source) if self.extra_convs else source[..., ::2, ::2]
            outs.append(source)
        if self.decode == "mean":
            outs = [None if y is None else ordinary_map(y) for y in outs]
        return (*outs, *[None] * (self.num_outs - len(outs)))


def _resize(x_seq: Tensor, size: Sequence[int]) -> Tensor:
    """Resize ``[T, B, C, H, W]`` to ``size``, by the nearest pixel."""
    return per_step(lambda x: F.interpolate(x, size=tuple(size), mode="nearest"), x_seq)
