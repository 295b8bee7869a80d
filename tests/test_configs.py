"""Configs: every one loads anywhere, is what its name and its tables say, and builds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
import warnings
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import mmengine.logging
import pytest
from mmengine.config import Config
from mmengine.config import utils as config_utils
from mmengine.fileio import load
from mmengine.hub import get_config
from mmengine.registry import (
    DATA_SAMPLERS,
    DATASETS,
    HOOKS,
    LOOPS,
    METRICS,
    MODELS,
    OPTIM_WRAPPERS,
    PARAM_SCHEDULERS,
    VISBACKENDS,
    VISUALIZERS,
    init_default_scope,
)

import mmspike.registry  # noqa: F401  makes "mmspike::" and "mmseg::" known in configs
from mmspike.engine.command_line import make_parser, read_config
from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "tools/analysis_tools"))
import write_config_tables as tables

FOLDER = ROOT / "configs"
EVERY = sorted(str(p.relative_to(FOLDER)) for p in FOLDER.rglob("*.py"))
METHODS = [name for name in EVERY if "/" in name and not name.startswith("_base_")]
MASK_RCNN, SEMANTIC_FPN = "mask-rcnn_metaspikeformer", "semantic-fpn_metaspikeformer"
SHORT = {
    "mask_rcnn_metaspike-55m_coco": f"{MASK_RCNN}-55m_t1_8xb2-12e_coco",
    "mask_rcnn_metaspike_coco": f"{MASK_RCNN}-15m_t1_8xb2-12e_coco",
    "mask_rcnn_metaspike_shapes": f"{MASK_RCNN}-4m_t1_1xb4-1k_shapes-128x128",
    "mask_rcnn_metaspike_t4_coco": f"{MASK_RCNN}-15m_t4_8xb2-8e_coco",
    "semantic_fpn_metaspike-55m_ade20k": f"{SEMANTIC_FPN}-55m_t1_b8-160k_ade20k-512x512",
    "semantic_fpn_metaspike_ade20k": f"{SEMANTIC_FPN}-15m_t1_b8-160k_ade20k-512x512",
    "semantic_fpn_metaspike_cityscapes": f"{SEMANTIC_FPN}-15m_t1_b8-160k_cityscapes-512x1024",
    "semantic_fpn_metaspike_nuclei": f"{SEMANTIC_FPN}-1m_t1_1xb4-3k_nuclei-256x256",
    "semantic_fpn_metaspike_shapes": f"{SEMANTIC_FPN}-4m_t1_1xb4-1300it_shapes-128x128",
    "semantic_fpn_metaspike_t4_ade20k": f"{SEMANTIC_FPN}-15m_t4_b8-160k_ade20k-512x512",
    "semantic_fpn_metaspike_voc12": f"{SEMANTIC_FPN}-15m_t1_b8-40k_voc12-512x512",
    **{
        f"mask_rcnn_espikeformer_{size}_coco": f"mask-rcnn_espikeformer-{size}_t1-d4_2xb4-12e_coco"
        for size in ("10m", "19m")
    },
    **{
        f"semantic_fpn_espikeformer_{size}_ade20k": (
            f"semantic-fpn_espikeformer-{size}_t1-d4_1xb16-160k_ade20k-512x512"
        )
        for size in ("10m", "19m")
    },
    "mask_rcnn_espikeformer_shapes": "mask-rcnn_espikeformer-5m_t1-d4_1xb4-1k_shapes-128x128",
    "semantic_fpn_espikeformer_shapes": (
        "semantic-fpn_espikeformer-5m_t1-d4_1xb4-1300it_shapes-128x128"
    ),
    "upernet_metaspike_ade20k": "upernet_metaspikeformer-15m_t1_b8-160k_ade20k-512x512",
    **{
        f"{family}_{size}m_in1k": f"{family}-{size}m_{steps}_8xb{batch}-200e_in1k"
        for family, steps, batch, sizes in (
            ("metaspikeformer", "t1", 128, (15, 31, 55)),
            ("espikeformer", "t1-d4", 256, (5, 10, 19)),
        )
        for size in sizes
    },
    **{
        f"metaspikeformer_{size}m_t4_in1k": f"metaspikeformer-{size}m-distilled_t4_8xb24-20e_in1k"
        for size in (15, 31, 55)
    },
}
NAME = re.compile(
    r"(?:[a-z0-9-]+_)?(?P<backbone>metaspikeformer|espikeformer)-(?P<size>\d+)m"
    r"(?P<variant>-distilled|-relu)?"
    r"_t(?P<steps>\d+)(?:-d(?P<levels>\d+))?_(?:\d+x)?b(?P<batch>\d+)-(?P<length>\d+)(?P<unit>e|k|it)_[a-z0-9-]+?"
    r"(?:-(?P<height>\d+)x(?P<width>\d+))?"
)


def without_scopes(node):
    if isinstance(node, dict):
        return {k: without_scopes(v) for k, v in node.items() if k != "_scope_"}
    if isinstance(node, list | tuple):
        return [without_scopes(v) for v in node]
    # a config that names another finds it beside itself, in the package or in the clone
    return node.replace("/mmspike/.mim/", "/") if isinstance(node, str) else node


@pytest.fixture(autouse=True, scope="module")
def _metafiles_once():
    """Mmengine reads all metafiles of a package, again for each config that is inherited."""
    load = config_utils.load
    config_utils.load = cache(load)
    yield
    config_utils.load = load


@pytest.fixture(scope="module")
def complaints(tmp_path_factory):
    """What a process without this package says of each config; mmengine alone reads them."""
    code = """
    import functools, json, sys, warnings
    from pathlib import Path
    from mmengine.config import Config, utils

    utils.load = functools.cache(utils.load)  # mmdet's metafiles once
    warnings.simplefilter("error")
    found = {}
    for path in sys.argv[2:]:
        try:
            Config.fromfile(Path(sys.argv[1], path))
        except Exception as error:
            found[path] = repr(error)
    assert not {"mmspike", "mmdet", "mmseg", "mmpretrain", "timm"} & set(sys.modules)
    print(json.dumps(found))
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(FOLDER), *EVERY]
    folder = tmp_path_factory.mktemp("elsewhere")
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", EVERY)
def test_mmengine_alone_reads_it_without_a_warning(name, complaints):
    assert complaints.get(name) is None


