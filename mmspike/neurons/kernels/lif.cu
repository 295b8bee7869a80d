// The multi-step LIF, forward and backward, each in one pass over memory.
//
// A thread takes VEC neighbouring neurons of [time, neurons] through all time steps, with their
// potentials in registers. The backward pass computes the potentials again from the input.
//
// Equations and order of operations are those of mmspike/neurons/functional.py. For its spikes to
// the last bit, the compiler must not contract a product and a sum to one operation (-fmad=false).
//
// The compiler's command line, see _options() in cupy.py, defines
//   DATA          type in memory: float32, float64, float16 or bfloat16
//   TIME_STEPS    their number
//   VEC           neurons of a thread; rows start at multiples of VEC * sizeof(DATA) bytes
//   TAU, V_THRESHOLD, DECAY_INPUT, DETACH_RESET
//   V_RESET       the potential at rest too: 0 if SOFT_RESET, which subtracts the threshold
//   SURROGATE     a struct below
//   ALPHA         its parameter

// ---- Numbers: some type in memory, float or double in registers ----

typedef float float32;
typedef double float64;
struct float16 { unsigned short bits; };
struct bfloat16 { unsigned short bits; };

template <class Data> struct Register { typedef float type; };
template <> struct Register<float64> { typedef double type; };
typedef Register<DATA>::type real;

__device__ inline void convert(float from, float &to) { to = from; }
__device__ inline void convert(double from, double &to) { to = from; }

__device__ inline void convert(bfloat16 from, float &to) {
    to = __uint_as_float((unsigned)from.bits << 16);
}
__device__ inline void convert(float from, bfloat16 &to) {
    const unsigned bits = __float_as_uint(from);
    const unsigned to_even = 0x7fff + (bits >> 16 & 1);
    to.bits = from != from ? 0x7fc0 : (bits + to_even) >> 16;  // the sum would make NaN a number
}

#ifdef __CUDACC__
__device__ inline void convert(float16 from, float &to) {
    asm("cvt.f32.f16 %0, %1;" : "=f"(to) : "h"(from.bits));
}
__device__ inline void convert(float from, float16 &to) {
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to.bits) : "f"(from));
}
#else  // a C++ compiler, in the tests
inline void convert(float16 from, float &to) {
    to = reinterpret_cast<_Float16 &>(from.bits);
}
inline void convert(float from, float16 &to) {
    reinterpret_cast<_Float16 &>(to.bits) = (_Float16)from;
}
#endif

template <int W> struct alignas(W * sizeof(DATA)) Pack {
    DATA at[W];
    __device__ real get(int k) const {
        real value;
        convert(at[k], value);
        return value;
    }
    __device__ void set(int k, real value) { convert(value, at[k]); }
};

template <int W> __device__ inline Pack<W> load(const DATA *from) {
    return *reinterpret_cast<const Pack<W> *>(from);
}
template <int W> __device__ inline void store(const Pack<W> &pack, DATA *to) {
    *reinterpret_cast<Pack<W> *>(to) = pack;
}

// ---- Surrogates: the slope of spikingjelly's class of that name, u above the threshold ----
// What is computed from parameters alone is so in double, as in Python.

constexpr double alpha = ALPHA;
constexpr double pi = 3.141592653589793;
constexpr double one_over_sqrt_pi = 0.5641895835477563;

struct Sigmoid {
    static __device__ real slope(real u) {
        const real y = 1 / (1 + exp(-u * real(alpha)));
        return (1 - y) * y * real(alpha);
    }
};
struct ATan {
    static __device__ real slope(real u) {
        const real y = real(pi * (alpha / 2)) * u;
        return real(alpha / 2) / (1 + y * y);
    }
};
struct Erf {
    static __device__ real slope(real u) {
        const real y = u * real(alpha);
        return exp(-(y * y)) * real(alpha * one_over_sqrt_pi);
    }
};
struct PiecewiseQuadratic {
    static __device__ real slope(real u) {
        const real distance = fabs(u);
        return distance > real(1 / alpha) ? 0 : real(-alpha * alpha) * distance + real(alpha);
    }
};
struct Rect {
    static __device__ real slope(real u) {
        return fabs(u) < real(0.5 / alpha) ? real(alpha) : 0;
    }
};
struct SoftSign {
    static __device__ real slope(real u) {
        const real y = real(1 / alpha) + fabs(u);
        return 1 / (real(2 * alpha) * (y * y));
    }
};
struct SuperSpike {
    static __device__ real slope(real u) {
        const real y = fabs(u) + 1;
        return real(alpha) / (y * y);
    }
};

