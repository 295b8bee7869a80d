"""Options of testing, written into a config of mmdet's, mmseg's or mmpretrain's."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from mmspike.engine.configs import host_of, type_name

_DET_TTA_MODEL = {
    "type": "DetTTAModel",
    "tta_cfg": {"nms": {"type": "nms", "iou_threshold": 0.5}, "max_per_img": 100},
}
_DET_META_KEYS = (
    "img_id",
    "img_path",
    "ori_shape",
    "img_shape",
    "scale_factor",
    "flip",
    "flip_direction",
)


def show_predictions(
    cfg: Config, show: bool = False, show_dir: str | None = None, wait_time: float = 2.0
) -> None:
    """Let the visualization hook draw predictions.

    Args:
        cfg: Config with ``default_hooks.visualization``; changed in place.
        show: Whether to open a window.
        show_dir: Folder for pictures; a relative one lies in the run's folder in mmdet.
        wait_time: Seconds that a window stays.

    Raises:
        ValueError: If the config has no visualization hook.
    """
    hook = cfg.get("default_hooks", {}).get("visualization")
    if hook is None:
        raise ValueError(
            f"{cfg.filename}: default_hooks.visualization is missing, which draws predictions "
            "(DetVisualizationHook, SegVisualizationHook, or mmpretrain's VisualizationHook)"
        )
    if host_of(cfg) == "mmpretrain":
        hook.update(enable=True, interval=1, show=show, wait_time=wait_time, out_dir=show_dir)
        return
    hook.update(draw=True, show=show, wait_time=wait_time)
    if cfg.get("visualizer"):
        cfg.visualizer = with_readable_labels(cfg.visualizer)
    if show_dir and host_of(cfg) == "mmdet":
        hook["test_out_dir"] = show_dir
    elif show_dir:
        cfg.visualizer["save_dir"] = show_dir


def with_readable_labels(visualizer: dict[str, Any]) -> ConfigDict:
    """The config of a visualizer, with labels that do not lie on one another if it is mmdet's."""
    if type_name(visualizer) != "DetLocalVisualizer":
        return ConfigDict(visualizer)
    return ConfigDict(visualizer, type="mmspike.det.ReadableVisualizer")


def dump_predictions(cfg: Config, out: str) -> None:
    """Write predictions to ``out``: a folder for a segmentor, else a pickle file.

    Args:
        cfg: Config with ``test_evaluator``; changed in place.
        out: Path to write.

    Raises:
        ValueError: If a pickle file's path does not end in ``.pkl`` or ``.pickle``.
    """
    metrics = cfg.test_evaluator
    metrics = list(metrics) if isinstance(metrics, list | tuple) else [metrics]
    host = host_of(cfg)
    if host not in ("mmdet", "mmpretrain"):
        for metric in metrics:
            metric.update(output_dir=out, keep_results=True)
        return
    if not out.endswith((".pkl", ".pickle")):
        kind = "detector" if host == "mmdet" else "classifier"
        raise ValueError(f"--out: a {kind}'s predictions go to a .pkl file, got {out}")
    dump = "mmdet.DumpDetResults" if host == "mmdet" else "mmengine.DumpResults"
    cfg.test_evaluator = [*metrics, {"type": dump, "out_file_path": out}]


def augment_at_test_time(cfg: Config) -> None:
    """Test under augmentations: the config's own, or flips for a detector.

    mmdet merges boxes but not masks. A mask head is therefore left out, and masks are not
    evaluated.

    Args:
        cfg: Config; changed in place.

    Raises:
        ValueError: If another config does not say how (``tta_model``, ``tta_pipeline``).
    """
    pipeline = cfg.test_dataloader.dataset.pipeline
    if host_of(cfg) == "mmdet":
        cfg.setdefault("tta_model", ConfigDict(deepcopy(_DET_TTA_MODEL)))
        cfg.setdefault("tta_pipeline", [*pipeline[:-1], _flips()])
        _leave_masks_out(cfg)
    elif "tta_model" not in cfg or "tta_pipeline" not in cfg:
        raise ValueError(f"--tta: {cfg.filename} has no tta_model and tta_pipeline")
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)


def _flips() -> dict:
    flips = [{"type": "RandomFlip", "prob": prob} for prob in (1.0, 0.0)]
    pack = [{"type": "PackDetInputs", "meta_keys": _DET_META_KEYS}]
    return {"type": "TestTimeAug", "transforms": [flips, pack], "_scope_": "mmdet"}


def _leave_masks_out(cfg: Config) -> None:
    roi_head = cfg.model.get("roi_head", {})
    if roi_head.get("mask_head") is None:
        return
    print_log("--tta: mmdet merges boxes only; masks are not predicted or evaluated", "current")
    roi_head.update(mask_head=None, mask_roi_extractor=None)
    metrics = cfg.test_evaluator
    for metric in metrics if isinstance(metrics, list | tuple) else [metrics]:
        if "segm" in metric.get("metric", []):
            metric["metric"] = ["bbox"]
