"""The tool that checks a transfer runs what the weights' file tells, and nothing that it names."""

from __future__ import annotations

import runpy

import pytest
import torch
from PIL import Image
from torch import nn

from mmspike.backbones import MetaSpikeFormer, MetaSpikeFormerClassifier
from mmspike.checkpoints import CheckpointError, load_pretrained
from mmspike.neurons import LIF, IntegerLIF
from tests.conftest import ROOT
from tests.tools.helpers import run

CHECK = "analysis_tools/check_transfer.py"
CONVERT = "model_converters/metaspikeformer2mmspike.py"
ARCH = dict(embed_dims=[16, 16, 24, 32], num_heads=4, depths=[1, 1, 1, 2, 1])
INTEGERS = dict(type="mmspike.IntegerLIF", levels=2)
HEAD = dict(type="mmspike.cls.SpikeClsHead")


def backbone(**options):
    return dict(type="mmspike.MetaSpikeFormer", arch=ARCH, **options)


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(3)
    return MetaSpikeFormerClassifier(num_classes=4, arch=ARCH).state_dict()


@pytest.fixture
def write(weights, tmp_path):
    """Write the weights, beside a model's config or its text."""

    def _write(cfg):
        meta = {} if cfg is None else {"meta": {"cfg": f"model = {cfg}"}}
        torch.save({"state_dict": weights, **meta}, tmp_path / "file.pth")
        return tmp_path / "file.pth"

    return _write


@pytest.fixture
def build(write):
    """Build what the tool does of a config beside the weights, with ``num_heads``, if any."""
    tool = runpy.run_path(str(ROOT / "tools" / CHECK))
    return lambda cfg, num_heads=None: tool["build"](str(write(cfg)), None, num_heads)


EVIL = {  # ``this`` is a module of Python's that prints a poem when it is imported
    "neuron": dict(neuron_cfg=dict(type="LIF", _scope_="this"), backbone=backbone()),
    "head": dict(head=dict(HEAD, neuron_cfg=dict(type="LIF", _scope_="this")), backbone=backbone()),
    "attention": dict(backbone=backbone(attn_neuron_cfg=dict(_scope_="this", tau=3.0))),
    "attention's type": dict(backbone=backbone(attn_neuron_cfg=dict(type="LIF", _scope_="this"))),
}


@pytest.mark.parametrize("where", EVIL)
def test_no_module_that_a_file_names_is_imported(where, write, tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    out = run(CHECK, write(EVIL[where]), tmp_path / "a.png", "--size", 32, "--top", 1)
    assert "as the file records, unless the command line says otherwise: T = 1, 4 heads" in out
    assert "The Zen of Python" not in out


@pytest.mark.parametrize(
    ("cfg", "expected"),
    [
        (dict(neuron_cfg=dict(type="mine.LIF"), backbone=backbone()), "of type mine.LIF, which"),
        (
            dict(backbone=backbone(attn_neuron_cfg=dict(type="evil.MetaSpikeFormer"))),
            "of type evil.MetaSpikeFormer, which are not of mmspike, spikingjelly or torch",
        ),
        (
            dict(neuron_cfg=dict(levels=4), backbone=backbone()),
            "that it does not tell by name; run",
        ),
        (
            dict(neuron_cfg=dict(type="LIF", leak=4), backbone=backbone()),
            "of type LIF that have leak, which is not known here",
        ),
    ],
)
def test_neurons_that_are_not_known_are_refused(cfg, expected, build):
    with pytest.raises(CheckpointError, match=f"its weights were trained with neurons {expected}"):
        build(cfg)


ATTENTION = {
    "a type": (dict(type="mmspike.IntegerLIF", levels=2), IntegerLIF, {"levels": 2}),
    "a setting": (dict(v_threshold=0.25), LIF, {"v_threshold": 0.25}),
    "nothing": (None, LIF, {"v_threshold": 0.5}),
    "none": ({}, LIF, {"v_threshold": 1.0}),
}


@pytest.mark.parametrize("case", ATTENTION)
def test_the_attention_has_the_neuron_that_it_had(case, build, capsys):
    cfg, kind, settings = ATTENTION[case]
    model = build(dict(backbone=backbone(attn_neuron_cfg=cfg)))
    neurons = [m.attn_neuron for m in model.modules() if hasattr(m, "attn_neuron")]
    assert len(neurons) == 3
    assert all(type(n) is kind for n in neurons)
    assert all(getattr(n, k) == v for n in neurons for k, v in settings.items())
    assert "was trained with other" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("cfg", "kind"),
    [
        (dict(backbone=backbone(neuron_cfg=INTEGERS), head=HEAD), LIF),
        (dict(backbone=backbone(), neuron_cfg=INTEGERS, head=HEAD), IntegerLIF),
        (dict(backbone=backbone(), head=dict(HEAD, neuron_cfg=dict(type="ReLU"))), nn.ReLU),
        (dict(backbone=backbone(neuron_cfg=INTEGERS)), IntegerLIF),
    ],
)
def test_the_head_has_the_neuron_that_it_had(cfg, kind, build):
    assert type(build(cfg).neuron) is kind


