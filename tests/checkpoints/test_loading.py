"""Checkpoints of every kind load whole, or are refused with a reason."""

from __future__ import annotations

import argparse
import json
import pickle
from itertools import cycle
from pathlib import Path

import pytest
import torch
from mmengine.hooks import EMAHook
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.model.weight_init import PretrainedInit
from mmengine.runner import Runner
from safetensors.torch import save_file
from torch.utils.data import DataLoader

from mmspike.backbones import MetaSpikeFormer, MetaSpikeFormerClassifier
from mmspike.checkpoints import CheckpointError, load_pretrained, load_whole, read_checkpoint
from mmspike.checkpoints.upstream import translate_state_dict
from mmspike.registry import MODELS

KEYS = json.loads(
    (Path(__file__).parents[1] / "data/metaspikeformer_v2_checkpoint_keys.json").read_text()
)


def published(size, distilled=False):
    """A state dict with the published names and shapes, its numbers drawn."""
    shapes = {**KEYS[size], **(KEYS[f"{size}_kd"] if distilled else {})}
    out = {}
    for key, shape in shapes.items():
        count = key.endswith("num_batches_tracked")
        out[key] = torch.tensor(7) if count else torch.rand(shape)
    return out


def container(state, **more):
    args = argparse.Namespace(model="metaspikeformer", lr=6e-4, T=1, output_dir="out")
    scaler = {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 12}
    optimizer = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-3}]}
    return {"model": state, "optimizer": optimizer, "scaler": scaler, "epoch": 199, "args": args}


def assert_loaded(backbone, state):
    expected = translate_state_dict(state)
    actual = backbone.state_dict()
    assert actual.keys() == expected.keys()
    for name, value in actual.items():
        assert torch.equal(value, expected[name].to(value.dtype)), name


TINY = dict(arch=dict(embed_dims=[16, 16, 24, 32], num_heads=4))


@pytest.fixture(scope="module")
def tiny():
    """A state dict with published names, of a small model."""
    from mmspike.checkpoints.upstream import to_upstream_state_dict

    torch.manual_seed(1)
    model = MetaSpikeFormerClassifier(num_classes=5, distilled=True, **TINY)
    state = {k: torch.rand(v.shape) if v.dim() else v for k, v in model.state_dict().items()}
    backbone = {k[9:]: v for k, v in state.items() if k.startswith("backbone.")}
    heads = {k: v for k, v in state.items() if not k.startswith("backbone.")}
    return to_upstream_state_dict(backbone) | heads


def _safetensors(state, path):
    path = path.with_suffix(".safetensors")
    save_file({k: v.contiguous() for k, v in state.items()}, path)
    return path


def _torch(content, path, **options):
    torch.save(content, path, **options)
    return path


def ours(state):
    return translate_state_dict(state)


def detector(backbone):
    heads = {
        "neck.lateral_convs.0.layer.weight": torch.rand(3),
        "rpn_head.rpn_cls.bias": torch.rand(1),
    }
    return {f"backbone.{k}": v for k, v in backbone.items()} | heads


def lightning(prefix, state):
    loops = {"fit_loop": {"epoch_progress": {"current": {"ready": 2}}}}
    state = {f"{prefix}{k}": v for k, v in state.items()} | {"criterion.weight": torch.rand(3)}
    return {"epoch": 1, "pytorch-lightning_version": "2.5", "state_dict": state, "loops": loops}


