// The kernels, compiled into namespace ISA. Included by native.cpp alone, once for every LEVEL: what the
// compiler says of the instruction set (__AVX2__) does not follow its pragmas in every version.

namespace ISA {

#if LEVEL == 2
constexpr int LANES = 16;
#else
constexpr int LANES = 8;
#endif
constexpr int BLOCK = 8 * LANES;  // output channels of which the sums stay in registers
typedef float Vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint16_t Short8 __attribute__((vector_size(16), aligned(2), may_alias));
typedef int Int8 __attribute__((vector_size(32), aligned(4), may_alias));

// ------------------------------------------------------------------------------- LANES numbers at once

template <typename F>
struct Wide;
template <>
struct Wide<float> {
    typedef float V __attribute__((vector_size(4 * LANES)));
    typedef int32_t I __attribute__((vector_size(4 * LANES)));
};
template <>
struct Wide<double> {
    typedef double V __attribute__((vector_size(8 * LANES)));
    typedef int64_t I __attribute__((vector_size(8 * LANES)));
};
typedef Wide<float>::V VF;
typedef Wide<double>::V VD;
typedef uint16_t Shorts __attribute__((vector_size(2 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef _Float16 Halves __attribute__((vector_size(2 * LANES)));

// Floats that vectors are read from: they start where a cache line does.
struct Floats {
    std::unique_ptr<float[]> memory;
    float* data = nullptr;
    int64_t room = 0;

    void fill(int64_t size, float value) {
        if (room < size) {
            memory.reset(new float[(room = size) + 16]);
            data = (float*)((uintptr_t(memory.get()) + 63) & ~uintptr_t(63));
        }
        std::fill(data, data + size, value);
    }
};

struct BFloat16 { uint16_t bits; };
struct Half { uint16_t bits; };

template <typename To, typename From>
static inline To as(const From& from) {
    To to;
    static_assert(sizeof(To) == sizeof(From), "as: sizes differ");
    std::memcpy(&to, &from, sizeof(To));
    return to;
}
template <typename V, typename S>
static inline V read(const S* p) {
    V v;
    std::memcpy(&v, p, sizeof(V));
    return v;
}
static inline VF load(const float* p) { return read<VF>(p); }
static inline VD load(const double* p) { return read<VD>(p); }
static inline VF load(const BFloat16* p) {
    return as<VF>(__builtin_convertvector(read<Shorts>(p), Words) << 16);
}
static inline VF load(const Half* p) { return __builtin_convertvector(read<Halves>(p), VF); }

static inline void store(float* p, VF v) { std::memcpy(p, &v, sizeof(v)); }
static inline void store(double* p, VD v) { std::memcpy(p, &v, sizeof(v)); }
static inline void store(BFloat16* p, VF v) {
    const Words bits = as<Words>(v);
    const Words rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;  // to nearest, ties to even
    const Words safe = v == v ? rounded : rounded * 0 + 0x7fc0;
    const Shorts out = __builtin_convertvector(safe, Shorts);
    std::memcpy(p, &out, sizeof(out));
}
static inline void store(Half* p, VF v) {
    const Halves out = __builtin_convertvector(v, Halves);
    std::memcpy(p, &out, sizeof(out));
}

// The same for the first few of them.
template <typename S>
static inline auto load_some(const S* p, int count) {
    if (count == LANES) return load(p);
    S some[LANES] = {};
    std::memcpy(some, p, count * sizeof(S));
    return load(some);
}
template <typename S, typename V>
static inline void store_some(S* p, V v, int count) {
    if (count == LANES) return store(p, v);
    S some[LANES];
    store(some, v);
    std::memcpy(p, some, count * sizeof(S));
}

// A bit for each lane of a comparison's result.
template <typename I>
static inline int bits_of(I fired) {
    int bits = 0;
    for (int i = 0; i < LANES; i++) bits |= int(fired[i] & 1) << i;
    return bits;
}
#if LEVEL == 2
template <>
inline int bits_of(Wide<float>::I fired) { return _mm512_movepi32_mask((__m512i)fired); }
#elif LEVEL == 1
template <>
inline int bits_of(Wide<float>::I fired) { return _mm256_movemask_ps((__m256)fired); }
#endif

static inline VF fma(VF a, VF b, VF c) {
#if LEVEL == 2
    return (VF)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif LEVEL == 1
    return (VF)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}

static inline VF exp_of_negative(VF x) {  // of -87 to 0, to 2 units in the last place; below, 0
    const auto plus = [](VF product, VF r, float more) { return fma(product, r, VF{} + more); };
    const VF whole = plus(x, VF{} + 1.44269504f, 12582912.0f) - 12582912.0f;
    const VF r = fma(whole, VF{} + 2.12194440e-4f, fma(whole, VF{} - 0.693359375f, x));
    VF e = plus(r, VF{} + 1.9875691500e-4f, 1.3981999507e-3f);
    e = plus(e, r, 8.3334519073e-3f);
    e = plus(e, r, 4.1665795894e-2f);
    e = plus(e, r, 1.6666665459e-1f);
    e = plus(e, r, 5.0000001201e-1f);
    e = fma(e * r, r, r + 1.0f);
    const Wide<float>::I exponent = (__builtin_convertvector(whole, Wide<float>::I) + 127) << 23;
    return x < -87.0f ? x * 0.0f : e * as<VF>(exponent);
}
static inline VD exp_of_negative(VD x) {
    for (int i = 0; i < LANES; i++) x[i] = std::exp(x[i]);
    return x;
}

// ------------------------------------------------------------------------------------------- neurons

// Slope of the surrogate at z, the distance to the threshold (spikingjelly's Sigmoid and ATan).
template <int surrogate, typename F, typename V = typename Wide<F>::V>
static inline V slope(V z, F alpha) {
    if (surrogate == 0) {
        const V y = z * alpha;
        const V e = exp_of_negative(y < 0 ? y : -y);
        return e * alpha / ((e + 1) * (e + 1));
    }
    const V y = z * (F(1.5707963267948966) * alpha);
    return (alpha / 2) / (y * y + 1);
}

// PUBLISHED: the dynamics of the published models, hard reset to 0 and a tau of a power of two, for
// which times 1 / tau is the same as divided by tau. The compiler then drops the other cases.
template <typename F, bool PUBLISHED>
struct Neuron {
    typedef typename Wide<F>::V V;
    F tau, inverse, threshold, rest, alpha;
    bool soft, decay, detach;
    explicit Neuron(const LIF& p)
        : tau(F(p.tau)), inverse(F(1) / F(p.tau)), threshold(F(p.threshold)), rest(F(p.rest)),
          alpha(F(p.alpha)), soft(p.soft_reset), decay(p.decay_input), detach(p.detach_reset) {}
    V charge(V x) const {  // from rest; rounds as the reference, as the next one does
        if (PUBLISHED) return x * inverse;
        const V h = decay ? x / tau : x;
        return rest != 0 ? h + rest : h;
    }
    V charge(V v, V x) const {
        if (PUBLISHED) return v + (x - v) * inverse;
        return decay ? v + (x - (v - rest)) / tau : v - (v - rest) / tau + x;
    }
    V reset(V h) const {
        if (PUBLISHED) return h >= threshold ? V{} : h;
        if (soft) return h - (h >= threshold ? V{} + threshold : V{});
        return h >= threshold ? V{} + rest : h;
    }
};

static bool is_published(const LIF& p) {
    int exponent;
    return std::frexp(p.tau, &exponent) == 0.5 && p.rest == 0 && !p.soft_reset && p.decay_input &&
           p.detach_reset;
}

// A norm's numbers for LANES elements from any channel on: as many as channels, and LANES more.
struct Channels {
    std::vector<float> scale, shift, mean;
    int64_t count = 1;
    explicit Channels(const Norm* norm) {
        if (!norm) return;
        count = norm->channels;
        for (int64_t i = 0; i < count + LANES; i++) {
            scale.push_back(norm->scale[i % count]);
            shift.push_back(norm->shift[i % count]);
            mean.push_back(norm->mean[i % count]);
        }
    }
    bool there() const { return !scale.empty(); }
    int64_t next(int64_t c) const {  // the channel LANES elements further on
        c += LANES;
        return c < count ? c : c % count;
    }
    VF apply(VF y, int64_t c) const { return fma(y, load(&scale[c]), load(&shift[c])); }  // as torch
    VD apply(VD y, int64_t) const { return y; }  // norms are float32
};

// Sums over pixels, for every channel: of the gradient g, and of g times (y - mean).
struct Sums {
    std::vector<float> first, second;  // of few pixels, so that they are exact enough
    std::vector<double> total;
    int calls = 0;
    explicit Sums(const Channels& c)
        : first(c.count + LANES), second(c.count + LANES), total(2 * c.count) {}
    void add(VF g, VF y, const Channels& channels, int64_t c) {
        store(&first[c], load(&first[c]) + g);
        store(&second[c], load(&second[c]) + g * (y - load(&channels.mean[c])));
        if (++calls % 8192 == 0) flush();
    }
    void add(VD, VD, const Channels&, int64_t) {}
    void flush() {
        const size_t count = total.size() / 2;
        for (size_t i = 0; i < first.size(); i++) {
            total[i % count] += first[i];
            total[count + i % count] += second[i];
            first[i] = second[i] = 0.0f;
        }
    }
};

// Call each(begin, end) for the part of n neurons that falls to every thread.
template <typename Each>
static void share(int64_t n, int threads, Each each) {
    const int64_t unit = 64 * LANES, units = (n + unit - 1) / unit;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int thread = 0; thread < threads; thread++)
        each(thread, units * thread / threads * unit,
             std::min(n, units * (thread + 1) / threads * unit));
}

template <typename S, typename F, bool PUBLISHED>
static int64_t forward_rows(const S* x, void* spikes, bool bits, int64_t steps, int64_t n,
                            int64_t x_stride, const Norm* norm, const LIF& lif, int threads) {
    typedef typename Wide<F>::V V;
    const Channels all(norm);
    std::vector<int64_t> fired(threads);
    share(n, threads, [=, &all, &lif, &fired](int thread, int64_t begin, int64_t end) {
        const Neuron<F, PUBLISHED> p(lif);
        const Channels channels = all;
        const bool normed = channels.there();
        int64_t c = begin % channels.count, sum = 0;
        for (int64_t i = begin; i < end; i += LANES) {
            const int count = int(std::min<int64_t>(LANES, n - i));
            V v{};
            for (int64_t t = 0; t < steps; t++) {
                V in = load_some(x + t * x_stride + i, count);
                if (normed) in = channels.apply(in, c);
                const V h = t ? p.charge(v, in) : p.charge(in);
                v = p.reset(h);
                if (bits) {
                    const int set = bits_of(h >= p.threshold) & ((1 << count) - 1);
                    uint8_t* to = (uint8_t*)spikes + (t * n + i) / 8;
                    to[0] = uint8_t(set);
                    if (LANES == 16 && count > 8) to[1] = uint8_t(set >> 8);
                    sum += __builtin_popcount(set);
                } else {
                    const V s = h >= p.threshold ? V{} + 1 : V{};
                    store_some((S*)spikes + t * n + i, s, count);
                }
            }
            if (normed) c = channels.next(c);
        }
        fired[thread] = sum;
    });
    int64_t total = 0;
    for (int64_t sum : fired) total += sum;
    return total;
}

template <typename S, typename F, int surrogate, bool PUBLISHED>
static void backward_rows(const S* x, const S* grad_s, S* grad_x, int64_t steps, int64_t n,
                          int64_t x_stride, int64_t grad_stride, const Norm* norm, double* sums,
                          const LIF& lif, int threads) {
    typedef typename Wide<F>::V V;
    const Channels all(norm);
    std::vector<Sums> parts(threads, Sums(all));
    share(n, threads, [=, &all, &lif, &parts](int thread, int64_t begin, int64_t end) {
        const Neuron<F, PUBLISHED> p(lif);
        const F keep = 1 - 1 / p.tau, gain = p.decay ? 1 / p.tau : F(1);
        const Channels channels = all;
        const bool normed = channels.there();
        V few[8];  // the charged potentials of every step
        std::vector<F> many(steps > 8 ? (steps + 1) * LANES : 0);
        F* potentials = steps > 8 ? many.data() : (F*)few;
        Sums& part = parts[thread];
        int64_t c = begin % channels.count;
        for (int64_t i = begin; i < end; i += LANES) {
            const int count = int(std::min<int64_t>(LANES, n - i));
            V h{}, carry{};  // carry: gradient of the potential after the step
            for (int64_t t = 0; t < steps; t++) {
                V in = load_some(x + t * x_stride + i, count);
                if (normed) in = channels.apply(in, c);
                h = t ? p.charge(p.reset(h), in) : p.charge(in);
                store(potentials + t * LANES, h);
            }
            for (int64_t t = steps - 1; t >= 0; t--) {
                h = load(potentials + t * LANES);
                V g = load_some(grad_s + t * grad_stride + i, count);
                if (!PUBLISHED && !p.detach) g -= carry * (p.soft ? V{} + p.threshold : h - p.rest);
                g *= slope<surrogate, F>(h - p.threshold, p.alpha);
                g += !PUBLISHED && p.soft ? carry : (h >= p.threshold ? V{} : carry);
                carry = g * keep;
                g *= gain;
                store_some(grad_x + t * n + i, g, count);
                if (normed)
                    part.add(g, load_some(x + t * x_stride + i, count), channels, c);
            }
            if (normed) c = channels.next(c);
        }
        part.flush();
    });
    if (all.there())
        for (const Sums& part : parts)
            for (size_t i = 0; i < part.total.size(); i++) sums[i] += part.total[i];
}

static int64_t lif_forward(int dtype, const void* x, void* spikes, int bits, int64_t steps, int64_t n,
                           int64_t x_stride, const Norm* norm, const LIF& p, int threads) {
    auto run = [&](auto element, auto state) {
        typedef decltype(element) S;
        typedef decltype(state) F;
        auto rows = is_published(p) ? forward_rows<S, F, true> : forward_rows<S, F, false>;
        return rows((const S*)x, spikes, bits, steps, n, x_stride, norm, p, threads);
    };
    if (dtype == 0) return run(0.0f, 0.0f);
    if (dtype == 1) return run(0.0, 0.0);
    return dtype == 2 ? run(BFloat16(), 0.0f) : run(Half(), 0.0f);
}

static void lif_backward(int dtype, const void* x, const void* gs, void* gx, int64_t steps, int64_t n,
                         int64_t x_stride, int64_t grad_stride, const Norm* norm, double* sums,
                         const LIF& p, int threads) {
    auto run = [&](auto element, auto state) {
        typedef decltype(element) S;
        typedef decltype(state) F;
        auto rows = p.surrogate ? backward_rows<S, F, 1, false>
                    : is_published(p) ? backward_rows<S, F, 0, true>
                                      : backward_rows<S, F, 0, false>;
        rows((const S*)x, (const S*)gs, (S*)gx, steps, n, x_stride, grad_stride, norm, sums, p, threads);
    };
    if (dtype == 0) return run(0.0f, 0.0f);
    if (dtype == 1) return run(0.0, 0.0);
    return dtype == 2 ? run(BFloat16(), 0.0f) : run(Half(), 0.0f);
}

// Call each(i, size, c) for the runs of neighbouring channels c to c + size in n elements from start.
template <typename Each>
static inline void by_channel(int64_t start, int n, int64_t channels, Each each) {
    int64_t c = start % channels;
    for (int i = 0; i < n;) {
        const int size = int(std::min<int64_t>(n - i, channels - c));
        each(i, size, c);
        i += size;
        c = 0;
    }
}

// out = a g + b (y - mean) + c, with a, b and c for every channel; out may be g.
static void norm_backward(const float* g, const float* y, float* out, const float* mean, const float* a,
                          const float* b, const float* c, int64_t n, int64_t channels, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t start = 0; start < n; start += 4096)
        by_channel(start, int(std::min<int64_t>(4096, n - start)), channels,
                   [&](int i, int size, int64_t k) {
                       const float *grad = g + start + i, *from = y + start + i;
                       float* to = out + start + i;
                       for (int j = 0; j < size; j++)
                           to[j] = a[k + j] * grad[j] + b[k + j] * (from[j] - mean[k + j]) + c[k + j];
                   });
}

// Add the sums over pixels, for every channel, of g to sums, and of g (y - mean) to the next as many.
static void norm_sums(const float* g, const float* y, const Norm& norm, double* sums, int64_t n, int threads) {
    const Channels channels(&norm);
    std::vector<Sums> parts(threads, Sums(channels));
    share(n, threads, [=, &channels, &parts](int thread, int64_t begin, int64_t end) {
        Sums& part = parts[thread];
        int64_t c = begin % channels.count;
        for (int64_t i = begin; i < end; i += LANES) {
            const int count = int(std::min<int64_t>(LANES, n - i));
            part.add(load_some(g + i, count), load_some(y + i, count), channels, c);
            c = channels.next(c);
        }
        part.flush();
    });
    for (const Sums& part : parts)
        for (size_t i = 0; i < part.total.size(); i++) sums[i] += part.total[i];
}

// ------------------------------------------------------------------------------------ lists of spikes

static void unpack(const uint8_t* bits, float* spikes, int64_t n, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t start = 0; start < n; start += 4096)
        for (int64_t i = start; i < std::min(start + 4096, n); i++)
            spikes[i] = float((bits[i / 8] >> (i % 8)) & 1);
}

// Write the places of the bits that are set, plus base; up to 7 more numbers behind them are overwritten.
static inline int list_bits(const uint8_t* bits, int bytes, int base, int* list) {
    int n = 0;
    for (int i = 0; i < bytes; i++) {
        const int byte = bits[i];
        const Int8 places = __builtin_convertvector(*(const Short8*)table.places[byte], Int8);
        *(Int8*)(list + n) = places + (base + 8 * i);
        n += __builtin_popcount(byte);
    }
    return n;
}

// The same for sums of weights: which of every four neighbouring bits are set, where any is.
static inline int list_quads(const uint8_t* bits, int bytes, int base, int* list) {
    int n = 0;
    for (int i = 0; i < bytes; i++) {
        const int low = bits[i] & 15, high = bits[i] >> 4;
        list[n] = base + 32 * i + low;
        n += low != 0;
        list[n] = base + 32 * i + 16 + high;
        n += high != 0;
    }
    return n;
}

// ------------------------------------------------------------------------------- layout of the weights

// Blocks of up to BLOCK output channels; in a block [kernel, in, channels of the block]. With quads,
// the input channels are taken four at a time, and there are 16 rows for each four: the sums of the
// weights of every choice among them.
static inline int64_t blocks_of(const Conv& c) { return (c.out_channels + BLOCK - 1) / BLOCK; }
static inline int64_t taps_of(const Conv& c) { return c.kernel_height * c.kernel_width; }
static inline int vectors_of(const Conv& c, int64_t block) {
    const int64_t left = std::min<int64_t>(BLOCK, c.out_channels - block * BLOCK);
    return int((left + LANES - 1) / LANES);
}
static inline int64_t rows_of_tap(const Conv& c) { return c.channels * (c.quads ? 4 : 1); }
static inline int64_t offset_of(const Conv& c, int64_t block) {
    return block * BLOCK * taps_of(c) * rows_of_tap(c);
}

static int64_t packed_size(const Conv& c) {
    const int64_t last = blocks_of(c) - 1;
    return offset_of(c, last) + vectors_of(c, last) * LANES * taps_of(c) * rows_of_tap(c);
}

static void pack_weight(const float* weight, const int64_t* strides, float* packed, const Conv& c,
                        int threads) {
    const int64_t taps = taps_of(c), rows = taps * rows_of_tap(c);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t task = 0; task < blocks_of(c) * rows; task++) {
        const int64_t block = task / rows, row = task % rows, tap = row / rows_of_tap(c);
        const int width = vectors_of(c, block) * LANES;
        const int left = int(std::min<int64_t>(width, c.out_channels - block * BLOCK));
        const float* w = weight + block * BLOCK * strides[0] + tap / c.kernel_width * strides[2] +
                         tap % c.kernel_width * strides[3];
        float* to = packed + offset_of(c, block) + row * width;
        std::fill(to, to + width, 0.0f);
        const int64_t in_tap = row % rows_of_tap(c);
        if (!c.quads) {
            for (int i = 0; i < left; i++) to[i] = w[in_tap * strides[1] + i * strides[0]];
            continue;
        }
        for (int64_t k = 0; k < 4; k++)
            if (in_tap >> k & 1)  // the lowest four bits choose among four channels
                for (int i = 0; i < left; i++)
                    to[i] += w[(in_tap / 16 * 4 + k) * strides[1] + i * strides[0]];
    }
}

