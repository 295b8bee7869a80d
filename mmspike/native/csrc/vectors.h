// LANES numbers at once. Part of kernels.h.

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

// The next multiple of unit.
static inline int64_t rounded_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Floats that vectors are read from: they start where a cache line does.
struct Floats {
    std::unique_ptr<float[]> memory;
    float* data = nullptr;
    int64_t room = 0;

    void make_room(int64_t size) {
        if (room >= size) return;
        memory.reset(new float[(room = size) + 16]);
        data = (float*)((uintptr_t(memory.get()) + 63) & ~uintptr_t(63));
    }
    void zero(int64_t size) {
        make_room(size);
        std::fill(data, data + size, 0.0f);
    }
};

struct BFloat16 {
    uint16_t bits;
};
struct Half {
    uint16_t bits;
};

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
inline int bits_of(Wide<float>::I fired) {
    return _mm512_movepi32_mask((__m512i)fired);
}
#elif LEVEL == 1
template <>
inline int bits_of(Wide<float>::I fired) {
    return _mm256_movemask_ps((__m256)fired);
}
#endif

static inline VF spread(float x) { return x - VF{}; }  // x - 0 is x and costs nothing; x + 0 is not, for -0

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
