"""What a file of weights says of the model that they were trained in: its config, or a record.

A training writes its config beside the weights, as text; the converters keep what counts of it as
a record. Both are read here, and never run.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import Any

from mmspike.neurons.known import is_plain

CONFIG_TEXT = "mmspike_config_text"
"""Key under which the text of a config goes on, of files that are given to mmengine."""
RECORD = "trained_with"
"""Key of a record in the metadata of a file that a converter wrote."""
UNKNOWN = object()
"""The value of what is no plain value."""
_OF_A_TRAINING = ("init_cfg", "pretrained")
"""Settings of parts that say nothing of trained weights, and name files."""


def model_config(content: Any, metadata: Mapping[str, str] | None = None) -> Mapping[str, Any]:
    """The config of the model that weights were trained in, as far as their file tells.

    Args:
        content: What was read.
        metadata: Metadata of a safetensors file.

    Returns:
        The ``model`` of the config in mmengine's ``meta["cfg"]``, Python whose values are literals
        and calls of ``dict``, or the record of a converted file; empty where there is neither.
    """
    meta = content.get("meta") if isinstance(content, Mapping) else None
    meta = meta if isinstance(meta, Mapping) else {}
    text = meta.get("cfg") or meta.get(CONFIG_TEXT)
    if isinstance(text, str):
        return _model_of(text)
    record = meta.get(RECORD) or (metadata or {}).get(RECORD)
    try:
        model = json.loads(record) if isinstance(record, str) else {}
    except (ValueError, RecursionError):
        return {}
    return model if isinstance(model, Mapping) else {}


def make_record(model: Mapping[str, Any], with_head: bool) -> str:
    """Write what of a model's config counts for the weights of its backbone, or of a classifier.

    Args:
        model: As :func:`model_config` gives it.
        with_head: Whether the weights of the head are kept, too.

    Returns:
        JSON of ``neuron_cfg``, ``backbone`` and the head's type and neuron, as far as they are
        told; empty if the backbone is not, or nests too deep.

    Examples:
        >>> make_record({"backbone": {"type": "mmspike.MetaSpikeFormer", "time_steps": 4}}, False)
        '{"backbone": {"type": "mmspike.MetaSpikeFormer", "time_steps": 4}}'
    """
    backbone, head = model.get("backbone"), model.get("head")
    if not isinstance(backbone, Mapping):
        return ""
    kept = {
        "neuron_cfg": model.get("neuron_cfg"),
        "backbone": {k: v for k, v in backbone.items() if k not in _OF_A_TRAINING},
    }
    if with_head and isinstance(head, Mapping):
        kept["head"] = {k: v for k, v in head.items() if k in ("type", "neuron_cfg")}
    try:
        return json.dumps(_plain({k: v for k, v in kept.items() if v is not None}))
    except RecursionError:
        return ""


def _plain(value: Any) -> Any:
    """A value without what is no literal in it."""
    if isinstance(value, Mapping):
        kept = {str(k): _plain(v) for k, v in value.items()}
        return {k: v for k, v in kept.items() if v is not UNKNOWN}
    if isinstance(value, list | tuple):
        return [v for v in map(_plain, value) if v is not UNKNOWN]
    return value if is_plain(value) else UNKNOWN


def _model_of(text: str) -> Mapping[str, Any]:
    """The ``model`` of a config's text; empty where it is no literal."""
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    for line in body:
        if isinstance(line, ast.Assign) and getattr(line.targets[0], "id", "") == "model":
            model = _value(line.value)
            return model if isinstance(model, Mapping) else {}
    return {}


def _value(node: ast.expr) -> Any:
    """What an expression of literals and ``dict`` stands for; nothing of it is run."""
    if isinstance(node, ast.Call):
        named = isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args
        if not named or any(k.arg is None for k in node.keywords):
            return UNKNOWN
        return {str(k.arg): _value(k.value) for k in node.keywords}
    if isinstance(node, ast.Dict):
        items = zip(node.keys, node.values, strict=True)
        return {k.value: _value(v) for k, v in items if isinstance(k, ast.Constant)}
    try:
        if isinstance(node, ast.Attribute):
            return ast.unparse(node)  # a class, whose name stands there
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return UNKNOWN
