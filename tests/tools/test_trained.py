"""The shared models predict: what is tested with them can fail."""

from __future__ import annotations


def test_detector_finds_boxes_and_masks(trained_detector):
    assert trained_detector.checkpoint.is_file()
    assert trained_detector.metric["coco/bbox_mAP"] > 0.15
    assert trained_detector.metric["coco/segm_mAP"] > 0.15


def test_segmentor_tells_classes_apart(trained_segmentor):
    assert trained_segmentor.checkpoint.is_file()
    assert trained_segmentor.metric["mIoU"] > 30  # background everywhere: 21.5