@pytest.mark.parametrize("short", SHORT)
def test_short_names_lead_to_the_same(short):
    assert (FOLDER / f"{short}.py").read_text().count("\n") == 1
    (new,) = FOLDER.glob(f"*/{SHORT[short]}.py")
    assert Config.fromfile(FOLDER / f"{short}.py").to_dict() == Config.fromfile(new).to_dict()


@pytest.fixture
def complaints_of_mmengine(monkeypatch):
    """Lines that mmengine logs as warnings."""
    lines, plain = [], mmengine.logging.print_log

    def print_log(msg, logger=None, level=20):
        lines.extend([msg] if level >= 30 else [])
        plain(msg, logger, level)

    monkeypatch.setattr(mmengine.logging, "print_log", print_log)
    return lines


def build_all_but_the_model(cfg, root):
    """Data sets of empty folders, which are not read, their pipelines, metrics and hooks."""
    for split in ("train", "val", "test"):
        settings = cfg[f"{split}_dataloader"].dataset
        prefix = settings.get("data_prefix", split)
        for folder in [prefix] if isinstance(prefix, str) else prefix.values():
            (root / folder).mkdir(parents=True, exist_ok=True)
        if "ann_file" in settings:
            (root / settings.ann_file).parent.mkdir(parents=True, exist_ok=True)
            (root / settings.ann_file).touch()
        dataset = DATASETS.build({**settings, "data_root": str(root), "lazy_init": True})
        assert len(dataset.pipeline.transforms) >= 2
    evaluator = dict(cfg.val_evaluator)
    if "ann_file" in evaluator:
        evaluator["ann_file"] = None  # a file that is not there
    METRICS.build(evaluator)
    VISUALIZERS.build({**cfg.visualizer, "vis_backends": [], "name": str(root)})
    for hook in (*cfg.default_hooks.values(), *cfg.custom_hooks):
        HOOKS.build(hook)
    if cfg.get("tta_model"):
        assert MODELS.get(f"{cfg.tta_model.get('_scope_', cfg.default_scope)}.{cfg.tta_model.type}")


