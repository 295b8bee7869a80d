"""Dense prediction with spiking neural networks, as an OpenMMLab plugin.

``import mmspike`` makes this project's names known to mmengine, and so to configs, registries,
``mmdet.apis`` and ``mmseg.apis``; models, and the hosts, are loaded when they are first used. What
most scripts need can be imported from here.

Example:
    >>> from mmspike import MetaSpikeFormer, measure
    >>> MetaSpikeFormer.__module__
    'mmspike.backbones.meta_spikeformer'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mmspike import published as published
from mmspike import registry as registry
from mmspike.quiet import silence_hosts
from mmspike.torchvision_operators import watch_imports

if TYPE_CHECKING:
    from mmspike.backbones import ESpikeFormer, MetaSpikeFormer, MetaSpikeFormerClassifier
    from mmspike.checkpoints import load_pretrained
    from mmspike.deploy import switch_to_deploy, unroll
    from mmspike.energy import measure
    from mmspike.necks import SpikeFPN
    from mmspike.neurons import LIF, IntegerLIF

silence_hosts()
watch_imports()

__version__ = "0.2.0"

__all__ = [
    "LIF",
    "ESpikeFormer",
    "IntegerLIF",
    "MetaSpikeFormer",
    "MetaSpikeFormerClassifier",
    "SpikeFPN",
    "load_pretrained",
    "measure",
    "switch_to_deploy",
    "unroll",
]

_HOMES = {
    "LIF": "mmspike.neurons",
    "ESpikeFormer": "mmspike.backbones",
    "IntegerLIF": "mmspike.neurons",
    "MetaSpikeFormer": "mmspike.backbones",
    "MetaSpikeFormerClassifier": "mmspike.backbones",
    "SpikeFPN": "mmspike.necks",
    "load_pretrained": "mmspike.checkpoints",
    "measure": "mmspike.energy",
    "switch_to_deploy": "mmspike.deploy",
    "unroll": "mmspike.deploy",
}
"""The modules that the names of ``__all__`` come from."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
