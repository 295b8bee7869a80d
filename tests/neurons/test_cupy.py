"""The CUDA kernels against the reference: on a GPU, and compiled by g++ without one.

Without a GPU, a stand-in for the module ``cupy`` compiles ``lif.cu`` as plain C++ and runs its
threads one after the other on tensors of the CPU. All else is the code that runs on a GPU.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import sys
from contextlib import nullcontext
from functools import cache
from types import SimpleNamespace

import pytest
import torch

from mmspike.neurons import build_surrogate
from mmspike.neurons.functional import lif_charge, lif_multi_step, lif_reset
from mmspike.neurons.kernels import cupy, eager
from mmspike.neurons.kernels.common import LIFParameters

DEFAULT = {
    "tau": 2.0,
    "v_threshold": 1.0,
    "v_reset": 0.0,
    "decay_input": True,
    "detach_reset": True,
}

CUDA_IN_CPP = """
#include <math.h>
#include <string.h>

#define __device__
#define __global__
static struct { unsigned x; } blockIdx, blockDim, threadIdx;

static unsigned __float_as_uint(float x) { unsigned y; memcpy(&y, &x, 4); return y; }
static float __uint_as_float(unsigned x) { float y; memcpy(&y, &x, 4); return y; }

#include "lif.cu"

template <class... Args>
void launch(unsigned grid, unsigned block, void (*kernel)(Args...), Args... args) {
    blockDim.x = block;
    for (blockIdx.x = 0; blockIdx.x < grid; ++blockIdx.x)
        for (threadIdx.x = 0; threadIdx.x < block; ++threadIdx.x) kernel(args...);
}