// ------------------------------------------------------------------------------------------- forward

// Rows are fetched into the cache this many spikes before they are added. Lists may be read as far
// beyond their end: what stands there does not matter, for a fetch of any address is harmless.
constexpr int AHEAD = 6;

// out[:] = start + the rows of w that the list names; rows are N vectors wide.
template <int N, bool FETCH>
static inline void add_rows(const float* w, const int* list, int n, const float* start, float* out) {
    Vec sums[N];
#pragma GCC unroll 8
    for (int i = 0; i < N; i++) sums[i] = *(const Vec*)(start + i * LANES);
    for (int j = 0; j < n; j++) {
        const float* row = w + int64_t(list[j]) * (N * LANES);
        if (FETCH) {
            const char* ahead = (const char*)(w + int64_t(list[j + AHEAD]) * (N * LANES));
            for (int i = 0; i < N * LANES * 4; i += 64) __builtin_prefetch(ahead + i);
        }
#pragma GCC unroll 8
        for (int i = 0; i < N; i++) sums[i] += *(const Vec*)(row + i * LANES);
    }
#pragma GCC unroll 8
    for (int i = 0; i < N; i++) *(Vec*)(out + i * LANES) = sums[i];
}

// Rows of a block of weights are taken in groups: those of so many input channels of a tap as the
// innermost cache holds, for TILE pixels before the next group is. A group that has fewer than FEW
// spikes on average does not pay for loading and storing the sums, and is taken together with the next.
constexpr int CACHED = 8192, TILE = 32, FEW = 10, LISTED = 32768, BANDED = 49152;