FORMATS = {
    "published": lambda s, p: _torch(container(s), p),
    "published, several processes": lambda s, p: _torch(
        container({f"module.{k}": v for k, v in s.items()}), p
    ),
    "published, compiled": lambda s, p: _torch(
        container({f"_orig_mod.{k}": v for k, v in s.items()}), p
    ),
    "bare": _torch,
    "bare, old serialisation": lambda s, p: _torch(s, p, _use_new_zipfile_serialization=False),
    "safetensors": _safetensors,
    "ours": lambda s, p: _torch({"state_dict": ours(s), "meta": {}}, p),
    "ours, safetensors": lambda s, p: _safetensors(ours(s), p),
    "detector": lambda s, p: _torch({"state_dict": detector(ours(s)), "meta": {}}, p),
    "detector, several processes": lambda s, p: _torch(
        {"state_dict": {f"module.{k}": v for k, v in detector(ours(s)).items()}}, p
    ),
    "averaged by torch": lambda s, p: _torch(
        {f"module.{k}": v for k, v in ours(s).items()} | {"n_averaged": torch.tensor(3)}, p
    ),
    "averaged by mmengine, a detector": lambda s, p: _torch(
        {f"module.{k}": v for k, v in detector(ours(s)).items()} | {"steps": torch.tensor(3)}, p
    ),
    "Lightning, published": lambda s, p: _torch(lightning("model.", s), p),
    "Lightning, ours": lambda s, p: _torch(lightning("net.", ours(s)), p),
    "Lightning, a detector": lambda s, p: _torch(lightning("model.", detector(ours(s))), p),
    "under any name": lambda s, p: _torch({"epoch": 3, "student": {"encoder": s}}, p),
    "segmentor, published names": lambda s, p: _torch(
        {"state_dict": {f"backbone.{k}": v for k, v in s.items() if "head" not in k}}, p
    ),
}


@pytest.mark.parametrize("make", FORMATS.values(), ids=FORMATS)
def test_formats(tmp_path, tiny, make):
    model = MetaSpikeFormer(**TINY)
    report = load_pretrained(model, make(tiny, tmp_path / "file.pth"))
    assert_loaded(model, tiny)
    assert report.fits
    assert len(report.loaded) == len(model.state_dict())
    assert report.sha256


@pytest.mark.parametrize("distilled", [False, True])
@pytest.mark.parametrize("size", ["15M", "31M", "55M"])
def test_published_checkpoints_at_full_size(tmp_path, size, distilled):
    state = published(size, distilled)
    torch.save(container(state), tmp_path / "file.pth")
    init_cfg = dict(type="Pretrained", checkpoint=str(tmp_path / "file.pth"))
    model = MetaSpikeFormer(arch=size, time_steps=4, init_cfg=init_cfg)
    model.init_weights()
    assert_loaded(model, state)


@pytest.mark.parametrize(  # each format at one size
    ("make", "size"), zip(FORMATS.values(), cycle(["15M", "31M", "55M"]), strict=False), ids=FORMATS
)
def test_formats_at_full_size(tmp_path, size, make):
    state = published(size, distilled=size == "31M")
    report = load_pretrained(MetaSpikeFormer(arch=size), make(state, tmp_path / "file.pth"))
    assert report.fits
    assert len(report.loaded) == 823
    (tmp_path / report.file).unlink()


def test_report_and_its_line(tmp_path, tiny, caplog):
    report = load_pretrained(MetaSpikeFormer(**TINY), _torch(container(tiny), tmp_path / "f.pth"))
    assert str(report) == (
        "loaded 823 of 823 backbone tensors from a Meta-SpikeFormer classification checkpoint; "
        f"ignored head.weight, head.bias, head_kd.weight, head_kd.bias ({tmp_path / 'f.pth'})"
    )
    assert report.dtypes == {"float32": 690, "int64": 133}
    assert report.reshaped[0] == "stages.3.blocks.0.mlp.0.layer.weight"
    assert len(report.reshaped) == 16


def test_the_parts_of_a_detector_are_counted(tmp_path, tiny):
    path = _torch({"state_dict": detector(ours(tiny))}, tmp_path / "f.pth")
    report = load_pretrained(MetaSpikeFormer(**TINY), path)
    assert report.source == "mmspike detector or segmentor"
    assert report.ignored[:2] == ["neck.lateral_convs.0.layer.weight", "rpn_head.rpn_cls.bias"]


def test_into_a_whole_model(tmp_path, tiny):
    model = MetaSpikeFormerClassifier(num_classes=5, distilled=True, **TINY)
    load_pretrained(model, _torch(container(tiny), tmp_path / "f.pth"))
    assert_loaded(model.backbone, tiny)
    assert torch.equal(model.head.weight, tiny["head.weight"])
    assert torch.equal(model.head_kd.bias, tiny["head_kd.bias"])


