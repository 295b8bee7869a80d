"""Which file a training goes on from, and that one is whole at any moment."""

from __future__ import annotations

import shutil

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import HOOKS

from mmspike.checkpoints import CheckpointError
from mmspike.engine.default_hooks import add_default_hooks
from mmspike.engine.exact_resume_hook import ExactResumeHook
from mmspike.engine.latest_checkpoint import resume_from_latest
from tests.engine.tiny import write_config
from tests.tools.helpers import run, run_together

WHOLE = {"state_dict": {"weight": torch.ones(2)}, "meta": {}, "optimizer": {}}


@pytest.fixture
def work_dir(tmp_path):
    for number in (20, 100, 1000):  # in order of numbers, not of names; the last of an older run
        torch.save(WHOLE, tmp_path / f"iter_{number}.pth")
    torch.save(WHOLE, tmp_path / "best_mIoU_iter_90.pth")
    torch.save(WHOLE, tmp_path / "epoch_7.pth")
    (tmp_path / "last_checkpoint").write_text(f"{tmp_path}/iter_100.pth\n")
    return tmp_path


def found(work_dir, **settings):
    cfg = Config({"resume": True, "work_dir": str(work_dir), "load_from": None, **settings})
    resume_from_latest(cfg)
    return cfg.load_from


def test_the_last_checkpoint_is_taken(work_dir):
    assert found(work_dir) == f"{work_dir}/iter_100.pth"
    assert found(work_dir, load_from="other.pth") == "other.pth"
    assert found(work_dir, resume=False) is None


def damage(path):
    content = bytearray(path.read_bytes())
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize("spoil", [damage, lambda path: path.unlink()], ids=["damaged", "missing"])
def test_the_one_before_is_taken_where_the_last_is_spoiled(spoil, work_dir, capsys):
    spoil(work_dir / "iter_100.pth")
    assert found(work_dir) == f"{work_dir}/iter_20.pth"
    out = capsys.readouterr()
    assert f"checkpoint {work_dir}/iter_100.pth: " in out.out + out.err
    assert f"going back to {work_dir}/iter_20.pth" in out.out + out.err


def test_weights_alone_are_no_checkpoint_to_go_on_from(work_dir):
    torch.save(WHOLE["state_dict"], work_dir / "iter_100.pth")
    assert found(work_dir) == f"{work_dir}/iter_20.pth"


def test_a_moved_work_dir_is_gone_on_with(work_dir, tmp_path_factory):
    moved = tmp_path_factory.mktemp("moved") / "work"
    shutil.move(work_dir, moved)
    assert found(moved) == f"{moved}/iter_100.pth"


def test_no_whole_checkpoint_is_an_error(work_dir):
    damage(work_dir / "iter_100.pth")
    (work_dir / "iter_20.pth").unlink()
    with pytest.raises(CheckpointError, match=r"no checkpoint to go on from.*\n.*iter_100\.pth"):
        found(work_dir)


@pytest.mark.parametrize("lost", ["missing", "empty"])
def test_a_lost_last_checkpoint_is_no_start_from_zero(lost, work_dir):
    record = work_dir / "last_checkpoint"
    record.unlink() if lost == "missing" else record.write_text("")
    with pytest.raises(CheckpointError, match=rf"is {lost}.*iter_100\.pth.*--resume FILE"):
        found(work_dir)


def test_an_empty_folder_starts_from_zero(tmp_path):
    assert found(tmp_path) is None
    (tmp_path / "last_checkpoint").write_text("")
    with pytest.raises(CheckpointError, match="remove last_checkpoint to start from zero"):
        found(tmp_path)