static inline int64_t group_of(const Conv& c) {  // input channels
    const int64_t rows = CACHED / (vectors_of(c, 0) * LANES) & ~7;
    return c.quads ? c.channels : std::min(c.channels, std::max<int64_t>(8, rows));
}

// Rows of weights by which the spikes of a pixel lie behind those of the one before.
static inline int64_t shift_of(const Conv& c) { return c.kernel_width > 1 ? rows_of_tap(c) : 0; }

// The spikes of some rows of the input, of all steps, pixel by pixel and group by group. starts has, for
// every row, where the spikes of each group of each pixel begin, and where the last end; pixels without
// spikes surround a row. A spike is the number of its row of weights in a tap, plus the number of its
// pixel times the rows of a tap: those that lie under a row of the kernel stand one behind the other.
struct Spikes {
    std::unique_ptr<int[]> list;
    std::vector<int> starts;
    int64_t room = 0, groups, height, across;

    void read(const uint8_t* bits, const Conv& c, int64_t steps, int64_t next, int64_t rows) {
        const int64_t group = group_of(c), most = steps * rows * c.width * c.channels + 8;
        groups = (c.channels + group - 1) / group;
        height = rows;
        across = (c.width + 2 * c.pad_width) * groups + 1;
        if (room < most) list.reset(new int[room = most]);
        starts.resize(steps * rows * across);
        int n = 0, *start = starts.data();
        for (int64_t row = 0; row < steps * rows; row++) {
            const uint8_t* pixel = bits + (row / rows * next + row % rows * c.width) * c.channels / 8;
            start = std::fill_n(start, c.pad_width * groups, n);
            for (int64_t x = 0; x < c.width; x++, pixel += c.channels / 8)
                for (int64_t from = 0; from < c.channels; from += group) {
                    const int bytes = int(std::min(group, c.channels - from) / 8);
                    const int base = int(x * shift_of(c) + from);
                    *start++ = n;
                    n += c.quads ? list_quads(pixel, bytes, base, &list[n])
                                 : list_bits(pixel + from / 8, bytes, base, &list[n]);
                }
            start = std::fill_n(start, c.pad_width * groups + 1, n);
        }
    }
    int64_t groups_at_once() const {
        const int64_t all = starts.size(), spikes = std::max(1, starts.empty() ? 0 : starts.back());
        return (FEW * all + spikes - 1) / spikes;
    }
};

