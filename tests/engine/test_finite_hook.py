"""The hook that stops at numbers that are not finite, on a small model."""

from __future__ import annotations

import os

import pytest
import torch
import torch.multiprocessing as mp
from mmengine.hooks import Hook
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement, InstanceData
from torch import nn

from mmspike.engine.batches import bad_inputs
from mmspike.engine.finite_hook import FiniteHook, NotFiniteError

NAN, INF = float("nan"), float("inf")


class Poison(torch.autograd.Function):
    """The identity, whose gradient is something else."""

    @staticmethod
    def forward(ctx, x, value):
        ctx.value = value
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return torch.full_like(grad, ctx.value), None


class Net(BaseModel):
    """A loss of lists and single terms; at some iteration, something goes wrong."""

    def __init__(self, wrong=None, at=3, value=NAN):
        super().__init__()
        self.fc, self.other = nn.Linear(2, 1), nn.Linear(2, 1)
        self.norm = nn.BatchNorm1d(2)
        self.register_buffer("mask", torch.tensor([0.0, -INF]))
        self.register_buffer("large", torch.tensor([3e38, 3e38]))  # whose norm is infinite
        self.wrong, self.at, self.value, self.calls = wrong, at, value, 0

    def forward(self, inputs, data_samples=None, mode="loss"):
        self.calls += 1
        now = self.calls >= self.at if self.wrong == "gradient for ever" else self.calls == self.at
        x = self.norm(torch.stack(inputs).float())
        y = self.fc(x)
        if now and (self.wrong or "").startswith("gradient"):
            y = Poison.apply(y, self.value)
        if now and self.wrong == "buffer":
            self.norm.running_var.data[0] = self.value
        loss = y.square().mean() + self.other(x).square().mean()
        part = loss * self.value if now and self.wrong == "loss" else loss
        return {"loss_a": [part, loss], "loss_b": loss, "accuracy": torch.tensor(NAN)}


@OPTIM_WRAPPERS.register_module(force=True)
class ScaledOptimWrapper(OptimWrapper):
    """A loss scaler as mmengine's AmpOptimWrapper has, which wants a GPU."""

    loss_scaler = None

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.loss_scaler = torch.amp.GradScaler("cpu", init_scale=4.0)

    def backward(self, loss, **kwargs):
        self.loss_scaler.scale(loss).backward(**kwargs)
        self._inner_count += 1

    def step(self, **kwargs):
        if self.clip_grad_kwargs:
            self.loss_scaler.unscale_(self.optimizer)
            self._clip_grad()
        self.loss_scaler.step(self.optimizer, **kwargs)
        self.loss_scaler.update()


class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, i):
        sample = BaseDataElement(metainfo=dict(img_path=f"data/{i}.png"))
        generator = torch.Generator().manual_seed(i)
        return dict(inputs=torch.randn(2, generator=generator), data_samples=sample)


def train(tmp_path, model, iterations=5, hook=None, optim=None, wrapper=None, **options):
    runner = Runner(
        model=model,
        work_dir=str(tmp_path),
        train_dataloader=dict(
            dataset=Data(),
            sampler=dict(type="DefaultSampler", shuffle=False),
            collate_fn=dict(type="pseudo_collate"),
            batch_size=2,
            num_workers=0,
        ),
        train_cfg=dict(by_epoch=True, max_epochs=iterations // 4 + 1),
        optim_wrapper=dict(
            type=wrapper or "OptimWrapper",
            optimizer=optim or dict(type="AdamW", lr=0.01),
            **options.pop("wrapper_options", {}),
        ),
        custom_hooks=[
            dict(type="mmspike.FiniteHook", ignore="mask", **(hook or {})),
            *options.pop("hooks", []),
        ],
        default_hooks=dict(checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=1)),
        experiment_name=tmp_path.name,
        **options,
    )
    try:
        runner.train()
    finally:
        runner.saved = sorted(int(p.stem[5:]) for p in tmp_path.glob("iter_*.pth"))
    return runner