typedef long long step;
extern "C" void launch_lif_forward(
        unsigned grid, unsigned block, const DATA *x, step dx, DATA *s, step ds, step n) {
    launch(grid, block, lif_forward, x, dx, s, ds, n);
}
extern "C" void launch_lif_backward(
        unsigned grid, unsigned block, const DATA *x, step dx, const DATA *grad_s, step dgs,
        DATA *grad_x, step dgx, step n) {
    launch(grid, block, lif_backward, x, dx, grad_s, dgs, grad_x, dgx, n);
}
"""


def has_gxx() -> bool:
    """Whether there is a g++ that knows ``_Float16``."""
    if not shutil.which("g++"):
        return False
    version = subprocess.run(["g++", "-dumpversion"], capture_output=True, text=True).stdout
    return int(version.split(".")[0]) >= 12


@pytest.fixture(scope="session")
def emulated_cupy(tmp_path_factory):
    """A stand-in for the module ``cupy``."""

    @cache
    def build(code, options):
        assert "-fmad=false" in options
        folder = tmp_path_factory.mktemp("cupy")
        (folder / "lif.cu").write_text(code)
        (folder / "lif.cpp").write_text(CUDA_IN_CPP)
        constants = [option for option in options if option.startswith("-D")]
        flags = ["-O1", "-shared", "-fPIC", "-ffp-contract=off", "-fno-strict-aliasing"]
        command = ["g++", *flags, *constants, "-o", "lif.so", "lif.cpp"]
        subprocess.run(command, cwd=folder, check=True)
        return ctypes.CDLL(str(folder / "lif.so"))

    class RawModule:
        def __init__(self, *, code, options):
            self.library = build(code, options)
            self.constants = dict(o[2:].split("=") for o in options if o.startswith("-D"))

        def get_function(self, name):
            size = int(re.search(r"\d+", self.constants["DATA"])[0]) // 8
            vec, time_steps = int(self.constants["VEC"]), int(self.constants["TIME_STEPS"])
            function = self.library["launch_" + name]

            def kernel(grid, block, args):
                *buffers, n = args
                for address, step in zip(buffers[::2], buffers[1::2], strict=True):
                    assert address % (vec * size) == 0, "a vector is loaded where it may not be"
                    assert time_steps == 1 or step % vec == 0
                (blocks,), (threads,) = grid, block
                assert (blocks - 1) * threads * vec < n <= blocks * threads * vec
                numbers = [ctypes.c_longlong(arg) for arg in args]
                function(ctypes.c_uint(blocks), ctypes.c_uint(threads), *numbers)

            return kernel

    return SimpleNamespace(RawModule=RawModule)


@pytest.fixture
def emulated(emulated_cupy, monkeypatch):
    if not has_gxx():
        pytest.skip("needs g++ 12 or newer")
    monkeypatch.setitem(sys.modules, "cupy", emulated_cupy)
    monkeypatch.setattr(cupy, "_torch_stream", lambda device: nullcontext())
    cupy._kernel.cache_clear()
    yield "cpu"
    cupy._kernel.cache_clear()


@pytest.fixture
def cuda():
    pytest.importorskip("cupy")
    return "cuda"


@pytest.fixture(params=["emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    return request.getfixturevalue(request.param)


def inputs(time_steps, device, dtype=torch.float32, shape=(3, 4, 5, 6), seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(time_steps, *shape, generator=g) * 2 + 0.5
    weight = torch.randn(x.shape, generator=g)
    return x.to(device, dtype), weight.to(device, dtype)


def run(implementation, x, weight, surrogate=None, **change):
    """Spikes, and the gradient of their weighted sum, on the CPU."""
    x = x.detach().requires_grad_()  # keeps the layout
    s = implementation(x, **{**DEFAULT, **change}, surrogate=build_surrogate(surrogate))
    (grad,) = torch.autograd.grad(s, x, weight)
    return s.detach(), grad


def assert_same(x, weight, **change):
    """The reference runs on the CPU: on a GPU, torch's division rounds differently."""
    s, grad = run(cupy.lif_multi_step, x, weight, **change)
    expected_s, expected_grad = run(lif_multi_step, x.cpu(), weight.cpu(), **change)
    assert s.dtype == expected_s.dtype
    assert torch.equal(s.cpu(), expected_s)
    assert 0 < s.float().mean() < 1
    assert grad.dtype == expected_grad.dtype
    rounding = {torch.float32: 1e-5, torch.float64: 1e-12, torch.float16: 2e-3}
    tol = rounding.get(x.dtype, 2e-2)
    torch.testing.assert_close(grad.cpu(), expected_grad, rtol=tol, atol=tol)
    return s


DYNAMICS = [
    {"decay_input": decay, "detach_reset": detach, "v_reset": v_reset}
    for decay in (True, False)
    for detach in (True, False)
    for v_reset in (0.0, 0.2, None)
]


@pytest.mark.parametrize(("time_steps", "change"), [(i % 8 + 1, c) for i, c in enumerate(DYNAMICS)])
def test_dynamics(time_steps, change, device):
    assert_same(*inputs(time_steps, device), tau=1.7, v_threshold=0.8, **change)