// Where outputs lie, and what they read: size pixels from x on in row y of the output, at all steps. The
// first row of the input in the lists is the one numbered top.
struct Tile {
    int64_t y, x, size, steps, top;
};

// sums [steps, size, N vectors]: bias, and the rows of w where there are spikes. The last additions go to
// out instead, if it is there, where a pixel lies stride floats behind the one before.
template <int N, bool FETCH>
static void add_up(const Spikes& s, const Conv& c, const Tile& tile, int64_t at_once, const float* w,
                   const float* bias, float* sums, float* out, int64_t stride) {
    const int64_t rows = rows_of_tap(c), shift = shift_of(c), width = N * LANES;
    const int64_t all = c.kernel_width * s.groups;
    const int64_t above = tile.y * c.stride_height - c.pad_height, next = c.stride_width * s.groups;
    const int64_t from = std::max<int64_t>(0, -above), to = std::min(c.kernel_height, c.height - above);
    for (int64_t ky = from; ky < to; ky++)
        for (int64_t g = 0; g < all; g += at_once) {
            const bool begins = ky == from && g == 0, ends = ky == to - 1 && g + at_once >= all;
            const int64_t behind = std::min(at_once, all - g), left = tile.x * c.stride_width - c.pad_width;
            for (int64_t t = 0; t < tile.steps; t++) {
                const int* start = &s.starts[(t * s.height + above + ky - tile.top) * s.across +
                                             tile.x * next + g];
                const float* shifted = w + (ky * c.kernel_width * rows - left * shift) * width;
                float* sum = sums + t * tile.size * width;
                for (int64_t i = 0; i < tile.size; i++) {
                    const int a = start[i * next], b = start[i * next + behind];
                    add_rows<N, FETCH>(shifted - i * c.stride_width * shift * width, &s.list[a], b - a,
                                       begins ? bias : sum + i * width,
                                       ends && out ? out + i * stride : sum + i * width);
                }
            }
        }
    if (from >= to)  // nothing but padding
        for (int64_t i = 0; i < tile.steps * tile.size; i++)
            std::memcpy(out ? out + i * stride : sums + i * width, bias, width * sizeof(float));
}

