"""What the tools do with checkpoints that hold code, are damaged, or are another run's."""

from __future__ import annotations

import shutil

import pytest
import torch
from mmengine.config import Config

from tests.tools.helpers import run
from tests.tools.test_tools import SHAPES, options

SEGMENTOR = "configs/semantic_fpn_metaspike_shapes.py"


def seg_options(root):
    opts = ["--cfg-options", "train_dataloader.batch_size=2", "train_cfg.max_iters=2"]
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        opts += [f"{loader}.dataset.data_root={root}/"]
        opts += [f"{loader}.num_workers=0", f"{loader}.persistent_workers=False"]
    opts += ["train_cfg.val_interval=100", "default_hooks.checkpoint.interval=2"]
    return opts


@pytest.fixture(scope="module")
def detector(shapes_root, tmp_path_factory):
    """A run of one iteration: its folder, its checkpoint, and the options that go on with it."""
    work_dir = tmp_path_factory.mktemp("work") / "run"
    opts = [*options(shapes_root, iters=1), "train_cfg.val_interval=100"]
    run("train.py", SHAPES, "--work-dir", work_dir, *opts)
    return work_dir, work_dir / "iter_1.pth", [*opts, "train_cfg.max_iters=2"]


@pytest.fixture(scope="module")
def evil(detector, tmp_path_factory):
    """That checkpoint with code wherever a host reads text; what it does leaves a trace."""
    folder = tmp_path_factory.mktemp("evil")
    trace = folder / "trace"
    text = f"open({str(trace)!r}, 'w').close()\nmodel = dict(type='FCN')\ngpu_ids = [0]\n"
    Config.fromstring(text, ".py")
    assert trace.exists()  # the text is what it seems
    trace.unlink()
    content = torch.load(detector[1], weights_only=False)
    content["meta"] |= {"config": text, "cfg": text, "hook_msgs": {"last": text}, "env_info": text}
    content["message_hub"]["runtime_info"] |= {"cfg": text, "last_ckpt": text, "best_ckpt": text}
    torch.save(content, folder / "evil.pth")
    return folder / "evil.pth", trace


RESUME = ["train.py", SHAPES, "--work-dir", "{dir}", "--resume"]
IMAGE = "{root}/val/000000.png"
DRAW = ["--device", "cpu"]
CASES = {
    "resume": [*RESUME, "{file}", "{opts}"],
    "resume auto": [*RESUME, "{opts}"],
    "load_from and init_cfg": [
        *["train.py", SHAPES, "--work-dir", "{dir}", "{opts}", "load_from={file}"],
        *["model.backbone.init_cfg.type=Pretrained", "model.backbone.init_cfg.checkpoint={file}"],
    ],
    "test": ["test.py", SHAPES, "{file}", "--work-dir", "{dir}", "{opts}"],
    "demo": ["image_demo.py", IMAGE, SHAPES, "{file}", "--out", "{dir}/out.png", *DRAW],
    "energy": [
        "analysis_tools/get_energy.py",
        SHAPES,
        "{file}",
        "--shape",
        64,
        64,
        "--out",
        "{dir}",
        *DRAW,
    ],
    "spikes": [
        "analysis_tools/spike_map.py",
        IMAGE,
        SHAPES,
        "{file}",
        "--out",
        "{dir}/a.png",
        *DRAW,
    ],
    "report": [
        *["analysis_tools/report_run.py", SHAPES, "{file}", "{dir}", "--num-images", 1, *DRAW],
        "{opts}",
    ],
    "convert": ["model_converters/metaspikeformer2mmspike.py", "{file}", "{dir}/slim.pth"],
    "check": ["analysis_tools/check_transfer.py", "{file}", IMAGE],  # no classifier: refused
}


@pytest.mark.parametrize("command", CASES.values(), ids=CASES)
def test_nothing_of_a_checkpoint_is_run(command, detector, evil, shapes_root, tmp_path):
    work_dir, _, opts = detector
    file, trace = evil
    if "report_run" in str(command[0]):
        shutil.copytree(work_dir, tmp_path, dirs_exist_ok=True)
    (tmp_path / "last_checkpoint").write_text(str(file))
    args = []
    for part in command:
        names = {"file": file, "dir": tmp_path, "root": shapes_root}
        args += opts if part == "{opts}" else [str(part).format_map(names)]
    run(*args, ok="check_transfer" not in args[0])
    assert not trace.exists()


OTHER_CLASSES = ["model.roi_head.bbox_head.num_classes=5", "model.roi_head.mask_head.num_classes=5"]


@pytest.mark.parametrize("auto", [False, True])
def test_a_detector_does_not_resume_from_other_shapes(detector, tmp_path, auto):
    work_dir, file, opts = detector
    shutil.copytree(work_dir, tmp_path / "run")
    before = sorted(tmp_path.rglob("*.pth"))
    args = ["--no-preflight", "--work-dir", tmp_path / "run", "--resume"]
    args += [] if auto else [file]
    out = run("train.py", SHAPES, *args, *opts, *OTHER_CLASSES, ok=False)
    assert f"checkpoint {file} does not fit this run, and nothing was resumed" in out
    assert "roi_head.bbox_head.fc_cls.weight [4, 256], not [6, 256]" in out
    assert "exp_avg of roi_head.bbox_head.fc_cls." in out
    assert "Traceback" not in out
    assert sorted(tmp_path.rglob("*.pth")) == before


def test_a_segmentor_does_not_resume_from_other_shapes(shapes_root, tmp_path):
    opts = seg_options(shapes_root)
    run("train.py", SEGMENTOR, "--work-dir", tmp_path, *opts)
    more = ["train_cfg.max_iters=3", "model.decode_head.num_classes=7"]
    args = ["--no-preflight", "--work-dir", tmp_path, "--resume"]
    out = run("train.py", SEGMENTOR, *args, *opts, *more, ok=False)
    assert "does not fit this run, and nothing was resumed" in out
    assert "decode_head.conv_seg.weight [4, " in out
    assert "exp_avg of decode_head.conv_seg.weight" in out
    assert "Traceback" not in out


def test_load_from_is_refused_where_nothing_fits(detector, tmp_path):
    _, _, opts = detector
    torch.save({"state_dict": {"fc.weight": torch.rand(2, 2)}}, tmp_path / "file.pth")
    load = f"load_from={tmp_path / 'file.pth'}"
    out = run("train.py", SHAPES, "--work-dir", tmp_path / "run", *opts, load, ok=False)
    assert f"load_from: nothing in checkpoint {tmp_path / 'file.pth'} fits the model" in out
    assert not list(tmp_path.glob("run/*.pth"))


@pytest.mark.parametrize("tool", ["resume", "test", "convert"])
def test_a_flipped_bit_is_refused(detector, tmp_path, tool):
    _, file, opts = detector
    weights = torch.load(file, weights_only=False)["state_dict"]
    value = weights["backbone.stages.0.blocks.0.mlp.0.layer.weight"].numpy().tobytes()
    data = bytearray(file.read_bytes())
    data[data.index(value) + 3] ^= 1
    (tmp_path / "file.pth").write_bytes(data)
    command = {
        "resume": [*RESUME[:3], tmp_path, "--resume", tmp_path / "file.pth", *opts],
        "test": ["test.py", SHAPES, tmp_path / "file.pth", "--work-dir", tmp_path, *opts],
        "convert": [CASES["convert"][0], tmp_path / "file.pth", tmp_path / "out.pth"],
    }[tool]
    out = run(*command, ok=False)
    assert f"checkpoint {tmp_path / 'file.pth'}: the file is cut off or damaged" in out
    assert "Traceback" not in out