def saved(tmp_path):
    return sorted(int(p.stem[5:]) for p in tmp_path.glob("iter_*.pth"))


@pytest.mark.parametrize("clip", [None, dict(max_norm=1.0)], ids=["plain", "clipped"])
@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("gradient", r"gradients \(4 of 6\): fc.weight \(\w+\), fc.bias \(\w+\), norm"),
        ("loss", r"losses \(2 of 3\): loss \(\w+\), loss_a \(\w+\)"),
        ("buffer", r"weights and buffers \(1 of \d+\): norm.running_var \(\w+\)"),
    ],
    ids=["gradient", "loss", "buffer"],
)
def test_names_what_is_wrong_before_it_is_saved(tmp_path, wrong, said, value, clip):
    options = {} if clip is None else dict(wrapper_options=dict(clip_grad=clip))
    with pytest.raises(NotFiniteError, match=said) as error:
        train(tmp_path, Net(wrong, value=value), **options)
    assert "iteration 3: " in str(error.value)
    assert "data/4.png, data/5.png" in str(error.value)
    assert saved(tmp_path) == [1, 2]


def test_a_healthy_run_ends_and_leaves_the_optimizer_alone(tmp_path):
    runner = train(tmp_path, Net(), iterations=5)
    assert saved(tmp_path) == list(range(1, 9))
    assert "measured_step" not in runner.optim_wrapper.step.__qualname__
    assert runner.optim_wrapper.step.__name__ == "step"


def test_changes_no_bit(tmp_path):
    states = []
    for name, hook in (("with", {}), ("without", None)):
        torch.manual_seed(0)
        runner = train(tmp_path / name, Net(), **({} if hook is not None else {"hooks": [_Off()]}))
        states.append(runner.model.state_dict())
    for a, b in zip(*(s.values() for s in states), strict=True):
        assert torch.equal(a, b)


class _Off(Hook):
    """Takes the hook out."""

    priority = "HIGHEST"

    def before_train(self, runner):
        runner._hooks = [h for h in runner._hooks if not isinstance(h, FiniteHook)]


@pytest.mark.parametrize("clip", [None, dict(max_norm=1.0)], ids=["plain", "clipped"])
def test_a_step_that_a_loss_scaler_skips_is_no_error(tmp_path, clip):
    options = dict(wrapper_options=dict(clip_grad=clip), wrapper="ScaledOptimWrapper")
    runner = train(
        tmp_path / "once", Net("gradient", value=INF), hook=dict(max_skipped=1), **options
    )
    assert runner.optim_wrapper.loss_scaler.get_scale() == 2.0  # halved once
    with pytest.raises(
        NotFiniteError, match=r"gradients \(4 of 6, in 3 steps in a row\): fc.weight"
    ):
        train(tmp_path, Net("gradient for ever"), hook=dict(max_skipped=2), **options)
    assert saved(tmp_path) == [1, 2, 3, 4]
    with pytest.raises(NotFiniteError, match=r"iteration 3: .*\n  losses"):
        train(tmp_path / "loss", Net("loss"), **options)


def test_accumulated_gradients_are_checked_when_they_are_used(tmp_path):
    options = dict(wrapper_options=dict(accumulative_counts=2))
    with pytest.raises(NotFiniteError, match=r"iteration 4: .*\n  gradients \(4 of 6\)"):
        train(tmp_path, Net("gradient"), **options)
    assert saved(tmp_path) == [1, 2, 3]


def test_averaged_weights_are_checked_before_they_are_written(tmp_path):
    class Ruin(Hook):
        def after_train_iter(self, runner, **kwargs):
            if runner.iter == 2:
                (ema,) = (h for h in runner.hooks if type(h).__name__ == "EMAHook")
                ema.ema_model.module.fc.weight.data[0, 0] = NAN

    with pytest.raises(
        NotFiniteError, match=r"iteration 3: a checkpoint is not written.*fc.weight"
    ):
        train(tmp_path, Net(), hooks=[dict(type="EMAHook"), Ruin()])
    assert saved(tmp_path) == [1, 2]