def look_up_the_rest(cfg):
    """Classes of what a training builds besides."""
    settings = [(LOOPS, cfg.train_cfg), (LOOPS, cfg.val_cfg), (OPTIM_WRAPPERS, cfg.optim_wrapper)]
    settings += [(PARAM_SCHEDULERS, scheduler) for scheduler in cfg.param_scheduler]
    settings += [(DATA_SAMPLERS, cfg[f"{s}_dataloader"].sampler) for s in ("train", "val")]
    settings += [(VISBACKENDS, backend) for backend in cfg.visualizer.vis_backends]
    for registry, setting in settings:
        with registry.switch_scope_and_registry(setting.get("_scope_")) as found:
            assert found.get(setting.type) is not None


@pytest.mark.parametrize("name", METHODS)
def test_a_config_elsewhere_builds_on_it(name, tmp_path, complaints_of_mmengine):
    skip_without_host(name)
    path = tmp_path / "mine.py"
    path.write_text(f'_base_ = "mmspike::{name}"\n')
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cfg = Config.fromfile(path)
    plain = Config.fromfile(FOLDER / name)
    assert without_scopes(cfg.to_dict()) == without_scopes(plain.to_dict())
    count = tables.count_parameters(cfg)
    assert f"| {count / 1e6:.2f} M |" in row_of(name)
    init_default_scope(cfg.default_scope)
    build_all_but_the_model(cfg, tmp_path)
    look_up_the_rest(cfg)
    assert [line for line in complaints_of_mmengine if "mmspike" in line] == []


def skip_without_host(name):
    """Classification needs packages that detection and segmentation do without."""
    if name.startswith("classification/"):
        for package in ("mmpretrain", "timm"):
            if find_spec(package) is None:
                pytest.skip(f"needs {package}: make install brings it")


def row_of(name):
    """A config's row in the table of its folder's README."""
    lines = (FOLDER / name).with_name("README.md").read_text().splitlines()
    (row,) = (line for line in lines if line.startswith(f"| [`{Path(name).stem}`]"))
    return row


@pytest.mark.parametrize("name", METHODS)
def test_its_name_says_what_it_is(name):
    cfg, stem = Config.fromfile(FOLDER / name), name.split("/")[1].removesuffix(".py")
    said = NAME.fullmatch(stem)
    assert said, "see configs/README.md"
    assert cfg.model.backbone.time_steps == int(said["steps"])
    assert cfg.train_dataloader.batch_size == int(said["batch"])
    length = int(said["length"]) * (1000 if said["unit"] == "k" else 1)
    assert cfg.train_cfg["max_epochs" if said["unit"] == "e" else "max_iters"] == length
    assert cfg.model.backbone.type.lower() == f"mmspike.{said['backbone']}"
    assert (said["variant"] == "-distilled") == ("teacher" in cfg.model)
    neuron = cfg.model.get("neuron_cfg", {})
    assert (said["variant"] == "-relu") == (neuron.get("type") == "ReLU")
    assert neuron.get("levels") == (int(said["levels"]) if said["levels"] else None)
    arch = dict(type=cfg.model.backbone.type, arch=cfg.model.backbone.arch)
    if isinstance(arch["arch"], str):
        assert arch["arch"] == f"{said['size']}M"
    else:
        count = tables.count_parameters(Config(dict(model=arch)))
        assert round(count / 1e6) == int(said["size"])
    if said["height"] and "size" in cfg.model.data_preprocessor:
        assert tuple(cfg.model.data_preprocessor.size) == (int(said["height"]), int(said["width"]))


@pytest.mark.parametrize("name", METHODS)
def test_is_listed_with_the_source_of_its_results(name):
    folder = name.split("/")[0]
    assert f"configs/{folder}/metafile.yml" in load(str(ROOT / "model-index.yml"))["Import"]
    metafile = load(str(FOLDER / folder / "metafile.yml"))
    (model,) = (m for m in metafile["Models"] if m["Config"] == f"configs/{name}")
    assert model["Name"] == name.split("/")[1].removesuffix(".py")
    (collection,) = (c for c in metafile["Collections"] if c["Name"] == model["In Collection"])
    assert (ROOT / collection["README"]).is_file()
    found, plain = get_config(f"mmspike::{name}"), Config.fromfile(FOLDER / name)
    assert without_scopes(found.to_dict()) == without_scopes(plain.to_dict())
    for result in model.get("Results", []):
        assert result["Source"] in ("published", "measured")
        assert result["Conditions"]
        assert all(isinstance(value, float) for value in result["Metrics"].values())


