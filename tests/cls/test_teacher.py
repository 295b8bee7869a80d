"""Teachers: what they compute, and who does not see them."""

from __future__ import annotations

import copy
import logging

import pytest
import timm
import torch
from mmengine.logging import MMLogger
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from mmpretrain.apis.model import ModelHub

from mmspike.checkpoints import CheckpointError
from mmspike.cls import Teacher
from tests.cls.helpers import IMAGENET, batch, build, classifier_cfg

NAME = "test_vit.r160_in1k"  # 0.4 M parameters


@pytest.fixture(scope="module")
def timm_teacher(tmp_path_factory):
    """A timm model of 10 classes with weights in a file, and its logits."""
    torch.manual_seed(1)
    model = timm.create_model(NAME, num_classes=10).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    file = tmp_path_factory.mktemp("teacher") / "vit.pth"
    torch.save(model.state_dict(), file)
    return model, file


def teacher_cfg(file, **options):
    return dict(
        type="mmspike.cls.Teacher", model=NAME, checkpoint=str(file), num_classes=10, **options
    )


def student(file, **options):
    return build(head=dict(distillation=True), teacher=teacher_cfg(file, **options))


def test_logits_are_those_of_the_teacher_alone(timm_teacher):
    model, file = timm_teacher
    pixels = torch.randint(0, 256, (2, 3, 160, 160)).float()
    cfg = model.pretrained_cfg
    assert cfg["mean"] != (0.485, 0.456, 0.406)  # not the student's
    mean, std = (torch.tensor(cfg[key]).view(-1, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        expected = model((pixels / 255 - mean) / std)
        own = model((pixels - 100) / 50)
    teacher = Teacher(NAME, file, num_classes=10)
    torch.testing.assert_close(teacher(pixels), expected)
    other = Teacher(NAME, file, mean=[100.0] * 3, std=[50.0] * 3, num_classes=10)
    torch.testing.assert_close(other(pixels), own)


@pytest.mark.parametrize("to_rgb", [True, False])
def test_the_student_gives_it_pixels_and_learns_its_label(timm_teacher, to_rgb):
    reference, file = timm_teacher
    cfg = classifier_cfg(head=dict(distillation=True), teacher=teacher_cfg(file))
    cfg["data_preprocessor"]["to_rgb"] = to_rgb
    model = MODELS.build(cfg).train()
    data, seen = batch(size=160), []
    model.teacher.register_forward_hook(lambda _, args, scores: seen.extend((*args, scores)))
    losses = model(**model.data_preprocessor(data, True), mode="loss")
    red_first = torch.stack(data["inputs"]).float().flip(1)
    torch.testing.assert_close(seen[0], red_first, atol=1e-3, rtol=0)
    mean, std = (torch.tensor(reference.pretrained_cfg[k]).view(-1, 1, 1) for k in ("mean", "std"))
    with torch.no_grad():
        scores = reference((red_first / 255 - mean) / std)
    torch.testing.assert_close(seen[1], scores, atol=1e-3, rtol=1e-3)
    label = scores.argmax(1)
    inputs = model.data_preprocessor(data, True)["inputs"]
    _, score = model.head(model.extract_feat(inputs))
    expected = 0.5 * torch.nn.functional.cross_entropy(score, label)
    torch.testing.assert_close(losses["loss_distill"], expected)
    losses["loss_distill"].backward()
    assert model.head.head_kd.weight.grad is not None
    assert all(p.grad is None for p in model.teacher._models[0].parameters())


def test_nobody_sees_it_but_it_moves_along(timm_teacher):
    model = student(timm_teacher[1])
    (inner,) = model.teacher._models
    alone = build(head=dict(distillation=True))
    assert model.state_dict().keys() == alone.state_dict().keys()
    assert len(list(model.parameters())) == len(list(alone.parameters()))
    assert len(list(model.buffers())) == len(list(alone.buffers()))
    wrapper = build_optim_wrapper(model, dict(optimizer=dict(type="SGD", lr=1.0)))
    held = {id(p) for group in wrapper.optimizer.param_groups for p in group["params"]}
    assert held.isdisjoint(id(p) for p in inner.parameters())
    model.train()
    assert not inner.training
    model.double()
    assert next(inner.parameters()).dtype is torch.float64
    average = ExponentialMovingAverage(model)
    assert average.module.teacher._models[0] is inner
    assert copy.deepcopy(model).teacher._models[0] is inner


def test_a_checkpoint_of_ours_teaches(tmp_path):
    teacher = build(neuron_cfg=dict(type="ReLU"), head=dict(neuron_cfg=dict(type="ReLU")))
    torch.save({"state_dict": teacher.state_dict()}, tmp_path / "twin.pth")
    options = dict(checkpoint=tmp_path / "twin.pth")
    cfg = classifier_cfg(neuron_cfg=dict(type="ReLU"), head=dict(neuron_cfg=dict(type="ReLU")))
    (tmp_path / "twin.py").write_text(f"default_scope = 'mmpretrain'\nmodel = {cfg!r}\n")
    pixels = torch.randint(0, 256, (2, 3, 32, 32)).float()
    inputs = (pixels - teacher.data_preprocessor.mean) / teacher.data_preprocessor.std
    with torch.no_grad():
        expected = teacher.eval()(inputs)
    assert expected.std() > 0
    for model in (cfg, str(tmp_path / "twin.py")):
        # the student's neurons are its own
        cfg = classifier_cfg(
            head=dict(distillation=True),
            neuron_cfg=dict(type="mmspike.LIF"),
            teacher=dict(type="mmspike.cls.Teacher", model=model, **options),
        )
        learner = MODELS.build(cfg)
        learner.init_weights()
        torch.testing.assert_close(learner.teacher(pixels), expected)


@pytest.mark.parametrize("to_rgb", [True, False])
def test_mean_and_deviation_are_given_red_first(to_rgb, tmp_path):
    relu = dict(type="ReLU")
    cfg = classifier_cfg(neuron_cfg=relu, head=dict(neuron_cfg=relu))
    cfg["data_preprocessor"]["to_rgb"] = to_rgb
    red_first = {k: v[:: 1 if to_rgb else -1] for k, v in IMAGENET.items() if k in ("mean", "std")}
    torch.save({"state_dict": MODELS.build(cfg).state_dict()}, tmp_path / "twin.pth")
    options = dict(type="mmspike.cls.Teacher", model=cfg, checkpoint=tmp_path / "twin.pth")
    pixels = torch.randint(0, 256, (2, 3, 32, 32)).float()
    told, given = (MODELS.build({**options, **own})(pixels) for own in ({}, red_first))
    assert told.std() > 0
    torch.testing.assert_close(given, told)


def test_mmpretrains_models_by_name(monkeypatch, tmp_path):
    entry = ModelHub.get("resnet18_8xb32_in1k")
    entry.config.model.head.num_classes = 10
    entry.config.model.backbone.base_channels = 8
    entry.config.model.backbone.stem_channels = 8
    entry.config.model.head.in_channels = 64
    entry.weights = str(tmp_path / "resnet.pth")
    monkeypatch.setattr(ModelHub, "get", lambda name: entry)
    torch.manual_seed(2)
    model = MODELS.build(dict(entry.config.model, _scope_="mmpretrain")).eval()
    torch.save({"state_dict": model.state_dict()}, entry.weights)
    teacher = Teacher("resnet18_8xb32_in1k")
    assert teacher.num_classes == 10
    with torch.no_grad():
        expected = model(torch.zeros(1, 3, 64, 64))
    mean = torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1)
    torch.testing.assert_close(teacher(mean.expand(1, 3, 64, 64)), expected)


def test_what_is_wrong_with_a_teacher_is_told(timm_teacher, tmp_path):
    file = timm_teacher[1]
    with pytest.raises(CheckpointError, match=r"there is no file absent\.pth; give the weights of"):
        student("absent.pth")
    with pytest.raises(ValueError, match=r"has 10 classes, but model\.head\.num_classes is 7"):
        build(num_classes=7, head=dict(distillation=True), teacher=teacher_cfg(file))
    with pytest.raises(CheckpointError, match=r"model\.teacher \('test_vit.*of another shape: hea"):
        Teacher(NAME, file).load()
    with pytest.raises(ValueError, match="neither timm nor mmpretrain has a model 'test_vitt'"):
        Teacher("test_vitt").load()
    with pytest.raises(ValueError, match=r"there is no config absent\.py"):
        Teacher("absent.py", file).load()
    with pytest.raises(ValueError, match=r"model\.teacher\.checkpoint is missing: model=a X is no"):
        Teacher(dict(type="X"))
    with pytest.raises(ValueError, match=r"set model\.head\.distillation=True"):
        MODELS.build(classifier_cfg(teacher=teacher_cfg(file)))


def test_a_distilled_student_can_be_built_and_tested_without_the_teachers_file():
    cfg = classifier_cfg(head=dict(distillation=True), teacher=teacher_cfg("absent.pth"))
    model = MODELS.build(cfg).eval()
    assert model(torch.rand(1, 3, 32, 32)).shape == (1, 10)


def test_weights_that_cannot_be_fetched(monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(CheckpointError, match=r"cannot be fetched \(OSError: no network\).*FILE"):
        Teacher("caformer_b36.sail_in22k_ft_in1k").load()


def test_the_published_teacher_is_one_of_timms():
    with torch.device("meta"):
        model = timm.create_model("caformer_b36.sail_in22k_ft_in1k")
    assert model.num_classes == 1000


def test_a_file_of_other_classes_names_the_key(timm_teacher):
    _, file = timm_teacher
    cfg = teacher_cfg(file)
    del cfg["num_classes"]
    cure = r"model\.teacher \(.*tells 10 classes apart: set model\.teacher\.num_classes=10$"
    with pytest.raises(CheckpointError, match=cure):
        build(head=dict(distillation=True), teacher=cfg)


def test_a_teacher_that_was_trained_otherwise_is_named(tmp_path):
    said, handler = [], logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    MMLogger.get_instance("teachers").addHandler(handler)
    cfg, now = classifier_cfg(), classifier_cfg(neuron_cfg=dict(type="ReLU"))
    content = {"state_dict": MODELS.build(cfg).state_dict(), "meta": {"cfg": f"model = {cfg!r}"}}
    torch.save(content, tmp_path / "spikes.pth")
    teacher = dict(type="mmspike.cls.Teacher", model=now, checkpoint=str(tmp_path / "spikes.pth"))
    model = build(head=dict(distillation=True), teacher=teacher)
    model.init_weights()
    (line,) = [line for line in said if "was trained with other settings" in line]
    assert line.startswith(f"model.teacher: {tmp_path / 'spikes.pth'} was trained with other")
    assert line.endswith(" then, ReLU() now")


INIT_CFGS = {
    "T": (dict(allow_changed=["T"]), None, "INFO"),
    "time steps": (dict(allow_changed="time_steps"), None, "INFO"),
    "nothing": (dict(allow_changed=()), None, "WARNING"),
    "no setting": (
        dict(allow_changed=["steps"]),
        r"model\.init_cfg\.allow_changed must be some of neuron_cfg, time_steps, .*got \['steps'\]",
        "",
    ),
    "no names": (
        dict(allow_missing=[1]),
        r"model\.init_cfg\.allow_missing must be names of tensors or parts, got \[1\]",
        "",
    ),
    "no second head": (
        dict(allow_missing=()),
        r"set model\.head\.distillation=False; or, .* model\.init_cfg\.allow_missing=\['head\.",
        "",
    ),
}


@pytest.mark.parametrize("case", INIT_CFGS)
def test_what_is_meant_is_named_by_its_key(case, tmp_path):
    given, message, level = INIT_CFGS[case]
    cfg = classifier_cfg()
    content = {"state_dict": MODELS.build(cfg).state_dict(), "meta": {"cfg": f"model = {cfg!r}"}}
    torch.save(content, tmp_path / "one.pth")
    init = dict(type="Pretrained", checkpoint=str(tmp_path / "one.pth"))
    init |= dict(allow_missing=["head.head_kd", "head.hed"]) | given
    said, handler = [], logging.Handler()
    handler.emit = lambda record: said.append((record.levelname, record.getMessage()))
    MMLogger.get_instance("meant").addHandler(handler)
    new = classifier_cfg(head=dict(distillation=True), init_cfg=init)
    new["backbone"]["time_steps"] = 4
    model = MODELS.build(new)
    if message is not None:
        with pytest.raises(CheckpointError, match=message):
            model.init_weights()
        return
    model.init_weights()
    assert ("WARNING", "allow_missing: the model has no head.hed") in said
    ((found, line),) = [(name, line) for name, line in said if "trained with other" in line]
    assert line.endswith("backbone: T = 1 then, T = 4 now")
    assert found == level
