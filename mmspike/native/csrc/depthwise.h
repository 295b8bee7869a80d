// Depthwise convolutions of spikes. Part of kernels.h.

// Rows of a map, LANES channels after LANES channels: [blocks][width + 2 pad][LANES], zeros around.
// The last few rows that were asked for stay.
struct Rows {
    const Maps* spikes;
    const float* map;  // one of the two is null
    int64_t first;  // element of the image
    int64_t height, width, channels, pad, kept, blocks, size;  // size: of a row
    Floats memory;
    std::vector<int64_t> held;  // the row that lies in each slot

    Rows(const Maps* spikes, const float* map, int64_t height, int64_t width, int64_t channels, int64_t pad,
         int64_t kept)
        : spikes(spikes), map(map), first(0), height(height), width(width), channels(channels), pad(pad),
          kept(kept), blocks((channels + LANES - 1) / LANES), size(blocks * (width + 2 * pad) * LANES),
          held(kept, INT64_MIN) {
        memory.zero(kept * size);
    }

    void start(int64_t image) {
        first = spikes ? spikes->begin(image) : image * height * width * channels;
        std::fill(held.begin(), held.end(), INT64_MIN);
    }
    const float* row(int64_t y) {
        const int64_t slot = ((y % kept) + kept) % kept;
        float* to = memory.data + slot * size;
        if (held[slot] == y) return to;
        held[slot] = y;
        const uint8_t* bits = spikes ? spikes->bits : nullptr;
        const float* map = this->map;
        if (y < 0 || y >= height)
            std::fill(to, to + size, 0.0f);
        else if (!bits)
            write(to, y, [=](int64_t at, int count) { return load_some(map + at, count); });
        else if (channels % 8 == 0)
            write(to, y, [=](int64_t at, int count) { return expand(few_bytes(bits, at, count)); });
        else
            write(to, y, [=](int64_t at, int count) { return expand(few_bits(bits, at, count)); });
        return to;
    }
    template <typename Read>
    void write(float* to, int64_t y, Read read) const {  // what read gives for count elements from one on
        const int64_t next_block = (width + 2 * pad) * LANES;
        for (int64_t b = 0; b < blocks; b++) {
            std::fill(to + b * next_block, to + b * next_block + pad * LANES, 0.0f);
            std::fill(to + (b + 1) * next_block - pad * LANES, to + (b + 1) * next_block, 0.0f);
        }
        const int64_t end = width, step = channels;  // stores might change members, for the compiler
        int64_t pixel = first + y * end * step;
        to += pad * LANES;
        for (int64_t x = 0; x < end; x++, pixel += step, to += LANES)
            for (int64_t at = 0, block = 0; at < step; at += LANES, block += next_block)
                store(to + block, read(pixel + at, int(std::min<int64_t>(LANES, step - at))));
    }
    static VF expand(int set) {  // 1 where a bit is set
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
    const int64_t padded_channels = in.blocks * LANES, next_block = (c.width + 2 * c.pad_width) * LANES;
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
                    const float* from = rows[ky] + b * next_block + x * LANES;
#pragma GCC unroll 8
                    for (int kx = 0; kx < K; kx++) {
                        const VF w = load(weight + (ky * K + kx) * padded_channels + b * LANES);
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
                        sum = fma(load(rows[ky] + b * next_block + (x + kx) * LANES),
                                  load(weight + (ky * K + kx) * padded_channels + b * LANES), sum);
                store_some(to + x * c.channels, sum, count);
            }
        }
    }
}

static Floats pad_channels(const float* weight, int64_t taps, int64_t channels) {
    const int64_t padded_channels = rounded_up(channels, LANES);
    Floats padded;
    padded.zero(taps * padded_channels);
    for (int64_t tap = 0; tap < taps; tap++)
        std::memcpy(padded.data + tap * padded_channels, weight + tap * channels, channels * sizeof(float));
    return padded;
}

