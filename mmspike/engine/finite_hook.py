"""Stops a training at the first number that is not finite, before anything is saved.

In a spiking network the loss does not tell: a comparison with NaN is "no spike", and a network
whose stem has NaN in its statistics goes on with a finite loss, and sees every image alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import wraps
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from mmspike.checkpoints.loading import is_finite
from mmspike.checkpoints.sources import shorten
from mmspike.engine.batches import bad_inputs, image_files
from mmspike.registry import HOOKS

Measured = tuple[str, list[str], Tensor]
"""What was measured, the names, and one number each, which is finite only if all of them are."""


class NotFiniteError(FloatingPointError):
    """NaN or infinity where numbers should be; says when, where, and in which images."""


@HOOKS.register_module()
class FiniteHook(Hook):
    """Stop at NaN and infinity in inputs, losses, gradients, weights and buffers.

    Inputs (floating-point images, boxes) are checked when they come, on the CPU; all else at the
    end of each iteration, by one fused norm of all tensors and one look at the result. Gradients
    are measured before they are clipped, which spreads a NaN over all of them. What a checkpoint is
    to hold (averaged weights and the state of the optimizer too) is checked once more before it is
    written. In a distributed run all processes stop together.

    With a loss scaler, a gradient that is not finite is no error: the scaler skips the step, and
    tries a smaller scale. It is one if that does not help ``max_skipped`` times in a row.

    It runs after mmengine's ``EMAHook`` and before its ``CheckpointHook``.

    Args:
        ignore: What the names of parameters and buffers start with that may be infinite, such as
            the mask of a host's attention.
        max_skipped: Steps in a row that a loss scaler may skip.

    Raises:
        NotFiniteError: Names the iteration, the image files and the tensors.

    Examples:
        ``custom_hooks = [dict(type="mmspike.FiniteHook")]`` in a config.
    """

    priority = 80

    def __init__(self, ignore: Sequence[str] = (), max_skipped: int = 50) -> None:
        self.ignore = (ignore,) if isinstance(ignore, str) else tuple(ignore)
        self.max_skipped = max_skipped
        self._gradients: list[Measured] = []
        self._steps: list[tuple[OptimWrapper, Callable[..., None]]] = []
        self._skipped = 0

    def before_train(self, runner: Runner) -> None:
        """Check what was initialised or loaded, and have gradients measured."""
        names, tensors = self._state(runner)
        bad = [f"{n} ({_kind(x)})" for n, x in zip(names, tensors, strict=True) if not is_finite(x)]
        _stop_together(
            bad
            and f"before the first iteration, not all weights are finite: {shorten(bad, 5)}; "
            f"{_origin(runner)}"
        )
        wrapper = runner.optim_wrapper
        for part in wrapper.values() if hasattr(wrapper, "values") else [wrapper]:
            self._measure(part, runner.model)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Check the inputs."""
        bad = bad_inputs(data_batch)
        _stop_together(bad and f"iteration {runner.iter + 1}: {bad}")

    def before_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Check the inputs."""
        if bad := bad_inputs(data_batch):  # alone: processes may have one batch more or less
            raise NotFiniteError(bad)

    def before_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Check the inputs."""
        self.before_val_iter(runner, batch_idx, data_batch)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Check losses, gradients, weights and buffers."""
        names, tensors = self._state(runner)
        losses = {k: v for k, v in (outputs or {}).items() if "loss" in k}
        rest = [
            ("losses", list(losses), _stack(losses.values())),
            ("weights and buffers", names, _norms(tensors)),
        ]
        gradients, self._gradients = self._gradients, []
        flags = torch.stack([bad := _any_bad(rest), _any_bad(gradients).to(bad.device)])
        all_reduce(flags, "max")
        bad, bad_gradients = flags.tolist()  # the one look
        if gradients and hasattr(runner.optim_wrapper, "loss_scaler"):
            self._skipped = self._skipped + 1 if bad_gradients else 0
            bad_gradients = self._skipped > self.max_skipped
        if not (bad or bad_gradients):
            return
        state = dict(zip(names, tensors, strict=True))
        found = list(self._describe([*(gradients if bad_gradients else []), *rest], state))
        files = shorten(sorted(set(image_files(data_batch))), 16) or "(their files are not known)"
        _stop_together(
            found
            and f"iteration {runner.iter + 1}: not all numbers are finite after these images: "
            f"{files}\n  "
            + "\n  ".join(found)
        )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check what is to be written; mmengine asks the first process alone."""
        parts = ("state_dict", "ema_state_dict", "optimizer")
        tensors = _walk({k: checkpoint[k] for k in parts if k in checkpoint})
        bad = [n for n, x in tensors if not self._ignored(n) and not is_finite(x)]
        if bad:
            raise NotFiniteError(
                f"iteration {runner.iter + 1}: a checkpoint is not written, since not all numbers "
                f"in it are finite: {shorten(bad, 5)}"
            )

    def after_train(self, runner: Runner) -> None:
        """Leave the optimizers as they were."""
        for wrapper, step in self._steps:
            wrapper.step = step
        self._steps.clear()

    def _state(self, runner: Runner) -> tuple[list[str], list[Tensor]]:
        """Names and tensors of all weights and buffers."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        state = [
            (name, x.detach())
            for name, x in (*model.named_parameters(), *model.named_buffers())
            if x.is_floating_point() and not name.startswith(self.ignore)
        ]
        return [name for name, _ in state], [x for _, x in state]

    def _ignored(self, name: str) -> bool:
        return name.partition(".")[2].removeprefix("module.").startswith(self.ignore)

    def _measure(self, wrapper: OptimWrapper, model: nn.Module) -> None:
        """Have gradients measured before each step of an optimizer, and before its clipping."""
        step, parameters = wrapper.step, list(model.named_parameters())

        @wraps(step)
        def measured_step(**kwargs: Any) -> None:
            self.measure_gradients((n, p) for n, p in parameters if p.grad is not None)
            step(**kwargs)

        wrapper.step = measured_step
        self._steps.append((wrapper, step))

    def measure_gradients(self, named: Iterable[tuple[str, nn.Parameter]]) -> None:
        """Keep the norms of gradients until the end of the iteration."""
        named = [(n.removeprefix("module."), p.grad) for n, p in named]
        self._gradients.append(("gradients", [n for n, _ in named], _norms([g for _, g in named])))

    def _describe(self, measured: list[Measured], state: dict[str, Tensor]) -> Iterator[str]:
        for what, names, values in measured:
            bad = []
            for name, value in zip(names, values.tolist(), strict=True):
                if math.isfinite(value):
                    continue
                if what == "weights and buffers":
                    if is_finite(state[name]):  # the norm of large numbers is infinite, too
                        continue
                    bad.append(f"{name} ({_kind(state[name])})")
                else:
                    bad.append(f"{name} ({'NaN' if math.isnan(value) else 'infinite'})")
            if bad:
                skipped = f", in {self._skipped} steps in a row" if self._skipped else ""
                more = skipped if what == "gradients" else ""
                yield f"{what} ({len(bad)} of {len(names)}{more}): {shorten(bad, 5)}"


def _stop_together(problem: object) -> None:
    """Raise in every process what any of them found."""
    any_problem = torch.tensor([bool(problem)], dtype=torch.int)
    all_reduce(any_problem, "max")
    if not any_problem:
        return
    problems = all_gather_object(problem or None)
    found = [
        f"process {rank}: {text}" if len(problems) > 1 else text
        for rank, text in enumerate(problems)
        if text
    ]
    raise NotFiniteError("\n".join(found) + "\nThe run stops, and saves nothing from here on.")


def _any_bad(measured: list[Measured]) -> Tensor:
    values = [values for *_, values in measured if values.numel()]
    if not values:
        return torch.zeros((), dtype=torch.int)
    device = values[-1].device
    return (~torch.cat([v.to(device) for v in values]).isfinite()).any().int()


def _norms(tensors: Sequence[Tensor]) -> Tensor:
    """The norm of each tensor, in float32: finite only if all its numbers are."""
    if not tensors:
        return torch.zeros(0)
    tensors = [x.float() if x.dtype == torch.float64 else x for x in tensors]
    return torch.stack(torch._foreach_norm(tensors, 2, dtype=torch.float32))


def _stack(scalars: Iterable[Any]) -> Tensor:
    values = [torch.as_tensor(x).detach().float().mean() for x in scalars]
    return torch.stack(values) if values else torch.zeros(0)


def _walk(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield name, value
    elif isinstance(value, dict | list | tuple):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _walk(part, f"{name}.{key}" if name else str(key))


def _kind(x: Tensor) -> str:
    return "NaN" if x.isnan().any() else "infinite"


def _origin(runner: Runner) -> str:
    file = getattr(runner, "_load_from", None)
    return f"they were loaded from {file}" if file else "they were initialised like that"
