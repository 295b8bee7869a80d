from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mmspike.layers.time import (
    channels_to_time,
    fold_time,
    mean_over_time,
    per_step,
    repeat_over_time,
    swap_time_and_batch,
    time_to_channels,
    unfold_time,
)


def test_per_step_applies_to_each_step_alone():
    x = torch.arange(24.0).view(2, 3, 4)
    out = per_step(lambda y: y.flip(1)[:, :2], x)
    assert torch.equal(out, torch.stack([s.flip(1)[:, :2] for s in x]))


def test_repeat_and_mean_undo_one_another_without_a_copy():
    x = torch.rand(2, 3)
    repeated = repeat_over_time(x, 4)
    assert repeated.shape == (4, 2, 3)
    assert repeated.data_ptr() == x.data_ptr()
    torch.testing.assert_close(mean_over_time(repeated), x)
    assert mean_over_time(x[None]).data_ptr() == x.data_ptr()


def test_steps_travel_as_channels_and_come_back():
    x = torch.rand(2, 3, 4, 5, 6)  # [B, T, C, H, W]
    folded = time_to_channels(x)
    assert folded.shape == (2, 12, 5, 6)
    assert torch.equal(folded[:, 4:8], x[:, 1])
    assert torch.equal(channels_to_time(folded, 3), x)
    assert torch.equal(swap_time_and_batch(x)[1], x[:, 1])


@pytest.mark.parametrize("time_steps", [1, 3])
@pytest.mark.parametrize("batch", [1, 2])
def test_layers_see_channels_last_memory(time_steps, batch):
    x = torch.randn(time_steps, batch, 5, 6, 8).permute(0, 1, 4, 2, 3)
    y = per_step(lambda x: F.interpolate(x, scale_factor=2, mode="nearest"), x)
    assert y[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("time_steps", [1, 3])
@pytest.mark.parametrize("batch", [1, 2])
def test_steps_that_are_unfolded_are_channels_last_for_torch(time_steps, batch):
    x = torch.randn(time_steps * batch, 6, 7, 8).permute(0, 3, 1, 2)
    x_seq = unfold_time(x, time_steps)
    assert x_seq.shape == (time_steps, batch, 8, 6, 7)
    assert torch.equal(fold_time(x_seq), x)
    for y in (x_seq[0], fold_time(x_seq)):  # torch decides by the strides what comes out
        y = F.interpolate(y, scale_factor=2, mode="nearest")
        assert y.is_contiguous(memory_format=torch.channels_last)


def test_per_step_refuses_what_changes_the_number_of_images():
    with pytest.raises(ValueError, match="of length 6, and gave shape \\(12, 4\\)"):
        per_step(lambda x: torch.cat([x, x]), torch.zeros(2, 3, 4))