template <int N>
static void add_up(const Spikes& s, const Conv& c, const Tile& tile, const float* w, const float* bias,
                   float* sums, float* out, int64_t stride) {
    const int64_t at_once = std::min(c.kernel_width * s.groups, s.groups_at_once());
    const bool cached = at_once * rows_of_tap(c) / s.groups * N * LANES <= 3 * CACHED;
    (cached ? add_up<N, false> : add_up<N, true>)(s, c, tile, at_once, w, bias, sums, out, stride);
}

typedef void (*AddUp)(const Spikes&, const Conv&, const Tile&, const float*, const float*, float*, float*,
                      int64_t);
static const AddUp add_up_of[] = {nullptr,   add_up<1>, add_up<2>, add_up<3>, add_up<4>,
                                  add_up<5>, add_up<6>, add_up<7>, add_up<8>};

// The spikes, as bits, of the neurons of a pixel, which read sums [steps, channels], each step step floats
// behind the one before. The bits of a step begin next bytes behind those of the step before. Returns
// their number.
template <bool PUBLISHED>
static inline int64_t fire(Neuron<float, PUBLISHED> neuron, const float* sums, int64_t steps, int64_t step,
                           int channels, uint8_t* bits, int64_t next) {
    constexpr int WORDS = BLOCK / 64;
    VF v[BLOCK / LANES];
    int64_t fired = 0;
    for (int64_t t = 0; t < steps; t++, sums += step, bits += next) {
        uint64_t words[WORDS] = {};
        for (int c = 0; c < channels; c += LANES) {
            const VF x = load(sums + c);
            const VF h = t ? neuron.charge(v[c / LANES], x) : neuron.charge(x);
            v[c / LANES] = neuron.reset(h);
            words[c / 64] |= uint64_t(bits_of(h >= neuron.threshold)) << c % 64;
        }
        for (int i = 0; i < WORDS; i++) {
            const int left = std::min(64, channels - 64 * i);
            if (left <= 0) break;
            if (left < 64) words[i] &= (uint64_t(1) << left) - 1;
            fired += __builtin_popcountll(words[i]);
            if (left == 64)
                for (int j = 0; j < 8; j++) bits[8 * i + j] = uint8_t(words[i] >> 8 * j);
            else
                for (int j = 0; j < left / 8; j++) bits[8 * i + j] = uint8_t(words[i] >> 8 * j);
        }
    }
    return fired;
}

// The outputs of rows y0 to y1, block by block, so that a block of weights stays in the cache. first is
// the number of the first pixel, next how many there are to a step, and top the first row of the input in
// the lists. Returns the number of spikes, where neurons fire.
template <bool PUBLISHED>
static int64_t convolve_rows(const Spikes& s, const float* packed, const float* bias, const Sink& sink,
                             const Conv& c, int64_t first, int64_t next, int64_t y0, int64_t y1, int64_t top) {
    alignas(64) float start[BLOCK], room[TILE * BLOCK];
    const int64_t most = std::max<int64_t>(1, TILE / sink.steps);
    std::vector<float> many(sink.steps > TILE ? sink.steps * BLOCK : 0);
    float* sums = sink.steps > TILE ? many.data() : room;
    const Neuron<float, PUBLISHED> neuron(sink.neuron ? *sink.neuron : LIF());
    int64_t fired = 0;
    for (int64_t block = 0; block < blocks_of(c); block++) {
        const int vectors = vectors_of(c, block), width = vectors * LANES;
        const int channels = int(std::min<int64_t>(BLOCK, c.out_channels - block * BLOCK));
        const float* w = packed + offset_of(c, block);
        for (int i = 0; i < BLOCK; i++) start[i] = bias && i < channels ? bias[block * BLOCK + i] : 0.0f;
        for (int64_t y = y0; y < y1; y++)
            for (int64_t x = 0; x < c.out_width; x += most) {
                const Tile tile{y, x, std::min(most, c.out_width - x), sink.steps, top};
                const int64_t pixel = first + (y - y0) * c.out_width + x;
                const int64_t at = pixel * c.out_channels + block * BLOCK;
                float* out = sink.bits || channels < width ? nullptr : sink.out + at;
                add_up_of[vectors](s, c, tile, w, start, sums, out, c.out_channels);
                for (int64_t i = 0; i < tile.size && !out; i++) {
                    const float* from = sums + i * width;
                    const int64_t to = at + i * c.out_channels;
                    if (sink.bits)
                        fired += fire(neuron, from, sink.steps, tile.size * width, channels,
                                      sink.bits + to / 8, next * c.out_channels / 8);
                    else
                        std::memcpy(sink.out + to, from, channels * sizeof(float));
                }
            }
    }
    return fired;
}