def test_types_are_widened(tmp_path, tiny):
    half = {k: v.half() if v.is_floating_point() else v for k, v in tiny.items()}
    model = MetaSpikeFormer(**TINY)
    report = load_pretrained(model, _torch(half, tmp_path / "f.pth"))
    assert report.dtypes == {"float16": 690, "int64": 133}
    assert_loaded(model, half)
    assert next(model.parameters()).dtype == torch.float32


def test_prefix(tmp_path, tiny):
    path = _torch(
        {f"teacher.{k}": v for k, v in tiny.items()} | {"x": torch.rand(1)}, tmp_path / "f"
    )
    model = MetaSpikeFormer(
        **TINY, init_cfg=dict(type="Pretrained", checkpoint=str(path), prefix="teacher.")
    )
    model.init_weights()
    assert_loaded(model, tiny)


def two_networks(state):
    student = {k: torch.rand(v.shape) if v.dim() else v for k, v in state.items()}
    return {f"student.backbone.{k}": v for k, v in student.items()} | {
        f"teacher.backbone.{k}": v for k, v in state.items()
    }


def test_several_networks_are_named(tmp_path, tiny):
    init_cfg = dict(
        type="Pretrained", checkpoint=str(_torch(two_networks(ours(tiny)), tmp_path / "f"))
    )
    cfg = dict(type="mmspike.MetaSpikeFormer", init_cfg=init_cfg, **TINY)
    named = r"2 networks; say which by prefix=, one of 'student\.backbone\.', 'teacher\.backbone\.'"
    with pytest.raises(CheckpointError, match=named):
        MODELS.build(cfg).init_weights()
    for prefix in ("teacher", "teacher.backbone."):
        model = MODELS.build(cfg | {"init_cfg": init_cfg | {"prefix": prefix}})
        model.init_weights()
        assert_loaded(model, tiny)


def test_what_lies_beside_is_named_and_can_be_had(tmp_path, tiny):
    other = {k: torch.rand(v.shape) if v.dim() else v for k, v in tiny.items()}
    file = _torch({"model": tiny, "model_ema": other}, tmp_path / "f.pth")
    model = MetaSpikeFormer(**TINY)
    assert "(its model, not model_ema)" in str(load_pretrained(model, file))
    assert_loaded(model, tiny)
    load_pretrained(model, file, prefix="model_ema.")
    assert_loaded(model, other)


class Trainee(BaseModel):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, inputs, mode):
        return {"loss": sum(p.square().mean() for p in self.backbone.parameters())}


def test_averaged_weights_of_mmengine(tmp_path):
    backbone = MetaSpikeFormer(**TINY)
    runner = Runner(
        Trainee(backbone),
        str(tmp_path),
        train_dataloader=DataLoader([{"inputs": torch.rand(1)}] * 4, batch_size=2),
        train_cfg=dict(type="IterBasedTrainLoop", max_iters=2),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.5)),
        default_hooks=dict(checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=2)),
        custom_hooks=[dict(type="EMAHook", momentum=0.5)],
        experiment_name=f"averaged-{tmp_path.name}",
    )
    runner.train()
    hook = next(hook for hook in runner.hooks if isinstance(hook, EMAHook))
    averaged = hook.ema_model.module.backbone.state_dict()
    trained = backbone.state_dict()
    name = "stages.0.downsample.norm.weight"
    assert not torch.equal(averaged[name], trained[name])
    init_cfg = dict(type="Pretrained", checkpoint=str(tmp_path / "iter_2.pth"))
    cfg = dict(type="mmspike.MetaSpikeFormer", **TINY)
    for more, expected in (({}, averaged), ({"prefix": "ema_state_dict."}, trained)):
        model = MODELS.build(cfg | {"init_cfg": init_cfg | more})
        model.init_weights()
        assert all(torch.equal(v, expected[k]) for k, v in model.state_dict().items())
    report = load_pretrained(MetaSpikeFormer(**TINY), tmp_path / "iter_2.pth")
    assert "(its state_dict, which holds averaged weights, not ema_state_dict)" in str(report)


