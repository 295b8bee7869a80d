"""All kernels of a model compile for a GPU, and read maps in vectors. Needs Triton, but no GPU."""

from __future__ import annotations

import re
import subprocess
from importlib import import_module

import pytest
import torch

from mmspike.backbones import MetaSpikeFormer
from mmspike.deploy import switch_to_deploy
from mmspike.fused import door, memory
from mmspike.fused.cuda.engine import CUDAEngine
from tests.fused.cuda.helpers import INTERPRETED

triton = pytest.importorskip("triton")
if INTERPRETED:
    pytest.skip("interpreted kernels are not compiled", allow_module_level=True)
compiler = import_module("triton.compiler")
launching = import_module("mmspike.neurons.kernels.triton_launch")
TARGET = import_module("triton.backends.compiler").GPUTarget("cuda", 90, 32)  # H100, H200

POINTERS = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.int64: "*i64"}
POINTERS |= {torch.int32: "*i32", torch.uint8: "*u8"}


def kind_of(argument):
    """What Triton compiles anew for: types, one, and multiples of 16."""
    if isinstance(argument, torch.Tensor):
        return POINTERS[argument.dtype]
    if isinstance(argument, float):
        return "fp32"
    return "i32 of 1" if argument == 1 else "i32 of 16" if argument % 16 == 0 else "i32"


def variant_of(launch, changing):
    """A kernel, the kinds of its arguments, and its constants."""
    free = {p.name for p in launch.kernel.params if p.do_not_specialize}
    names = launch.kernel.arg_names
    arguments = [*changing, *launch.sizes]
    kinds = [
        "i32" if name in free else kind_of(a)
        for name, a in zip(names[: len(arguments)], arguments, strict=True)
    ]
    return launch.kernel, tuple(kinds), launch.constants, launch.num_warps


def compiled(kernel, kinds, constants, num_warps):
    names = kernel.arg_names
    given = dict(zip(names[len(kinds) :], constants, strict=True))
    given |= {n: 1 for n, kind in zip(names, kinds, strict=False) if kind == "i32 of 1"}
    signature = dict.fromkeys(given, "constexpr") | {
        n: kind.split()[0] for n, kind in zip(names, kinds, strict=False) if n not in given
    }
    aligned = [i for i, kind in enumerate(kinds) if kind[0] == "*" or kind == "i32 of 16"]
    source = compiler.ASTSource(
        fn=kernel,
        signature={n: signature[n] for n in names},
        constexprs={(names.index(n),): value for n, value in given.items()},
        attrs={(i,): [["tt.divisibility", 16]] for i in aligned},
    )
    return triton.compile(source, target=TARGET, options={"num_warps": num_warps}).asm


def stack_of(cubin, path):
    """Bytes per thread of registers that did not fit."""
    path.write_bytes(cubin)
    command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", str(path)]
    usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return int(re.search(r"STACK:(\d+)", usage).group(1))


@pytest.fixture
def variants(monkeypatch, tmp_path):
    """What training, evaluation and deployment of a backbone launch; nothing is computed."""
    monkeypatch.setenv("MMSPIKE_FUSED_CUDA", "1")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(door, "ENGINES", (CUDAEngine("cpu"), memory.ByteEngine()))
    monkeypatch.setattr(memory, "is_channels_last_device", lambda _: True)
    found = {}

    def note(launch, *changing):
        found.setdefault(variant_of(launch, changing))

    monkeypatch.setattr(launching.Launch, "__call__", note)
    arch = dict(embed_dims=[64, 128, 256, 360], num_heads=8, depths=(1, 1, 1, 1, 1))  # 15M
    model = MetaSpikeFormer(arch=arch, time_steps=4, attn_init_size=(64, 64))
    img = torch.randn(1, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        sum(y.float().mean() for y in model.train()(img)).backward()
        for step in (model.eval, lambda: switch_to_deploy(model)):
            step()
            with torch.no_grad():
                model(img)
    return list(found)


def test_kernels_compile_and_read_vectors(variants, tmp_path):
    kernels = {kernel.__name__ for kernel, *_ in variants}
    read_maps = {"batch_statistics", "fire", "backward", "convolve"}
    assert read_maps < kernels
    assert len(variants) < 40  # layers of many sizes share them
    for kernel, kinds, constants, num_warps in variants:
        asm = compiled(kernel, kinds, constants, num_warps)
        what = (kernel.__name__, kinds, constants)
        assert stack_of(asm["cubin"], tmp_path / "kernel.cubin") == 0, what
        if kernel.__name__ in read_maps:
            assert not re.search(r"ld\.global\.[bu]16", asm["ptx"]), what