def test_squares_of_gradients_that_the_optimizer_cannot_hold(tmp_path):
    """A gradient of 1e20 is finite; its square, which AdamW keeps, is not."""
    with pytest.raises(NotFiniteError, match=r"gradients .*: fc.weight \(infinite\)"):
        train(tmp_path, Net("gradient", value=1e25))


def test_weights_that_are_loaded(tmp_path):
    model = Net()
    model.fc.bias.data.fill_(NAN)
    with pytest.raises(
        NotFiniteError, match=r"before the first iteration.*fc.bias \(NaN\).*initial"
    ):
        train(tmp_path, model)


def batch(inputs, boxes=None, branch=None):
    samples = []
    for i in range(2):
        sample = BaseDataElement(metainfo=dict(img_path=f"{branch or ''}{i}.png"))
        if boxes is not None:
            sample.set_field(InstanceData(bboxes=boxes[i]), "gt_instances", dtype=InstanceData)
        samples.append(sample)
    return inputs, samples


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("form", ["list", "batched", "branches"])
def test_finds_the_image(form, dtype):
    images = [torch.zeros(3, 4, 4, dtype=dtype), torch.zeros(3, 4, 4, dtype=dtype)]
    images[1][0, 1, 2] = INF
    inputs, samples = batch(torch.stack(images) if form == "batched" else images)
    data = dict(inputs=inputs, data_samples=samples)
    if form == "branches":
        data = {k: dict(a=v, b=v) for k, v in data.items()}
    found = bad_inputs(data)
    assert "of 1.png (1 infinite of 48 numbers)" in found
    assert "0.png" not in found
    images[1].zero_()
    clean = dict(inputs=images, data_samples=samples)
    assert bad_inputs(clean) == ""


def test_finds_boxes_of_mmdet_and_polygons():
    from mmdet.structures.bbox import HorizontalBoxes
    from mmdet.structures.mask import PolygonMasks

    boxes = [HorizontalBoxes(torch.tensor([[0.0, 0, 1, NAN]])), torch.zeros(1, 4)]
    inputs, samples = batch([torch.zeros(3, 4, 4, dtype=torch.uint8)] * 2, boxes)
    found = bad_inputs(dict(inputs=inputs, data_samples=samples))
    assert "gt_instances.bboxes of 0.png (1 NaN of 4 numbers)" in found
    import numpy as np

    masks = PolygonMasks([[np.array([0, 0, 1, 1, 0, INF])]], 4, 4)
    samples[1].gt_instances.masks = masks
    assert "gt_instances.masks of 1.png (1 infinite" in bad_inputs(dict(data_samples=samples))


class Alone(Net):
    """Goes wrong in the second process alone, where no gradient shows it."""

    def forward(self, inputs, data_samples=None, mode="loss"):
        if self.calls == 1 and torch.distributed.get_rank() == 1:
            self.wrong, self.at, self.value = "buffer", 2, INF
        return super().forward(inputs, data_samples, mode)


def _process(rank, folder):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    torch.distributed.init_process_group("gloo", store, rank=rank, world_size=2)
    torch.manual_seed(0)
    model = MMDistributedDataParallel(Alone(), broadcast_buffers=False)
    try:
        train(folder / str(rank), model)
    except NotFiniteError as error:
        (folder / f"{rank}.txt").write_text(str(error))
    torch.distributed.barrier()  # gloo aborts a process whose peer left while it still listened
    torch.distributed.destroy_process_group()


def test_all_processes_stop_together(tmp_path):
    mp.spawn(_process, (tmp_path,), nprocs=2)
    said = [(tmp_path / f"{rank}.txt").read_text() for rank in range(2)]
    assert said[0] == said[1]
    assert said[0].startswith("process 1: iteration 2: ")
    assert "norm.running_var (infinite)" in said[0]
    assert saved(tmp_path / "0") == [1]
