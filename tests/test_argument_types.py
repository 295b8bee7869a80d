"""Arguments of configs that are of another type: one error, which names the argument."""

from __future__ import annotations

import pytest
from mmengine.registry import HOOKS, MODELS

import mmspike.registry  # noqa: F401

ARCH = dict(embed_dims=[16, 16, 24, 32], num_heads=4)
NECK = dict(type="mmspike.SpikeFPN", in_channels=[16], out_channels=16, num_outs=1, in_strides=[4])
CLASSIFIER = dict(type="mmspike.MetaSpikeFormerClassifier", arch=ARCH)
META = dict(type="mmspike.MetaSpikeFormer", arch=ARCH)
E = dict(type="mmspike.ESpikeFormer", arch=ARCH)
RPN = dict(type="mmspike.det.SpikeRPNHead", in_channels=16, feat_channels=16)
RETINA = dict(type="mmspike.det.SpikeRetinaHead", num_classes=3, in_channels=16)
BOXES = dict(type="mmspike.det.SpikeShared2FCBBoxHead", in_channels=16, num_classes=3)
MASKS = dict(type="mmspike.det.SpikeFCNMaskHead", in_channels=16, num_classes=3)
FPN_HEAD = dict(
    type="mmspike.seg.SpikeFPNHead",
    feature_strides=[4], in_channels=[16], in_index=[0], channels=16, num_classes=3,
)  # fmt: skip
NEURON = r"neuron_cfg must be a config such as dict\(type='LIF'\), got 'LIF'"
NORM = r"norm_cfg must be a config such as dict\(type='BN'\), got 'BN'"
FLAG = "must be True or False, got 'no'"


def expected(part, argument):
    """The words of the error, by the argument and its value."""
    if argument.endswith("neuron_cfg"):
        return NEURON
    return NORM if argument == "norm_cfg" else f"{part['type'].split('.')[-1]}: {argument} {FLAG}"


CASES = [
    *((part, "neuron_cfg", "LIF") for part in (META, E, NECK, CLASSIFIER)),
    *((part, "neuron_cfg", "LIF") for part in (RPN, RETINA, BOXES, MASKS, FPN_HEAD)),
    *((part, "norm_cfg", "BN") for part in (RPN, RETINA, BOXES, MASKS, FPN_HEAD)),
    (META, "attn_neuron_cfg", "LIF"),
    *((part, "norm_eval", "no") for part in (META, E)),
    (CLASSIFIER, "distilled", "no"),
    *((dict(type="mmspike.IntegerLIF"), flag, "no") for flag in ("normalize", "detach_reset")),
    *((dict(type="mmspike.LIF"), flag, "no") for flag in ("decay_input", "detach_reset")),
]


@pytest.mark.parametrize(
    ("part", "argument", "value"), CASES, ids=[f"{p['type']}.{a}" for p, a, _ in CASES]
)
def test_config_of_another_type_is_refused(part, argument, value):
    with pytest.raises(TypeError, match=expected(part, argument)):
        MODELS.build({**part, argument: value})


@pytest.mark.parametrize("part", [META, E, NECK], ids=lambda p: p["type"])
def test_no_part_loses_its_neurons(part):
    """``False`` is for the layer that reads the image, and nothing that a config gives."""
    with pytest.raises(TypeError, match=r"neuron_cfg must be .* got False"):
        MODELS.build({**part, "neuron_cfg": False})


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (dict(type="mmspike.LIF", surrogate="ATan"), r"surrogate must .* dict\(type='ATan'\), got"),
        (dict(type="mmspike.PerStepNeck", neck="FPN"), r"PerStepNeck: neck must .* dict\(type='FP"),
        (
            dict(type="mmspike.det.SpikeRetinaNet", backbone=META, bbox_head={}, neuron_cfg="LIF"),
            NEURON,
        ),
        (
            dict(type="mmspike.seg.SpikeEncoderDecoder", backbone=META, neuron_cfg="LIF"),
            NEURON,
        ),
    ],
    ids=["surrogate", "neck", "detector", "segmentor"],
)
def test_other_configs_of_another_type_are_refused(part, message):
    with pytest.raises(TypeError, match=message):
        MODELS.build(part)


def test_hook_for_compiling():
    with pytest.raises(TypeError, match="dynamic must be True, False or None, got 'no'"):
        HOOKS.build(dict(type="mmspike.CompileHook", dynamic="no"))
    assert HOOKS.build(dict(type="mmspike.CompileHook", parts="neck")).parts == ("neck",)