@pytest.mark.parametrize("page", tables.pages(), ids=lambda p: str(p.relative_to(ROOT)))
def test_tables_are_those_of_the_script(page):
    if page.parent.name in ("configs", "classification"):
        skip_without_host("classification/")
    assert tables.render(page) == page.read_text(), "run write_config_tables.py"


def test_check_names_the_pages_that_are_to_be_written(monkeypatch, capsys):
    skip_without_host("classification/")
    monkeypatch.setattr(sys, "argv", ["write_config_tables.py", "--check"])
    tables.main()
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(tables, "result", lambda *_: "99 %")
    with pytest.raises(SystemExit):
        tables.main()
    assert "configs/README.md: to be written" in capsys.readouterr().out


def test_pages_with_tables():
    shown = {p.parent.name for p in tables.pages()}
    assert shown >= {name.split("/")[0] for name in METHODS}


@pytest.mark.parametrize("name", EVERY)
def test_lists_are_restated(name):
    assert not re.search(r"_base_\.\w+\[", (FOLDER / name).read_text())


HOST = {  # ours; the host, and its own; keys that differ on purpose
    "datasets/ade20k": ("mmseg", "datasets/ade20k", {"batch_size", "pin_memory"}),
    "datasets/voc12": ("mmseg", "datasets/pascal_voc12", {"batch_size"}),
    "datasets/cityscapes": ("mmseg", "datasets/cityscapes", {"batch_size"}),
    "datasets/imagenet": (
        "mmpretrain",
        "datasets/imagenet_bs64_swin_224",
        {"batch_size", "num_workers", "data_root"},
    ),
    "seg_runtime": ("mmseg", "default_runtime", set()),
    "cls_runtime": ("mmpretrain", "default_runtime", {"interval", "cudnn_benchmark"}),
}
VARIABLES = ("dataset_type", "crop_size", "img_ratios", "tta_pipeline", "data_preprocessor")


def flat(node, path=()):
    """Values by the path to them."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in pairs:
        if isinstance(value, dict | list | tuple) and value:
            yield from flat(value, (*path, key))
        elif key != "_scope_":
            yield (*path, key), value


@pytest.mark.parametrize("ours", HOST)
def test_what_is_restated_is_what_the_host_has(ours, tmp_path):
    host, theirs, changed = HOST[ours]
    if host == "mmpretrain":
        skip_without_host("classification/")
    path = tmp_path / "theirs.py"
    path.write_text(f'_base_ = "{host}::_base_/{theirs}.py"\n')
    mine = dict(flat(Config.fromfile(FOLDER / f"_base_/{ours}.py").to_dict()))
    for key, value in flat(Config.fromfile(path).to_dict()):
        if key[0] in VARIABLES:
            continue  # theirs, or what our runtime or model has
        if key[-1] not in changed:
            our = mine[key]
            # the same, by its scope
            our = our.removeprefix(f"{host}.") if key[-1] == "type" else our
            assert our == value, key


def arguments(config, *options):
    return make_parser("").parse_args([str(config), "--cfg-options", *options])


@pytest.mark.parametrize("given", ["elsewhere", "elsewhere/", "data/shapes/deeper"])
def test_data_root_moves_all_data(given):
    path = FOLDER / "mask_rcnn_metaspike_shapes.py"
    usual = dict(flat(Config.fromfile(path).to_dict()))
    cfg = read_config(arguments(path, f"data_root={given}", "val_evaluator.metric=bbox"))
    moved = {k: v for k, v in flat(cfg.to_dict()) if v != usual.get(k)}
    root = given.rstrip("/")
    assert moved.pop(("val_evaluator", "metric")) == "bbox"
    for key in ("launcher", "work_dir"):
        moved.pop((key,))
    assert moved.pop(("data_root",)) == given
    splits = ("train", "val", "test")
    expected = {(f"{s}_dataloader", "dataset", "data_root"): f"{root}/" for s in splits}
    for split in splits[1:]:
        expected[f"{split}_evaluator", "ann_file"] = f"{root}/annotations/val.json"
    assert moved == expected


def test_data_root_that_reaches_nothing_is_an_error(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(f'_base_ = "{FOLDER}/semantic_fpn_metaspike_shapes.py"\ndata_root = "other/"\n')
    with pytest.raises(SystemExit, match=r"mine\.py has a path that begins with its data_root, 'o"):
        read_config(arguments(path, "data_root=elsewhere"))
