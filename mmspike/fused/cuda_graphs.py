"""Backbone and neck as CUDA graphs: one launch for all their kernels."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from mmspike.fused import graph_record
from mmspike.fused.graph_limits import kind_of, places_of, versions_of, why_plain
from mmspike.fused.graph_record import Memory, Recording


class GraphedFeatures:
    """Runs a model's ``extract_feat``, and from some call on replays it as CUDA graphs.

    Images of each size (and type, and mode) are run plainly a few times, which compiles and
    allocates whatever there is to; then forward and, in training, backward pass are recorded, and
    replayed from there on. Results, gradients and running statistics are those of the plain way.
    The recordings share their memory, since only one is in use at a time: maps in training are
    valid until the next call.

    What cannot be recorded (see :mod:`mmspike.fused.graph_limits`), what comes beyond
    ``max_graphs``, and what fails while it is recorded runs plainly; the log has a line for each
    reason.

    Args:
        model: A detector or segmentor with ``extract_feat(images)``.
        max_graphs: Recordings to keep.
        warmup: Plain calls before each.
    """

    def __init__(self, model: nn.Module, max_graphs: int = 8, warmup: int = 3) -> None:
        self.model = model
        self.max_graphs = max_graphs
        self.warmup = warmup
        self.replays = 0
        self._told: set[str] = set()
        self.forget()

    def forget(self) -> None:
        """Drop all recordings, and their memory."""
        self._recordings: dict[Hashable, tuple[Recording, Callable[[tuple[Tensor, ...]], Any]]] = {}
        self._calls: Counter[Hashable] = Counter()
        self._failed: set[Hashable] = set()
        self._memory = Memory()
        self._places: tuple[int, ...] | None = None
        self._versions: tuple[int, ...] | None = None

    def forget_inference(self) -> None:
        """Drop the recordings of passes without gradients.

        What is made of weights once, for inference, is not made again in a replay. Writes to
        weights that torch sees are noticed; call this after those through ``.data``.
        """
        for key in [k for k, (r, _) in self._recordings.items() if r.backward is None]:
            del self._recordings[key]
            self._calls[key] = self.warmup - 1
        self._renew_memory()

    def _renew_memory(self) -> None:
        if not self._recordings:  # CUDA frees a pool with the last graph in it
            self._memory = Memory()

    def plain(self, images: Tensor) -> Any:
        """What the model's class does."""
        return type(self.model).extract_feat(self.model, images)

    def __call__(self, images: Tensor) -> Any:
        """Map images ``[B, C, H, W]`` to whatever ``extract_feat`` returns."""
        modules = list(self._modules())
        reason = why_plain(modules, images)
        if reason is not None:
            return self._plain_because(reason, images)
        if self._places != (places := places_of(modules)):
            self.forget()  # weights were moved
            self._places = places
        if not torch.is_grad_enabled() and self._versions != (versions := versions_of(modules)):
            self.forget_inference()
            self._versions = versions
        key = kind_of(modules, images)
        if key not in self._recordings:
            if key in self._failed or self._calls[key] < self.warmup:
                self._calls[key] += 1
                return self.plain(images)
            if len(self._recordings) >= self.max_graphs:
                return self._plain_because(f"max_graphs={self.max_graphs} are there", images)
            if not self._record(key, images):
                return self.plain(images)
        recording, rebuild = self._recordings[key]
        self.replays += 1
        return rebuild(graph_record.replay(recording, images, self._memory))

    def _modules(self) -> Any:
        for name in ("backbone", "neck"):
            part = getattr(self.model, name, None)
            if part is not None:
                yield from part.named_modules(prefix=name)

    def _record(self, key: Hashable, images: Tensor) -> bool:
        shape: dict[str, Any] = {}

        def run(static: Tensor) -> list[Tensor]:
            with _without_cache(static.device.type):
                leaves, shape["spec"] = tree_flatten(self.plain(static))
            shape["leaves"] = [isinstance(leaf, Tensor) or leaf for leaf in leaves]
            return [leaf for leaf in leaves if isinstance(leaf, Tensor)]

        def rebuild(tensors: tuple[Tensor, ...]) -> Any:
            rest = iter(tensors)
            leaves = [next(rest) if leaf is True else leaf for leaf in shape["leaves"]]
            return tree_unflatten(leaves, shape["spec"])

        wanted = [p for p in self.model.parameters() if p.requires_grad]
        try:
            recording = graph_record.record(run, images, wanted, self._memory)
        except RuntimeError as error:
            self._failed.add(key)
            self._renew_memory()
            self._plain(f"recording failed: {_cause_of(error)}", images)
            return False
        self._recordings[key] = (recording, rebuild)
        what = "training" if recording.backward else "inference"
        print_log(f"CUDA graphs: recorded {what} on images {tuple(images.shape)}", "current")
        return True

    def _plain_because(self, reason: str, images: Tensor) -> Any:
        self._plain(reason, images)
        return self.plain(images)

    def _plain(self, reason: str, images: Tensor) -> None:
        if reason not in self._told:
            self._told.add(reason)
            print_log(f"CUDA graphs: images {tuple(images.shape)} run plainly: {reason}", "current")

    def __deepcopy__(self, memo: dict[int, Any]) -> GraphedFeatures:
        """For a copy of the model, without recordings."""
        return GraphedFeatures(copy.deepcopy(self.model, memo), self.max_graphs, self.warmup)


def _without_cache(device: str) -> torch.autocast:
    """Autocast as it is, but casting weights anew: a recording cannot read another pass's casts."""
    return torch.autocast(
        device,
        torch.get_autocast_dtype(device),
        enabled=torch.is_autocast_enabled(device),
        cache_enabled=False,
    )


def _cause_of(error: BaseException) -> str:
    """The first line of the first error: the end of a recording that failed raises another."""
    while isinstance(error.__context__, RuntimeError):
        error = error.__context__
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
