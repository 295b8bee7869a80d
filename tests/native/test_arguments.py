"""Wrong arguments are refused before a kernel gets a pointer."""

from __future__ import annotations

import pytest
import torch

from mmspike.native import attention, conv, depthwise, library, lif, norm
from mmspike.native.library import LIFStruct
from tests.native.helpers import NEURON, channels_last, make_spikes

if not library.is_available():
    pytest.skip("kernels not compiled", allow_module_level=True)

T, B, C, OUT, H, W = 2, 1, 12, 16, 5, 7
BITS = make_spikes(T, B, C, H, W).bits
WEIGHT, FILTERS = torch.randn(OUT, C, 3, 3), torch.randn(C, 1, 3, 3)
GRAD, OF_CHANNEL = channels_last(T * B, OUT, H, W), torch.randn(C)
MAP = channels_last(T * B, C, H, W)
ROWS = torch.randn(T, 5 * C)
NORM = norm.Norm(*torch.randn(3, C))


def geometry(weight=WEIGHT, **changed):
    fitting = dict(stride=(1, 1), padding=(1, 1), table=False)
    return conv.geometry((T * B, C, H, W), tuple(weight.shape), **{**fitting, **changed})


CONV, STRIDED = geometry(), geometry(stride=(2, 2))
DEPTHWISE = geometry(FILTERS)
CALLS = {
    "geometry": (
        conv.geometry,
        dict(shape=(2, C, H, W), weight=(OUT, C, 3, 3), stride=(1, 1), padding=(1, 1), table=False),
    ),
    "lay_out_weight": (conv.lay_out_weight, dict(weight=WEIGHT, table=False)),
    "forward": (
        conv.forward,
        dict(bits=BITS, laid_out=conv.lay_out_weight(WEIGHT), bias=torch.zeros(OUT), conv=CONV),
    ),
    "fire": (
        conv.forward_and_fire,
        dict(bits=BITS, laid_out=conv.lay_out_weight(WEIGHT), bias=None, time_steps=T)
        | dict(neuron=NEURON, conv=CONV),
    ),
    "grad_weight": (conv.grad_weight, dict(bits=BITS, grad_out=GRAD, conv=CONV)),
    "grad_input": (conv.grad_input, dict(grad_out=GRAD, weight=WEIGHT, conv=CONV)),
    "unpack": (conv.unpack, dict(bits=BITS, spikes=torch.empty(T * B, H, W, C))),
    "depthwise": (depthwise.forward, dict(bits=BITS, weight=FILTERS, conv=DEPTHWISE)),
    "depthwise grad_weight": (
        depthwise.grad_weight,
        dict(bits=BITS, grad_out=channels_last(T * B, C, H, W), conv=DEPTHWISE),
    ),
    "attention": (
        attention.forward,
        dict(bits=BITS, shape=(T * B, H * W, C // 3), num_heads=2, scale=0.125),
    ),
    "lif": (lif.forward, dict(x=ROWS, spikes=ROWS.clone(), neuron=NEURON, norm=NORM)),
    "lif backward": (
        lif.backward,
        dict(x=ROWS, grad_spikes=ROWS, grad_x=ROWS.clone(), neuron=NEURON, norm=NORM)
        | dict(sums=torch.zeros(2, C, dtype=torch.float64)),
    ),
    "norm sums": (norm.sums, dict(grad=MAP, y=MAP, mean=OF_CHANNEL)),
    "norm backward": (
        norm.backward,
        dict(grad=MAP, y=MAP, out=MAP.clone(), mean=OF_CHANNEL, a=OF_CHANNEL, b=OF_CHANNEL)
        | dict(c=OF_CHANNEL),
    ),
}
TENSORS = [
    (call, name)
    for call, (_, arguments) in CALLS.items()
    for name, value in arguments.items()
    if isinstance(value, torch.Tensor)
]


def run(call, **changed):
    function, arguments = CALLS[call]
    return function(**{**arguments, **changed})


@pytest.mark.parametrize("call", CALLS)
def test_fitting_arguments_are_taken(call):
    run(call)


@pytest.mark.parametrize(("call", "name"), TENSORS)
def test_tensors_of_other_types_are_refused(call, name):
    wrong = CALLS[call][1][name].to(torch.int16)
    with pytest.raises(TypeError, match=r"expected .* got torch\.int16"):
        run(call, **{name: wrong})


@pytest.mark.parametrize(("call", "name"), TENSORS)
def test_tensors_on_other_devices_are_refused(call, name):
    with pytest.raises(ValueError, match=r"expected .* on the CPU; got .* on meta"):
        run(call, **{name: CALLS[call][1][name].to("meta")})


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize(("call", "name"), TENSORS)
def test_tensors_of_other_sizes_are_refused(call, name, axis):
    """One element less along an axis, and the same layout: a kernel would read or write too far."""
    whole = CALLS[call][1][name]
    part = whole.narrow(axis, 0, whole.size(axis) - 1)
    part = torch.empty_like(part).copy_(part)
    if (call, name) == ("lay_out_weight", "weight"):
        assert run(call, weight=part).numel() <= run(call).numel()  # any size is right
        return
    with pytest.raises(ValueError, match="expected"):
        run(call, **{name: part})


@pytest.mark.parametrize(("call", "name"), [x for x in TENSORS if x[1] not in ("weight",)], ids=str)
def test_tensors_in_other_layouts_are_refused(call, name):
    """Every second element of the last axis in memory."""
    tensor = CALLS[call][1][name]
    order = (0, 2, 3, 1) if name in ("grad_out", "grad", "y", "out") else range(tensor.dim())
    wrong = torch.stack([tensor.permute(*order)] * 2, dim=-1)[..., 0]
    back = sorted(range(tensor.dim()), key=list(order).__getitem__)
    wrong = wrong.permute(*back)
    assert wrong.shape == tensor.shape
    with pytest.raises(ValueError, match=r"expected .* got .* strides"):
        run(call, **{name: wrong})


@pytest.mark.parametrize("call", ["grad_weight", "grad_input", "depthwise grad_weight"])
def test_gradients_with_the_channels_first_in_memory_are_refused(call):
    grad = CALLS[call][1]["grad_out"].contiguous()
    with pytest.raises(ValueError, match=r"grad_out: expected .* channels last"):
        run(call, grad_out=grad)


@pytest.mark.parametrize(
    ("call", "changed", "error"),
    [
        ("geometry", dict(shape=(2, C, 0, W)), "all sizes and strides at least 1"),
        ("geometry", dict(shape=(2, 8, H, W)), "all sizes and strides at least 1"),
        ("geometry", dict(stride=(0, 1)), "all sizes and strides at least 1"),
        ("geometry", dict(padding=(-1, 0)), "all sizes and strides at least 1"),
        ("geometry", dict(shape=(1, C, 1, 2**26)), "too long for the kernels"),
        ("geometry", dict(shape=(1, 6, H, W), weight=(8, 6, 3, 3), table=True), "multiple of 4"),
        ("lay_out_weight", dict(weight=torch.randn(8, 6, 3, 3), table=True), "multiple of 4"),
        ("lay_out_weight", dict(weight=torch.randn(8, 6)), r"expected shape \[C', C, h, w\]"),
        ("forward", dict(bits=BITS.flatten()), "bits: expected"),
        ("forward", dict(bits=BITS.flatten()[:51].view(3, 17)), "T divides the 2 images"),
        ("forward", dict(conv=geometry(table=True)), "laid_out: expected"),
        ("forward", dict(conv=DEPTHWISE), "bias: expected"),
        ("fire", dict(time_steps=1), "expected bits over 1 steps"),
        ("grad_weight", dict(conv=STRIDED), "expected a stride of 1, got 2 x 2"),
        ("grad_input", dict(conv=STRIDED), "expected a stride of 1, got 2 x 2"),
        ("grad_input", dict(conv=geometry(torch.empty(OUT, C, 1, 3), padding=(0, 1))), "1 x 3"),
        ("depthwise", dict(conv=CONV), "12 to 16"),
        ("depthwise", dict(conv=geometry(FILTERS, stride=(2, 2))), "expected a stride of 1"),
        ("depthwise", dict(conv=geometry(torch.empty(C, 1, 5, 5))), "3 x 3 or 7 x 7"),
        ("depthwise grad_weight", dict(conv=CONV), "12 to 16"),
        ("attention", dict(num_heads=3), "4 in"),
        ("attention", dict(num_heads=0), "0 heads"),
        ("attention", dict(shape=(T * B, H * W, 8)), "bits: expected"),
        ("lif", dict(x=ROWS[0]), r"expected shape \[T, N\]"),
        ("lif", dict(norm=norm.Norm(*torch.randn(3, 7))), "divides the 60 elements"),
        ("lif", dict(norm=norm.Norm(*torch.randn(3, 0))), "divides the 60 elements"),
        ("lif", dict(norm=NORM._replace(shift=torch.randn(1))), "shift: expected"),
        ("lif", dict(norm=NORM._replace(mean=torch.randn(1))), "mean: expected"),
        ("lif backward", dict(neuron=LIFStruct(surrogate=-1)), "surrogate of number 0 or 1, got"),
        ("lif backward", dict(norm=None), "sums: expected None"),
        ("norm sums", dict(y=torch.randn(3, 4)), r"shape \[..., C, H, W\]"),
        ("norm sums", dict(mean=torch.randn(1)), "mean: expected"),
    ],
)
def test_what_does_not_fit_together_is_refused(call, changed, error):
    with pytest.raises(ValueError, match=error):
        run(call, **changed)


def test_output_channels_of_neurons_fill_bytes():
    weight = torch.randn(12, C, 3, 3)
    changed = dict(laid_out=conv.lay_out_weight(weight), conv=geometry(weight))
    with pytest.raises(ValueError, match="multiple of 8, got 2 steps and 12 channels"):
        run("fire", **changed)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (call, name)
        for call, (_, arguments) in CALLS.items()
        for name in arguments
        if name in ("conv", "neuron", "bits", "x", "sums", "grad_out")
    ],
)
def test_other_objects_are_refused(call, name):
    with pytest.raises(TypeError, match=r"expected .* got list"):
        run(call, **{name: []})


def test_bits_of_a_neuron_are_whole_bytes_of_a_step():
    x = torch.randn(3, 13)
    for size in (1, 3):
        with pytest.raises(ValueError, match=r"spikes: expected torch.uint8 of shape \(3, 2\)"):
            lif.forward(x, torch.empty(3, size, dtype=torch.uint8), NEURON)
    lif.forward(x, torch.empty(3, 2, dtype=torch.uint8), NEURON)


def test_rows_may_lie_apart_but_not_their_elements():
    apart = torch.randn(3, 40)[:, :20]
    lif.forward(apart, torch.empty(3, 20), NEURON)
    with pytest.raises(ValueError, match="each row dense in memory"):
        lif.forward(torch.randn(20, 3).t(), torch.empty(3, 20), NEURON)