@pytest.mark.gpu
@pytest.mark.parametrize("time_steps", range(1, 9))
@pytest.mark.parametrize("change", DYNAMICS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_dynamics(time_steps, change, dtype, cuda):
    assert_same(*inputs(time_steps, cuda, dtype), tau=1.7, v_threshold=0.8, **change)


def inputs_at_the_threshold(time_steps, tau, v_threshold, v_reset, decay_input, **_):
    """Inputs that charge to the threshold at every step, give or take what rounding decides."""
    g = torch.Generator().manual_seed(0)
    neurons, rest = 4000, v_reset or 0.0
    x_seq, v = [], None
    for _ in range(time_steps):
        low = torch.full((neurons,), rest) if v is None else v
        lacking, leak = v_threshold - low.double(), low.double() - rest
        x = lacking * tau + leak if decay_input else lacking + leak / tau
        x = (x * (1 + 2.0**-23 * torch.randint(-2, 3, x.shape, generator=g))).float()
        idle = torch.rand(neurons, generator=g) < 0.5  # these take a potential to the next step
        x_seq.append(torch.where(idle, x * torch.rand(neurons, generator=g), x))
        h = lif_charge(x_seq[-1], v, tau, v_reset, decay_input)
        v = lif_reset(h, (h >= v_threshold).float(), v_threshold, v_reset, True)
    return torch.stack(x_seq)


@pytest.mark.parametrize("change", [c for c in DYNAMICS if c["detach_reset"]])
def test_rounding_at_the_threshold(change, device):
    p = {**DEFAULT, **change, "tau": 1.7, "v_threshold": 0.8, "surrogate": build_surrogate(None)}
    x = inputs_at_the_threshold(4, **p)
    s = lif_multi_step(x, **p)
    assert 0.1 < s.mean() < 0.5
    assert torch.equal(cupy.lif_multi_step(x.to(device), **p).cpu(), s)


@pytest.mark.parametrize("name", sorted(cls.__name__ for cls in eager.SURROGATES))
def test_surrogates(name, device):
    assert cupy.supports(build_surrogate({"type": name}))
    assert_same(*inputs(3, device), surrogate={"type": name, "alpha": 1.5})


def test_surrogates_that_it_does_not_know_are_refused_beforehand():
    assert not cupy.supports(build_surrogate({"type": "S2NN"}))
    assert not cupy.supports(build_surrogate({"type": "Sigmoid", "spiking": False}))


LAYOUTS = {
    "contiguous": lambda x: x,
    "channels last": lambda x: x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3),
    "batch first": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "every second": lambda x: x.repeat_interleave(2, dim=-1)[..., ::2],
    "the same at every step": lambda x: x[:1].expand_as(x),
    "every second step": lambda x: x.repeat_interleave(2, dim=0)[::2],
    "off by one": lambda x: torch.cat([x.new_zeros(1), x.flatten()])[1:].view_as(x),
}


@pytest.mark.parametrize("dtype", cupy.DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_types_and_layouts(dtype, layout, device):
    x, weight = inputs(4, device, dtype)
    x = LAYOUTS[layout](x)
    for w in (weight, LAYOUTS["channels last"](weight), weight[:1, :1, :1].expand_as(weight)):
        s = assert_same(x, w)
    if layout not in ("batch first", "every second"):
        assert s.stride()[1:] == x.stride()[1:]


@pytest.mark.parametrize(
    ("time_steps", "neurons", "dtype", "vec"),
    [
        (3, 1028, torch.float32, 4),
        (3, 1026, torch.float32, 2),
        (3, 1027, torch.float32, 1),
        (1, 1027, torch.float32, 4),  # three are left over
        (3, 1032, torch.bfloat16, 8),
        (3, 1028, torch.bfloat16, 4),
        (1, 1031, torch.float16, 8),  # seven are left over
        (16, 1032, torch.bfloat16, 4),  # registers are the limit
        (70, 256, torch.float32, 1),
    ],
)
def test_vectors(time_steps, neurons, dtype, vec, device):
    x, weight = inputs(time_steps, device, dtype, shape=(neurons,))
    assert cupy._neurons_per_thread((x, weight)) == vec
    assert_same(x, weight)


@pytest.mark.parametrize("time_steps", [1, 3])
def test_nothing_is_written_beside_the_output(time_steps, device):
    x, weight = inputs(time_steps, device, shape=(1028,))
    p = LIFParameters(**DEFAULT, surrogate=build_surrogate(None))
    neurons = 1027 if time_steps == 1 else 1028
    x, weight = x[:, :neurons], weight[:, :neurons]
    for name, arguments in (("lif_forward", [x]), ("lif_backward", [x, weight])):
        out = torch.full((time_steps, 1044), 7.0, device=device)
        cupy._launch(name, p, *arguments, out[:, 8 : 8 + neurons])
        assert (out[:, :8] == 7).all()
        assert (out[:, 8 + neurons :] == 7).all()
        assert (out[:, 8 : 8 + neurons] != 7).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_half_number_is_read_and_rounded_as_torch_does(dtype, device):
    every = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype)
    every = every[~((every.abs() > 0) & (every.abs() < 1e-30))]  # CuPy lets these be 0
    g = torch.Generator().manual_seed(0)
    x = torch.stack([every, every[torch.randperm(len(every), generator=g)]])
    steady = torch.full_like(x, 1.6)  # both potentials near the threshold: a slope of 1
    weight = torch.stack([x[0], x[1].nan_to_num(1.0, 2.0, 3.0)])  # inf - inf in the reference
    rect = {"type": "Rect", "alpha": 1.0}
    s, _ = run(cupy.lif_multi_step, x.to(device), x.to(device), rect)
    _, grad = run(cupy.lif_multi_step, steady.to(device), weight.to(device), rect)
    assert torch.equal(s.cpu(), run(lif_multi_step, x, x, rect)[0])
    expected = run(lif_multi_step, steady, weight, rect)[1]
    torch.testing.assert_close(grad.cpu(), expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("shape", [(1,), (3,), (2, 0, 4), (2, 1)])
def test_odd_shapes(shape, device):
    x = 3 * torch.randn(shape)
    p = {**DEFAULT, "surrogate": build_surrogate(None)}
    leaf = x.to(device).requires_grad_()
    s = cupy.lif_multi_step(leaf, **p)
    s.sum().backward()
    assert torch.equal(s.cpu(), lif_multi_step(x, **p))
    assert leaf.grad.shape == x.shape


def test_the_input_is_all_that_is_kept_for_the_backward_pass(device):
    x = inputs(4, device)[0].requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()), lambda t: t):
        cupy.lif_multi_step(x, **DEFAULT, surrogate=build_surrogate(None))
    assert kept == [x.data_ptr()]


