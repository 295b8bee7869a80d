"""The configs for data of one's own, after the three changes that they ask for."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT
from tests.tools.helpers import run

CONFIGS = {
    "boxes": "faster_rcnn/faster-rcnn_metaspikeformer-4m_t1_1xb4-800it_own-boxes.py",
    "masks": "mask_rcnn/mask-rcnn_metaspikeformer-4m_t1_1xb4-800it_own-masks.py",
    "label maps": (
        "semantic_fpn/semantic-fpn_metaspikeformer-4m_t1_1xb4-3k_own-label-maps-256x256.py"
    ),
}
DETECTION = [kind for kind in CONFIGS if kind != "label maps"]
WORKERS = [
    f"{split}_dataloader.{key}"
    for split in ("train", "val", "test")
    for key in ("num_workers=0", "persistent_workers=False")
]


def changed(path, kind, **settings):
    """A copy of a config in another folder, with other settings in its first lines."""
    text = (ROOT / "configs" / CONFIGS[kind]).read_text()
    text, count = re.subn(r'"\.\./(_base_/[\w/]+\.py)"', r'"mmspike::\1"', text)
    assert count >= 1
    for name, value in settings.items():
        text, count = re.subn(rf"(?m)^{name} = [^#\n]+", f"{name} = {value!r}  ", text)
        assert count == 1
    path.write_text(text)
    return path


@pytest.mark.parametrize("kind", DETECTION)
def test_three_changes_are_enough_to_train(kind, tmp_path, shapes_root):
    settings = dict(
        data_root=f"{shapes_root}/", classes=("circle", "square", "triangle"), size=(64, 96)
    )
    config = changed(tmp_path / "mine.py", kind, **settings)
    options = [*WORKERS, "train_cfg.max_iters=2", "train_cfg.val_interval=2"]
    options += ["default_hooks.logger.interval=1", "train_dataloader.batch_size=2"]
    out = run("train.py", config, "--work-dir", tmp_path / "work", "--cfg-options", *options)
    assert "Iter(train) [2/2]" in out
    assert len(re.findall(r"Iter\(val\).*coco/bbox_mAP_50: ", out)) == 1
    assert ("coco/segm_mAP" in out) == (kind == "masks")


def test_three_changes_are_enough_for_label_maps(tmp_path, shapes_root):
    settings = dict(data_root=f"{shapes_root}/", classes=("a", "b", "c", "d"), img_suffix=".png")
    config = changed(tmp_path / "mine.py", "label maps", **settings)
    options = [*WORKERS, "train_cfg.max_iters=2", "train_cfg.val_interval=2"]
    options += ["train_dataloader.batch_size=2", "default_hooks.logger.interval=1"]
    out = run("train.py", config, "--work-dir", tmp_path / "work", "--cfg-options", *options)
    assert "Iter(train) [2/2]" in out
    assert len(re.findall(r"Iter\(val\).*mIoU: ", out)) == 1
    assert all(f"|  {name}  |" in out.replace("   ", "  ") for name in settings["classes"])


@pytest.mark.parametrize("kind", DETECTION)
def test_a_forgotten_change_is_named(kind, tmp_path, shapes_root):
    config = changed(tmp_path / "mine.py", kind, data_root=f"{shapes_root}/")
    out = run("train.py", config, "--work-dir", tmp_path / "work", ok=False)
    first = {"boxes": "RBC", "masks": "nucleus"}[kind]
    assert f"train_dataloader.dataset.metainfo.classes: '{first}'" in out
    assert "whose categories are circle, square, triangle" in out
    assert "Traceback" not in out
