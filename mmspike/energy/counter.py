"""Counts the operations of a model while it runs as usual."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from types import TracebackType
from typing import Any

import torch
from mmengine.utils import track_iter_progress
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode
from torch.utils.flop_counter import flop_registry

from mmspike.energy.costs import Conventions
from mmspike.energy.firing_rate import NeuronRow, is_neuron, time_steps_of
from mmspike.energy.operators import (
    OPERANDS,
    OpCount,
    count_convolution,
    count_operator,
)
from mmspike.energy.provenance import MOVES, VIEWS, Provenance, Tracker, real_values
from mmspike.energy.report import EnergyReport, LayerRow
from mmspike.layers.conv_shape import ActsAsConvolution
from mmspike.neurons import TakenApart, frames_of, levels_of, unit_of

KNOWN = frozenset({*flop_registry, *VIEWS, *MOVES})
"""Operators with a rule; others are taken apart where they consist of several."""
_QUIET = (nn.modules.batchnorm._NormBase, nn.Identity)  # neither weights nor products
_CHAIN = nn.Sequential.forward
_LOOKUPS = (nn.Embedding, nn.LayerNorm)  # weights that nothing is multiplied with by the rules


class _Watcher(TorchDispatchMode):
    """Shows every operation of torch's dispatcher to a counter, once it is done."""

    def __init__(self, counter: EnergyCounter) -> None:
        super().__init__()
        self.counter = counter

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if consists_of_others(func):
            with self:
                return func.decompose(*args, **kwargs)
        out = func(*args, **kwargs)
        self.counter.see(func, args, kwargs, out)
        return out


@cache
def consists_of_others(func: Any) -> bool:
    """Whether an operator is to be taken apart, as happens in inference mode."""
    return func.overloadpacket not in KNOWN and func._can_decompose()


