"""Run the kernels on random shapes, against plain torch: ``python -m tests.native.fuzz``.

Under the sanitizers (``make sanitize``), which end the process where a kernel reads or writes
outside its arguments.
"""

from __future__ import annotations

import argparse
import random
import time

import torch

from mmspike.native import library
from tests.native.helpers import (
    check_attention,
    check_conv,
    check_depthwise,
    check_neuron,
    check_norm,
    check_unpack,
    make_spikes,
)

SIZES = (*range(1, 22), 31, 33, 63, 65, 127, 130, 180)


def any_spikes(draw: random.Random, channels: int, side: int = 14):
    height, width = draw.randint(1, side), draw.randint(1, side)
    rate = draw.choice((0.0, 0.02, 0.2, 0.5, 1.0))
    return make_spikes(draw.randint(1, 5), draw.randint(1, 3), channels, height, width, rate)


def any_conv(draw: random.Random) -> None:
    s = any_spikes(draw, draw.choice(SIZES))
    kernel = draw.choice(((1, 1), (3, 3), (draw.randint(1, 7), draw.randint(1, 7))))
    stride = draw.choice(((1, 1), (draw.randint(1, 3), draw.randint(1, 3))))
    sides = zip(s.floats.shape[2:], kernel, strict=True)
    padding = tuple(draw.randint(max(0, (k - size + 1) // 2), k + 1) for size, k in sides)
    table = s.floats.size(1) % 4 == 0 and draw.random() < 0.5
    check_conv(s, draw.choice(SIZES), kernel, stride, padding, draw.random() < 0.5, table)


def any_depthwise(draw: random.Random) -> None:
    s, side = any_spikes(draw, draw.choice(SIZES)), draw.choice((3, 7))
    fewest = (max(0, (side - size + 1) // 2) for size in s.floats.shape[2:])
    check_depthwise(s, side, tuple(draw.randint(few, side) for few in fewest))


def any_attention(draw: random.Random) -> None:
    heads = draw.randint(1, 6)
    check_attention(any_spikes(draw, 3 * heads * draw.randint(1, 40), side=6), heads)


def any_neuron(draw: random.Random) -> None:
    normed = draw.random() < 0.5
    check_neuron(draw.randint(1, 10), draw.randint(1, 300), draw.choice(SIZES), normed)


def any_norm(draw: random.Random) -> None:
    check_norm(draw.randint(1, 3), draw.choice(SIZES), draw.randint(1, 30), draw.randint(1, 30))


def any_unpacked(draw: random.Random) -> None:
    check_unpack(any_spikes(draw, draw.choice(SIZES), side=40))


KINDS = (any_conv, any_conv, any_depthwise, any_attention, any_neuron, any_norm, any_unpacked)


def run(seed: int) -> str:
    """Check one kind of kernel on one shape; the seed alone decides which, and on what."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(draw.randint(1, 3))
    level = library.loaded().mmspike_set_level(draw.randrange(len(library.LEVELS)))
    kind = draw.choice(KINDS)
    try:
        kind(draw)
    except Exception as error:
        error.add_note(f"seed {seed}: {kind.__name__} on {library.LEVELS[level]}")
        raise
    return kind.__name__


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=100, help="how long (100)")
    parser.add_argument("--seed", type=int, default=0, help="of the first case (0)")
    args = parser.parse_args()
    end, seed, counts = time.monotonic() + args.seconds, args.seed, {}
    while time.monotonic() < end:
        name = run(seed)
        counts[name] = counts.get(name, 0) + 1
        seed += 1
    cases = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    print(f"seeds {args.seed} to {seed - 1} are fine: {cases}")


if __name__ == "__main__":
    main()
