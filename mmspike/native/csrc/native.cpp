// Kernels for the CPU: the LIF neuron, batch norms, convolutions that add up weights where there are
// spikes, and their gradients.
//
// Plain C functions over pointers, called through ctypes (library.py). kernels.h is compiled once per
// instruction set, and the best one that the processor has is taken when the library is loaded.
// Threads are OpenMP's, which torch has loaded by then.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <type_traits>
#include <vector>

#include <omp.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

struct LIF {  // see mmspike/neurons/functional.py
    double tau, threshold, rest, alpha;
    int32_t soft_reset, decay_input, detach_reset, surrogate;
};

struct Norm {  // a batch norm before the neuron: scale y + shift, channels last in memory
    const float *scale, *shift, *mean;
    int64_t channels;
};

struct Conv {  // pixels of the input are [images, height, width], channels lie last in memory
    int64_t images, height, width, channels;
    int64_t out_height, out_width, out_channels;
    int64_t kernel_height, kernel_width, stride_height, stride_width, pad_height, pad_width;
    int64_t table;  // whether the weights are laid out as a lookup table over four input channels
};

// What becomes of a convolution's sums: they are written to out; or, if there are bits, neurons read
// them, over all steps, and their spikes are written, a bit each.
struct Sink {
    float* out;
    uint8_t* bits;
    const LIF* neuron;
    int64_t steps;  // 1 where there are no bits
};

struct PlacesOfBits {  // for every byte, which of its bits are set
    uint16_t places[256][8];
    PlacesOfBits() {
        for (int byte = 0; byte < 256; byte++) {
            int n = 0;
            for (int i = 0; i < 8; i++) places[byte][i] = 0;
            for (int i = 0; i < 8; i++)
                if (byte >> i & 1) places[byte][n++] = uint16_t(i);
        }
    }
};
static const PlacesOfBits places_of_bits;

#define ISA generic
#define LEVEL 0
#include "kernels.h"
#undef ISA
#undef LEVEL

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define HAS_X86 1
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,bmi,bmi2,popcnt")
#define ISA avx2
#define LEVEL 1
#include "kernels.h"
#undef ISA
#undef LEVEL
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,bmi,bmi2,popcnt")
#define ISA avx512
#define LEVEL 2
#include "kernels.h"
#undef ISA
#undef LEVEL
#pragma GCC pop_options
#endif

// 0: any processor, 1: AVX2, 2: AVX-512
static int best_level() {
#ifdef HAS_X86
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        return 2;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"))
        return 1;
#endif
    return 0;
}

static int level = best_level();

#ifdef HAS_X86
#define DISPATCH(call)                   \
    if (level == 2) return avx512::call; \
    if (level == 1) return avx2::call;   \
    return generic::call;
#else
#define DISPATCH(call) return generic::call;
#endif

