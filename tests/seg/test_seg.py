"""The segmentation head, segmentor and configs."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
import torch
from mmengine.config import ConfigDict
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmspike.energy.firing_rate import FiringRateMonitor, rates_per_frame
from mmspike.neurons import LIF
from mmspike.seg import PerClassIoUMetric, SpikeFPNHead
from mmspike.seg.segmentors import levels_read
from tests.conftest import ROOT
from tests.seg.helpers import build, make_batch, read_config, small_config

CONFIGS = sorted(
    f"{folder}/{path.name}"
    for folder in ("semantic_fpn", "upernet")
    for path in (ROOT / "configs" / folder).glob("*.py")
)


def make_head(**change):
    settings = dict(
        in_channels=[16] * 3,
        in_index=[0, 1, 2],
        feature_strides=[4, 8, 16],
        channels=24,
        num_classes=5,
        align_corners=False,
    )
    return SpikeFPNHead(**{**settings, **change})


def make_maps(time_steps=2, size=(24, 32)):
    h, w = size
    return [torch.randn(time_steps, 2, 16, -(-h // s), -(-w // s)) for s in (1, 2, 4)]


@pytest.mark.parametrize("time_steps", [1, 4])
@pytest.mark.parametrize("size", [(24, 32), (23, 31)])
def test_head_gives_logits_at_the_first_stride(time_steps, size):
    assert make_head()(make_maps(time_steps, size)).shape == (2, 5, *size)


def test_head_equals_itself_step_by_step_where_neurons_forget():
    # without leak and with a threshold reset every step, T steps are T images
    head = make_head(dropout_ratio=0.0).eval()
    maps = make_maps(1)
    for neuron in (m for m in head.modules() if isinstance(m, LIF)):
        neuron.tau = 1.0
    together = head([m.expand(3, -1, -1, -1, -1) for m in maps])
    torch.testing.assert_close(together, head(maps))


def test_head_spikes_through_all_steps_and_not_on_their_average():
    head = make_head(dropout_ratio=0.0).eval()
    maps = make_maps(4)
    averaged = head([m.mean(0, keepdim=True) for m in maps])
    assert (head(maps) - averaged).abs().max() > 1e-3


def test_every_weight_of_the_head_reads_spikes_or_is_the_classifier():
    head = make_head().train()
    seen = {}

    def note(name):
        return lambda module, args: seen.update({name: args[0].detach()})

    for name, module in head.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_pre_hook(note(name))
    head(make_maps(2)).sum().backward()
    assert len(seen) == 5  # 1 + 1 + 2 convolutions and the classifier
    for name, x in seen.items():
        levels = {0.0, 1.0} if name != "conv_seg" else None
        assert levels is None or set(x.unique().tolist()) <= levels, name
    assert all(p.grad is not None for p in head.parameters())


@pytest.mark.parametrize("name", CONFIGS)
def test_builds_and_runs_loss_tensor_and_predict(name):
    cfg = read_config(name)
    model = build(cfg)
    classes = cfg.model.decode_head.num_classes
    batch = make_batch(model, num_classes=classes)
    losses = model.train()(**batch, mode="loss")
    assert "decode.loss_ce" in losses
    total = sum(v for k, v in losses.items() if "loss" in k)
    assert torch.isfinite(total)
    total.backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    model.eval()
    with torch.no_grad():
        results = model(**batch, mode="predict")
    for result in results:
        assert result.seg_logits.data.shape == (classes, 96, 128)
        assert result.pred_sem_seg.data.shape == (1, 96, 128)


def test_one_key_sets_the_neuron_of_all_parts():
    cfg = small_config()
    places = {n for n, m in build(cfg).named_modules() if type(m) is LIF}
    assert len(places) > 80
    cfg.model.neuron_cfg = dict(type="ReLU")
    assert {n for n, m in build(cfg).named_modules() if type(m) is nn.ReLU} == places
    cfg.model.decode_head.neuron_cfg = dict(type="mmspike.LIF")  # what a part names itself stays
    kinds = {n: type(m) for n, m in build(cfg).named_modules() if n in places}
    assert all((k is LIF) == n.startswith("decode_head.") for n, k in kinds.items())


@pytest.mark.parametrize("neuron", ["IFNode", "ParametricLIFNode", "ReLU"])
@pytest.mark.parametrize("time_steps", [1, 2])
def test_two_steps_of_any_neuron(neuron, time_steps):
    cfg = small_config(time_steps, **{"model.neuron_cfg.type": neuron})
    model = build(cfg).train()
    batch = make_batch(model, (48, 64))
    for _ in range(2):
        loss = model(**batch, mode="loss")["decode.loss_ce"]
        loss.backward()
        assert torch.isfinite(loss)
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("extra", [False, "on_input"])
@pytest.mark.parametrize("in_index", [[0], [1, 2], [2, -1]], ids=str)
def test_levels_that_no_head_reads_take_no_gradient(in_index, extra):
    cfg = small_config(**{"model.neck.num_outs": 5, "model.neck.add_extra_convs": extra})
    strides = [4 * 2 ** (i % 5) for i in in_index]
    cfg.model.decode_head.update(
        in_index=in_index, in_channels=[48] * len(in_index), feature_strides=strides
    )
    model = build(cfg).train()
    model(**make_batch(model, (64, 64)), mode="loss")["decode.loss_ce"].backward()
    params = dict(model.named_parameters())
    assert [n for n, p in params.items() if p.requires_grad and p.grad is None] == []
    asleep = [n for n, p in params.items() if not p.requires_grad]
    assert asleep
    assert all(n.startswith("neck.") for n in asleep)


def test_levels_that_an_auxiliary_head_reads_are_computed():
    cfg = small_config()
    auxiliary = dict(type="FCNHead", in_channels=48, channels=8, num_classes=4, num_convs=1)
    read = []
    for index in (None, 2):
        cfg.model.decode_head.update(in_index=[0], in_channels=[48], feature_strides=[4])
        cfg.model.auxiliary_head = None if index is None else dict(**auxiliary, in_index=index)
        read.append(levels_read(build(cfg)))
    assert read == [{0}, {0, 2}]


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("semantic_fpn_metaspike_ade20k.py", 16.5),
        ("semantic_fpn_metaspike_t4_ade20k.py", 16.5),
        ("semantic_fpn_metaspike-55m_ade20k.py", 58.9),
    ],
)
def test_parameter_counts(name, millions):
    count = sum(p.numel() for p in build(read_config(name)).parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.01)


@pytest.mark.parametrize("name", CONFIGS)
def test_alive_at_the_start(name):
    model = build(read_config(name)).train()
    batch = make_batch(model)
    with FiringRateMonitor(model) as monitor:
        model(inputs=batch["inputs"])
    rates = rates_per_frame([r for r in monitor.rows if not r.name.startswith("backbone")])
    assert bool(rates) is name.startswith("semantic")
    assert all(0.02 <= r <= 0.5 for r in rates.values()), rates


@pytest.mark.parametrize("time_steps", [1, 4])
@pytest.mark.parametrize("size", [(64, 64), (61, 75), (33, 128)])
def test_odd_sizes(time_steps, size):
    model = build(small_config(time_steps)).eval()
    with torch.no_grad():
        (result,) = model(**make_batch(model, size, num_images=1), mode="predict")
    assert result.pred_sem_seg.data.shape == (1, *size)


@pytest.mark.parametrize("time_steps", [1, 4])
def test_whole_and_slide_agree_on_an_image_of_one_window(time_steps):
    model = build(small_config(time_steps)).eval()
    batch = make_batch(model, (64, 96), num_images=1)
    with torch.no_grad():
        (whole,) = model(**batch, mode="predict")
        model.test_cfg = ConfigDict(mode="slide", crop_size=(64, 96), stride=(40, 60))
        (slide,) = model(**batch, mode="predict")
    torch.testing.assert_close(slide.seg_logits.data, whole.seg_logits.data)


def test_windows_do_not_depend_on_one_another():
    # nothing leaks: the first window of a wide image gives what it gives alone
    model = build(small_config(4)).eval()
    batch = make_batch(model, (64, 128), num_images=1)
    with torch.no_grad():
        model.test_cfg = ConfigDict(mode="slide", crop_size=(64, 64), stride=(64, 64))
        (slide,) = model(**batch, mode="predict")
        first = model(inputs=batch["inputs"][..., :64])
    first = torch.nn.functional.interpolate(first, size=(64, 64), mode="bilinear")
    torch.testing.assert_close(slide.seg_logits.data[..., :64], first[0])


def test_labels_of_255_are_ignored():
    model = build(small_config()).train()
    for m in model.modules():
        if isinstance(m, (torch.nn.Dropout2d, _BatchNorm)):
            m.eval()
    labels = torch.randint(0, 4, (1, 64, 64))
    batch = make_batch(model, (64, 64), num_images=1, labels=labels)
    logits = model(inputs=batch["inputs"])
    logits = torch.nn.functional.interpolate(logits, size=(64, 64), mode="bilinear")
    kept = labels.clone()
    kept[:, :32] = 255
    batch["data_samples"][0].gt_sem_seg.data = kept
    loss = model(**batch, mode="loss")["decode.loss_ce"]
    each = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(loss * 2, each[:, 32:].mean())  # mmseg divides by all pixels


@pytest.mark.parametrize("label", [0, 255])
def test_a_crop_of_one_class_or_none(label):
    model = build(small_config()).train()
    labels = torch.full((1, 64, 64), label)
    loss = model(**make_batch(model, (64, 64), labels=labels), mode="loss")["decode.loss_ce"]
    assert torch.isfinite(loss)
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.decode_head.feature_strides": [4, 8, 32]}, r"feature_strides=\[4, 8, 32\]"),
        ({"model.decode_head.in_channels": [32] * 3}, r"decode_head.in_channels=\[32, 32, 32\]"),
        ({"model.neck.in_strides": [2, 4, 8, 8]}, "the backbone's strides"),
        ({"model.backbone.out_indices": (0, 1, 2, 4)}, "neck.in_strides"),
        ({"model.decode_head.in_index": [0, 1, 5]}, "feature_strides"),
    ],
)
def test_parts_that_do_not_fit_are_errors_when_built(change, message):
    with pytest.raises(ValueError, match=message):
        build(small_config(**change))


def test_iou_of_classes_by_hand():
    metric = PerClassIoUMetric(iou_metrics=["mIoU"])
    metric.dataset_meta = dict(classes=("a", "b", "c"))
    truth = torch.tensor([[0, 0, 1, 255]])
    found = torch.tensor([[0, 1, 1, 1]])
    metric.process(
        {}, [dict(pred_sem_seg=dict(data=found[None]), gt_sem_seg=dict(data=truth[None]))]
    )
    result = metric.compute_metrics(metric.results)
    assert result["IoU.a"] == result["IoU.b"] == pytest.approx(50.0)  # 1 of 2 each, 255 left out
    assert result["IoU.c"] != result["IoU.c"]  # occurs nowhere: not a number
    assert result["mIoU"] == pytest.approx(50.0)


def test_segmentation_works_without_mmdet():
    code = """
        import sys

        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] == "mmdet":
                    raise ModuleNotFoundError(f"{name} is made absent", name=name)

        sys.meta_path.insert(0, Absent())
        import torch
        from tests.seg.helpers import build, make_batch, small_config

        model = build(small_config())
        loss = model(**make_batch(model, (64, 64)), mode="loss")["decode.loss_ce"]
        loss.backward()
        assert "mmdet" not in sys.modules
        """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_detection_does_not_import_mmseg():
    code = """
        import sys
        from tests.det.helpers import build, small_config
        build(small_config())
        assert "mmseg" not in sys.modules
        """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
