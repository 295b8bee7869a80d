// LIF neurons, with or without a batch norm before them. Part of kernels.h.

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

template <typename S, typename F, bool PUBLISHED>
static int64_t forward_rows(const S* x, void* spikes, bool bits, int64_t steps, int64_t n, int64_t x_stride,
                            const Norm* norm, const LIF& lif, int threads) {
    typedef typename Wide<F>::V V;
    const Channels channels(norm);
    std::vector<int64_t> fired(threads);
    share(n, threads, [=, &channels, &lif, &fired](int thread, int64_t begin, int64_t end) {
        const Neuron<F, PUBLISHED> p(lif);
        const bool normed = channels.there();
        int64_t channel = begin % channels.count, sum = 0;
        for (int64_t i = begin; i < end; i += LANES) {
            const int count = int(std::min<int64_t>(LANES, n - i));
            V v{};
            for (int64_t t = 0; t < steps; t++) {
                V in = load_some(x + t * x_stride + i, count);
                if (normed) in = channels.apply(in, channel);
                const V h = t ? p.charge(v, in) : p.charge(in);
                v = p.reset(h);
                if (bits) {
                    const int set = bits_of(h >= p.threshold) & ((1 << count) - 1);
                    uint8_t* to = (uint8_t*)spikes + t * ((n + 7) / 8) + i / 8;
                    to[0] = uint8_t(set);
                    if (LANES == 16 && count > 8) to[1] = uint8_t(set >> 8);
                    sum += __builtin_popcount(set);
                } else {
                    const V s = h >= p.threshold ? V{} + 1 : V{};
                    store_some((S*)spikes + t * n + i, s, count);
                }
            }
            if (normed) channel = next_channel(channel, channels.count);
        }
        fired[thread] = sum;
    });
    int64_t total = 0;
    for (int64_t sum : fired) total += sum;
    return total;
}

template <typename S, typename F, int surrogate, bool PUBLISHED>
static void backward_rows(const S* x, const S* grad_spikes, S* grad_x, int64_t steps, int64_t n,
                          int64_t x_stride, int64_t grad_stride, const Norm* norm, double* sums,
                          const LIF& lif, int threads) {
    typedef typename Wide<F>::V V;
    const Channels channels(norm);
    Totals totals(threads);
    share(n, threads, [=, &channels, &lif, &totals](int thread, int64_t begin, int64_t end) {
        const Neuron<F, PUBLISHED> p(lif);
        const F keep = 1 - 1 / p.tau, gain = p.decay ? 1 / p.tau : F(1);
        const bool normed = channels.there();
        V few[8];  // the charged potentials of every step
        std::vector<F> many(steps > 8 ? (steps + 1) * LANES : 0);
        F* potentials = steps > 8 ? many.data() : (F*)few;
        Sums part(channels.count);
        int64_t channel = begin % channels.count;
        for (int64_t i = begin; i < end; i += LANES) {
            const int count = int(std::min<int64_t>(LANES, n - i));
            V h{}, carry{};  // carry: gradient of the potential after the step
            V sum{}, product{};
            for (int64_t t = 0; t < steps; t++) {
                V in = load_some(x + t * x_stride + i, count);
                if (normed) in = channels.apply(in, channel);
                h = t ? p.charge(p.reset(h), in) : p.charge(in);
                store(potentials + t * LANES, h);
            }
            for (int64_t t = steps - 1; t >= 0; t--) {
                h = load(potentials + t * LANES);
                V g = load_some(grad_spikes + t * grad_stride + i, count);
                if (!PUBLISHED && !p.detach) g -= carry * (p.soft ? V{} + p.threshold : h - p.rest);
                g *= slope<surrogate, F>(h - p.threshold, p.alpha);
                g += !PUBLISHED && p.soft ? carry : (h >= p.threshold ? V{} : carry);
                carry = g * keep;
                g *= gain;
                store_some(grad_x + t * n + i, g, count);
                if (!normed) continue;
                sum += g;
                product += g * channels.less_mean(load_some(x + t * x_stride + i, count), channel);
            }
            if (!normed) continue;
            part.add(sum, product, channel);
            channel = next_channel(channel, channels.count);
        }
        part.flush();
        totals[thread] = part.total;
    });
    if (channels.there()) add_totals(totals, sums);
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

static void lif_backward(int dtype, const void* x, const void* grad_spikes, void* grad_x, int64_t steps,
                         int64_t n, int64_t x_stride, int64_t grad_stride, const Norm* norm, double* sums,
                         const LIF& p, int threads) {
    auto run = [&](auto element, auto state) {
        typedef decltype(element) S;
        typedef decltype(state) F;
        auto rows = p.surrogate       ? backward_rows<S, F, 1, false>
                    : is_published(p) ? backward_rows<S, F, 0, true>
                                      : backward_rows<S, F, 0, false>;
        rows((const S*)x, (const S*)grad_spikes, (S*)grad_x, steps, n, x_stride, grad_stride, norm, sums, p,
             threads);
    };
    if (dtype == 0) return run(0.0f, 0.0f);
    if (dtype == 1) return run(0.0, 0.0);
    return dtype == 2 ? run(BFloat16(), 0.0f) : run(Half(), 0.0f);
}
