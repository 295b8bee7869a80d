"""The tools around checkpoints: converting, checking, and training from one."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image
from safetensors import safe_open

from mmspike.backbones import (
    ESpikeFormer,
    ESpikeFormerClassifier,
    MetaSpikeFormer,
    MetaSpikeFormerClassifier,
)
from mmspike.checkpoints import load_pretrained, read_checkpoint
from mmspike.checkpoints.upstream import to_upstream_state_dict
from tests.tools.helpers import run
from tests.tools.test_tools import SHAPES, options

CONVERT = "model_converters/metaspikeformer2mmspike.py"
CHECK = "analysis_tools/check_transfer.py"
ARCH = dict(embed_dims=[32, 64, 128, 180], num_heads=4)  # the demo's


class Evil:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def published_model(num_classes=4):
    torch.manual_seed(3)
    model = MetaSpikeFormerClassifier(num_classes=num_classes, distilled=True, arch=ARCH)
    state = {k: torch.rand(v.shape) if v.dim() else v for k, v in model.state_dict().items()}
    backbone = {k[9:]: v for k, v in state.items() if k.startswith("backbone.")}
    heads = {k: v for k, v in state.items() if not k.startswith("backbone.")}
    return to_upstream_state_dict(backbone) | heads


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    file = tmp_path_factory.mktemp("published") / "checkpoint.pth"
    torch.save({"model": published_model(), "epoch": 3}, file)
    return file


def test_the_second_family(tmp_path):
    torch.manual_seed(3)
    arch = dict(embed_dims=[16, 24, 32, 40], num_heads=8)
    model = ESpikeFormerClassifier(num_classes=4, arch=arch).eval()
    heads = {k: v for k, v in model.state_dict().items() if k.startswith("head")}
    state = to_upstream_state_dict(model.backbone.state_dict()) | heads
    torch.save({"model": state}, tmp_path / "e.pth")
    out = run(CONVERT, tmp_path / "e.pth", tmp_path / "slim.safetensors")
    assert "E-SpikeFormer classification checkpoint" in out
    with safe_open(tmp_path / "slim.safetensors", "pt") as file:
        assert file.metadata()["family"] == "E-SpikeFormer"
    other = ESpikeFormer(arch)
    load_pretrained(other, tmp_path / "slim.safetensors")
    expected = model.backbone.state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in other.state_dict().items())
    Image.new("RGB", (64, 64), (200, 30, 90)).save(tmp_path / "a.png")
    out = run(CHECK, tmp_path / "e.pth", tmp_path / "a.png", "--size", "64", "--top", "1")
    assert "605 of 605 classifier tensors from an E-SpikeFormer classification checkpoint" in out
    assert "class " in out


@pytest.mark.parametrize("name", ["slim.pth", "slim.safetensors"])
def test_to_slim_and_back_bit_for_bit(tmp_path, published, name):
    out = run(CONVERT, published, tmp_path / name)
    assert "823 tensors" in out
    assert "from a Meta-SpikeFormer classification checkpoint" in out
    report = load_pretrained(MetaSpikeFormer(arch=ARCH), tmp_path / name)
    assert report.source == "mmspike backbone"
    run(CONVERT, tmp_path / name, tmp_path / "back.pth", "--to-upstream")
    back = read_checkpoint(tmp_path / "back.pth").content["model"]
    expected = {k: v for k, v in published_model().items() if not k.startswith("head")}
    assert back.keys() == expected.keys()
    for key, value in back.items():
        assert value.dtype == expected[key].dtype
        assert torch.equal(value, expected[key]), key


@pytest.mark.parametrize("depths", [[1, 1, 1, 2, 1], [1, 2, 1, 2, 1]])
def test_other_depths_are_those_of_the_weights(depths, tmp_path):
    arch = dict(embed_dims=[16, 16, 24, 32], num_heads=4, depths=depths)
    model = MetaSpikeFormer(arch)
    torch.save(model.state_dict(), tmp_path / "other.pth")
    run(CONVERT, tmp_path / "other.pth", tmp_path / "slim.safetensors")
    with safe_open(tmp_path / "slim.safetensors", "pt") as file:
        assert json.loads(file.metadata()["arch"])["depths"] == depths
    upstream = [tmp_path / "slim.safetensors", tmp_path / "up.pth", "--to-upstream"]
    out = run(CONVERT, *upstream, ok=depths[1] == 1)
    if depths[1] > 1:  # the published code has one block there
        assert "has no name in a published Meta-SpikeFormer checkpoint" in out
        assert "Traceback" not in out


def test_a_record_that_nests_too_deep_is_left_out(tmp_path, published):
    record = '{"backbone": {"type": "X", "arch": ' + "[" * 500 + "]" * 500 + "}}"
    content = {**torch.load(published), "meta": {"trained_with": record}}
    torch.save(content, tmp_path / "deep.pth")
    run(CONVERT, tmp_path / "deep.pth", tmp_path / "slim.safetensors")
    with safe_open(tmp_path / "slim.safetensors", framework="pt") as file:
        assert "trained_with" not in file.metadata()


def test_metadata_tells_where_weights_come_from(tmp_path, published):
    run(CONVERT, published, tmp_path / "slim.safetensors")
    with safe_open(tmp_path / "slim.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert metadata["source"] == "checkpoint.pth"
    assert metadata["source_sha256"] == read_checkpoint(published).sha256
    assert metadata["arch"] == '{"embed_dims": [32, 64, 128, 180]}'


def test_converter_keeps_what_is_there(tmp_path, published):
    (tmp_path / "out.pth").write_text("precious")
    assert "--overwrite replaces it" in run(CONVERT, published, tmp_path / "out.pth", ok=False)
    assert (tmp_path / "out.pth").read_text() == "precious"
    out = run(CONVERT, tmp_path / "out.pth", tmp_path / "other.pth", ok=False)
    assert "neither a file of torch.save" in out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.pth"]


def test_to_upstream_keeps_the_heads(tmp_path, published):
    run(CONVERT, published, tmp_path / "same.pth", "--to-upstream")
    same, expected = read_checkpoint(tmp_path / "same.pth").content["model"], published_model()
    assert same.keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in same.items())


def test_converter_refuses_a_part(tmp_path):
    state = {k: v for k, v in published_model().items() if "block3.2.attn.k_conv" not in k}
    torch.save({"model": state}, tmp_path / "part.pth")
    out = run(CONVERT, tmp_path / "part.pth", tmp_path / "out.pth", ok=False)
    assert "missing: stages.3.blocks.2.mixer.k_conv" in out
    assert not (tmp_path / "out.pth").exists()


def test_evaluation_refuses_a_checkpoint_of_another_model(published, shapes_root, tmp_path):
    opts = options(shapes_root)
    out = run("test.py", SHAPES, published, "--work-dir", tmp_path, *opts, ok=False)
    assert "is not of this config's model: missing: backbone.stages.0" in out


def test_check_transfer_names_the_likeliest_classes(tmp_path, published):
    Image.new("RGB", (80, 60), (200, 30, 30)).save(tmp_path / "red.png")
    Image.effect_noise((50, 90), 80).save(tmp_path / "noise.png")
    (tmp_path / "names.txt").write_text("ant\nbee\ncat\ndog\n")
    images = [tmp_path / "red.png", tmp_path / "noise.png"]
    args = ["--num-heads", 4, "--size", 64, "--top", 3, "--time-steps", 2]
    out = run(CHECK, published, *images, *args, "--classes", tmp_path / "names.txt")
    assert "the average of both heads" in out
    for image in images:
        lines = out[out.index(str(image)) :].splitlines()[1:4]
        assert all(line.split()[1] in ("ant", "bee", "cat", "dog") for line in lines)
    (tmp_path / "names.txt").write_text("ant\nbee\n")
    out = run(CHECK, published, images[0], *args, "--classes", tmp_path / "names.txt", ok=False)
    assert "names 2 classes, the checkpoint has 4" in out


RECORDED = {
    "nothing": (
        None,
        "the file does not record neurons, heads and T: assuming T = 1, 4 heads, attn_scale = "
        "0.125, LIF(tau=2.0, v_threshold=1.0, v_reset=0.0, decay_input=True)",
    ),
    "a config": (
        dict(
            neuron_cfg=dict(type="mmspike.IntegerLIF", levels=2),
            backbone=dict(type="mmspike.MetaSpikeFormer", arch=ARCH, time_steps=2, attn_scale=0.5),
            head=dict(type="mmspike.cls.SpikeClsHead"),
        ),
        "as the file records, unless the command line says otherwise: T = 2, 4 heads, attn_scale "
        "= 0.5, IntegerLIF(levels=2, beta=0.5, normalize=True)",
    ),
    "the published name": (
        dict(
            backbone=dict(
                type="Spiking_vit_MetaFormer", embed_dim=ARCH["embed_dims"], num_heads=4, T=3
            )
        ),
        "as the file records, unless the command line says otherwise: T = 3, 4 heads, attn_scale "
        "= 0.125, LIF(",
    ),
}


@pytest.mark.parametrize("record", RECORDED)
def test_check_transfer_runs_what_the_file_records(record, tmp_path, published):
    model, expected = RECORDED[record]
    meta = {} if model is None else {"meta": {"cfg": f"model = {model!r}"}}
    torch.save({**torch.load(published), **meta}, tmp_path / "file.pth")
    Image.new("RGB", (80, 60), (200, 30, 30)).save(tmp_path / "red.png")
    args = [CHECK, tmp_path / "file.pth", tmp_path / "red.png"]
    if model is None:
        out = run(*args, ok=False)
        assert "its widths [128, 180] do not divide among 8; give --num-heads" in out
        args += ["--num-heads", 4]
    out = run(*args, "--size", 64)
    assert expected in out
    assert "was trained with" not in out
    said = run(*args, "--size", 32, "--time-steps", 4)
    assert "T = 4, crop 32" in said
    assert ("then, T = 4 now" in said) == (model is not None)


@pytest.mark.parametrize("kind", ["os.system", "mine.Neuron"])
def test_check_transfer_imports_nothing_for_a_record(kind, tmp_path, published):
    cfg = f"model = dict(neuron_cfg=dict(type={kind!r}, command='x'), backbone=dict(type='X'))"
    torch.save({**torch.load(published), "meta": {"cfg": cfg}}, tmp_path / "file.pth")
    Image.new("RGB", (80, 60)).save(tmp_path / "a.png")
    out = run(CHECK, tmp_path / "file.pth", tmp_path / "a.png", ok=False)
    expected = f"check_transfer: its weights were trained with neurons of type {kind}, which are "
    assert out.strip().splitlines()[-1].startswith(expected)


def test_imagenets_names_are_there():
    from tests.conftest import ROOT

    names = (ROOT / "tools/analysis_tools/imagenet_classes.txt").read_text().splitlines()
    assert len(set(names)) == 1000
    assert [names[i] for i in (0, 207, 999)] == ["tench", "golden retriever", "toilet tissue"]


def test_training_starts_from_a_published_checkpoint(tmp_path, published, shapes_root):
    opts = options(shapes_root, iters=1)
    opts += ["model.backbone.init_cfg.type=Pretrained"]
    opts += [f"model.backbone.init_cfg.checkpoint={published}"]
    out = run("train.py", SHAPES, "--work-dir", tmp_path, *opts)
    assert "loaded 823 of 823 backbone tensors from a Meta-SpikeFormer classification" in out


@pytest.mark.parametrize("checks", [[], ["--no-preflight"]], ids=["checked first", "not checked"])
def test_an_absent_checkpoint_tells_what_to_do(tmp_path, shapes_root, checks):
    opts = options(shapes_root, iters=1)[1:]
    config = "configs/mask_rcnn_metaspike-55m_coco.py"
    paths = [o for o in opts if o.startswith("data_root=") or "dataloader" in o]
    paths += [f"val_evaluator.ann_file={shapes_root}/annotations/val.json"]
    for split in ("train", "val"):
        dataset = f"{split}_dataloader.dataset"
        paths += [
            f"{dataset}.ann_file=annotations/{split}.json",
            f"{dataset}.data_prefix.img={split}/",
            f"{dataset}.metainfo.classes=[circle,square,triangle]",
        ]
    args = [*checks, "--work-dir", tmp_path, "--cfg-options", *paths]
    out = run("train.py", config, *args, ok=False)
    assert "checkpoints/metaspikeformer_55M.pth" in out
    assert "docs/transfer.md" in out
    assert "model.backbone.init_cfg=None" in out
    assert "Traceback" not in out.split("metaspikeformer_55M.pth")[-1]


@pytest.mark.parametrize("how", ["resume", "load_from", "test.py", "image_demo.py"])
def test_tools_run_nothing_of_a_file(tmp_path, shapes_root, how):
    witness = tmp_path / "witness"
    torch.save({"state_dict": {}, "meta": Evil(witness)}, tmp_path / "evil.pth")
    opts = options(shapes_root, iters=1)
    if how == "resume":
        out = run("train.py", SHAPES, "--resume", tmp_path / "evil.pth", *opts, ok=False)
    elif how == "load_from":
        out = run("train.py", SHAPES, *opts, f"load_from={tmp_path / 'evil.pth'}", ok=False)
    elif how == "test.py":
        out = run("test.py", SHAPES, tmp_path / "evil.pth", *opts, ok=False)
    else:
        image = next((shapes_root / "val").iterdir())
        out = run("image_demo.py", image, SHAPES, tmp_path / "evil.pth", ok=False)
    assert "refused, nothing of it was run. It asks for io.open" in out
    assert not witness.exists()
