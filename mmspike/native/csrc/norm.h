// Batch norms before a neuron, and their backward pass. Part of kernels.h.

// A number for every channel, to be read for LANES elements from any channel on.
static Floats repeated(const float* of_channel, int64_t channels) {
    Floats all;
    all.zero(channels + LANES);
    for (int64_t i = 0; i < channels + LANES; i++) all.data[i] = of_channel[i % channels];
    return all;
}
static inline int64_t next_channel(int64_t c, int64_t channels) {  // LANES elements further on
    c += LANES;
    return c < channels ? c : c % channels;
}

struct Channels {  // a norm's numbers
    Floats scale, shift, mean;
    int64_t count = 1;
    explicit Channels(const Norm* norm) {
        if (!norm) return;
        count = norm->channels;
        scale = repeated(norm->scale, count);
        shift = repeated(norm->shift, count);
        mean = repeated(norm->mean, count);
    }
    bool there() const { return scale.data != nullptr; }
    VF apply(VF y, int64_t c) const {  // rounds as torch
        return fma(y, load(scale.data + c), load(shift.data + c));
    }
    VD apply(VD y, int64_t) const { return y; }  // norms are float32
    VF less_mean(VF y, int64_t c) const { return y - load(mean.data + c); }
    VD less_mean(VD y, int64_t) const { return y; }
};

// Two sums over pixels, for every channel: of the gradient, and of its product with (y - mean).
struct Sums {
    Floats first, second;  // of few pixels, so that they are exact enough
    std::vector<double> total;
    int calls = 0;
    explicit Sums(int64_t channels) : total(2 * channels) {
        first.zero(channels + LANES);
        second.zero(channels + LANES);
    }
    void add(VF g, VF product, int64_t c) {
        store(first.data + c, load(first.data + c) + g);
        store(second.data + c, load(second.data + c) + product);
        if (++calls % 8192 == 0) flush();
    }
    void add(VD, VD, int64_t) {}  // norms are float32
    void flush() {
        const int64_t count = total.size() / 2;
        for (int64_t i = 0; i < count + LANES; i++) {
            total[i % count] += first.data[i];
            total[count + i % count] += second.data[i];
            first.data[i] = second.data[i] = 0.0f;
        }
    }
};
typedef std::vector<std::vector<double>> Totals;  // of every thread
static void add_totals(const Totals& totals, double* sums) {
    for (const auto& total : totals)
        for (size_t i = 0; i < total.size(); i++) sums[i] += total[i];
}

// Call each(begin, end) for the part of n neurons that falls to every thread.
template <typename Each>
static void share(int64_t n, int threads, Each each) {
    const int64_t unit = 64 * LANES, units = (n + unit - 1) / unit;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int thread = 0; thread < threads; thread++)
        each(thread, units * thread / threads * unit, std::min(n, units * (thread + 1) / threads * unit));
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
        by_channel(start, int(std::min<int64_t>(4096, n - start)), channels, [&](int i, int size, int64_t k) {
            const float *grad = g + start + i, *from = y + start + i;
            float* to = out + start + i;
            for (int j = 0; j < size; j++)
                to[j] = a[k + j] * grad[j] + b[k + j] * (from[j] - mean[k + j]) + c[k + j];
        });
}

// Add the sums over pixels, for every channel, of g to sums, and of g (y - mean) to the next as many.
static void norm_sums(const float* g, const float* y, const float* mean, double* sums, int64_t n,
                      int64_t channels, int threads) {
    const Floats means = repeated(mean, channels);
    Totals totals(threads);
    share(n, threads, [=, &means, &totals](int thread, int64_t begin, int64_t end) {
        Sums part(channels);
        int64_t c = begin % channels;
        for (int64_t i = begin; i < end; i += LANES) {
            const int count = int(std::min<int64_t>(LANES, n - i));
            const VF grad = load_some(g + i, count);
            part.add(grad, grad * (load_some(y + i, count) - load(means.data + c)), c);
            c = next_channel(c, channels);
        }
        part.flush();
        totals[thread] = part.total;
    });
    add_totals(totals, sums);
}
