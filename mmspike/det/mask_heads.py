"""Mask heads on spiking RoI features."""

from __future__ import annotations

from typing import Any

from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from torch import Tensor, nn

from mmspike.layers.conv import ONE_SIGMA_RATE, SpikeLayer, build_norm, predict, run_layers
from mmspike.layers.forms import Deployable
from mmspike.layers.time import per_step, swap_time_and_batch
from mmspike.neurons import build_neuron
from mmspike.neurons.arguments import check_config
from mmspike.registry import DET_MODELS


@DET_MODELS.register_module()
class SpikeFCNMaskHead(FCNMaskHead):
    """mmdet's fully convolutional mask head, spiking.

    Convolutions and transposed convolution are ``neuron, weights, norm``; the predictor reads
    spikes averaged over time.

    Args:
        norm_cfg: Config of the norms; ``None`` means ``dict(type="BN")``.
        neuron_cfg: Config of the neurons; ``None`` means ``dict(type="mmspike.LIF")``.
        **kwargs: Those of ``mmdet.models.FCNMaskHead``.

    Raises:
        ValueError: If ``upsample_cfg`` asks for ``carafe``, which reads real values.
    """

    def __init__(
        self,
        *,
        norm_cfg: dict[str, Any] | None = None,
        neuron_cfg: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        check_config(f"{type(self).__name__}: norm_cfg", norm_cfg, "BN")
        norm_cfg = norm_cfg or {"type": "BN"}
        super().__init__(norm_cfg=norm_cfg, **kwargs)
        del self.relu
        self.convs = nn.ModuleList(
            SpikeLayer(m.conv, m.norm, neuron_cfg, init_rate=ONE_SIGMA_RATE) for m in self.convs
        )
        if self.upsample_method == "carafe":
            raise ValueError("SpikeFCNMaskHead: upsample_cfg type 'carafe' reads real values")
        if self.upsample_method == "deconv":
            norm = build_norm(norm_cfg, self.upsample.out_channels)
            self.upsample = SpikeLayer(self.upsample, norm, neuron_cfg, init_rate=ONE_SIGMA_RATE)
        self.neuron = build_neuron(neuron_cfg)

    def forward(self, x: Tensor) -> Tensor:
        """Predict a mask per RoI and class.

        Args:
            x: RoI features, ``[N, T, C, h, w]``, membrane potentials.

        Returns:
            Logits ``[N, classes, 2 * h, 2 * w]`` (``h, w`` without upsampling).
        """
        x = swap_time_and_batch(x)  # [T, N, C, h, w]
        spiking = isinstance(self.upsample, Deployable)
        x = run_layers([*self.convs, self.upsample] if spiking else self.convs, x)
        if not spiking and self.upsample is not None:
            x = per_step(self.upsample, x)
        return predict(self.conv_logits, self.neuron(x), self.conv_logits)
