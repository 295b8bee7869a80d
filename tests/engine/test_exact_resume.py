"""A training that is killed and goes on ends with the bits of one that never stopped."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from mmspike.checkpoints import read_checkpoint
from tests.engine.tiny import BY_EPOCH, write_config
from tests.tools.helpers import run_together

WORKERS = """
train_dataloader = dict(num_workers=2, persistent_workers=True)
"""
NO_SEED = """
randomness = dict(seed=None)
"""
FINITE = """
train_dataloader = dict(sampler=dict(type="DefaultSampler", shuffle=True))
"""  # a round of 4 iterations after another
VALIDATE = """
train_cfg = dict(val_interval=4, val_begin=1)
"""
SAVE_EVERY_4 = """
default_hooks = dict(checkpoint=dict(interval=4))
"""
SAVE_BY_EPOCH = """
default_hooks = dict(checkpoint=dict(by_epoch=True, interval=1))
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


@pytest.fixture(scope="module")
def whole(tiny_shapes, tmp_path_factory):
    """Work dirs of trainings that never stop, load data in one process and do not validate."""
    folder, done = tmp_path_factory.mktemp("whole"), {}

    def get(kind, *changes, seed=0):
        key = kind, changes, seed
        if key not in done:
            config = write_config(folder / f"{len(done)}.py", kind, tiny_shapes, *changes)
            done[key] = folder / str(len(done))
            options = [f"randomness.seed={seed}", "train_cfg.val_begin=100"]
            train(config, done[key], "--cfg-options", *options)
        return done[key]

    return get


@pytest.mark.parametrize(
    ("kind", "loop", "changes", "kill_at", "saved"),
    [
        ("detector", (), (WORKERS, VALIDATE, NO_SEED), 6, "iter_3"),
        ("segmentor", (FINITE,), (), 8, "iter_6"),
        ("segmentor", (BY_EPOCH,), (), 8, "iter_6"),
        ("segmentor", (BY_EPOCH,), (SAVE_EVERY_4, WORKERS), 6, "iter_4"),
        ("segmentor", (BY_EPOCH,), (SAVE_BY_EPOCH,), 6, "epoch_1"),
    ],
    ids=["iterations", "rounds", "mid-epoch", "end-of-epoch", "epochs"],
)
def test_a_killed_run_goes_on_to_the_same_bits(
    kind, loop, changes, kill_at, saved, whole, tiny_shapes, tmp_path
):
    config = write_config(tmp_path / "config.py", kind, tiny_shapes, *loop, *changes)
    kill = [{"type": "KillAt", "iteration": kill_at}]
    killed = write_config(
        tmp_path / "killed.py", kind, tiny_shapes, *loop, *changes, custom_hooks=kill
    )
    work_dir = tmp_path / "work"
    train(killed, work_dir, killed=True)
    out = train(config, work_dir, "--resume")
    assert f"Load checkpoint from {work_dir}/{saved}.pth" in out
    assert "ExactResumeHook: " not in out
    # a run without a seed in the config has the one that the killed run drew
    seed = read_checkpoint(work_dir / f"{saved}.pth").content["meta"]["seed"]
    reference = whole(kind, *loop, seed=seed)
    last = work_dir / ("epoch_2.pth" if saved == "epoch_1" else "iter_8.pth")
    assert differences(reference / "iter_8.pth", last) == []
    assert len(losses(reference)) == 8
    assert losses(reference) == losses(work_dir)
    assert all(0.1 < row["grad_norm"] < 100 for row in losses(work_dir).values())


@pytest.fixture(scope="module")
def begun(tiny_shapes, tmp_path_factory):
    """A config and the work dir of its first three iterations."""
    folder = tmp_path_factory.mktemp("begun")
    config = write_config(folder / "config.py", "segmentor", tiny_shapes)
    train(config, folder / "work", "--cfg-options", "train_cfg.max_iters=3")
    return config, folder / "work"


def test_other_conditions_and_gradients_that_are_not_saved_are_named(begun, tmp_path):
    config, work_dir = begun
    shutil.copytree(work_dir, tmp_path / "work")
    options = ["train_dataloader.batch_size=3", "train_cfg.max_iters=5"]
    options += ["optim_wrapper.accumulative_counts=2"]
    out = train(config, tmp_path / "work", "--resume", "--cfg-options", *options)
    assert "will not end with the same numbers: batch_size 3 instead of 2" in out
    assert "Save every multiple of 2 iterations" in out


def test_a_checkpoint_of_mmengines_own_training_goes_on_with_a_warning(begun, tmp_path):
    config, work_dir = begun
    content = read_checkpoint(work_dir / "iter_3.pth").content
    del content["exact_resume"]
    torch.save(content, tmp_path / "iter_3.pth")
    args = ["--resume", tmp_path / "iter_3.pth", "--cfg-options", "train_cfg.max_iters=4"]
    assert "it was written without this hook" in train(config, tmp_path / "work", *args)