static int64_t conv_forward(const uint8_t* bits, const float* packed, const float* bias, const Sink& sink,
                            const Conv& c, int threads) {
    const auto run = sink.neuron && is_published(*sink.neuron) ? convolve_rows<true> : convolve_rows<false>;
    const int64_t images = c.images / sink.steps, pixels = c.height * c.width;
    const int64_t next = images * c.out_height * c.out_width;
    const bool pointwise = taps_of(c) == 1 && c.stride_height == 1 && c.stride_width == 1 &&
                           c.pad_height == 0 && c.pad_width == 0;
    // tasks enough to keep all threads busy, of as many pixels as keep their lists in the cache, at a
    // rate of 1 in 6
    const int64_t most = std::max<int64_t>(1, LISTED / (sink.steps * c.channels / 6 + 1));
    const int64_t size = std::min(most, std::max<int64_t>(1, next / (4 * threads)));
    const int64_t wanted = std::max<int64_t>(1, size / c.out_width);
    const int64_t bands = (c.out_height + wanted - 1) / wanted;
    const int64_t rows = (c.out_height + bands - 1) / bands;
    const int64_t tasks = pointwise ? (next + size - 1) / size : images * bands;
    int64_t fired = 0;
#pragma omp parallel num_threads(threads) reduction(+ : fired)
    {
        Spikes spikes;
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < tasks; task++) {
            if (pointwise) {  // pixels in a row, whatever image they are of
                Conv row = c;
                row.height = row.out_height = 1;
                row.width = row.out_width = std::min(size, next - task * size);
                spikes.read(bits + task * size * c.channels / 8, row, sink.steps, next, 1);
                fired += run(spikes, packed, bias, sink, row, task * size, next, 0, 1, 0);
                continue;
            }
            const int64_t image = task / bands, y0 = task % bands * rows;
            const int64_t y1 = std::min(y0 + rows, c.out_height);
            const int64_t above = y0 * c.stride_height - c.pad_height;
            const int64_t below = (y1 - 1) * c.stride_height - c.pad_height + c.kernel_height;
            const int64_t top = std::min(std::max<int64_t>(above, 0), c.height);
            const int64_t bottom = std::max(std::min(below, c.height), top);
            spikes.read(bits + (image * pixels + top * c.width) * c.channels / 8, c, sink.steps,
                        images * pixels, bottom - top);
            fired += run(spikes, packed, bias, sink, c, (image * c.out_height + y0) * c.out_width, next, y0,
                         y1, top);
        }
    }
    return fired;
}

// ------------------------------------------------------------------------------ gradient of the weights

// Where the channels spiked in some rows of the input, strip by strip, each of as many rows as the
// innermost cache holds the gradients of: the pixels of channel i in strip j are those of
// lists[i * most] from counts[j * channels + i] to counts[(j + 1) * channels + i].
struct Places {
    std::vector<int> spikes, lists, counts;
    int64_t most;

    void read(const uint8_t* bits, const Conv& c, int64_t rows, int64_t strip, int64_t wide) {
        const int64_t strips = (rows + strip - 1) / strip;
        most = rows * c.width;
        spikes.resize(c.channels + 8);
        lists.resize(c.channels * most + AHEAD);
        counts.assign((strips + 1) * c.channels, 0);
        int* count = counts.data();
        for (int64_t y = 0; y < rows; y++) {
            if (y % strip == 0) count = std::copy_n(count, c.channels, count + c.channels) - c.channels;
            for (int64_t x = 0; x < c.width; x++, bits += c.channels / 8) {
                const int n = list_bits(bits, int(c.channels / 8), 0, spikes.data());
                const int at = int(y * wide + x + c.pad_width);
                for (int i = 0; i < n; i++) lists[spikes[i] * most + count[spikes[i]]++] = at;
            }
        }
    }
};

// The gradient of one row of weights is the sum of grad_out over the pixels where its input spiked.
// grad_out of a band of pixels, a block of channels wide and padded with zeros, is laid out in g.
template <int N>
static void grad_weight_block(const Places& s, const float* g, float* packed, const Conv& c, int64_t strips,
                              int64_t wide) {
    for (int64_t strip = 0; strip < strips; strip++)
        for (int64_t ky = 0; ky < c.kernel_height; ky++)
            for (int64_t kx = 0; kx < c.kernel_width; kx++) {
                const float* shifted =
                    g + ((c.kernel_height - 1 - ky) * wide + c.kernel_width - 1 - kx) * (N * LANES);
                float* row = packed + (ky * c.kernel_width + kx) * c.channels * (N * LANES);
                const int* from = &s.counts[strip * c.channels];
                for (int64_t i = 0; i < c.channels; i++, row += N * LANES)
                    add_rows<N, false>(shifted, &s.lists[i * s.most + from[i]],
                                       from[c.channels + i] - from[i], row, row);
            }
}
typedef void (*GradWeight)(const Places&, const float*, float*, const Conv&, int64_t, int64_t);
static const GradWeight grad_weight_of[] = {
    nullptr,           grad_weight_block<1>, grad_weight_block<2>, grad_weight_block<3>, grad_weight_block<4>,
    grad_weight_block<5>, grad_weight_block<6>, grad_weight_block<7>, grad_weight_block<8>};

static void grad_weight_band(const uint8_t* bits, const float* grad_out, float* packed, const Conv& c,
                             int64_t image, int64_t y0, int64_t y1, Places& s, Floats& g) {
    const int64_t wide = c.out_width + 2 * (c.kernel_width - 1), left = c.kernel_width - 1;
    const int64_t most = std::min<int64_t>(BLOCK, c.out_channels);
    const int64_t strip = std::max<int64_t>(1, CACHED / (most * wide)), strips = (y1 - y0 + strip - 1) / strip;
    // a spike at input row y meets output rows y + pad - kernel + 1 to y + pad
    const int64_t top = y0 + c.pad_height - c.kernel_height + 1, high = y1 - y0 + c.kernel_height - 1;
    s.read(bits + (image * c.height + y0) * c.width * c.channels / 8, c, y1 - y0, strip, wide);
    for (int64_t block = 0; block < blocks_of(c); block++) {
        const int64_t vectors = vectors_of(c, block), width = vectors * LANES;
        const int64_t channels = std::min<int64_t>(BLOCK, c.out_channels - block * BLOCK);
        g.fill(high * wide * width, 0.0f);
        for (int64_t y = 0; y < high; y++) {
            if (top + y < 0 || top + y >= c.out_height) continue;
            const float* from =
                grad_out + (image * c.out_height + top + y) * c.out_width * c.out_channels + block * BLOCK;
            for (int64_t x = 0; x < c.out_width; x++)
                std::copy_n(from + x * c.out_channels, channels, g.data + (y * wide + x + left) * width);
        }
        grad_weight_of[vectors](s, g.data, packed + offset_of(c, block), c, strips, wide);
    }
}

