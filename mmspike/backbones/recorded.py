"""The backbone and the neurons that a file of weights records, as arguments to build them with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmspike.backbones.settings import settings_of
from mmspike.backbones.spikeformer import SpikeFormer
from mmspike.checkpoints import CheckpointError
from mmspike.neurons import neuron_takes
from mmspike.neurons.known import inference_settings, known_neuron

SETTINGS = ("time_steps", "num_heads", "attn_scale")
"""Settings of backbones that a file may record, beside neurons."""


def recorded_options(trained: Mapping[str, Any], backbone: type[SpikeFormer]) -> dict[str, Any]:
    """Arguments of a backbone that a file records, beside its widths; empty if it records none.

    Args:
        trained: See :func:`mmspike.checkpoints.record.model_config`.
        backbone: The backbone's class.
    """
    part = trained.get("backbone")
    if not isinstance(part, Mapping):
        return {}
    settings = settings_of(backbone, backbone.named_archs, part)
    options = {name: settings[name] for name in SETTINGS if name in settings}
    options["neuron_cfg"] = recorded_neuron(trained, "backbone")
    change = part.get("attn_neuron_cfg")
    if isinstance(change, Mapping) and "type" not in change:
        options["attn_neuron_cfg"] = inference_settings(None, change)
    elif change is not None:
        options["attn_neuron_cfg"] = resolve(change)
    return options


def recorded_neuron(trained: Mapping[str, Any], part: str) -> dict[str, Any] | None:
    """The neuron that a file records of a part, see :func:`resolve`; ``None`` if it names none."""
    config = trained.get(part)
    own = config.get("neuron_cfg") if isinstance(config, Mapping) else None
    cfg = own or trained.get("neuron_cfg")
    return resolve(cfg) if cfg else None


def resolve(cfg: Any) -> dict[str, Any]:
    """The config of a neuron in a file, with its class.

    Raises:
        CheckpointError: If it is none that is known here; nothing is imported for its name.
    """
    name = cfg.get("type") if isinstance(cfg, Mapping) else None
    kind = known_neuron(name) if isinstance(name, str) else None
    if kind is None:
        which = "that it does not tell by name"
        if isinstance(name, str):
            which = f"of type {name}, which are not of mmspike, spikingjelly or torch"
        raise CheckpointError(
            f"its weights were trained with neurons {which}; run tools/test.py with the config of "
            "the training"
        )
    settings = inference_settings(None, cfg)
    unknown = [str(k) for k in settings if not neuron_takes({"type": kind}, k)]
    if unknown:
        raise CheckpointError(
            f"its weights were trained with neurons of type {name} that have {', '.join(unknown)}, "
            "which is not known here"
        )
    return {**settings, "type": kind}