// ---- The neuron ----

constexpr real tau = TAU;
constexpr real v_threshold = V_THRESHOLD;
constexpr real v_reset = V_RESET;

__device__ inline real charge(real x, real v, bool first) {
    if (first) return (DECAY_INPUT ? x / tau : x) + v_reset;
    if (DECAY_INPUT) return v + (x - (v - v_reset)) / tau;
    return v - (v - v_reset) / tau + x;
}

__device__ inline real fire(real h) { return h - v_threshold >= 0 ? 1 : 0; }

__device__ inline real reset(real h, real s) {
    return SOFT_RESET ? h - s * v_threshold : (1 - s) * h + s * v_reset;
}

template <int W>
__device__ inline void forward(const DATA *__restrict__ x, long long x_step,
                               DATA *__restrict__ s, long long s_step) {
    real v[W] = {};
#pragma unroll
    for (int t = 0; t < TIME_STEPS; ++t) {
        const Pack<W> x_t = load<W>(x + t * x_step);
        Pack<W> s_t;
#pragma unroll
        for (int k = 0; k < W; ++k) {
            const real h = charge(x_t.get(k), v[k], t == 0);
            const real fired = fire(h);
            s_t.set(k, fired);
            v[k] = reset(h, fired);
        }
        store(s_t, s + t * s_step);
    }
}

template <int W>
__device__ inline void backward(const DATA *__restrict__ x, long long x_step,
                                const DATA *__restrict__ grad_s, long long grad_s_step,
                                DATA *__restrict__ grad_x, long long grad_x_step) {
    constexpr real keep = 1 - 1 / double(TAU);                  // dh[t] / dv[t - 1]
    constexpr real gain = DECAY_INPUT ? 1 / double(TAU) : 1.0;  // dh[t] / dx[t]
    real h[TIME_STEPS][W];
#pragma unroll
    for (int t = 0; t < TIME_STEPS; ++t) {
        const Pack<W> x_t = load<W>(x + t * x_step);
#pragma unroll
        for (int k = 0; k < W; ++k) {
            const real v = t ? reset(h[t - 1][k], fire(h[t - 1][k])) : 0;
            h[t][k] = charge(x_t.get(k), v, t == 0);
        }
    }
    real grad_v[W] = {};  // with respect to the potential after the step
#pragma unroll
    for (int t = TIME_STEPS - 1; t >= 0; --t) {
        const Pack<W> grad_s_t = load<W>(grad_s + t * grad_s_step);
        Pack<W> grad_x_t;
#pragma unroll
        for (int k = 0; k < W; ++k) {
            const real h_t = h[t][k];
            real grad_fired = grad_s_t.get(k);
            if (!DETACH_RESET && t + 1 < TIME_STEPS)
                grad_fired -= grad_v[k] * (SOFT_RESET ? v_threshold : h_t - v_reset);
            const real kept = SOFT_RESET ? grad_v[k] : grad_v[k] * (1 - fire(h_t));
            const real grad_h = grad_fired * SURROGATE::slope(h_t - v_threshold) + kept;
            grad_x_t.set(k, grad_h * gain);
            grad_v[k] = grad_h * keep;
        }
        store(grad_x_t, grad_x + t * grad_x_step);
    }
}

// ---- Kernels over [TIME_STEPS, n]; each step is n elements side by side, steps are apart ----

__device__ inline long long first_neuron() {
    return ((long long)blockIdx.x * blockDim.x + threadIdx.x) * VEC;
}

extern "C" __global__ void lif_forward(const DATA *__restrict__ x, long long x_step,
                                       DATA *__restrict__ s, long long s_step, long long n) {
    long long i = first_neuron();
    if (i + VEC <= n)
        forward<VEC>(x + i, x_step, s + i, s_step);
    else
        for (; i < n; ++i) forward<1>(x + i, x_step, s + i, s_step);
}

extern "C" __global__ void lif_backward(const DATA *__restrict__ x, long long x_step,
                                        const DATA *__restrict__ grad_s, long long grad_s_step,
                                        DATA *__restrict__ grad_x, long long grad_x_step,
                                        long long n) {
    long long i = first_neuron();
    if (i + VEC <= n)
        backward<VEC>(x + i, x_step, grad_s + i, grad_s_step, grad_x + i, grad_x_step);
    else
        for (; i < n; ++i)
            backward<1>(x + i, x_step, grad_s + i, grad_s_step, grad_x + i, grad_x_step);
}