def test_url(tmp_path, tiny, monkeypatch):
    import functools
    import http.server
    import threading

    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    _torch(container(tiny), tmp_path / "f.pth")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        model = MetaSpikeFormer(**TINY)
        load_pretrained(model, f"{address}/f.pth")
        assert_loaded(model, tiny)
        with pytest.raises(CheckpointError, match="cannot be downloaded"):
            load_pretrained(model, f"{address}/absent.pth")
        with pytest.raises(CheckpointError, match="cannot be downloaded"):
            load_pretrained(model, f"{address}/a b.pth")
        server.shutdown()
    load_pretrained(model, f"{address}/f.pth")  # from the cache


def test_a_download_that_is_no_checkpoint_is_not_kept(tmp_path, tiny, monkeypatch):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))

    served = []

    def fetch(address, file, progress):
        Path(file).write_bytes(served.pop())

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    whole = _torch(container(tiny), tmp_path / "f.pth").read_bytes()
    for broken in (b"<html>Sign in</html>", whole[: len(whole) // 2]):
        served.append(broken)
        with pytest.raises(CheckpointError, match=r"cannot be downloaded: .*(web page|cut off)"):
            read_checkpoint("http://example.org/f.pth")
        assert not list((tmp_path / "hub" / "checkpoints").iterdir())
    served.append(whole)
    load_pretrained(MetaSpikeFormer(**TINY), "http://example.org/f.pth")


def test_safetensors_are_recognised_without_their_suffix(tmp_path, tiny):
    file = _safetensors(tiny, tmp_path / "f").rename(tmp_path / "download")
    model = MetaSpikeFormer(**TINY)
    load_pretrained(model, file)
    assert_loaded(model, tiny)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_pretrained(model, _torch(tiny, tmp_path / "really_torch.safetensors"))


# --- misfits


def test_another_size_is_named(tmp_path):
    path = _torch(container(published("31M")), tmp_path / "f.pth")
    model = MetaSpikeFormer("15M")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(CheckpointError, match="31M model's: set arch='31M'"):
        load_pretrained(model, path)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def drop(state):
    del state["block3.2.attn.k_conv.1.bias"]


def crop(state):
    state["downsample2.encode_conv.bias"] = torch.rand(3)


def extend(state):
    state["block4.2.mlp.fc1_bn.bias"] = torch.rand(128)


def poison(state):
    state["ConvBlock1_1.0.conv2.weight"] = state["ConvBlock1_1.0.conv2.weight"] * float("nan")


def add_layer(state):
    state["block3.0.layer_scale"] = torch.rand(24)


def quantise(state):
    state["downsample1_1.encode_conv.bias"] = torch.ones(8, dtype=torch.int8)


def overflow(state):
    state["downsample1_1.encode_conv.bias"] = torch.full((8,), 1e300, dtype=torch.float64)


def recolour(state):
    state["downsample1_1.encode_conv.weight"] = torch.rand(8, 2, 7, 7)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop, r"missing: stages\.3\.blocks\.2\.mixer\.k_norm\.bias"),
        (drop, "a part of the backbone only"),
        (crop, r"of another shape: stages\.2\.downsample\.layer\.bias \[3\], not \[16\]"),
        (extend, r"not in the model: stages\.4\.blocks\.2\.mlp\.0\.norm\.bias"),
        (poison, r"not all numbers are finite in stages\.0\.blocks\.0\.mlp\.1\.layer\.weight"),
        (add_layer, r"not in the model: block3\.0\.layer_scale"),
        (quantise, r"holds int8 .* where the model has torch\.float32"),
        (overflow, r"not all numbers are finite in stages\.0\.downsample\.layer\.bias"),
        (recolour, "images of 2 channels: set in_channels=2"),
    ],
)
def test_misfits(tmp_path, tiny, damage, message):
    state = dict(tiny)
    damage(state)
    path = _torch(container(state), tmp_path / "f.pth")
    with pytest.raises(CheckpointError, match=message):
        load_pretrained(MetaSpikeFormer(**TINY), path)


