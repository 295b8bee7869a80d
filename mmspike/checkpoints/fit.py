"""Whether the state of a training fits a model, its optimizer and its schedule.

torch and mmengine check little of it: a fused optimizer reads beyond the end of a state of another
shape, and what is missing stays as it was.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict, _ParamScheduler
from torch import Tensor
from torch.optim import Optimizer

from mmspike.checkpoints.sources import shorten

_OF_VERSIONS = {  # settings that some versions of torch have, or that schedulers and steps add
    *("foreach", "maximize", "capturable", "differentiable", "fused", "decoupled_weight_decay"),
    *("initial_lr", "param_names", "step"),  # LAMB counts the steps of a group
}
_MOVING = {"last_step", "verbose", "best", "num_bad_epochs", "cooldown_counter", "base_values"}


def compare_tensors(
    offered: Mapping[str, Any], targets: Mapping[str, Tensor], what: str = ""
) -> Iterator[str]:
    """Say how two state dicts differ in names and shapes.

    Args:
        offered: From a file.
        targets: Of the model.
        what: What the names are those of; put before the differences.
    """
    shapes = [
        f"{name} {list(getattr(offered[name], 'shape', ()))}, not {list(target.shape)}"
        for name, target in targets.items()
        if name in offered and getattr(offered[name], "shape", None) != target.shape
    ]
    for problem, names in (
        ("missing", [name for name in targets if name not in offered]),
        ("not in the model", [name for name in offered if name not in targets]),
        ("of another shape", shapes),
    ):
        if names:
            yield f"{what}{problem}: {shorten(names)}"


def compare_optimizer(
    saved: Mapping[str, Any], wrapper: OptimWrapper, names: Mapping[int, str]
) -> Iterator[str]:
    """Say how a saved state differs from an optimizer: its kind, groups, parameters and shapes.

    A parameter without state is none: it had no gradient.

    Args:
        saved: ``state_dict()`` of an optimizer wrapper, from a file.
        wrapper: The one to go on with.
        names: Names of parameters by their ``id``.
    """
    if isinstance(wrapper, OptimWrapperDict):
        if saved.keys() != set(wrapper.keys()):
            yield f"optimizers {sorted(saved)}, not {sorted(wrapper.keys())}"
            return
        for key, part in wrapper.items():
            yield from (
                f"{key}: {problem}" for problem in compare_optimizer(saved[key], part, names)
            )
        return
    optimizer = wrapper.optimizer
    if ("loss_scaler" in saved) != hasattr(wrapper, "loss_scaler"):
        was, is_ = ("was", "is not") if "loss_scaler" in saved else ("was not", "is")
        yield f"its run {was} in mixed precision, this one {is_} (--amp)"
    groups = saved["param_groups"]
    sizes = [len(group["params"]) for group in groups]
    ours = [len(group["params"]) for group in optimizer.param_groups]
    if sizes != ours:
        yield f"optimizer: groups of {sizes} parameters, not of {ours}"
        return
    for mine, group in zip(optimizer.param_groups, groups, strict=True):
        theirs = sorted(set(group) - set(mine) - _OF_VERSIONS)
        lacking = sorted(set(mine) - set(group) - _OF_VERSIONS)
        decoupled = [g.get("decoupled_weight_decay") for g in (mine, group)]
        if theirs or lacking or (None not in decoupled and decoupled[0] != decoupled[1]):
            yield (
                f"optimizer: of another type than {type(optimizer).__name__}, with the settings "
                f"{shorten(sorted(set(group) - {'params'}), 6)}"
            )
            return
    numbers = [number for group in groups for number in group["params"]]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    yield from _compare_states(
        saved["state"], dict(zip(numbers, parameters, strict=True)), optimizer, names
    )


def _compare_states(
    states: Mapping[Any, Mapping[str, Any]],
    parameters: Mapping[Any, Tensor],
    optimizer: Optimizer,
    names: Mapping[int, str],
) -> Iterator[str]:
    unknown = [str(number) for number in states if number not in parameters]
    if unknown:
        yield f"optimizer: state of parameters that it does not have: {shorten(unknown)}"
    expected = _first_state(optimizer)
    if expected is None:
        return  # not known for this optimizer
    if any(expected.values()) and not states:
        yield "optimizer: no state of any parameter"
    keys, shapes = [], []
    for number, state in states.items():
        parameter = parameters.get(number)
        if parameter is None:
            continue
        name = names.get(id(parameter), str(number))
        if state.keys() != expected.keys():
            keys.append(f"{name} {sorted(state)}, not {sorted(expected)}")
            continue
        for key, value in state.items():
            shape = {"scalar": (), "parameter": tuple(parameter.shape)}.get(expected[key])
            if isinstance(value, Tensor) and shape is not None and tuple(value.shape) != shape:
                shapes.append(f"{key} of {name} {list(value.shape)}, not {list(shape)}")
    if keys:
        yield f"optimizer: another state: {shorten(keys)}"
    if shapes:
        yield f"optimizer: of another shape: {shorten(shapes)}"


def _first_state(optimizer: Optimizer) -> dict[str, str] | None:
    """What an optimizer keeps of a parameter: its names, and how their shapes follow from it.

    Found by letting one of its type make a step. ``None`` if it needs more for that.
    """
    kind = type(optimizer)
    device = optimizer.param_groups[0]["params"][0].device
    parameter = torch.nn.Parameter(torch.zeros(2, 3, device=device))
    parameter.grad = torch.zeros_like(parameter)
    known = inspect.signature(kind).parameters
    settings = {k: v for k, v in optimizer.defaults.items() if k in known}
    try:
        trial = kind([parameter], **settings)
        trial.step()
    except Exception:  # of whatever kind: LBFGS needs a closure, others more arguments
        return None
    kinds = {(): "scalar", (2, 3): "parameter"}
    return {
        key: kinds.get(tuple(value.shape), "") if isinstance(value, Tensor) else ""
        for key, value in trial.state[parameter].items()
    }


def compare_schedulers(
    saved: Sequence[Mapping[str, Any]] | Mapping[str, Any],
    schedulers: Sequence[_ParamScheduler] | Mapping[str, Sequence[_ParamScheduler]],
) -> Iterator[str]:
    """Say how saved states differ from schedulers of parameters, in number and kind.

    Args:
        saved: From a file.
        schedulers: Those to go on with.
    """
    theirs, ours = _flat(saved), _flat(schedulers)
    if theirs.keys() != ours.keys():
        yield f"param_scheduler: {len(theirs)} of them, not {len(ours)}"
        return
    for key, scheduler in ours.items():
        state, mine = theirs[key], scheduler.state_dict()
        if state.keys() != mine.keys() or state["param_name"] != mine["param_name"]:
            other = sorted(set(state) - set(mine)) or state.get("param_name")
            yield f"param_scheduler{key}: no {type(scheduler).__name__}, but one with {other}"


def changed_settings(
    saved: Mapping[str, Any], wrapper: OptimWrapper, schedules: Any, schedulers: Any
) -> Iterator[str]:
    """Name the settings of optimizer and schedulers that a saved state brings along, if others.

    Args:
        saved: ``state_dict()`` of an optimizer wrapper, from a file, which fits.
        wrapper: The one to go on with.
        schedules: States of schedulers, from a file, which fit.
        schedulers: Those to go on with.
    """
    if not isinstance(wrapper, OptimWrapperDict):
        pairs = zip(saved["param_groups"], wrapper.optimizer.param_groups, strict=True)
        for number, (theirs, ours) in enumerate(pairs):
            names = set(theirs) & set(ours) - {"params", "lr"} - (_OF_VERSIONS - {"initial_lr"})
            for name in sorted(names):
                if theirs[name] != ours[name]:
                    yield f"{name} {theirs[name]} (not {ours[name]}) in group {number}"
    ours = _flat(schedulers or [])
    for key, theirs in _flat(schedules or []).items():
        mine = ours[key].state_dict()
        for name in theirs:
            if not name.startswith("_") and name not in _MOVING and theirs[name] != mine[name]:
                yield f"{name} {theirs[name]} (not {mine[name]}) in param_scheduler{key}"


def _flat(schedulers: Any) -> dict[str, Any]:
    if isinstance(schedulers, Mapping):
        parts = schedulers.items()
        return {f".{k}{key}": v for k, part in parts for key, v in _flat(part).items()}
    return {f"[{i}]": scheduler for i, scheduler in enumerate(schedulers)}
