"""Names of the published Meta-SpikeFormer checkpoints, translated to this project's."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_MODULES = {
    "downsample1_1": "stages.0.downsample",
    "ConvBlock1_1.0": "stages.0.blocks.0",
    "downsample1_2": "stages.1.downsample",
    "ConvBlock1_2.0": "stages.1.blocks.0",
    "downsample2": "stages.2.downsample",
    "ConvBlock2_1.0": "stages.2.blocks.0",
    "ConvBlock2_2.0": "stages.2.blocks.1",
    "downsample3": "stages.3.downsample",
    "block3": "stages.3.blocks",
    "downsample4": "stages.4.downsample",
    "block4": "stages.4.blocks",
}
_LAYERS = {
    "encode_conv": "layer",
    "encode_bn": "norm",
    "Conv.pwconv1": "mixer.0.layer",
    "Conv.bn1": "mixer.0.norm",
    "Conv.dwconv": "mixer.1.layer.0",
    "Conv.pwconv2": "mixer.1.layer.1",
    "Conv.bn2": "mixer.1.norm",
    "conv1": "mlp.0.layer",
    "bn1": "mlp.0.norm",
    "conv2": "mlp.1.layer",
    "bn2": "mlp.1.norm",
    "mlp.fc1_conv": "mlp.0.layer",
    "mlp.fc1_bn": "mlp.0.norm",
    "mlp.fc2_conv": "mlp.1.layer",
    "mlp.fc2_bn": "mlp.1.norm",
    **{
        f"attn.{x}_conv.{theirs}": f"mixer.{x}_{ours}"
        for x in ("q", "k", "v", "proj")
        for theirs, ours in {
            "0.body.0": "conv.conv1",
            "0.body.1.bn": "conv.norm1",
            "0.body.2.0": "conv.dwconv",
            "0.body.2.1": "conv.conv2",
            "0.body.2.2": "conv.norm2",
            "1": "norm",
        }.items()
    },
}
_PATTERN = re.compile(
    rf"({'|'.join(map(re.escape, _MODULES))})\.(?:(\d+)\.)?"
    rf"({'|'.join(map(re.escape, _LAYERS))})\.(\w+)"
)

_OUR_PATTERN = re.compile(
    rf"stages\.(\d+)\.(downsample|blocks\.\d+)\."
    rf"({'|'.join(sorted(map(re.escape, set(_LAYERS.values())), key=len, reverse=True))})\.(\w+)"
)
_ANY_NAME = re.compile(rf"((?:.*\.)?)(?:{_PATTERN.pattern}|{_OUR_PATTERN.pattern})")
_UPSTREAM_MODULES = {ours: theirs for theirs, ours in _MODULES.items()}
_UPSTREAM_LAYERS: dict[str, dict[str, str]] = {"downsample": {}, "conv": {}, "attention": {}}
for _theirs, _ours in _LAYERS.items():
    if _theirs.startswith("encode"):
        _UPSTREAM_LAYERS["downsample"][_ours] = _theirs
    else:
        _kind = "attention" if _theirs.startswith(("mlp.", "attn.")) else "conv"
        _UPSTREAM_LAYERS[_kind][_ours] = _theirs


def translate_key(key: str) -> str | None:
    """Translate the name of a backbone tensor.

    Args:
        key: Its name in a published checkpoint.

    Returns:
        Its name in :class:`~mmspike.backbones.MetaSpikeFormer`; ``None`` if it is not a tensor of
        the backbone.

    Examples:
        >>> translate_key("block3.0.attn.q_conv.1.running_mean")
        'stages.3.blocks.0.mixer.q_norm.running_mean'
        >>> translate_key("head.weight") is None
        True
    """
    match = _PATTERN.fullmatch(key)
    if match is None:
        return None
    module, index, layer, tensor = match.groups()
    return ".".join(filter(None, (_MODULES[module], index, _LAYERS[layer], tensor)))


def find_root(key: str) -> str | None:
    """What stands before the name of a backbone tensor, published or ours.

    Args:
        key: Name of a tensor of any model.

    Returns:
        Its beginning, empty or with a dot at its end; ``None`` if it is not a backbone tensor's.

    Examples:
        >>> find_root("model.backbone.block3.0.mlp.fc1_bn.bias")
        'model.backbone.'
        >>> find_root("model.head.weight") is None
        True
    """
    match = _ANY_NAME.fullmatch(key)
    return None if match is None else match[1]


def to_upstream_key(name: str) -> str | None:
    """Undo :func:`translate_key`.

    Args:
        name: Name of a tensor in :class:`~mmspike.backbones.MetaSpikeFormer`.

    Returns:
        Its name in a published checkpoint; ``None`` if it has none.

    Examples:
        >>> to_upstream_key("stages.3.blocks.0.mlp.0.norm.bias")
        'block3.0.mlp.fc1_bn.bias'
    """
    match = _OUR_PATTERN.fullmatch(name)
    if match is None:
        return None
    stage, part, layer, tensor = match.groups()
    blocks = "conv" if int(stage) <= 2 else "attention"
    kind = "downsample" if part == "downsample" else blocks
    theirs = _UPSTREAM_LAYERS[kind].get(layer)
    ours = f"stages.{stage}.{part}"
    if kind == "attention":
        ours, index = ours.rsplit(".", 1)
        theirs = theirs and f"{index}.{theirs}"
    module = _UPSTREAM_MODULES.get(ours)
    return f"{module}.{theirs}.{tensor}" if module and theirs else None


def to_upstream_state_dict(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo :func:`translate_state_dict`.

    Args:
        state_dict: Tensors of a backbone under this project's names.

    Returns:
        Tensors under the published names, bit for bit.

    Raises:
        KeyError: If a tensor has no published name.
    """
    out = {}
    for name, value in state_dict.items():
        key = to_upstream_key(name)
        if key is None:
            raise KeyError(f"{name} has no name in a published Meta-SpikeFormer checkpoint")
        out[key] = value.squeeze(-1) if ".mlp." in key and value.dim() == 4 else value
    return out


def translate_state_dict(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate the backbone's tensors of a published classification checkpoint.

    Weights stored for a one-dimensional convolution gain an axis of length 1. Tensors that are not
    the backbone's (``head.*``, ``head_kd.*``) are left out.

    Args:
        state_dict: Tensors under the published names.

    Returns:
        Tensors under this project's names.
    """
    out = {}
    for key, value in state_dict.items():
        name = translate_key(key)
        if name is not None:
            out[name] = value.unsqueeze(-1) if value.dim() == 3 else value
    return out
