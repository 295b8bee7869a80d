"""Training in float16 with a loss scaler."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from mmspike.datasets.shapes import ShapesSettings, write_shapes
from mmspike.det import SpikeFCNMaskHead, SpikeRetinaHead, SpikeRPNHead, SpikeShared2FCBBoxHead
from mmspike.engine.inputs import build_model
from mmspike.seg import SpikeFPNHead
from tests.engine.tiny import SIZE, write_config

STEPS, SETTLED = 60, 10
PREDICTORS = ("fc_cls", "fc_reg", "conv_logits", "rpn_cls", "rpn_reg", "conv_seg")
PREDICTORS += ("retina_cls", "retina_reg")


def bbox_head():
    return SpikeShared2FCBBoxHead(
        in_channels=8, fc_out_channels=16, roi_feat_size=7, num_classes=3
    ), torch.randn(80, 2, 8, 7, 7)  # [N, T, C, h, w]


def mask_head():
    return SpikeFCNMaskHead(
        num_convs=1, in_channels=8, conv_out_channels=8, num_classes=3
    ), torch.randn(4, 2, 8, 14, 14)


def rpn_head():
    return SpikeRPNHead(in_channels=8, feat_channels=8), [torch.randn(2, 2, 8, 16, 16)]


def retina_head():
    return SpikeRetinaHead(num_classes=3, in_channels=8, feat_channels=8, stacked_convs=1), [
        torch.randn(2, 2, 8, 16, 16)
    ]


def fpn_head():
    norm_cfg = dict(type="BN")
    return SpikeFPNHead(
        [4], in_channels=[8], in_index=[0], channels=8, num_classes=3, norm_cfg=norm_cfg
    ), [torch.randn(2, 2, 8, 16, 16)]


def tensors(outputs):
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    return [y for part in outputs for y in tensors(part)]


@pytest.mark.parametrize("make", [bbox_head, mask_head, rpn_head, retina_head, fpn_head])
def test_predictors_do_not_overflow(make):
    """Gradients of 1e6, which float16 does not hold, summed up from small ones."""
    head, x = make()
    head.train()
    with torch.autocast("cpu", torch.float16):
        outputs = tensors(head(x))
    predictors = [m for n, m in head.named_modules() if n in PREDICTORS]
    assert len(predictors) == len(outputs)
    assert all(y.dtype == torch.float32 for y in outputs)
    for y in outputs:
        per_channel = y.numel() / y.size(1)
        y.backward(torch.full_like(y, 1e6 / per_channel), retain_graph=True)
    for predictor in predictors:
        assert predictor.bias.grad.min() > 9e5
        assert predictor.weight.grad.isfinite().all()
        assert predictor.weight.grad.any()


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_no_step_is_skipped_once_the_scale_has_settled(tmp_path, device):
    """A step whose gradients overflow is skipped, and halves the scale."""
    write_shapes(tmp_path / "data", ShapesSettings(num_train=16, num_val=2, size=SIZE, seed=7))
    cfg = Config.fromfile(write_config(tmp_path / "config.py", "detector", tmp_path / "data"))
    cfg.model.backbone.arch.depths = (1, 0, 0, 1, 0)
    cfg.train_dataloader.batch_size = 1
    init_default_scope("mmdet")
    torch.manual_seed(0)
    model = build_model(cfg, None, device).train()
    loader = iter(Runner.build_dataloader(cfg.train_dataloader, seed=0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    scaler = torch.amp.GradScaler(device, init_scale=2.0**12)
    scales, losses = [], []
    for _ in range(STEPS):
        optimizer.zero_grad()
        with torch.autocast(device, torch.float16):
            data = model.data_preprocessor(next(loader), training=True)
            loss, _ = model.parse_losses(model(**data, mode="loss"))
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
        losses.append(loss.item())
    skipped = [i for i in range(1, STEPS) if scales[i] < scales[i - 1]]
    assert not [i for i in skipped if i >= SETTLED], scales
    assert sum(losses[-20:]) < sum(losses[:20])