class EnergyCounter:
    """Context manager that counts what a model does in it.

    Hooks on the modules tell where in the model an operation happens and which tensors are spikes;
    every operation of torch's dispatcher is seen, whoever calls it. The model is not changed.
    Operations outside the dispatcher (mmcv's compiled ones) are not seen: those of detectors
    (RoIAlign, NMS) cost nothing by convention. Modules with weights that ran without being counted
    are named in the report. Neurons must be multi-step: of a network that loops over time itself,
    every step counts as an image's pass of its own.

    Args:
        model: Any model; in evaluation mode, or statistics of norms change.
        conventions: Costs and rules; ``None`` means :class:`Conventions` as it is.

    Examples:
        >>> from mmspike.neurons import LIF
        >>> net = nn.Sequential(LIF(), nn.Linear(4, 5))
        >>> with EnergyCounter(net) as counter:
        ...     _ = net(torch.tensor([[[2.0, 0.0, 0.0, 3.0]]]))  # [T, N, C]: 2 spikes
        >>> report = counter.report(num_images=1)
        >>> report.layers[0].synops, report.layers[0].macs
        ([10.0], 20.0)
    """

    def __init__(self, model: nn.Module, conventions: Conventions | None = None) -> None:
        self.model = model
        self.conventions = conventions or Conventions()
        self.layers: dict[str, LayerRow] = {}
        self.neurons: dict[str, NeuronRow] = {}
        self._tracker = Tracker()
        # of each module that is being called: its name, operations counted in this call, products
        self._scopes: list[list] = [["", 0, ()]]
        self._image_steps = 1  # how often the layer that reads the image runs
        self._closed = 0  # how deep in neurons, and in modules that are counted as one
        self._with_weights: dict[str, None] = {}  # called, in order
        self._handles: list = []
        self._watcher = _Watcher(self)
        self._is_watching = False

    def __enter__(self) -> EnergyCounter:
        for name, module in self.model.named_modules():
            closed = is_neuron(module) or isinstance(module, ActsAsConvolution)
            if closed or not (type(module).forward is _CHAIN or isinstance(module, _QUIET)):
                self._handles += self._hook(name, module, closed)
        self._watch(True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._watch(False)
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _hook(self, name: str, module: nn.Module, closed: bool) -> list:
        weighs = not isinstance(module, _LOOKUPS) and any(
            p.dim() > 1 for p in module.parameters(recurse=False)
        )

        def enter(module: nn.Module, args: tuple) -> None:
            if weighs and not self._closed:
                self._with_weights[name] = None
            products = module.products if isinstance(module, TakenApart) else ()
            self._scopes.append([name, 0, products])
            if closed and not self._closed:
                self._watch(False)
            self._closed += closed

        def leave(module: nn.Module, args: tuple, out: Any) -> None:
            if closed and self._closed == 1:  # the outermost
                if out is not None:  # else it failed
                    self._count_closed(module, args, out)
                self._watch(True)
            self._closed -= closed
            self._scopes.pop()

        return [
            module.register_forward_pre_hook(enter),
            module.register_forward_hook(leave, always_call=True),
        ]

    def _watch(self, on: bool) -> None:
        """Look at every operation, or pass over what counts as a whole or not at all."""
        if on and not self._is_watching:
            self._watcher.__enter__()
            self._is_watching = True
        elif not on and self._is_watching and _get_current_dispatch_mode() is self._watcher:
            self._watcher.__exit__(None, None, None)
            self._is_watching = False

    def see(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> None:
        """Count one operation of torch's, and follow what its results are made of."""
        if self._closed:
            return
        exact = self.conventions.borders == "exact"
        count = count_operator(func, args, kwargs, out, self._tracker, exact)
        if count is not None:
            read = OPERANDS.get(func.overloadpacket, (0,))[0]
            self._add(count, args[read], out)
        self._tracker.follow(func, args, kwargs, out)

    def report(self, num_images: int, data: str = "") -> EnergyReport:
        """Sum up.

        Args:
            num_images: Images that the model saw.
            data: What they were, in words.

        Raises:
            ValueError: If there were none.
        """
        if num_images < 1:
            raise ValueError(f"EnergyCounter.report: num_images must be positive, got {num_images}")
        counted = {row.module for row in self.layers.values()}
        return EnergyReport(
            model=type(self.model).__name__,
            data=data,
            num_images=num_images,
            time_steps=max((row.time_steps for row in self.neurons.values()), default=1),
            conventions=self.conventions,
            layers=list(self.layers.values()),
            neurons=list(self.neurons.values()),
            uncounted=[name or "(model)" for name in self._with_weights if name not in counted],
        )

    def _count_closed(self, module: nn.Module, args: tuple, out: Tensor) -> None:
        """Count a neuron's spikes, or a module that is one convolution however it is computed."""
        if is_neuron(module):
            self._declare(module, out)
            return
        x, exact = args[0], self.conventions.borders == "exact"
        origin = self._tracker[x]
        count = count_convolution(x, module.as_convolution(), out.shape, origin, exact)
        if any(module.children()):
            count.kind = "RepConv as conv"
        self._add(count, x, out)
        self._tracker[out] = real_values(origin.time_steps if origin else 1)

    def _add(self, count: OpCount, x: Tensor, out: Tensor) -> None:
        scope = self._scopes[-1]
        module, index, products = scope
        scope[1] += 1
        if any(row.frames > 1 for row in self.neurons.values()):
            steps = max(row.time_steps // row.frames for row in self.neurons.values())
            if products:  # all of them together are one on real values, for each step
                count.macs *= count.time_steps / (steps * products[index])
            elif count.synops is None:  # reads the sums over frames
                count.time_steps = min(count.time_steps, steps)
        name = (module or "(model)") + (f" #{index + 1}" if index else "")
        reads = "spikes" if count.synops is not None else "real values"
        known = self.layers.get(name)
        if known is not None and (known.reads == "spikes") != (reads == "spikes"):
            name += f" ({reads})"  # the same layer reads spikes here and real values there
        row = self.layers.get(name)
        if row is None:
            row = LayerRow(name, module, count.kind, tuple(x.shape), tuple(out.shape), reads)
            if not self.layers and not self.neurons:
                row.reads = "image"
            self.layers[name] = row
        if row.reads == "image":
            count.time_steps = self._image_steps
        row.add(count)

    def _declare(self, neuron: nn.Module, spikes: Tensor) -> None:
        name = self._scopes[-1][0]
        steps = time_steps_of(neuron, spikes)
        provenance = Provenance(steps, is_spikes=True, unit=unit_of(neuron))
        self._tracker[spikes] = provenance
        if not self.neurons and self.layers and steps > 1 and spikes.dim() > 1:
            image = next(iter(self.layers.values()))
            if image.input_shape[0] == steps * spikes.size(1):  # repeated before it, not after
                self._image_steps = steps
                image.macs /= steps
        fresh = NeuronRow(name, levels_of(neuron) or 1, frames=frames_of(neuron))
        row = self.neurons.setdefault(name, fresh)
        row.add(provenance.count_spikes(spikes), spikes.numel() / steps)


def measure(
    model: nn.Module,
    batches: Iterable[Tensor | Mapping[str, Any]],
    conventions: Conventions | None = None,
    data: str = "",
    progress: bool = False,
) -> EnergyReport:
    """Run a model over images and report operations, firing rates and energy.

    Source of the convention: Yao et al., "Attention Spiking Neural Networks" (arXiv 2209.13929) and
    "Spike-driven Transformer V2" (arXiv 2404.03663), appendix on energy.

    Args:
        model: A detector, segmentor, classifier or backbone; it is run in evaluation mode and left
            in the mode that it was in.
        batches: What its ``test_step`` takes (``dict(inputs=..., data_samples=...)``), or tensors
            of normalised images ``[B, C, H, W]`` for its ``forward``.
        conventions: Costs and rules; ``None`` means :class:`Conventions` as it is.
        data: What the images are, in words, for the report.
        progress: Whether to show a progress bar; ``batches`` must then have a length.

    Raises:
        TypeError: If ``batches`` is one batch and not a sequence of them.
        ValueError: If there are no images, or a tensor is an image without batch.
    """
    if isinstance(batches, Tensor | Mapping):
        raise TypeError("measure: batches must be a sequence of batches, got one; give [batch]")
    num_images = 0
    modes = {m: m.training for m in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), EnergyCounter(model, conventions) as counter:
            sized: Any = batches
            tasks = track_iter_progress((sized, len(sized))) if progress else batches
            for batch in tasks:
                if isinstance(batch, Tensor):
                    if batch.dim() == 3:
                        raise ValueError(
                            f"measure: images must be [B, C, H, W], got shape {tuple(batch.shape)}"
                        )
                    model(batch)
                    num_images += batch.size(0)
                else:
                    model.test_step(batch)
                    num_images += len(batch["inputs"])
    finally:
        for module, mode in modes.items():
            module.training = mode
    if not num_images:
        raise ValueError("measure: batches holds no images")
    return counter.report(num_images, data)