def test_not_strict_loads_what_fits(tmp_path, tiny):
    state = dict(tiny)
    drop(state)
    crop(state)
    model = MetaSpikeFormer(**TINY)
    report = load_pretrained(model, _torch(state, tmp_path / "f.pth"), strict=False)
    assert len(report.loaded) == 821
    assert report.missing == ["stages.3.blocks.2.mixer.k_norm.bias"]
    assert list(report.mismatched) == ["stages.2.downsample.layer.bias"]
    assert torch.equal(
        model.state_dict()["stages.0.downsample.norm.bias"], tiny["downsample1_1.encode_bn.bias"]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(num_classes=7), "have 5 classes: set num_classes=5"),
        (dict(num_classes=5, distilled=True), "no second head: set distilled=False"),
    ],
)
def test_misfits_of_heads(tmp_path, tiny, change, message):
    state = {k: v for k, v in tiny.items() if not k.startswith("head_kd")}
    path = _torch(container(state), tmp_path / "f.pth")
    with pytest.raises(CheckpointError, match=message):
        load_pretrained(MetaSpikeFormerClassifier(**change, **TINY), path)


def test_a_distilled_file_does_not_lose_a_head(tmp_path, tiny):
    model = MetaSpikeFormerClassifier(num_classes=5, **TINY)
    with pytest.raises(CheckpointError, match=r"a second head, .* set distilled=True"):
        load_pretrained(model, _torch(container(tiny), tmp_path / "f.pth"))


@pytest.mark.parametrize("distilled", [False, True])
def test_a_backbone_alone_is_no_classifier(tmp_path, tiny, distilled):
    model = MetaSpikeFormerClassifier(num_classes=5, distilled=distilled, **TINY)
    with pytest.raises(CheckpointError, match="no classification head"):
        load_pretrained(model, _torch(ours(tiny), tmp_path / "f.pth"))


def test_a_classifier_initialises_itself_whole(tmp_path, tiny):
    init_cfg = dict(type="Pretrained", checkpoint=str(_torch(container(tiny), tmp_path / "f.pth")))
    model = MetaSpikeFormerClassifier(num_classes=5, distilled=True, init_cfg=init_cfg, **TINY)
    model.init_weights()
    assert_loaded(model.backbone, tiny)
    assert torch.equal(model.head_kd.weight, tiny["head_kd.weight"])


def test_init_cfg_may_name_the_class(tmp_path, tiny):
    file = str(_torch(container(tiny), tmp_path / "f.pth"))
    model = MetaSpikeFormer(**TINY, init_cfg=[dict(type=PretrainedInit, checkpoint=file)])
    model.init_weights()
    assert_loaded(model, tiny)


def test_models_in_a_wrapper_and_models_of_another_kind(tmp_path, tiny):
    file = _torch(container(tiny), tmp_path / "f.pth")
    model = torch.nn.Module()
    model.module = MetaSpikeFormer(**TINY)
    load_pretrained(model, file)
    assert_loaded(model.module, tiny)
    with pytest.raises(TypeError, match="Conv2d is not a MetaSpikeFormer"):
        load_pretrained(torch.nn.Conv2d(3, 4, 1), file)


def test_load_whole_takes_all_or_nothing(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 2))
    state = {k: torch.rand(v.shape) for k, v in model.state_dict().items()}
    load_whole(model, _torch({"state_dict": state, "meta": {}}, tmp_path / "f.pth"))
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    more = state | {"2.bias": torch.rand(1)}
    load_whole(model, _torch(more, tmp_path / "more.pth"), allow_unexpected=True)
    with pytest.raises(CheckpointError, match=r"not in the model: 2\.bias"):
        load_whole(model, tmp_path / "more.pth")
    less = {k: v for k, v in state.items() if k != "0.bias"} | {"1.bias": torch.rand(9)}
    with pytest.raises(CheckpointError, match=r"missing: 0\.bias; of another shape: 1\.bias"):
        load_whole(model, _torch(less, tmp_path / "less.pth"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"fc.weight": torch.rand(2), "conv1.weight": torch.rand(2)},
            "no tensor of a Meta-SpikeFormer",
        ),
        ([torch.rand(2)], "expected a state dict"),
        ({"model": {}}, "the state dict in it is empty"),
        ({"epoch": 3}, "holds no tensors; its keys are epoch"),
    ],
)
def test_no_backbone_in_it(tmp_path, content, message):
    with pytest.raises(CheckpointError, match=message):
        load_pretrained(MetaSpikeFormer(**TINY), _torch(content, tmp_path / "f.pth"))


