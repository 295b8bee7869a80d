"""Letting mmengine read checkpoints without running anything that they hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NoReturn

import mmengine.runner.checkpoint
from mmengine.logging import print_log
from mmengine.runner.checkpoint import CheckpointLoader

from mmspike.checkpoints.reading import CheckpointError, read_checkpoint
from mmspike.checkpoints.record import CONFIG_TEXT

_OTHER_STORES = [r"(\S+\:)?s3://", r"(\S+\:)?petrel://", "pavi://"]
_GPU_IDS = re.compile(r"^gpu_ids\s*=\s*(?:range\((\d{1,5}), (\d{1,5})\)|\[([\d,\s]*)\])", re.M)


def read_safely_in_mmengine() -> None:
    """Let mmengine read checkpoints through :func:`read_checkpoint`, and drop the text in them.

    mmengine unpickles anything when a file is not plain weights, and executes configs that lie in
    checkpoints as text. From this call on, in this process, ``load_from``, ``resume``,
    ``init_cfg=dict(type="Pretrained")`` and ``mmdet.apis`` refuse such files, of a path, an
    ``http(s)`` address, ``torchvision://``, ``openmmlab://`` or ``mmcls://``, and never see such
    text; ``s3://``, ``petrel://`` and ``pavi://`` are refused.
    """

    def load_from_safe_reader(filename: str, map_location: Any = None) -> Any:
        file = read_checkpoint(filename, map_location or "cpu", hashed=False)
        return without_code(file.content, str(file.path))

    def load_from_other_store(filename: str, map_location: Any = None) -> NoReturn:
        raise CheckpointError(
            f"checkpoint {filename}: mmengine would unpickle whatever it holds; fetch the file and "
            "give its path"
        )

    CheckpointLoader.register_scheme(("", "http://", "https://"), load_from_safe_reader, force=True)
    CheckpointLoader.register_scheme(_OTHER_STORES, load_from_other_store, force=True)
    # where torchvision://, openmmlab:// and mmcls:// end, once their address or file is known
    mmengine.runner.checkpoint.load_from_http = load_from_safe_reader
    mmengine.runner.checkpoint._safe_torch_load = load_from_safe_reader


def without_code(content: Any, file: str) -> Any:
    """Take the text of configs out of a checkpoint, which mmengine executes.

    ``Runner.resume`` executes ``meta["config"]`` for the number of GPUs that it names (files of
    before mmengine have it), ``BaseInferencer`` the text under ``cfg`` for the model. The number of
    GPUs is kept, as text of this function's own, and the model's config under another key, for
    :func:`mmspike.checkpoints.record.model_config`, which runs nothing of it.

    Args:
        content: What was read; changed in place.
        file: Its name.

    Returns:
        ``content``.
    """
    if not isinstance(content, Mapping):
        return content
    meta, hub = content.get("meta"), content.get("message_hub")
    if isinstance(meta, dict):
        given = meta.pop("cfg", None)
        if isinstance(given, str):
            meta[CONFIG_TEXT] = given
        text = meta.pop("config", None)
        if isinstance(text, str) and "gpu_ids" in text:
            match = _GPU_IDS.search(text)
            if match is None:
                print_log(
                    f"checkpoint {file}: on how many GPUs it was trained is not known: the gpu_ids "
                    "in its config are no plain numbers, and nothing of the config is run",
                    "current",
                    level=30,
                )
            else:
                meta["config"] = f"gpu_ids = {_numbers(match)}"
    if isinstance(hub, Mapping) and isinstance(hub.get("runtime_info"), dict):
        hub["runtime_info"].pop("cfg", None)
    return content


def _numbers(match: re.Match[str]) -> list[int]:
    first, behind, listed = match.groups()
    if listed is None:
        return list(range(int(first), int(behind)))
    return [int(number) for number in listed.split(",") if number.strip()]
