"""Neurons from configs: ours, spikingjelly's, activations, and those that users register."""

from __future__ import annotations

import copy
import difflib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

import torch
from mmengine.registry import Registry
from spikingjelly.activation_based import base as sj_base
from spikingjelly.activation_based import neuron as sj_neuron
from torch import Tensor, nn

from mmspike.neurons.arguments import check_config
from mmspike.neurons.lif import LIF, build_surrogate
from mmspike.registry import MODELS

NeuronCfg = dict[str, Any]

_default: ContextVar[NeuronCfg | None] = ContextVar("default_neuron", default=None)


@contextmanager
def default_neuron(cfg: NeuronCfg | None) -> Iterator[None]:
    """Give parts that are built inside this neuron, where their own config names none.

    Args:
        cfg: Config of the neuron; ``None`` changes nothing.

    Raises:
        TypeError: If ``cfg`` is no config.
    """
    check_config("neuron_cfg", cfg)
    token = _default.set(cfg or _default.get())
    try:
        yield
    finally:
        _default.reset(token)


def default_neuron_cfg() -> NeuronCfg | None:
    """The config of :func:`default_neuron` that holds here; ``None`` if there is none."""
    return _default.get()


def build_neuron(cfg: NeuronCfg | None = None, **override: Any) -> nn.Module:
    """Build a neuron, which starts every call at rest.

    Args:
        cfg: Its config. ``type`` is a registered name, the name of a class in
            ``spikingjelly.activation_based.neuron`` or a class; ``surrogate_function`` of one of
            spikingjelly's may be a config, see :func:`~mmspike.neurons.lif.build_surrogate`.
            ``None`` means that of :func:`default_neuron`, or else ``dict(type="mmspike.LIF")``.
        **override: Arguments that replace those in ``cfg``; with a ``type``, all of ``cfg``.

    Returns:
        The neuron, inside :class:`AtRest` if it keeps state between calls.

    Raises:
        TypeError: If ``cfg`` is no config, or an argument in it is of another type.
        ValueError: If there is no such neuron, it does not take whole sequences, spikingjelly
            refuses a value, or the neuron keeps state that only its author knows how to reset.
    """
    cfg = override if "type" in override else {**_or_default(cfg), **override}
    cls = neuron_class(cfg)
    args = {**cfg, "type": cls}
    if inspect.isclass(cls) and issubclass(cls, sj_base.StepModule):
        args |= _as_spikingjelly_wants(cls, cfg)
    try:
        neuron = MODELS.build(args)
    except AssertionError as error:  # spikingjelly's, without a word
        raise ValueError(f"neuron_cfg: {cls.__name__} does not take {cfg}: {error}") from error
    if isinstance(neuron, sj_base.StepModule):
        if "m" not in neuron.supported_step_mode() or cfg.get("step_mode", "m") != "m":
            raise ValueError(
                f"neuron_cfg: a neuron gets whole sequences, [T, ...], step_mode='m'; got {cfg}"
            )
        neuron.step_mode = "m"
    if isinstance(neuron, LIF):
        return neuron
    if isinstance(neuron, sj_base.MemoryModule):
        return AtRest(neuron)
    _refuse_state(neuron)
    return neuron


def neuron_class(cfg: NeuronCfg | None) -> Any:
    """The class, or what else builds it, of the neuron of a config.

    Args:
        cfg: As in :func:`build_neuron`.

    Raises:
        TypeError: If ``cfg`` is no config.
        ValueError: If there is no such neuron.
    """
    cfg = _or_default(cfg)
    kind = cfg.get("type")
    found = kind
    if isinstance(kind, str):
        with MODELS.switch_scope_and_registry(cfg.get("_scope_")) as host:
            found = _get(host, kind) or _get(MODELS, kind) or getattr(sj_neuron, kind, None)
    if not callable(found):
        known = {n for n, c in vars(sj_neuron).items() if inspect.isclass(c) and n.endswith("Node")}
        names = {name: f"mmspike.{name}" for name in MODELS.module_dict}
        names |= {name: name for name in (*known, "ReLU", "GELU")}
        near = difflib.get_close_matches(str(kind).rsplit(".", 1)[-1], names, 1) if kind else []
        raise ValueError(
            f"neuron_cfg: no neuron of type {kind!r}"
            + (f" (is it {names[near[0]]!r}?)" if near else "")
            + "; there are 'mmspike.LIF', what is registered as a model, 'ReLU' and the like, and "
            f"spikingjelly's {sorted(known)}"
        )
    return found