def test_train_falls_back_and_a_full_disk_leaves_the_old_file(tiny_shapes, tmp_path):
    config = write_config(tmp_path / "config.py", "segmentor", tiny_shapes)
    work_dir = tmp_path / "work"
    options = ["default_hooks.checkpoint.interval=1", "default_hooks.checkpoint.max_keep_ckpts=1"]
    args = [config, "--work-dir", work_dir, "--cfg-options", *options]
    run("train.py", *args, "train_cfg.max_iters=2")
    assert [p.name for p in work_dir.glob("*.pth")] == ["iter_2.pth"]
    size = (work_dir / "iter_2.pth").stat().st_size
    before = (work_dir / "iter_2.pth").read_bytes()

    more = [*args, "train_cfg.max_iters=3"]
    ((out, code),) = run_together("train.py", *more, "--resume", file_size=size // 2)
    assert code == 1
    assert f"checkpoint {work_dir}/iter_3.pth: cannot be written (File too large)" in out
    assert (work_dir / "iter_2.pth").read_bytes() == before
    assert (work_dir / "last_checkpoint").read_text() == f"{work_dir}/iter_2.pth"
    assert not list(work_dir.glob(".*"))

    (work_dir / "last_checkpoint").write_text(f"{work_dir}/iter_3.pth")
    damaged = before[: size // 2]
    (work_dir / "iter_3.pth").write_bytes(damaged)
    out = run("train.py", *more, "--resume")
    assert f"going back to {work_dir}/iter_2.pth" in out
    assert "Iter(train) [3/3]" in out
    assert [p.name for p in work_dir.glob("*.pth")] == ["iter_3.pth"]

    (work_dir / "last_checkpoint").unlink()
    out = run("train.py", *more, "--resume", ok=False)
    assert "last_checkpoint is missing" in out
    assert "Traceback" not in out


def test_default_hooks_are_added_once_and_nothing_is_replaced_but_mmengines():
    cfg = Config({"custom_hooks": [{"type": "mmspike.ExactResumeHook"}, {"type": "Mine"}]})
    add_default_hooks(cfg)
    types = [hook["type"] for hook in cfg.custom_hooks]
    assert types.count("mmspike.ExactResumeHook") == 1
    assert "Mine" in types
    assert cfg.default_hooks.checkpoint.type == "mmspike.AtomicCheckpointHook"
    by_class = Config(
        {
            "custom_hooks": [{"type": ExactResumeHook}],
            "default_hooks": {"checkpoint": {"type": CheckpointHook, "interval": 7}},
        }
    )
    add_default_hooks(by_class)  # as in configs of Python alone
    assert {"type": "mmspike.ExactResumeHook"} not in by_class.custom_hooks
    expected = {"type": "mmspike.AtomicCheckpointHook", "interval": 7}
    assert by_class.default_hooks.checkpoint == expected
    own = Config({"default_hooks": {"checkpoint": {"type": "Mine"}}})
    add_default_hooks(own)
    assert own.default_hooks.checkpoint.type == "Mine"
    without = Config({"default_hooks": {"checkpoint": None}})
    add_default_hooks(without)
    assert without.default_hooks.checkpoint is None


@pytest.mark.parametrize("scope", ["mmdet", "mmseg", None])
def test_hooks_of_ours_are_found_by_their_bare_names(scope):
    hooks = [{"type": "FiniteHook", "max_skipped": 3}, {"type": "CheckInvalidLossHook"}]
    cfg = Config({"default_scope": scope, "custom_hooks": hooks})
    add_default_hooks(cfg)
    types = [hook["type"] for hook in cfg.custom_hooks]
    assert types[:2] == ["mmspike.FiniteHook", "CheckInvalidLossHook"]
    assert types.count("mmspike.FiniteHook") == 1
    assert HOOKS.build(cfg.custom_hooks[0]).max_skipped == 3


def test_a_hook_of_the_users_comes_before_ours_of_that_name():
    class FiniteHook(Hook):
        pass

    cfg = Config({"default_scope": "mmdet", "custom_hooks": [{"type": "FiniteHook"}]})
    HOOKS.register_module(module=FiniteHook)
    try:
        add_default_hooks(cfg)
    finally:
        HOOKS.module_dict.pop("FiniteHook")
    assert cfg.custom_hooks[0].type == "FiniteHook"