static void conv_grad_weight(const uint8_t* bits, const float* grad_out, float* grad_weight,
                             Conv c, int threads) {
    c.quads = 0;
    const int64_t size = packed_size(c), wide = c.out_width + 2 * (c.kernel_width - 1);
    const int64_t cached = BANDED / (std::min<int64_t>(BLOCK, c.out_channels) * wide);
    const int64_t fair = std::max<int64_t>(1, c.images * c.height / (2 * threads));
    const int64_t rows = std::min({std::max<int64_t>(cached - c.kernel_height + 1, 2), c.height, fair});
    const int64_t bands = (c.height + rows - 1) / rows;
    std::vector<Floats> parts(threads);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int thread = 0; thread < threads; thread++) {  // the same thread does the same in every run
        Floats& part = parts[thread];
        Floats g;
        Places s;
        part.fill(size, 0.0f);
        const int64_t tasks = c.images * bands;
        for (int64_t task = tasks * thread / threads; task < tasks * (thread + 1) / threads; task++) {
            const int64_t y0 = task % bands * rows, y1 = std::min(y0 + rows, c.height);
            grad_weight_band(bits, grad_out, part.data, c, task / bands, y0, y1, s, g);
        }
    }
    const int64_t taps = taps_of(c);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t channel = 0; channel < c.channels; channel++)
        for (int64_t block = 0; block < blocks_of(c); block++) {
            const int64_t width = vectors_of(c, block) * LANES;
            for (int64_t tap = 0; tap < taps; tap++) {
                const int64_t at = offset_of(c, block) + (tap * c.channels + channel) * width;
                for (int64_t i = 0; i < std::min(width, c.out_channels - block * BLOCK); i++) {
                    float sum = 0.0f;
                    for (int thread = 0; thread < threads; thread++) sum += parts[thread].data[at + i];
                    grad_weight[((block * BLOCK + i) * c.channels + channel) * taps + tap] = sum;
                }
            }
        }
}

// ----------------------------------------------------------------------------- depthwise convolutions


// Rows of a map, LANES channels after LANES channels: [blocks][width + 2 pad][LANES], zeros around.
// The last few rows that were asked for stay.
struct Rows {
    const uint8_t* bits;
    const float* map;  // one of the two is null
    int64_t image, height, width, channels, pad, kept, blocks, size;
    std::vector<float> data;
    std::vector<int64_t> held;  // the row that lies in each slot

    Rows(const uint8_t* bits, const float* map, int64_t height, int64_t width, int64_t channels,
         int64_t pad, int64_t kept)
        : bits(bits), map(map), image(0), height(height), width(width), channels(channels), pad(pad),
          kept(kept), blocks((channels + LANES - 1) / LANES), size(blocks * (width + 2 * pad) * LANES),
          data(kept * size), held(kept, INT64_MIN) {}

    void start(int64_t next) {
        image = next;
        std::fill(held.begin(), held.end(), INT64_MIN);
    }
    const float* row(int64_t y) {
        const int64_t slot = ((y % kept) + kept) % kept;
        float* to = &data[slot * size];
        if (held[slot] == y) return to;
        held[slot] = y;
        if (y < 0 || y >= height) {
            std::fill(to, to + size, 0.0f);
            return to;
        }
        const int64_t first = (image * height + y) * width, next = (width + 2 * pad) * LANES;
        for (int64_t b = 0; b < blocks; b++) {
            std::fill(to + b * next, to + b * next + pad * LANES, 0.0f);
            std::fill(to + (b + 1) * next - pad * LANES, to + (b + 1) * next, 0.0f);
        }
        for (int64_t x = 0; x < width; x++)
            for (int64_t b = 0; b < blocks; b++) {
                const int count = int(std::min<int64_t>(LANES, channels - b * LANES));
                const int64_t at = (first + x) * channels + b * LANES;
                store(to + b * next + (x + pad) * LANES,
                      bits ? expand(bits + at / 8, count) : load_some(map + at, count));
            }
        return to;
    }
    static VF expand(const uint8_t* bits, int count) {
        int set = bits[0];
        if (LANES == 16 && count > 8) set |= bits[1] << 8;
        Wide<float>::I lanes, place;
        for (int i = 0; i < LANES; i++) place[i] = 1 << i;
        lanes = (place & set) != 0;
        return lanes ? VF{} + 1.0f : VF{};
    }
};

// weight: [kernel height, kernel width, channels], zeros up to the next multiple of LANES.
template <int K>
static void depthwise_rows(Rows& in, const float* weight, float* out, const Conv& c, int64_t image,
                           int64_t y0, int64_t y1) {
    constexpr int TILE = 8;
    const int64_t wide = in.blocks * LANES, next = (c.width + 2 * c.pad_width) * LANES;
    in.start(image);
    const float* rows[K];
    for (int64_t y = y0; y < y1; y++) {
        for (int ky = 0; ky < K; ky++) rows[ky] = in.row(y - c.pad_height + ky);
        for (int64_t b = 0; b < in.blocks; b++) {
            const int count = int(std::min<int64_t>(LANES, c.channels - b * LANES));
            float* to = out + ((image * c.out_height + y) * c.out_width) * c.channels + b * LANES;
            int64_t x = 0;
            for (; x + TILE <= c.out_width; x += TILE) {
                VF sums[TILE] = {};
                for (int ky = 0; ky < K; ky++) {
                    const float* from = rows[ky] + b * next + x * LANES;
#pragma GCC unroll 8
                    for (int kx = 0; kx < K; kx++) {
                        const VF w = load(weight + (ky * K + kx) * wide + b * LANES);
#pragma GCC unroll 8
                        for (int i = 0; i < TILE; i++)
                            sums[i] = fma(load(from + (i + kx) * LANES), w, sums[i]);
                    }
                }
                for (int i = 0; i < TILE; i++) store_some(to + (x + i) * c.channels, sums[i], count);
            }
            for (; x < c.out_width; x++) {
                VF sum{};
                for (int ky = 0; ky < K; ky++)
                    for (int kx = 0; kx < K; kx++)
                        sum = fma(load(rows[ky] + b * next + (x + kx) * LANES),
                                  load(weight + (ky * K + kx) * wide + b * LANES), sum);
                store_some(to + x * c.channels, sum, count);
            }
        }
    }
}