def neuron_takes(cfg: NeuronCfg | None, name: str) -> bool:
    """Whether the neuron of a config has an argument of this name."""
    parameters = inspect.signature(neuron_class(cfg)).parameters
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def neuron_state_names(model: nn.Module) -> set[str]:
    """Names of what neurons learn, which a network of other neurons has not."""
    return {
        f"{name}.{key}"
        for name, module in model.named_modules()
        if isinstance(module, AtRest)
        for key in module.state_dict()
    }


def name_of(neuron: nn.Module) -> str:
    """The name of a neuron's class, as a config gives it."""
    return type(neuron.node if isinstance(neuron, AtRest) else neuron).__name__


class AtRest(nn.Module):
    """Lets a neuron that keeps state between calls start each of them at rest.

    A call runs a copy of the neuron that shares its parameters and hooks, and has a state of its
    own: nothing leaks from one image, window, batch or backward pass to the next, and threads do
    not disturb one another.

    Args:
        node: A neuron of spikingjelly's, or of the user's.
    """

    def __init__(self, node: sj_base.MemoryModule) -> None:
        super().__init__()
        self.node = node

    def forward(self, x_seq: Tensor) -> Tensor:
        """Turn an input sequence ``[T, ...]`` into what the neuron makes of it from rest."""
        return _at_rest(self.node)(x_seq)

    @property
    def firing_input(self) -> float:
        """The smallest input at which the neuron, at rest, fires in its first step; to 0.01.

        Raises:
            AttributeError: If it does not fire up to 20, or wants inputs of a certain shape.
        """
        like = next(self.node.parameters(), torch.empty(()))
        inputs = torch.linspace(0, 20, 2001, device=like.device, dtype=like.dtype)
        try:
            with torch.no_grad():
                fires = self(inputs[None])[0] > 0
            return inputs[fires][0].item()
        except Exception as error:  # whatever it raises, it has nothing to tell
            raise AttributeError(f"{type(self.node).__name__} tells no firing_input") from error


def _at_rest(module: nn.Module) -> nn.Module:
    """A copy without state of its own, the same parameters, buffers and hooks."""
    twin = copy.copy(module)
    twin._modules = {
        name: None if m is None else _at_rest(m) for name, m in module._modules.items()
    }
    if isinstance(twin, sj_base.MemoryModule):
        twin._memories = dict.fromkeys(twin._memories)
        twin.reset()
    return twin


def _refuse_state(neuron: nn.Module) -> None:
    """Refuse a neuron that holds on to what a call computed."""
    if type(neuron).__module__.startswith(("torch.", "spikingjelly.")):
        return
    twin = copy.deepcopy(neuron)
    with suppress(Exception):  # it may want inputs of a certain shape; then it is not known
        twin(torch.ones(1, 1, 8, 4, 4, requires_grad=True))
    state = [k for k, v in vars(twin).items() if isinstance(v, Tensor) and v.grad_fn is not None]
    if state:
        raise ValueError(
            f"neuron_cfg: {type(neuron).__name__} keeps {', '.join(state)} from one call to the "
            "next, and so from one image to the next: let every call start at rest, or derive it "
            "from spikingjelly.activation_based.base.MemoryModule, which is set to rest here"
        )


def _or_default(cfg: NeuronCfg | None) -> NeuronCfg:
    check_config("neuron_cfg", cfg)
    return dict(cfg or _default.get() or {"type": "mmspike.LIF"})


def _get(registry: Registry, kind: str) -> Any:
    try:
        return registry.get(kind)
    except RuntimeError:  # it knows no such name
        return None


def _as_spikingjelly_wants(cls: type, cfg: NeuronCfg) -> NeuronCfg:
    """Floats where it has floats, and a surrogate function instead of a config."""
    args: NeuronCfg = {}
    for name, parameter in inspect.signature(cls).parameters.items():
        value = cfg.get(name)
        if type(parameter.default) is float and type(value) is int:
            args[name] = float(value)
        elif name == "surrogate_function" and isinstance(value, dict):
            args[name] = build_surrogate(value)
    return args
