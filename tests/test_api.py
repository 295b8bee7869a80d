"""What ``import mmspike`` gives: names for scripts, and for the hosts' own calls."""

from __future__ import annotations

from importlib import import_module

import pytest
from mmengine.config import Config

import mmspike
from mmspike.engine.command_line import parse_options
from tests.conftest import ROOT
from tests.test_registry import run_beside_hosts, run_python


def test_import_loads_no_host_and_no_model():
    run_python(
        """
        import sys
        import mmspike

        hosts = {"mmdet", "mmseg", "mmcv", "spikingjelly", "matplotlib", "scipy"}
        assert not hosts & {name.split(".")[0] for name in sys.modules}
        assert "mmspike.neurons" not in sys.modules
        assert set(mmspike.__all__) <= set(dir(mmspike))
        from mmspike import LIF, MetaSpikeFormer, SpikeFPN, load_pretrained, measure
        from mmspike import switch_to_deploy
        assert MetaSpikeFormer(arch="15M").out_strides == [4, 8, 16, 16]
        """
    )


@pytest.mark.parametrize("name", mmspike.__all__)
def test_names_are_those_of_their_modules(name):
    value = getattr(mmspike, name)
    assert value is getattr(import_module(value.__module__), name)
    assert value.__module__.startswith("mmspike.")


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="'mmspike' has no attribute 'SpikeNothing'"):
        mmspike.SpikeNothing  # noqa: B018


APIS = {
    "detector": "from mmdet.apis import inference_detector as infer, init_detector as init",
    "segmentor": "from mmseg.apis import inference_model as infer, init_model as init",
}


@pytest.mark.parametrize("kind", APIS)
def test_the_apis_of_the_hosts(kind, request, tmp_path):
    trained = request.getfixturevalue(f"trained_{kind}")
    cfg = Config.fromfile(ROOT / trained.config)
    cfg.merge_from_dict(parse_options(trained.options))
    cfg.dump(tmp_path / "config.py")
    out = run_beside_hosts(
        f"""
        import mmspike
        {APIS[kind]}

        model = init({str(tmp_path / "config.py")!r}, {str(trained.checkpoint)!r}, device="cpu")
        for number in range(2):
            found = infer(model, f"{trained.root}/val/{{number:06d}}.png")
            if "pred_instances" in found:
                print("found", (found.pred_instances.scores > 0.3).sum().item())
            else:
                print("found", len(found.pred_sem_seg.data.unique()) - 1)
        """,
        tmp_path,
    )
    assert sum(int(line.split()[1]) for line in out.splitlines() if line.startswith("found")) > 0


@pytest.mark.parametrize(
    ("kind", "base"),
    [
        ("segmentor", "semantic_fpn/semantic-fpn_metaspikeformer-4m_t1_1xb4-1300it_shapes-128x128"),
        ("detector", "faster_rcnn/faster-rcnn_metaspikeformer-4m_t1_1xb4-800it_own-boxes"),
    ],
)
def test_the_apis_take_configs_that_lie_elsewhere(kind, base, tmp_path):
    config = tmp_path / "config.py"
    config.write_text(f'_base_ = "mmspike::{base}.py"\n')
    out = run_beside_hosts(
        f"""
        import warnings
        import mmspike
        import numpy as np
        {APIS[kind]}

        with warnings.catch_warnings(record=True):  # that there is no checkpoint, as is asked for
            model = init({str(config)!r}, None, device="cpu")
        found = infer(model, np.zeros((128, 128, 3), dtype=np.uint8))
        print("found", len(found.keys()))
        """,
        tmp_path,
    )
    assert "found" in out