static std::vector<float> pad_channels(const float* weight, int64_t taps, int64_t channels) {
    const int64_t wide = (channels + LANES - 1) / LANES * LANES;
    std::vector<float> padded(taps * wide, 0.0f);
    for (int64_t tap = 0; tap < taps; tap++)
        std::memcpy(&padded[tap * wide], weight + tap * channels, channels * sizeof(float));
    return padded;
}

static void depthwise_forward(const uint8_t* bits, const float* weight, float* out,
                              const Conv& c, int threads) {
    const std::vector<float> padded = pad_channels(weight, taps_of(c), c.channels);
    const int64_t rows = std::max<int64_t>(
        1, std::min(c.out_height, (c.images * c.out_height + 4 * threads - 1) / (4 * threads)));
    const int64_t bands = (c.out_height + rows - 1) / rows;
#pragma omp parallel num_threads(threads)
    {
        Rows in(bits, nullptr, c.height, c.width, c.channels, c.pad_width, c.kernel_height);
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < c.images * bands; task++) {
            const int64_t y0 = task % bands * rows, y1 = std::min(y0 + rows, c.out_height);
            auto run = c.kernel_height == 3 ? depthwise_rows<3> : depthwise_rows<7>;
            run(in, padded.data(), out, c, task / bands, y0, y1);
        }
    }
}

template <int K>
static void depthwise_grad_rows(Rows& in, Rows& grad, float* sums, const Conv& c, int64_t image,
                                int64_t y0, int64_t y1) {
    const int64_t wide = in.blocks * LANES;
    const int64_t next_in = (c.width + 2 * c.pad_width) * LANES, next_out = c.out_width * LANES;
    in.start(image);
    grad.start(image);
    const float* rows[K];
    for (int64_t y = y0; y < y1; y++) {
        for (int ky = 0; ky < K; ky++) rows[ky] = in.row(y - c.pad_height + ky);
        const float* g = grad.row(y);
        for (int64_t b = 0; b < in.blocks; b++)
            for (int ky = 0; ky < K; ky++) {
                VF parts[K] = {};
                const float* from = rows[ky] + b * next_in;
                const float* by = g + b * next_out;
                for (int64_t x = 0; x < c.out_width; x++) {
                    const VF factor = load(by + x * LANES);
#pragma GCC unroll 8
                    for (int kx = 0; kx < K; kx++)
                        parts[kx] = fma(factor, load(from + (x + kx) * LANES), parts[kx]);
                }
                for (int kx = 0; kx < K; kx++) {
                    float* to = sums + (ky * K + kx) * wide + b * LANES;
                    store(to, load(to) + parts[kx]);
                }
            }
    }
}

static void depthwise_grad_weight(const uint8_t* bits, const float* grad_out,
                                  float* grad_weight, const Conv& c, int threads) {
    const int64_t wide = (c.channels + LANES - 1) / LANES * LANES, taps = taps_of(c);
    const int64_t rows = c.images * c.out_height;
    std::vector<std::vector<float>> parts(threads);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int thread = 0; thread < threads; thread++) {  // the same thread does the same in every run
        parts[thread].assign(taps * wide, 0.0f);
        Rows in(bits, nullptr, c.height, c.width, c.channels, c.pad_width, c.kernel_height);
        Rows grad(nullptr, grad_out, c.out_height, c.out_width, c.channels, 0, 1);
        const int64_t end = rows * (thread + 1) / threads;
        for (int64_t row = rows * thread / threads; row < end;) {
            const int64_t image = row / c.out_height, y0 = row % c.out_height;
            const int64_t y1 = std::min(c.out_height, y0 + end - row);
            auto run = c.kernel_height == 3 ? depthwise_grad_rows<3> : depthwise_grad_rows<7>;
            run(in, grad, parts[thread].data(), c, image, y0, y1);
            row += y1 - y0;
        }
    }
    for (int64_t tap = 0; tap < taps; tap++)
        for (int64_t channel = 0; channel < c.channels; channel++) {
            float sum = 0.0f;
            for (const auto& part : parts) sum += part[tap * wide + channel];
            grad_weight[tap * c.channels + channel] = sum;
        }
}

// ------------------------------------------------------------------------------------------ attention

// The places of the bits that are set among count bits from the one numbered from.
static inline int list_range(const uint8_t* bits, int64_t from, int count, uint16_t* list) {
    int n = 0;
    for (int done = 0; done < count;) {
        const int64_t at = from + done;
        const int size = std::min<int>(8 - at % 8, count - done);
        int byte = bits[at / 8] >> (at % 8) & ((1 << size) - 1);
        for (; byte; byte &= byte - 1) list[n++] = uint16_t(done + __builtin_ctz(byte));
        done += size;
    }
    return n;
}

// out = scale q (k^T v), head by head, from bits [images, pixels, 3 channels]: q, k, v one after the
// other. Both products are additions of what spikes choose; k^T v are whole numbers.
static void attention(const uint8_t* bits, float* out, int64_t images, int64_t pixels, int64_t channels,
                      int64_t heads, float scale, int threads) {
    const int depth = int(channels / heads), wide = (depth + LANES - 1) / LANES * LANES;
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> kv(depth * wide);
        std::vector<float> sums(wide);
        std::vector<uint16_t> first(depth), second(depth);
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < images * heads; task++) {
            const int64_t image = task / heads, head = task % heads;
            std::fill(kv.begin(), kv.end(), 0.0f);
            for (int64_t i = 0; i < pixels; i++) {
                const int64_t at = (image * pixels + i) * 3 * channels + head * depth;
                const int n = list_range(bits, at + channels, depth, first.data());
                if (!n) continue;
                const int m = list_range(bits, at + 2 * channels, depth, second.data());
                for (int a = 0; a < n; a++)
                    for (int b = 0; b < m; b++) kv[first[a] * wide + second[b]] += 1.0f;
            }
            for (int64_t i = 0; i < pixels; i++) {
                const int64_t at = (image * pixels + i) * 3 * channels + head * depth;
                const int n = list_range(bits, at, depth, first.data());
                std::fill(sums.begin(), sums.end(), 0.0f);
                for (int a = 0; a < n; a++)
                    for (int j = 0; j < wide; j += LANES)
                        store(&sums[j], load(&sums[j]) + load(&kv[first[a] * wide + j]));
                float* to = out + (image * pixels + i) * channels + head * depth;
                for (int j = 0; j < depth; j++) to[j] = sums[j] * scale;
            }
        }
    }
}

}  // namespace ISA
