"""A tiny detector and a tiny segmentor that predict, trained once per test run by the tools."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock

from mmspike.datasets.shapes import ShapesSettings, write_shapes

SETTINGS = ShapesSettings(
    num_train=96, num_val=16, size=64, seed=7, max_shapes=2, noise=2.0, max_tilt=0.0
)
WORKERS = [
    f"{split}_dataloader.{key}"
    for split in ("train", "val", "test")
    for key in ("num_workers=0", "persistent_workers=False")
]
MODEL = [
    "model.backbone.arch.embed_dims=[32,48,64,96]",
    "model.backbone.arch.num_heads=2",
    "model.backbone.attn_init_size=[64,64]",
    "model.neck.in_channels=[32,48,64,96]",
]
DETECTOR = [
    "model.neck.out_channels=32",
    "model.rpn_head.in_channels=32",
    "model.rpn_head.feat_channels=32",
    "model.roi_head.bbox_roi_extractor.out_channels=32",
    "model.roi_head.bbox_head.in_channels=32",
    "model.roi_head.bbox_head.fc_out_channels=64",
    "model.roi_head.mask_roi_extractor.out_channels=32",
    "model.roi_head.mask_head.in_channels=32",
    "model.roi_head.mask_head.conv_out_channels=16",
    "model.train_cfg.rpn_proposal.nms_pre=100",
    "model.train_cfg.rpn_proposal.max_per_img=100",
    "model.train_cfg.rcnn.sampler.num=64",
    "model.test_cfg.rpn.nms_pre=100",
    "model.test_cfg.rpn.max_per_img=50",
    "model.test_cfg.rcnn.max_per_img=10",
]
SEGMENTOR = [
    "model.data_preprocessor.size=[64,64]",
    "model.neck.out_channels=48",
    "model.decode_head.in_channels=[48,48,48]",
    "model.decode_head.channels=48",
    "model.decode_head.loss_decode.class_weight=[0.3,1,1,1]",
]

DETECTORS = (
    "configs/mask_rcnn_metaspike_shapes.py",
    "configs/mask_rcnn/mask-rcnn_metaspikeformer-4m_t1-d4_1xb4-1k_shapes-128x128.py",
)
SEGMENTORS = (
    "configs/semantic_fpn_metaspike_shapes.py",
    "configs/semantic_fpn_espikeformer_shapes.py",
)


@dataclass(frozen=True)
class Trained:
    """A trained model, and what the tools need to run it.

    Attributes:
        config: Config file, relative to the repository.
        checkpoint: Checkpoint file.
        options: What ``--cfg-options`` takes: ``KEY=VALUE`` of model and data.
        root: The shapes data set that it was trained on.
        metric: What ``tools/test.py`` printed for it, by name, such as ``coco/bbox_mAP``.
    """

    config: str
    checkpoint: Path
    options: list[str]
    root: Path
    metric: dict[str, float]


def read_metric(out: str) -> dict[str, float]:
    """The numbers in the last line of metrics that ``tools/test.py`` printed."""
    return read_line(out, r"(bbox_mAP|mIoU): [\d.]")


def read_line(out: str, pattern: str) -> dict[str, float]:
    """The numbers, by their names, in the last line that has a pattern."""
    lines = [line for line in out.splitlines() if re.search(pattern, line)]
    return {k: float(v) for k, v in re.findall(r"([\w/]+): (-?[\d.]+)", lines[-1].split("]")[-1])}


def trained(kind: str, folder: Path) -> Trained:
    """Train, or read what another process of this test run has trained.

    Args:
        kind: ``detector`` or ``segmentor``, whose neurons are LIFs; ``integer_detector`` with
            integer neurons; ``integer_segmentor``, an E-SpikeFormer.
        folder: Folder that all processes of the run share.
    """
    from tests.tools.helpers import run

    folder.mkdir(exist_ok=True)
    root, note = folder / "shapes", folder / f"{kind}.json"
    with FileLock(folder / "data.lock"):
        write_shapes(root, SETTINGS)
    with FileLock(folder / f"{kind}.lock"):
        if not note.exists():
            config, options, train = _recipe(kind, root)
            work_dir = folder / kind
            shutil.rmtree(work_dir, ignore_errors=True)  # of a process that was ended
            run("train.py", config, "--work-dir", work_dir, "--cfg-options", *options, *train)
            checkpoint = Path((work_dir / "last_checkpoint").read_text())
            args = [config, checkpoint, "--work-dir", work_dir / "test", "--cfg-options", *options]
            metric = read_metric(run("test.py", *args))
            found = Trained(config, checkpoint, options, root, metric)
            note.write_text(json.dumps(asdict(found), default=str))
    found = json.loads(note.read_text())
    return Trained(**found | {k: Path(found[k]) for k in ("checkpoint", "root")})


def _recipe(kind: str, root: Path) -> tuple[str, list[str], list[str]]:
    """Config, options, and options of its training alone."""
    data = [f"{split}_dataloader.dataset.data_root={root}/" for split in ("train", "val", "test")]
    integer = kind.startswith("integer")
    if kind.endswith("detector"):
        config = DETECTORS[integer]
        iters, decay = (80, 50) if integer else (130, 80)  # integers learn sooner
        special = DETECTOR
        annotations = root / "annotations/val.json"
        data += [f"{split}_evaluator.ann_file={annotations}" for split in ("val", "test")]
    else:
        config = SEGMENTORS[integer]
        iters, decay = (70, 40) if integer else (120, 60)
        special = SEGMENTOR
    train = [
        "train_dataloader.batch_size=8",
        "optim_wrapper.optimizer.lr=5e-3",
        f"train_cfg.max_iters={iters}",
        f"train_cfg.val_interval={iters + 1}",
        f"default_hooks.checkpoint.interval={iters}",
        "param_scheduler.0.end=10",
        f"param_scheduler.1.begin={decay}",
        f"param_scheduler.1.end={iters}",
    ]
    return config, [*data, *WORKERS, *MODEL, *special], train
