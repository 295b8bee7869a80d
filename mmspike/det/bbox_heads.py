"""Box heads on spiking RoI features."""

from __future__ import annotations

from typing import Any

from mmdet.models.roi_heads.bbox_heads import ConvFCBBoxHead
from torch import Tensor, nn

from mmspike.layers.conv import ONE_SIGMA_RATE, SpikeLayer, build_norm, predict, run_layers
from mmspike.layers.time import per_step, swap_time_and_batch
from mmspike.neurons import build_neuron
from mmspike.neurons.arguments import check_config
from mmspike.registry import DET_MODELS


@DET_MODELS.register_module()
class SpikeConvFCBBoxHead(ConvFCBBoxHead):
    """mmdet's box head of convolutions and fully connected layers, spiking.

    Every one of them is ``neuron, weights, norm``; the predictors read spikes averaged over time.

    Args:
        norm_cfg: Config of the norms; ``None`` means ``dict(type="BN")``.
        neuron_cfg: Config of the neurons; ``None`` means ``dict(type="mmspike.LIF")``.
        init_cfg: OpenMMLab's initialisation; ``None`` draws the predictors as mmdet does.
        **kwargs: Those of ``mmdet.models.ConvFCBBoxHead``.
    """

    def __init__(
        self,
        *,
        norm_cfg: dict[str, Any] | None = None,
        neuron_cfg: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        check_config(f"{type(self).__name__}: norm_cfg", norm_cfg, "BN")
        self.neuron_cfg = neuron_cfg
        super().__init__(norm_cfg=norm_cfg or {"type": "BN"}, init_cfg=init_cfg, **kwargs)
        del self.relu
        if init_cfg is None:  # mmdet's, less its Xavier, which a norm's vectors refuse
            self.init_cfg = [c for c in self.init_cfg if c["type"] != "Xavier"]
        self.cls_neuron: Any = build_neuron(neuron_cfg) if self.with_cls else None
        self.reg_neuron: Any = build_neuron(neuron_cfg) if self.with_reg else None

    def _add_conv_fc_branch(
        self, *args: Any, **kwargs: Any
    ) -> tuple[nn.ModuleList, nn.ModuleList, int]:
        convs, fcs, dim = super()._add_conv_fc_branch(*args, **kwargs)
        norm_cfg = self.norm_cfg
        flat = {"BN": "BN1d", "BN2d": "BN1d"}
        flat_norm_cfg = {**norm_cfg, "type": flat.get(norm_cfg["type"], norm_cfg["type"])}
        common: dict[str, Any] = {"neuron_cfg": self.neuron_cfg, "init_rate": ONE_SIGMA_RATE}
        convs = [SpikeLayer(m.conv, m.norm, **common) for m in convs]
        fcs = [SpikeLayer(m, build_norm(flat_norm_cfg, m.out_features), **common) for m in fcs]
        return nn.ModuleList(convs), nn.ModuleList(fcs), dim

    def forward(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Classify the RoIs and refine their boxes.

        Args:
            x: RoI features, ``[N, T, C, h, w]``, membrane potentials.

        Returns:
            Scores ``[N, classes + 1]`` and deltas ``[N, classes * 4]``, or ``None`` for what the
            head does not predict.
        """
        x = swap_time_and_batch(x)  # [T, N, C, h, w]
        x = self._run_branch(x, self.shared_convs, self.shared_fcs, self.num_shared_fcs > 0)
        x_cls = self._run_branch(x, self.cls_convs, self.cls_fcs)
        x_reg = self._run_branch(x, self.reg_convs, self.reg_fcs)
        cls_score = bbox_pred = None
        if self.with_cls:
            cls_score = predict(self.fc_cls, self.cls_neuron(x_cls), self.fc_cls)
        if self.with_reg:
            bbox_pred = predict(self.fc_reg, self.reg_neuron(x_reg), self.fc_reg)
        return cls_score, bbox_pred

    def _run_branch(
        self, x: Tensor, convs: nn.ModuleList, fcs: nn.ModuleList, flatten: bool = True
    ) -> Tensor:
        x = run_layers(convs, x)
        if flatten and x.dim() == 5:
            if self.with_avg_pool:
                x = per_step(self.avg_pool, x)
            x = x.flatten(2)  # [T, N, C * h * w]
        return run_layers(fcs, x)


@DET_MODELS.register_module()
class SpikeShared2FCBBoxHead(SpikeConvFCBBoxHead):
    """Box head of two fully connected layers that classification and regression share.

    Args:
        fc_out_channels: Width of the two layers.
        **kwargs: Those of :class:`SpikeConvFCBBoxHead`.
    """

    def __init__(self, fc_out_channels: int = 1024, **kwargs: Any) -> None:
        super().__init__(num_shared_fcs=2, fc_out_channels=fc_out_channels, **kwargs)