def test_unknown_options_of_init_cfg():
    model = MetaSpikeFormer(**TINY, init_cfg=dict(type="Pretrained", checkpoint="f", strickt=True))
    with pytest.raises(TypeError, match="strickt"):
        model.init_weights()


# --- files that are refused


class Writes:
    """Would write a file if it were unpickled without care."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("inside", ["model", "args"])
def test_nothing_of_a_file_runs(tmp_path, tiny, old, inside):
    witness = tmp_path / "witness"
    content = container(dict(tiny))
    if inside == "args":
        content["args"].evil = Writes(witness)
    else:
        content["model"]["block3.evil"] = Writes(witness)
    path = _torch(content, tmp_path / "f.pth", _use_new_zipfile_serialization=not old)
    with pytest.raises(CheckpointError, match=r"refused, nothing of it was run.*asks for io\.open"):
        load_pretrained(MetaSpikeFormer(**TINY), path)
    assert not witness.exists()
    torch.load(path, weights_only=False)  # the file is what it seems
    assert witness.exists()


def test_a_plain_pickle_is_refused(tmp_path):
    (tmp_path / "f.pkl").write_bytes(pickle.dumps(Writes(tmp_path / "witness")))
    with pytest.raises(CheckpointError, match=r"asks for io\.open|neither a file of torch\.save"):
        read_checkpoint(tmp_path / "f.pkl")
    assert not (tmp_path / "witness").exists()


@pytest.mark.parametrize("numpy", ["numpy.core", "numpy._core"])
def test_histories_of_mmengine_and_arrays_of_either_numpy(tmp_path, numpy):
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    content = {"state_dict": {}, "message_hub": {"loss": history}, "at": Path("work_dirs/x")}
    torch.save(content, tmp_path / "f.pth", _use_new_zipfile_serialization=False)
    data = (tmp_path / "f.pth").read_bytes()
    assert b"cnumpy._core.multiarray\n" in data
    data = data.replace(b"cnumpy._core.multiarray\n", f"c{numpy}.multiarray\n".encode())
    (tmp_path / "f.pth").write_bytes(data)
    methods = dict(HistoryBuffer._statistics_methods)
    read = read_checkpoint(tmp_path / "f.pth").content
    assert read["message_hub"]["loss"].data[0].tolist() == [1.0, 2.0]
    assert str(read["at"]) == "work_dirs/x"
    assert methods == HistoryBuffer._statistics_methods


def test_reading_leaves_what_the_caller_allowed():
    with torch.serialization.safe_globals([argparse.Namespace]):
        with pytest.raises(CheckpointError):
            read_checkpoint("absent.pth")
        assert argparse.Namespace in torch.serialization.get_safe_globals()


def test_a_pickled_model_is_refused_by_name(tmp_path):
    path = _torch(torch.nn.Linear(2, 2), tmp_path / "f.pth")
    with pytest.raises(CheckpointError, match=r"torch\.nn\.modules\.linear\.Linear"):
        read_checkpoint(path)


@pytest.mark.parametrize("name", ["f.pth", "f.safetensors"])
@pytest.mark.parametrize("keep", [0.3, 0.99])
def test_cut_off(tmp_path, tiny, name, keep):
    whole = (
        _torch(tiny, tmp_path / "w.pth") if name == "f.pth" else _safetensors(tiny, tmp_path / "w")
    )
    data = whole.read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(CheckpointError, match="cut off or damaged"):
        read_checkpoint(tmp_path / name)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"\n<!DOCTYPE html><html>Sign in</html>", "a web page, not weights"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "pointer of Git LFS"),
        (b"\x00\x01\x02 not a checkpoint", "neither a file of torch.save nor|cut off or damaged"),
    ],
)
@pytest.mark.parametrize("name", ["f.pth", "f.safetensors"])
def test_not_checkpoints(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path / name)


def test_absent_files_and_folders(tmp_path):
    with pytest.raises(CheckpointError, match=r"absent\.pth: no such file"):
        read_checkpoint(tmp_path / "absent.pth")
    with pytest.raises(CheckpointError, match="a folder"):
        read_checkpoint(tmp_path)