static void depthwise_forward(const uint8_t* bits, const float* weight, float* out, int64_t steps,
                              const Conv& c, int threads) {
    const Maps spikes(bits, c, steps);
    const Floats padded = pad_channels(weight, taps_of(c), c.channels);
    const int64_t rows = std::max<int64_t>(
        1, std::min(c.out_height, (c.images * c.out_height + 4 * threads - 1) / (4 * threads)));
    const int64_t bands = (c.out_height + rows - 1) / rows;
#pragma omp parallel num_threads(threads)
    {
        Rows in(&spikes, nullptr, c.height, c.width, c.channels, c.pad_width, c.kernel_height);
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < c.images * bands; task++) {
            const int64_t y0 = task % bands * rows, y1 = std::min(y0 + rows, c.out_height);
            auto run = c.kernel_height == 3 ? depthwise_rows<3> : depthwise_rows<7>;
            run(in, padded.data, out, c, task / bands, y0, y1);
        }
    }
}

template <int K>
static void depthwise_grad_rows(Rows& in, Rows& grad, float* sums, const Conv& c, int64_t image, int64_t y0,
                                int64_t y1) {
    const int64_t padded_channels = in.blocks * LANES;
    const int64_t next_block_in = (c.width + 2 * c.pad_width) * LANES, next_block_out = c.out_width * LANES;
    in.start(image);
    grad.start(image);
    const float* rows[K];
    for (int64_t y = y0; y < y1; y++) {
        for (int ky = 0; ky < K; ky++) rows[ky] = in.row(y - c.pad_height + ky);
        const float* g = grad.row(y);
        for (int64_t b = 0; b < in.blocks; b++)
            for (int ky = 0; ky < K; ky++) {
                VF parts[K] = {};
                const float* from = rows[ky] + b * next_block_in;
                const float* factors = g + b * next_block_out;
                for (int64_t x = 0; x < c.out_width; x++) {
                    const VF factor = load(factors + x * LANES);
#pragma GCC unroll 8
                    for (int kx = 0; kx < K; kx++)
                        parts[kx] = fma(factor, load(from + (x + kx) * LANES), parts[kx]);
                }
                for (int kx = 0; kx < K; kx++) {
                    float* to = sums + (ky * K + kx) * padded_channels + b * LANES;
                    store(to, load(to) + parts[kx]);
                }
            }
    }
}

static void depthwise_grad_weight(const uint8_t* bits, const float* grad_out, float* grad_weight,
                                  int64_t steps, const Conv& c, int threads) {
    const Maps spikes(bits, c, steps);
    const int64_t padded_channels = rounded_up(c.channels, LANES), taps = taps_of(c);
    const int64_t rows = c.images * c.out_height;
    std::vector<Floats> parts(threads);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int thread = 0; thread < threads; thread++) {  // the same thread does the same in every run
        parts[thread].zero(taps * padded_channels);
        Rows in(&spikes, nullptr, c.height, c.width, c.channels, c.pad_width, c.kernel_height);
        Rows grad(nullptr, grad_out, c.out_height, c.out_width, c.channels, 0, 1);
        const int64_t end = rows * (thread + 1) / threads;
        for (int64_t row = rows * thread / threads; row < end;) {
            const int64_t image = row / c.out_height, y0 = row % c.out_height;
            const int64_t y1 = std::min(c.out_height, y0 + end - row);
            auto run = c.kernel_height == 3 ? depthwise_grad_rows<3> : depthwise_grad_rows<7>;
            run(in, grad, parts[thread].data, c, image, y0, y1);
            row += y1 - y0;
        }
    }
    for (int64_t tap = 0; tap < taps; tap++)
        for (int64_t channel = 0; channel < c.channels; channel++) {
            float sum = 0.0f;
            for (const auto& part : parts) sum += part.data[tap * padded_channels + channel];
            grad_weight[tap * c.channels + channel] = sum;
        }
}
