"""A training that is killed and goes on ends with the bits of one that never stopped."""

from __future__ import annotations

import json

import pytest
import torch

from mmspike.checkpoints import read_checkpoint
from tests.engine.tiny import BY_EPOCH, write_config
from tests.tools.helpers import run, run_together

WORKERS = """
train_dataloader = dict(num_workers=2, persistent_workers=True)
"""
NO_SEED = """
randomness = dict(seed=None)
"""
VALIDATE = """
train_cfg = dict(val_interval=2)
"""


def train(config, work_dir, *args, killed=False, **options):
    ((text, code),) = run_together("train.py", config, "--work-dir", work_dir, *args, **options)
    assert code == (-9 if killed else 0), text[-6000:]
    return text


def leaves(tree, name=""):
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, f"{name}.{key}")
    elif isinstance(tree, list | tuple):
        for number, value in enumerate(tree):
            yield from leaves(value, f"{name}.{number}")
    else:
        yield name, tree


def differences(first, second):
    """Names of what differs in two checkpoints: weights, optimizer, schedule, what is resumed."""
    parts = ("state_dict", "optimizer", "param_schedulers", "exact_resume")
    trees = [read_checkpoint(file).content for file in (first, second)]
    a, b = (dict(leaves({part: tree[part] for part in parts})) for tree in trees)
    assert a.keys() == b.keys()
    same = lambda x, y: torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y
    return [name for name in a if not same(a[name], b[name])]


def losses(work_dir):
    """What was logged of each iteration, the last time."""
    logged = {}
    for file in sorted(work_dir.glob("*/vis_data/scalars.json")):
        for line in map(json.loads, file.read_text().splitlines()):
            if "loss" in line:
                logged[line["step"]] = {k: v for k, v in line.items() if "time" not in k}
                logged[line["step"]].pop("memory", None)
    return logged


@pytest.mark.parametrize(
    ("kind", "changes", "kill_at"),
    [
        ("detector", (WORKERS, VALIDATE), 6),
        ("segmentor", (NO_SEED,), 8),
        ("segmentor", (BY_EPOCH, WORKERS), 6),
        ("detector", (BY_EPOCH,), 8),
    ],
    ids=["iterations", "no-seed", "mid-epoch", "two-epochs"],
)
def test_a_killed_run_goes_on_to_the_same_bits(kind, changes, kill_at, tiny_shapes, tmp_path):
    config = write_config(tmp_path / "config.py", kind, tiny_shapes, *changes)
    kill = [{"type": "KillAt", "iteration": kill_at}]
    killed = write_config(tmp_path / "killed.py", kind, tiny_shapes, *changes, custom_hooks=kill)
    train(killed, tmp_path / "resumed", killed=True)
    saved = (kill_at - 1) // 3 * 3
    out = train(config, tmp_path / "resumed", "--resume")
    assert f"iter: {saved}" in out
    assert "ExactResumeHook: " not in out
    # without a seed in the config, the whole run needs the one that the killed run drew
    seed = read_checkpoint(tmp_path / f"resumed/iter_{saved}.pth").content["meta"]["seed"]
    train(config, tmp_path / "whole", "--cfg-options", f"randomness.seed={seed}")
    assert differences(tmp_path / "whole/iter_8.pth", tmp_path / "resumed/iter_8.pth") == []
    whole, resumed = losses(tmp_path / "whole"), losses(tmp_path / "resumed")
    assert len(whole) == 8
    assert whole == resumed


def test_neither_workers_nor_validation_change_a_training(tiny_shapes, tmp_path):
    """Nor does what mmengine's data loader draws."""
    for name, changes in {"plain": (), "other": (WORKERS, VALIDATE)}.items():
        config = write_config(tmp_path / f"{name}.py", "segmentor", tiny_shapes, *changes)
        train(config, tmp_path / name)
    assert differences(tmp_path / "plain/iter_8.pth", tmp_path / "other/iter_8.pth") == []
    assert losses(tmp_path / "plain") == losses(tmp_path / "other")


def test_other_conditions_are_named(tiny_shapes, tmp_path):
    config = write_config(tmp_path / "config.py", "segmentor", tiny_shapes)
    train(config, tmp_path / "work", "--cfg-options", "train_cfg.max_iters=3")
    out = train(
        config, tmp_path / "work", "--resume", "--cfg-options", "train_dataloader.batch_size=3"
    )
    assert "will not end with the same numbers: batch_size 3 instead of 2" in out


def test_a_checkpoint_between_two_steps_of_the_optimizer_is_named(tiny_shapes, tmp_path):
    config = write_config(tmp_path / "config.py", "segmentor", tiny_shapes)
    options = ["optim_wrapper.accumulative_counts=2", "train_cfg.max_iters=4"]
    out = train(config, tmp_path / "work", "--cfg-options", *options)
    assert "Save every multiple of 2 iterations" in out


def test_a_checkpoint_of_mmengines_own_training_goes_on_with_a_warning(tiny_shapes, tmp_path):
    config = write_config(tmp_path / "config.py", "segmentor", tiny_shapes)
    train(config, tmp_path / "work", "--cfg-options", "train_cfg.max_iters=3")
    file = tmp_path / "work/iter_3.pth"
    content = read_checkpoint(file).content
    del content["exact_resume"]
    torch.save(content, file)
    out = run("train.py", config, "--work-dir", tmp_path / "work", "--resume", file)
    assert "it was written without this hook" in out
