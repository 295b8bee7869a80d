"""torchvision beside a torch for CPUs, and everything but classification without torchvision."""

from __future__ import annotations

import sys

import pytest
import torch

from mmspike import torchvision_operators as operators
from tests.test_registry import run_python


def test_hosts_import_it_after_mmspike_in_any_order():
    run_python(
        """
        import warnings
        warnings.simplefilter("ignore")
        from mmengine.registry import MODELS, DefaultScope
        import mmspike
        from mmengine.utils.dl_utils import collect_env
        assert collect_env()["TorchVision"]
        import torch, torchvision
        from torchvision.transforms import functional as F
        assert F.hflip(torch.eye(2)[None]).tolist() == [[[0.0, 1.0], [1.0, 0.0]]]
        import mmdet.apis, mmseg.apis, mmpretrain, timm, mmspike.det, mmspike.seg, mmspike.cls
        assert MODELS.get("mmspike.cls.SpikeClsHead") is mmspike.cls.SpikeClsHead
        """
    )


def test_without_it_detection_and_segmentation_work_and_classification_says_what_is_missing():
    out = run_python(
        """
        import sys
        sys.modules.update(dict.fromkeys(("mmpretrain", "timm", "torchvision")))
        import mmspike, mmspike.det, mmspike.seg, mmspike.engine.preflight
        from mmengine.utils.dl_utils import collect_env
        from mmspike import installed
        assert "TorchVision" not in collect_env()
        installed.find_spec = lambda name: None if name in installed.CLASSIFICATION else name
        try:
            import mmspike.cls
        except installed.MissingPackageError as error:
            print(error)
        """
    )
    assert "classification, needs mmpretrain and timm and torchvision: `make install`" in out


@pytest.fixture
def fresh(monkeypatch):
    """As if nothing had imported torchvision yet."""
    finders = [f for f in sys.meta_path if type(f).__name__ != "BeforeTorchvision"]
    monkeypatch.setattr(sys, "meta_path", finders)
    monkeypatch.setattr(operators, "_libraries", [])
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)


def test_nothing_is_defined_where_the_compiled_part_can_be_loaded(fresh, monkeypatch):
    loaded = []
    monkeypatch.setattr(torch.ops, "load_library", loaded.append)
    assert operators.define_missing_operators() is False
    assert operators.write_startup_file() is None
    assert {file.rsplit("/", 1)[1] for file in loaded} == {"_C.so"}
    monkeypatch.setattr(operators, "_folder", lambda: None)
    assert operators.define_missing_operators() is False  # not installed


def test_the_first_import_defines_what_is_missing_and_later_ones_nothing(fresh, monkeypatch):
    defined = []
    monkeypatch.setattr(operators, "define_missing_operators", lambda: defined.append(1))
    operators.watch_imports()
    operators.watch_imports()
    (finder,) = [f for f in sys.meta_path if isinstance(f, operators.BeforeTorchvision)]
    for name, times in (("torchaudio", 0), ("torchvision", 1), ("torchvision", 1)):
        assert finder.find_spec(name) is None
        assert len(defined) == times
    sys.meta_path.remove(finder)
    monkeypatch.setitem(sys.modules, "torchvision", sys)
    operators.watch_imports()  # too late
    assert not any(isinstance(f, operators.BeforeTorchvision) for f in sys.meta_path)


def test_the_startup_file_serves_processes_without_mmspike(fresh, monkeypatch, tmp_path):
    (tmp_path / "torchvision").mkdir()
    monkeypatch.setattr(operators, "_folder", lambda: str(tmp_path / "torchvision"))
    if torch.version.cuda:
        pytest.skip("where torch has CUDA, torchvision's compiled part works")
    file = operators.write_startup_file()
    assert file == str(tmp_path / operators.STARTUP_FILE)
    code = f"""
        import site, sys
        sys.meta_path[:] = [f for f in sys.meta_path if type(f).__name__ != "BeforeTorchvision"]
        site.addpackage({str(tmp_path)!r}, {operators.STARTUP_FILE!r}, set())
        assert "torch" not in sys.modules
        import torchvision, mmdet.models
        assert not any(name.split(".")[0] == "mmspike" for name in sys.modules)
        """
    run_python(code)
