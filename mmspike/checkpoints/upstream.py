"""Names of the published checkpoints, family by family, translated to this project's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from mmspike.archs import E_SPIKEFORMER as E_SPIKEFORMER_ARCHS
from mmspike.archs import META_SPIKEFORMER as META_SPIKEFORMER_ARCHS
from mmspike.archs import Arch

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
_OUR_MODULES = {ours: theirs for theirs, ours in _MODULES.items()}
_DOWNSAMPLE = {"encode_conv": "layer", "encode_bn": "norm"}
_CONV_MLP = {
    "conv1": "mlp.0.layer",
    "bn1": "mlp.0.norm",
    "conv2": "mlp.1.layer",
    "bn2": "mlp.1.norm",
}
_CHANNEL_MLP = {
    "mlp.fc1_conv": "mlp.0.layer",
    "mlp.fc1_bn": "mlp.0.norm",
    "mlp.fc2_conv": "mlp.1.layer",
    "mlp.fc2_bn": "mlp.1.norm",
}


class Family:
    """A published family: its sizes, and its names for the layers of blocks beside ours.

    Args:
        name: What it is called.
        archs: Its named sizes.
        conv: Layers of a convolutional block, theirs to ours.
        attention: Layers of a block with attention.
    """

    def __init__(
        self, name: str, archs: Mapping[str, Arch], conv: dict[str, str], attention: dict[str, str]
    ) -> None:
        self.name, self.archs = name, archs
        self._layers = {**_DOWNSAMPLE, **conv, **attention}
        self._back = {
            kind: {ours: theirs for theirs, ours in layers.items()}
            for kind, layers in (
                ("downsample", _DOWNSAMPLE),
                ("conv", conv),
                ("attention", attention),
            )
        }
        self._pattern = re.compile(
            rf"({'|'.join(map(re.escape, _MODULES))})\.(?:(\d+)\.)?"
            rf"({'|'.join(map(re.escape, self._layers))})\.(\w+)"
        )
        ours = sorted(map(re.escape, set(self._layers.values())), key=len, reverse=True)
        self._our_pattern = re.compile(
            rf"stages\.(\d+)\.(downsample|blocks\.\d+)\.({'|'.join(ours)})\.(\w+)"
        )
        self._any = re.compile(
            rf"((?:.*\.)?)(?:{self._pattern.pattern}|{self._our_pattern.pattern})"
        )

    def to_ours(self, key: str) -> str | None:
        """The name here of a backbone tensor; ``None`` if it is none of theirs."""
        match = self._pattern.fullmatch(key)
        if match is None:
            return None
        module, index, layer, tensor = match.groups()
        return ".".join(filter(None, (_MODULES[module], index, self._layers[layer], tensor)))

    def to_theirs(self, name: str) -> str | None:
        """Undo :meth:`to_ours`; ``None`` if it has no published name."""
        match = self._our_pattern.fullmatch(name)
        if match is None:
            return None
        stage, part, layer, tensor = match.groups()
        blocks = "conv" if int(stage) <= 2 else "attention"
        kind = "downsample" if part == "downsample" else blocks
        theirs = self._back[kind].get(layer)
        ours = f"stages.{stage}.{part}"
        if kind == "attention":
            ours, index = ours.rsplit(".", 1)
            theirs = theirs and f"{index}.{theirs}"
        module = _OUR_MODULES.get(ours)
        return f"{module}.{theirs}.{tensor}" if module and theirs else None

    def find_root(self, key: str) -> str | None:
        """What stands before the name of a backbone tensor; ``None`` if it is not one's."""
        match = self._any.fullmatch(key)
        return None if match is None else match[1]


META_SPIKEFORMER = Family(
    "Meta-SpikeFormer",
    META_SPIKEFORMER_ARCHS,
    conv={
        "Conv.pwconv1": "mixer.0.layer",
        "Conv.bn1": "mixer.0.norm",
        "Conv.dwconv": "mixer.1.layer.0",
        "Conv.pwconv2": "mixer.1.layer.1",
        "Conv.bn2": "mixer.1.norm",
        **_CONV_MLP,
    },
    attention=_CHANNEL_MLP
    | {
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
)
_PARTS = {"0": "layer", "1": "norm"}
_SEPARABLE = ("pwconv1", "dwconv", "pwconv2")
E_SPIKEFORMER = Family(
    "E-SpikeFormer",
    E_SPIKEFORMER_ARCHS,
    conv=_CONV_MLP
    | {
        f"Conv.{theirs}.{i}": f"mixer.{n}.{part}"
        for n, theirs in enumerate(_SEPARABLE)
        for i, part in _PARTS.items()
    },
    attention=_CHANNEL_MLP
    | {
        f"conv.{theirs}.{i}": f"conv.{n}.{part}"
        for n, theirs in enumerate(_SEPARABLE)
        for i, part in _PARTS.items()
    }
    | {
        f"attn.{x}_conv.{i}": f"mixer.{x}.{part}"
        for x in ("q", "k", "v", "proj")
        for i, part in _PARTS.items()
    },
)
FAMILIES = (META_SPIKEFORMER, E_SPIKEFORMER)


def family_of(names: Iterable[str]) -> Family:
    """The family that has most of some names, published or ours."""
    names = list(names)
    known = [sum(f.find_root(name) == "" for name in names) for f in FAMILIES]
    return FAMILIES[known.index(max(known))]


def translate_key(key: str, family: Family = META_SPIKEFORMER) -> str | None:
    """Translate the name of a backbone tensor.

    Args:
        key: Its name in a published checkpoint.
        family: The checkpoint's.

    Returns:
        Its name here; ``None`` if it is not a tensor of the backbone.

    Examples:
        >>> translate_key("block3.0.attn.q_conv.1.running_mean")
        'stages.3.blocks.0.mixer.q_norm.running_mean'
        >>> translate_key("block3.0.attn.q_conv.1.running_mean", E_SPIKEFORMER)
        'stages.3.blocks.0.mixer.q.norm.running_mean'
        >>> translate_key("head.weight") is None
        True
    """
    return family.to_ours(key)


def find_root(key: str) -> str | None:
    """What stands before the name of a backbone tensor, published or ours, of any family.

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
    return next((root for f in FAMILIES if (root := f.find_root(key)) is not None), None)


def to_upstream_state_dict(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo :func:`translate_state_dict`.

    Args:
        state_dict: Tensors of a backbone under this project's names.

    Returns:
        Tensors under the published names, bit for bit.

    Raises:
        KeyError: If a tensor has no published name.
    """
    family = family_of(state_dict)
    out = {}
    for name, value in state_dict.items():
        key = family.to_theirs(name)
        if key is None:
            raise KeyError(f"{name} has no name in a published {family.name} checkpoint")
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
    family = family_of(state_dict)
    out = {}
    for key, value in state_dict.items():
        name = family.to_ours(key)
        if name is not None:
            out[name] = value.unsqueeze(-1) if value.dim() == 3 else value
    return out
