"""A file whose bytes are not those that were written is refused."""

from __future__ import annotations

import random

import pytest
import torch
from mmengine.runner.checkpoint import load_checkpoint
from torch.serialization import set_crc32_options

from mmspike.checkpoints import CheckpointError, read_checkpoint, read_safely_in_mmengine


def content():
    state = {f"{i}.weight": torch.rand(16, 3) for i in range(8)}
    return {"state_dict": state, "meta": {"epoch": 3}}


def flip(data, bit):
    damaged = bytearray(data)
    damaged[bit // 8] ^= 1 << bit % 8
    return damaged


@pytest.fixture
def file(tmp_path):
    torch.save(content(), tmp_path / "file.pth")
    return tmp_path / "file.pth"


@pytest.mark.parametrize("mmap", [False, True])
def test_no_flipped_bit_is_read_as_other_numbers(file, mmap):
    expected, data = read_checkpoint(file).content, file.read_bytes()
    refused = 0
    for bit in random.Random(0).sample(range(8 * len(data)), 150):
        file.write_bytes(flip(data, bit))
        try:
            read = read_checkpoint(file, hashed=False, mmap=mmap).content
        except CheckpointError as error:
            refused += "damaged" in str(error)
            continue
        assert read["meta"] == expected["meta"]  # padding between the records, or their dates
        for name, value in expected["state_dict"].items():
            assert torch.equal(read["state_dict"][name], value)
    assert refused > 60


def test_damage_is_named(file):
    data = file.read_bytes()
    numbers = content_of_record(data, file, "data/3")
    file.write_bytes(flip(data, 8 * numbers + 5))
    with pytest.raises(CheckpointError, match=r"not those that were written .*'file/data/3'"):
        read_checkpoint(file)


def content_of_record(data, file, name):
    """Where the bytes of a record start."""
    value = read_checkpoint(file).content["state_dict"][f"{name.split('/')[1]}.weight"]
    return data.index(value.numpy().tobytes())


def test_mmengine_sees_damage(file):
    read_safely_in_mmengine()
    model = torch.nn.Sequential(*(torch.nn.Linear(3, 16, bias=False) for _ in range(8)))
    load_checkpoint(model, str(file))
    data = file.read_bytes()
    file.write_bytes(flip(data, 8 * content_of_record(data, file, "data/0")))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match="not those that were written"):
        load_checkpoint(model, str(file))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_files_without_checksums_load(tmp_path, capfd):
    saved = content()
    set_crc32_options(False)
    try:
        torch.save(saved, tmp_path / "f.pth")
    finally:
        set_crc32_options(True)
    read = read_checkpoint(tmp_path / "f.pth").content["state_dict"]
    assert all(torch.equal(v, saved["state_dict"][k]) for k, v in read.items())
    assert "written without checksums, so that damage is not seen" in "".join(capfd.readouterr())
