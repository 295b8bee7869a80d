"""The ANN twin of a config, and other numbers of time steps."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmspike.energy.firing_rate import is_neuron
from mmspike.engine.inputs import build_model
from mmspike.engine.twin import ann_twin, with_time_steps
from tests.conftest import ROOT

DETECTOR = "mask_rcnn_metaspike_shapes.py"
SEGMENTOR = "semantic_fpn_metaspike_shapes.py"


def read(name, **options):
    cfg = Config.fromfile(ROOT / "configs" / name)
    cfg.merge_from_dict({f"model.{key}": value for key, value in options.items()})
    return cfg


@pytest.mark.parametrize("name", [DETECTOR, SEGMENTOR])
def test_twin_has_relu_wherever_the_network_spikes(name):
    cfg = read(name, **{"backbone.time_steps": 4, "backbone.attn_neuron_cfg": dict(tau=3.0)})
    cfg.model.neck.neuron_cfg = dict(type="IFNode", v_threshold=0.7)  # a part's own
    spiking, twin = build_model(cfg, None, "cpu"), build_model(ann_twin(cfg), None, "cpu")
    places = {n for n, m in spiking.named_modules() if is_neuron(m)}
    places = {n.removesuffix(".node") for n in places}
    assert len(places) > 80
    assert {n for n, m in twin.named_modules() if type(m) is nn.ReLU} == places
    assert twin.backbone.time_steps == 1
    assert {n: p.shape for n, p in twin.named_parameters()} == {
        n: p.shape for n, p in spiking.named_parameters()
    }
    assert cfg.model.backbone.time_steps == 4  # the config given is as it was
    assert cfg.model.neck.neuron_cfg.type == "IFNode"


def test_twin_averages_where_the_network_sums():
    attention = list(build_model(ann_twin(read(SEGMENTOR)), None, "cpu").modules())
    scales = {m.scale for m in attention if type(m).__name__ == "SpikeDrivenSelfAttention"}
    assert scales == {None}


def test_twin_of_an_ordinary_neck_and_head():
    cfg = read("upernet_metaspike_ade20k.py")
    twin = ann_twin(cfg)
    assert twin.model.backbone.neuron_cfg == dict(type="ReLU")
    assert "neuron_cfg" not in twin.model.decode_head


def test_the_teacher_of_a_classifier_is_left_as_it_is():
    cfg = read("metaspikeformer_15m_t4_in1k.py", **{"backbone.time_steps": 4})
    inner = read("metaspikeformer_55m_t4_in1k.py").model.to_dict()
    cfg.model.teacher = dict(type="mmspike.cls.Teacher", model=inner, checkpoint="a.pth")
    twin, two = ann_twin(cfg), with_time_steps(cfg, 2)
    assert twin.model.teacher.model.to_dict() == two.model.teacher.model.to_dict() == inner
    assert [twin.model.backbone.time_steps, two.model.backbone.time_steps] == [1, 2]
    assert twin.model.neuron_cfg == twin.model.head.neuron_cfg == dict(type="ReLU")


def test_nothing_that_spikes_has_no_twin():
    cfg = Config(dict(model=dict(type="mmdet.RetinaNet"), default_scope="mmdet"))
    with pytest.raises(ValueError, match="no part of the model takes a neuron_cfg"):
        ann_twin(cfg)
    with pytest.raises(ValueError, match="no part of the model takes time_steps"):
        with_time_steps(cfg, 2)


def test_time_steps_of_another_number():
    cfg = read(SEGMENTOR)
    model = build_model(with_time_steps(cfg, 3), None, "cpu")
    with torch.no_grad():
        assert model.backbone(torch.rand(1, 3, 32, 32))[0].size(0) == 3
    assert cfg.model.backbone.time_steps == 1
