"""A run begins with a checkpoint that fits it, or is told by name what does not."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmspike.checkpoints import CheckpointError, read_safely_in_mmengine

COUNT = itertools.count()


@pytest.fixture(autouse=True, scope="module")
def _no_environment():
    """Leave out what a runner logs of the machine, which takes a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmengine.runner.runner.collect_env", dict)
        yield


class Trainee(BaseModel):
    def __init__(self, width=4):
        super().__init__()
        self.layer = torch.nn.Linear(3, width)
        self.norm = torch.nn.BatchNorm1d(width)
        self.head = torch.nn.Linear(width, 2)

    def forward(self, inputs, mode):
        return {"loss": self.head(self.norm(self.layer(inputs))).square().mean()}


def optimizer(**settings):
    settings = {"type": "AdamW", "lr": 0.1, "fused": True} | settings
    return dict(optimizer=settings)


def make_runner(folder, model=None, max_iters=2, **options):
    settings = dict(
        train_dataloader=DataLoader([{"inputs": torch.rand(3)} for _ in range(16)], batch_size=4),
        train_cfg=dict(type="IterBasedTrainLoop", max_iters=max_iters),
        optim_wrapper=optimizer(),
        param_scheduler=[
            dict(type="LinearLR", start_factor=0.1, end=3, by_epoch=False),
            dict(type="MultiStepLR", milestones=[5], by_epoch=False),
        ],
        default_hooks=dict(checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=2)),
        custom_hooks=[dict(type="mmspike.FitHook")],
        experiment_name=f"fit-{next(COUNT)}",
    )
    return Runner(model or Trainee(), str(folder), **(settings | options))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A checkpoint of two iterations, and one with averaged weights."""
    folder = tmp_path_factory.mktemp("fit")
    make_runner(folder / "plain").train()
    hooks = [dict(type="mmspike.FitHook"), dict(type="EMAHook")]
    make_runner(folder / "averaged", custom_hooks=hooks).train()
    return {kind: folder / kind / "iter_2.pth" for kind in ("plain", "averaged")}


def edit(file, change, to):
    content = torch.load(file, weights_only=False)
    change(content)
    torch.save(content, to)
    return to


def resume(folder, file, **options):
    """Resume from a file; nothing must have changed if that is refused."""
    read_safely_in_mmengine()
    runner = make_runner(folder, load_from=str(file), resume=True, max_iters=3, **options)
    before = copy.deepcopy(runner.model.state_dict())
    try:
        runner.train()
    except CheckpointError:
        after = runner.model.state_dict()
        assert all(torch.equal(v, after[k]) for k, v in before.items())
        assert not runner.optim_wrapper.optimizer.state
        raise
    return runner


@pytest.mark.parametrize("kind", ["plain", "averaged"])
def test_what_fits_is_resumed(tmp_path, saved, kind):
    hooks = [dict(type="mmspike.FitHook")]
    hooks += [dict(type="EMAHook")] if kind == "averaged" else []
    runner = resume(tmp_path, saved[kind], custom_hooks=hooks)
    steps = {float(state["step"]) for state in runner.optim_wrapper.optimizer.state.values()}
    assert steps == {3.0}


GROUPS = optimizer(weight_decay=0.1) | {"paramwise_cfg": dict(bias_decay_mult=0.0)}
EMA = [dict(type="mmspike.FitHook"), dict(type="EMAHook")]
LINEAR = dict(type="LinearLR", start_factor=0.1, end=3, by_epoch=False)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (
            "plain",
            dict(model=Trainee(5)),
            r"of another shape: layer\.weight \[4, 3\], not \[5, 3\]",
        ),
        ("plain", dict(model=Trainee(5)), r"exp_avg of layer\.weight \[4, 3\], not \[5, 3\]"),
        ("plain", dict(optim_wrapper=optimizer(type="Adam")), "of another type than Adam,"),
        ("plain", dict(optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1))), "type than SGD"),
        ("plain", dict(optim_wrapper=optimizer(amsgrad=True)), "another state: .*max_exp_avg_sq"),
        ("plain", dict(optim_wrapper=GROUPS), r"groups of \[6\] parameters, not of \[1, 1"),
        ("plain", dict(param_scheduler=[LINEAR]), "param_scheduler: 2 of them, not 1"),
        (
            "plain",
            dict(param_scheduler=[LINEAR, dict(type="ExponentialLR", gamma=0.9, by_epoch=False)]),
            r"param_scheduler\[1\]: no ExponentialLR, but one with \['milestones'\]",
        ),
        (
            "plain",
            dict(
                param_scheduler=[
                    dict(LINEAR, type="LinearMomentum"),
                    dict(type="MultiStepLR", milestones=[5], by_epoch=False),
                ]
            ),
            r"param_scheduler\[0\]: no LinearMomentum, but one with lr",
        ),
        ("plain", dict(param_scheduler=None), "param_scheduler: it has some, the config has none"),
        ("plain", dict(custom_hooks=EMA), "has none, the config's EMAHook needs averaged weights"),
        ("averaged", {}, "has, and no EMAHook takes, averaged weights"),
        ("averaged", dict(custom_hooks=EMA, model=Trainee(5)), r"ema_state_dict, of another shape"),
    ],
)
def test_another_run_is_refused_by_name(tmp_path, saved, kind, options, message):
    options = dict(options)
    model = copy.deepcopy(options.pop("model", None))
    with pytest.raises(CheckpointError, match=rf"nothing was resumed:[\s\S]*{message}"):
        resume(tmp_path, saved[kind], model=model, **options)


def crop(content):
    content["optimizer"]["state"][0]["exp_avg"] = torch.zeros(2)


def drop(name):
    return lambda content: content.pop(name)


def drop_moment(content):
    del content["optimizer"]["state"][0]["exp_avg_sq"]


def empty(content):
    content["optimizer"]["state"] = {}


def break_up(content):
    content["optimizer"] = [1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (crop, r"of another shape: exp_avg of layer\.weight \[2\], not \[4, 3\]"),
        (drop("optimizer"), "it holds no optimizer: these are not all of a run"),
        (drop("param_schedulers"), "it holds no param_schedulers"),
        (drop("message_hub"), "it holds no message_hub"),
        (drop_moment, r"another state: layer\.weight \['exp_avg', 'step'\]"),
        (empty, "no state of any parameter"),
        (
            lambda c: c["optimizer"].update(loss_scaler={}),
            "its run was in mixed precision, this one is not",
        ),
        (break_up, "not the state of a run"),
        (lambda c: c["meta"].update(iter="2"), r"meta\.iter is '2', not a number"),
        (lambda c: c["state_dict"].pop("norm.running_var"), r"missing: norm\.running_var"),
        (
            lambda c: c["param_schedulers"][0].update(step=0),
            r"no LinearLR, but one with \['step'\]",
        ),
    ],
)
def test_a_state_that_is_not_whole_is_refused_by_name(tmp_path, saved, change, message):
    file = edit(saved["plain"], change, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match=message):
        resume(tmp_path / "run", file)


def test_settings_that_the_checkpoint_brings_along_are_said(tmp_path, saved, caplog):
    scheduler = [dict(LINEAR, end=7), dict(type="MultiStepLR", milestones=[5], by_epoch=False)]
    wrapper = optimizer(lr=0.2, weight_decay=0.5)
    runner = resume(tmp_path, saved["plain"], optim_wrapper=wrapper, param_scheduler=scheduler)
    log = next(tmp_path.glob("*/*.log")).read_text()
    assert "initial_lr 0.1 (not 0.2) in group 0" in log
    assert "weight_decay 0.01 (not 0.5) in group 0" in log
    assert "end 3 (not 7) in param_scheduler[0]" in log
    assert runner.optim_wrapper.param_groups[0]["weight_decay"] == 0.01


def test_load_from_says_what_does_not_fit(tmp_path, saved):
    read_safely_in_mmengine()
    runner = make_runner(tmp_path / "a", Trainee(5), load_from=str(saved["plain"]))
    runner.train()
    log = next((tmp_path / "a").glob("*/*.log")).read_text()
    assert f"load_from: 2 of 9 tensors of the model loaded from {saved['plain']}" in log
    assert "of another shape: layer.weight [4, 3], not [5, 3]" in log
    torch.save({"model": Trainee().state_dict()}, tmp_path / "other.pth")
    runner = make_runner(tmp_path / "b", load_from=str(tmp_path / "other.pth"))
    with pytest.raises(CheckpointError, match=r"load_from: nothing in checkpoint .* fits"):
        runner.train()


def test_files_of_others_are_not_removed(tmp_path, saved):
    # mmengine removes the best checkpoint so far by the name that the resumed one has of it
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "data.txt").touch()
    info = {"best_ckpt": str(tmp_path / "precious"), "best_score": -1.0, "keep_ckpt_ids": ["../x"]}
    file = edit(
        saved["plain"],
        lambda content: content["message_hub"]["runtime_info"].update(info),
        tmp_path / "file.pth",
    )
    hook = dict(type="CheckpointHook", by_epoch=False, interval=1, max_keep_ckpts=2)
    hook |= dict(save_best="loss", rule="greater")
    runner = resume(tmp_path / "run", file, default_hooks=dict(checkpoint=hook))
    best = next(hook for hook in runner.hooks if hasattr(hook, "best_ckpt_path"))
    assert best.best_ckpt_path is None
    best.after_val_epoch(runner, {"loss": 1.0})
    assert (tmp_path / "precious" / "data.txt").exists()
    assert list((tmp_path / "run").glob("best_loss_*.pth"))


@pytest.mark.parametrize("gpu_ids", ["[0, 1]", "range(0, 2)", "[\n    0,\n    1\n]"])
def test_the_number_of_gpus_is_read_from_a_config_that_is_not_run(tmp_path, saved, gpu_ids):
    trace = tmp_path / "trace"
    text = f"open({str(trace)!r}, 'w').close()\nlr = 0.1\ngpu_ids = {gpu_ids}\n"
    file = edit(
        saved["plain"], lambda content: content["meta"].update(config=text), tmp_path / "file.pth"
    )
    with pytest.raises(RuntimeError, match=r"Number of GPUs .* is not\s+consistent"):
        resume(tmp_path / "run", file)
    auto_scale_lr = dict(enable=True, base_batch_size=4)
    cfg = dict(auto_scale_lr=auto_scale_lr)
    runner = resume(tmp_path / "scaled", file, auto_scale_lr=auto_scale_lr, cfg=Config(cfg))
    assert (
        "leaning rate will be adjusted" in next((tmp_path / "scaled").glob("*/*.log")).read_text()
    )
    assert runner.iter == 3
    assert not trace.exists()
    Config.fromstring(text, ".py")  # the text is what it seems
    assert trace.exists()


def test_the_learning_rate_of_a_resumed_run_is_scaled_once(tmp_path):
    # mmengine scales before it resumes, and resuming brings the rate of the checkpoint
    scale = dict(auto_scale_lr=dict(enable=True, base_batch_size=1))
    make_runner(tmp_path / "a", **scale).train()
    runner = resume(tmp_path / "b", tmp_path / "a" / "iter_2.pth", **scale)
    (group,) = runner.optim_wrapper.param_groups
    assert group["initial_lr"] == pytest.approx(0.4)
    runner = resume(tmp_path / "c", tmp_path / "a" / "iter_2.pth")
    assert runner.optim_wrapper.param_groups[0]["initial_lr"] == pytest.approx(0.4)
    assert "initial_lr 0.4 (not 0.1)" in next((tmp_path / "c").glob("*/*.log")).read_text()


class Teller(Trainee):
    """Tells what it computes with beside weights."""

    def beside_weights(self, cfg=None):
        return {"looks": 2}


@pytest.mark.parametrize("name", ["looks", "time_steps", "T", "look", 4])
def test_changes_that_are_meant_are_those_that_the_model_tells(name, tmp_path):
    options = dict(model=Teller(), max_iters=1)
    hooks = [dict(type="mmspike.FitHook", allow_changed=name)]
    if name in ("looks", "time_steps", "T"):
        make_runner(tmp_path, custom_hooks=hooks, **options).train()
        assert (tmp_path / "last_checkpoint").exists()
        return
    with pytest.raises(CheckpointError, match="FitHook: allow_changed must be "):
        make_runner(tmp_path, custom_hooks=hooks, **options).train()
