"""Variants of a config that a comparison needs: the ANN twin, and other numbers of time steps."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import Runner

from mmspike.engine.configs import find_class, use_scope

TWIN_DEFINITION = (
    "The ANN twin is the same network with ReLU in the place of every neuron (neuron_cfg=dict(type="
    '"ReLU")), T = 1, and attention that averages instead of summing up spikes (attn_scale=None): '
    "ReLU linear attention, normalized (arXiv 2006.16236, 2205.14756), since a sum of products of "
    "real values has no bound. Weights, norms and everything else are of the same number and size."
)
"""What stands under every table with a twin in it."""


def ann_twin(cfg: Config) -> Config:
    """The config of the same network on real values, with ReLU for neurons, in one time step.

    The attention averages over the pixels instead of summing up, see
    :func:`mmspike.layers.attention.normalized_linear_attention`.

    Args:
        cfg: Config of a detector, segmentor or classifier; not changed.

    Raises:
        ValueError: If no part of the model takes a ``neuron_cfg``.
    """
    twin = copy.deepcopy(cfg)
    spiking = 0
    for part, names in _parts(twin):
        if "neuron_cfg" in names:
            part["neuron_cfg"] = {"type": "ReLU"}
            spiking += 1
        for name, value in (("time_steps", 1), ("attn_scale", None), ("attn_neuron_cfg", None)):
            if name in names:
                part[name] = value
    if not spiking:
        raise ValueError(f"{cfg.filename}: no part of the model takes a neuron_cfg: it has no twin")
    return twin


def with_time_steps(cfg: Config, time_steps: int) -> Config:
    """A config with another number T of time steps.

    Args:
        cfg: Config of a detector, segmentor or classifier; not changed.
        time_steps: T.

    Raises:
        ValueError: If no part of the model takes ``time_steps``.
    """
    other = copy.deepcopy(cfg)
    parts = [part for part, names in _parts(other) if "time_steps" in names]
    if not parts:
        raise ValueError(f"{cfg.filename}: no part of the model takes time_steps")
    for part in parts:
        part["time_steps"] = time_steps
    return other


_OF_NO_EFFECT = {
    "work_dir",
    "resume",
    "launcher",
    "log_processor",
    "log_level",
    "visualizer",
    "experiment_name",
    "cfg",
}
_SETTINGS = [name for name in inspect.signature(Runner).parameters if name not in _OF_NO_EFFECT]


def is_same_training(cfg: Config, other: Config) -> bool:
    """Whether two configs train the same model in the same way, whatever files they come from.

    Args:
        cfg: A config.
        other: Another. Names, folders and what is logged do not count; all else that a runner
            reads does, the seed and the evaluation too.
    """
    names = [*_SETTINGS, "runner_type", "compile"]
    return all(cfg.get(name) == other.get(name) for name in names)


def _parts(cfg: Config) -> Iterator[tuple[dict[str, Any], set[str]]]:
    """Configs of all modules of a model, and the arguments that each takes or is given."""
    use_scope(cfg)
    for part in _dicts(cfg.model):
        cls = find_class(MODELS, part) if "type" in part else None
        if inspect.isclass(cls):
            inits = [vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base)]
            taken = (inspect.signature(init).parameters for init in inits)
            yield part, {*part, *(name for names in taken for name in names)}


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    inner = value
    if isinstance(value, dict):  # a teacher is no part of the model that learns from it
        inner = [part for key, part in value.items() if key != "teacher"]
    if isinstance(value, dict | list | tuple):
        for each in list(inner):
            yield from _dicts(each)
