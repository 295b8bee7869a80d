"""What mmengine reads through its own schemes holds no code, or is refused."""

from __future__ import annotations

import json

import pytest
import torch
from mmengine.infer import BaseInferencer
from mmengine.runner.checkpoint import _load_checkpoint

from mmspike.checkpoints import CheckpointError, read_safely_in_mmengine
from tests.checkpoints.test_loading import Writes


@pytest.fixture
def model_zoo(tmp_path, monkeypatch):
    """Names that mmengine knows by a file in its folder: one of weights, one that writes a file."""
    monkeypatch.setenv("MMENGINE_HOME", str(tmp_path))
    zoo = {name: f"{name}.pth" for name in ("weights", "evil")}
    (tmp_path / "open_mmlab.json").write_text(json.dumps(zoo))
    torch.save({"state_dict": {"a": torch.ones(2)}}, tmp_path / "weights.pth")
    torch.save({"state_dict": {}, "evil": Writes(tmp_path / "trace")}, tmp_path / "evil.pth")
    read_safely_in_mmengine()
    return tmp_path


def test_openmmlab(model_zoo):
    assert _load_checkpoint("openmmlab://weights")["state_dict"]["a"].tolist() == [1, 1]
    with pytest.raises(CheckpointError, match="refused, nothing of it was run"):
        _load_checkpoint("openmmlab://evil")
    assert not (model_zoo / "trace").exists()


@pytest.mark.parametrize("scheme", ["torchvision", "openmmlab", "mmcls"])
def test_addresses_that_mmengine_knows_by_name(model_zoo, monkeypatch, scheme):
    def fetch(address, file, progress):
        (model_zoo / "evil.pth").rename(file)

    monkeypatch.setattr(torch.hub, "_hub_dir", str(model_zoo / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    known = {"torchvision": "torchvision", "openmmlab": "external", "mmcls": "mmcls"}[scheme]
    address = {"net": "http://example.org/net.pth"}
    monkeypatch.setattr(f"mmengine.runner.checkpoint.get_{known}_models", lambda: address)
    with pytest.raises(CheckpointError, match="refused, nothing of it was run"):
        _load_checkpoint(f"{scheme}://net")
    assert not (model_zoo / "trace").exists()


@pytest.mark.parametrize("address", ["s3://a/b.pth", "x:s3://a/b.pth", "petrel://a", "pavi://a"])
def test_other_stores_are_refused(model_zoo, address):
    with pytest.raises(CheckpointError, match="fetch the file and give its path"):
        _load_checkpoint(address)


@pytest.mark.parametrize("key", ["message_hub", "meta"])
def test_no_model_is_built_from_the_text_in_a_checkpoint(model_zoo, key):
    text = f"open({str(model_zoo / 'trace')!r}, 'w').close()\nmodel = dict(type='Any')\n"
    content = {"state_dict": {}, "meta": {}, key: {"cfg": text, "runtime_info": {"cfg": text}}}
    torch.save(content, model_zoo / "f.pth")
    with pytest.raises(ValueError, match="Cannot find the config in the checkpoint"):
        BaseInferencer._init_model(None, {}, str(model_zoo / "f.pth"))
    assert not (model_zoo / "trace").exists()