@pytest.mark.gpu
def test_it_runs_on_the_current_stream(cuda):
    x, weight = inputs(4, cuda, shape=(64, 512, 512))
    expected = run(cupy.lif_multi_step, x * 0.5 + 0.25, weight)
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(100_000_000)  # cycles: a kernel on another stream would not wait
        s, grad = run(cupy.lif_multi_step, x * 0.5 + 0.25, weight)
    torch.cuda.synchronize()
    assert torch.equal(s, expected[0])
    assert torch.equal(grad, expected[1])


def test_what_is_missing_is_told(monkeypatch):
    p = {**DEFAULT, "surrogate": build_surrogate(None)}
    with pytest.raises(RuntimeError, match="needs its input on a CUDA device, got one on 'cpu'"):
        cupy.lif_multi_step(torch.ones(2, 3), **p)
    with pytest.raises(TypeError, match="the input must be one of"):
        cupy.lif_multi_step(torch.ones(2, 3, dtype=torch.int32), **p)
    monkeypatch.setitem(sys.modules, "cupy", None)  # an import fails
    assert not cupy.is_available()
    for version, package in ((None, "cupy-cuda13x"), ("12.8", "cupy-cuda12x")):
        monkeypatch.setattr(torch.version, "cuda", version)
        with (
            pytest.raises(RuntimeError, match=f"pip install {package}"),
            cupy._torch_stream(torch.device("cuda", 0)),
        ):
            pass


@pytest.mark.parametrize("dtype", cupy.DTYPES, ids=str)
def test_nvcc_compiles_it(dtype, tmp_path):
    if not shutil.which("nvcc"):
        pytest.skip("needs nvcc")
    p = LIFParameters(**DEFAULT, surrogate=build_surrogate(None))
    options = cupy._options(p, 4, dtype, 16 // dtype.itemsize)
    target = ["-cubin", "-arch=sm_90", "-Werror", "all-warnings", "-o", str(tmp_path / "lif.cubin")]
    subprocess.run(["nvcc", *target, *options, str(cupy.SOURCE)], check=True)
