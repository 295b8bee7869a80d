"""Random numbers of data loading that depend on what is loaded, not on what was drawn before.

A data worker's random state cannot be read, and prefetching runs ahead of the training. So nothing
is saved: each sample is loaded with random numbers of its own, drawn from the run's seed, the
number of the batch and the sample's place in the batch over all ranks. The number of workers does
not matter then, nor the number of ranks that share a batch.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_dist_info
from torch.utils.data import DataLoader, Dataset


def seed_everything(*entropy: int) -> None:
    """Seed Python, NumPy and torch, on all devices, from some numbers of at least zero."""
    words = [int(word) for word in np.random.SeedSequence(entropy).generate_state(4)]
    random.seed(words[0])
    np.random.seed(words[1])
    torch.manual_seed(words[2] << 32 | words[3])


class SeededBatch(list):
    """Indices of a batch, with what its samples' random numbers are drawn from.

    Attributes:
        entropy: The run's seed and the number of the batch.
        rank: Rank of this process.
        world_size: Number of processes that share the batch.
    """

    def __init__(
        self, indices: Iterable[Any], entropy: tuple[int, int], rank: int, world_size: int
    ) -> None:
        super().__init__(indices)
        self.entropy = entropy
        self.rank = rank
        self.world_size = world_size

    def __reduce__(self) -> tuple:
        return SeededBatch, (list(self), self.entropy, self.rank, self.world_size)


class SeededBatches:
    """A batch sampler around another, which numbers the batches.

    Args:
        batches: The batch sampler.
        seed: The run's seed.

    Attributes:
        number: Number of the batch that the inner sampler gives next, counted over all epochs.
        first: Batches of lower numbers are left out, and nothing of them is loaded.
    """

    def __init__(self, batches: Any, seed: int) -> None:
        self.batches = batches
        self.seed = seed
        self.number = 0
        self.first = 0

    def __iter__(self) -> Iterator[SeededBatch]:
        rank, world_size = get_dist_info()
        for indices in self.batches:
            number, self.number = self.number, self.number + 1
            if number >= self.first:
                yield SeededBatch(indices, (self.seed, number), rank, world_size)

    def __len__(self) -> int:
        return len(self.batches)

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["batches"], name)  # sampler, batch_size: hosts ask for them


def seed_batches(loader: DataLoader, seed: int) -> SeededBatches | None:
    """Let a data loader load each sample with random numbers of its own.

    Args:
        loader: Changed in place, before it is iterated.
        seed: The run's seed.

    Returns:
        The numbered batches; ``None``, with the loader as it was, if it has no batches of indices.
    """
    if loader.batch_sampler is None or not hasattr(loader.dataset, "__getitem__"):
        return None
    if isinstance(loader.batch_sampler, SeededBatches):
        return loader.batch_sampler
    dataset, batches = loader.dataset, SeededBatches(loader.batch_sampler, seed)
    # A data loader asks a dataset for a whole batch where it has this method.
    whole_batch = getattr(dataset, "__getitems__", None)
    dataset.__getitems__ = partial(_load, dataset, whole_batch)
    # Loaders refuse another sampler, since they derive settings from it. This one differs in none.
    vars(loader)["batch_sampler"] = batches
    return batches


def _load(dataset: Dataset, whole_batch: Any, batch: list) -> list:
    """Load the samples of a batch, each after seeding, or at once where the dataset does so."""
    if not isinstance(batch, SeededBatch):  # another loader of the same dataset
        return whole_batch(batch) if whole_batch else [dataset[index] for index in batch]
    if whole_batch:
        seed_everything(*batch.entropy, 1 + batch.rank)
        return whole_batch(batch)
    samples = []
    for place, index in enumerate(batch):
        # Zero is the model's; the places of all ranks are interleaved, as their samplers' are.
        seed_everything(*batch.entropy, 1 + place * batch.world_size + batch.rank)
        samples.append(dataset[index])
    return samples