extern "C" {

// Raised with every change of these functions or structs; library.py knows the one it calls.
int mmspike_version() { return 5; }

int mmspike_level() { return level; }

// For tests: another instruction set. Returns the one that was taken.
int mmspike_set_level(int wanted) { return level = std::min(std::max(wanted, 0), best_level()); }

// Spikes of x, [steps, n], steps x_stride elements apart. dtype: 0 float32, 1 float64, 2 bfloat16,
// 3 float16. Writes spikes in that type, or (bits) a bit each, of which the first is the lowest of the
// first byte of its step, whole bytes to a step. norm may be null; with one, x is what it reads, in float32.
// Returns the number of spikes where bits are written.
int64_t mmspike_lif_forward(int dtype, const void* x, void* spikes, int bits, int64_t steps, int64_t n,
                            int64_t x_stride, const Norm* norm, const LIF* p, int threads) {
    DISPATCH(lif_forward(dtype, x, spikes, bits, steps, n, x_stride, norm, *p, threads))
}

// The gradient of what the neuron reads. With a norm, adds that gradient's sums over pixels to
// sums[channels], and those of its product with (x - mean) to the next as many.
void mmspike_lif_backward(int dtype, const void* x, const void* grad_spikes, void* grad_x, int64_t steps,
                          int64_t n, int64_t x_stride, int64_t grad_stride, const Norm* norm, double* sums,
                          const LIF* p, int threads) {
    DISPATCH(
        lif_backward(dtype, x, grad_spikes, grad_x, steps, n, x_stride, grad_stride, norm, sums, *p, threads))
}

// out = a g + b (y - mean) + c, with a, b, c and mean for every channel; out may be g.
void mmspike_norm_backward(const float* g, const float* y, float* out, const float* mean, const float* a,
                           const float* b, const float* c, int64_t n, int64_t channels, int threads) {
    DISPATCH(norm_backward(g, y, out, mean, a, b, c, n, channels, threads))
}

// The sums over pixels of g, added to sums[channels], and those of g (y - mean), added to the next as many.
void mmspike_norm_sums(const float* g, const float* y, const float* mean, double* sums, int64_t n,
                       int64_t channels, int threads) {
    DISPATCH(norm_sums(g, y, mean, sums, n, channels, threads))
}

// What follows reads spikes as bits of that order, channels last, over so many steps.

// A float 0 or 1 for each of n elements of all steps.
void mmspike_unpack(const uint8_t* bits, float* spikes, int64_t n, int64_t steps, int threads) {
    DISPATCH(unpack(bits, spikes, n, steps, threads))
}

// Floats that the laid out weights of a convolution take.
int64_t mmspike_laid_out_size(const Conv* c) { DISPATCH(laid_out_size(*c)) }

// Weights [out, in, kernel height, kernel width] with these strides, laid out for the convolution.
void mmspike_lay_out_weight(const float* weight, const int64_t* strides, float* laid_out, const Conv* c,
                            int threads) {
    DISPATCH(lay_out_weight(weight, strides, laid_out, *c, threads))
}

// Convolve spikes [images, height, width, channels] and add bias [out], which may be null.
int64_t mmspike_conv_forward(const uint8_t* bits, const float* laid_out, const float* bias, float* out,
                             int64_t steps, const Conv* c, int threads) {
    const Sink sink{out, nullptr, nullptr, 1};
    DISPATCH(conv_forward(bits, laid_out, bias, sink, steps, *c, threads))
}

// The same, and the spikes of neurons that read the result, as bits; out is a multiple of 8. Returns the
// number of spikes.
int64_t mmspike_conv_fire(const uint8_t* bits, const float* laid_out, const float* bias, uint8_t* spikes,
                          int64_t steps, const LIF* p, const Conv* c, int threads) {
    const Sink sink{nullptr, spikes, p, steps};
    DISPATCH(conv_forward(bits, laid_out, bias, sink, steps, *c, threads))
}

// The gradient of the weights [out, in, kernel height, kernel width], contiguous; stride 1.
void mmspike_conv_grad_weight(const uint8_t* bits, const float* grad_out, float* grad_weight, int64_t steps,
                              const Conv* c, int threads) {
    DISPATCH(conv_grad_weight(bits, grad_out, grad_weight, steps, *c, threads))
}

// The gradient of the inputs of a 3 x 3 convolution at stride 1, with weights as in lay_out_weight.
void mmspike_conv_grad_input(const float* grad_out, const float* weight, const int64_t* strides,
                             float* grad_input, const Conv* c, int threads) {
    DISPATCH(conv_grad_input(grad_out, weight, strides, grad_input, *c, threads))
}

// Depthwise convolution of bits, 3 x 3 or 7 x 7 at stride 1.
// Weights are [kernel height, kernel width, channels].
void mmspike_depthwise_forward(const uint8_t* bits, const float* weight, float* out, int64_t steps,
                               const Conv* c, int threads) {
    DISPATCH(depthwise_forward(bits, weight, out, steps, *c, threads))
}

void mmspike_depthwise_grad_weight(const uint8_t* bits, const float* grad_out, float* grad_weight,
                                   int64_t steps, const Conv* c, int threads) {
    DISPATCH(depthwise_grad_weight(bits, grad_out, grad_weight, steps, *c, threads))
}

// Attention of spikes: scale q (k^T v) from spikes [images, pixels, 3 channels] of q, k and v.
void mmspike_attention(const uint8_t* bits, float* out, int64_t steps, int64_t images, int64_t pixels,
                       int64_t channels, int64_t heads, float scale, int threads) {
    DISPATCH(attention(bits, out, steps, images, pixels, channels, heads, scale, threads))
}
}
