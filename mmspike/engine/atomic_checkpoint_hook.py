"""Writes checkpoints so that one is complete at any moment."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from mmspike.checkpoints import CheckpointError
from mmspike.registry import HOOKS

_BACKEND = "mmspike_atomic"


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file that is there as a whole, or as it was before.

    Raises:
        OSError: If it cannot be written; what was there before is left.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")  # a killed run's is replaced
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name, too, outlives a power cut
    finally:
        os.close(folder)


@register_backend(_BACKEND, force=True)
class AtomicBackend(LocalBackend):
    """Files of this machine, written as a whole or not at all."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write a checkpoint.

        Raises:
            CheckpointError: If it cannot be written.
        """
        try:
            write_atomically(filepath, obj)
        except OSError as error:
            raise CheckpointError(
                f"checkpoint {filepath}: cannot be written ({error.strerror or error}). Those "
                "written before it are whole; make room and go on with --resume"
            ) from error


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, which a kill or a full disk leaves with a whole checkpoint.

    A file is written under another name, synced and renamed; ``last_checkpoint`` then names it, in
    the same way; only then are files beyond ``max_keep_ckpts`` removed. mmengine removes them
    before, and writes in place.

    Args:
        out_dir: See mmengine. Other storage than this machine's (``s3://...``, or with
            ``backend_args``) writes in its own way.
        backend_args: See mmengine.
        **kwargs: See mmengine.
    """

    def __init__(
        self, *, out_dir: str | None = None, backend_args: dict | None = None, **kwargs: Any
    ) -> None:
        if backend_args is None and "://" not in str(out_dir or ""):
            backend_args = {"backend": _BACKEND}
        super().__init__(out_dir=out_dir, backend_args=backend_args, **kwargs)

    def before_train(self, runner: Runner) -> None:
        """Find out where checkpoints go, and which there are."""
        super().before_train(runner)
        if self.max_keep_ckpts > 0:  # mmengine's forgets the oldest as a new one is added
            self.keep_ckpt_ids = deque(self.keep_ckpt_ids)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        keep = self.max_keep_ckpts > 0
        if keep and (not self.keep_ckpt_ids or self.keep_ckpt_ids[-1] != step):
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info("keep_ckpt_ids", list(self.keep_ckpt_ids))
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info("last_ckpt", self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            write_atomically(Path(runner.work_dir) / "last_checkpoint", self.last_ckpt.encode())
        while keep and len(self.keep_ckpt_ids) > self.max_keep_ckpts:
            self._remove(self.filename_tmpl.format(self.keep_ckpt_ids.popleft()))

    def _remove(self, name: str) -> None:
        path = self.file_backend.join_path(self.out_dir, name)
        if is_main_process() and self.file_backend.isfile(path):
            self.file_backend.remove(path)