def test_depths_are_those_of_the_weights(build, weights):
    model = build(None, num_heads=4)
    assert model.backbone.depths == ARCH["depths"]
    assert model.state_dict().keys() == weights.keys()
    told = backbone() | dict(arch=ARCH | dict(depths=[10**9] * 5))
    assert build(dict(backbone=told)).backbone.depths == ARCH["depths"]


def test_a_class_in_a_config_is_known_by_its_name(build):
    named = f"dict(neuron_cfg=dict(type=mmspike.neurons.lif.LIF, tau=3.0), backbone={backbone()})"
    assert {m.tau for m in build(named).modules() if isinstance(m, LIF)} == {3.0}
    with pytest.raises(CheckpointError, match=r"neurons of type mine\.lif\.LIF, which are"):
        build(named.replace("mmspike.neurons", "mine"))


def test_what_is_no_literal_is_said_not_to_be_recorded(build, capsys):
    text = f"dict(backbone=dict(type='X', arch={ARCH}, time_steps=int('4'), attn_scale=0.25))"
    model = build(text)
    said = "as the file records, but for time_steps, which it does not, unless the command line "
    assert said + "says otherwise: T = 1, 4 heads, attn_scale = 0.25" in capsys.readouterr().out
    assert model.backbone.time_steps == 1


@pytest.mark.parametrize("option", ["--time-steps", "--num-heads", "--size", "--top"])
@pytest.mark.parametrize("value", [0, -1])
def test_numbers_below_one_are_refused_by_their_option(option, value, write, tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    out = run(CHECK, write(None), tmp_path / "a.png", option, value, ok=False)
    assert out.splitlines()[-1].endswith(f"error: {option} must be at least 1, got {value}")
    assert "Traceback" not in out


LEARNS = dict(type="ParametricLIFNode")
OUR_HEADS = {"head.": "head.head.", "neuron.": "head.neuron."}  # of a SpikeClsHead


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """A classifier whose neurons have learnt, and a file of its weights."""
    torch.manual_seed(3)
    model = MetaSpikeFormerClassifier(num_classes=4, arch=ARCH, neuron_cfg=LEARNS).eval()
    for name, parameter in model.named_parameters():
        if "neuron." in name:
            torch.nn.init.uniform_(parameter, -2, 2)
    torch.nn.init.normal_(model.head.weight)
    names = {
        k: next((v + k.removeprefix(o) for o, v in OUR_HEADS.items() if k.startswith(o)), k)
        for k in model.state_dict()
    }
    state = {names[k]: v for k, v in model.state_dict().items()}
    cfg = dict(neuron_cfg=LEARNS, backbone=backbone(), head=HEAD)
    file = tmp_path_factory.mktemp("learnt") / "learnt.pth"
    torch.save({"state_dict": state, "meta": {"cfg": f"model = {cfg}"}}, file)
    return model, file


def test_what_neurons_learnt_is_run(learnt):
    model, file = learnt
    built = runpy.run_path(str(ROOT / "tools" / CHECK))["build"](str(file), None, None)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        scores = model(images)
        assert scores.std() > 0.01
        assert torch.equal(built(images), scores)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_what_neurons_learnt_is_converted(suffix, learnt, tmp_path):
    model, file = learnt
    slim = tmp_path / f"slim.{suffix}"
    run(CONVERT, file, slim)
    other = MetaSpikeFormer(ARCH, neuron_cfg=LEARNS)
    load_pretrained(other, slim)
    expected = model.backbone.state_dict()
    assert sum("neuron." in name for name in expected) > 20
    assert all(torch.equal(value, expected[name]) for name, value in other.state_dict().items())


def test_what_neurons_learnt_has_no_published_name(learnt, tmp_path):
    out = run(CONVERT, learnt[1], tmp_path / "up.pth", "--to-upstream", ok=False)
    assert "its neurons (ParametricLIFNode) learnt stages.0.blocks.0.mixer.0.neuron.node.w" in out
    assert "the published code has no such neurons: convert it without --to-upstream" in out
    assert "Traceback" not in out
    assert not list(tmp_path.iterdir())


def test_backbones_are_not_classifiers(weights, tmp_path):
    state = {k.removeprefix("backbone."): v for k, v in weights.items() if k.startswith("backbone")}
    torch.save(state, tmp_path / "backbone.pth")
    tool = runpy.run_path(str(ROOT / "tools" / CHECK))
    with pytest.raises(CheckpointError, match="an mmspike backbone without head"):
        tool["build"](str(tmp_path / "backbone.pth"), None, None)
