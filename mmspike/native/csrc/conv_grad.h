// The gradient of their weights. Part of kernels.h.

// Where the channels spiked in some rows of the input, strip by strip, each of as many rows as the
// innermost cache holds the gradients of: the pixels of channel i in strip j are those of
// lists[i * most] from counts[j * channels + i] to counts[(j + 1) * channels + i].
struct Places {
    std::vector<int> spikes, lists, counts;
    std::vector<uint8_t> room;
    int64_t most;

    void read(const uint8_t* bits, int64_t from, const Conv& c, int64_t rows, int64_t strip, int64_t wide) {
        const int64_t strips = (rows + strip - 1) / strip, bytes = (c.channels + 7) / 8;
        most = rows * c.width;
        spikes.resize(c.channels + 8);
        room.resize(bytes);
        lists.resize(c.channels * most);
        counts.assign((strips + 1) * c.channels, 0);
        int* count = counts.data();
        for (int64_t y = 0; y < rows; y++) {
            if (y % strip == 0) count = std::copy_n(count, c.channels, count + c.channels) - c.channels;
            for (int64_t x = 0; x < c.width; x++, from += c.channels) {
                const uint8_t* pixel = bytes_from(bits, from, c.channels, room.data());
                const int n = list_bits(pixel, int(bytes), 0, spikes.data());
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

static void grad_weight_band(const Maps& spikes, const float* grad_out, float* packed, const Conv& c,
                             int64_t image, int64_t y0, int64_t y1, Places& s, Floats& g) {
    const int64_t wide = c.out_width + 2 * (c.kernel_width - 1), left = c.kernel_width - 1;
    const int64_t most = std::min<int64_t>(BLOCK, c.out_channels);
    const int64_t strip = std::max<int64_t>(1, CACHED / (most * wide)), strips = (y1 - y0 + strip - 1) / strip;
    // a spike at input row y meets output rows y + pad - kernel + 1 to y + pad
    const int64_t top = y0 + c.pad_height - c.kernel_height + 1, high = y1 - y0 + c.kernel_height - 1;
    s.read(spikes.bits, spikes.begin(image) + y0 * c.width * c.channels, c, y1 - y0, strip, wide);
    for (int64_t block = 0; block < blocks_of(c); block++) {
        const int64_t vectors = vectors_of(c, block), width = vectors * LANES;
        const int64_t channels = std::min<int64_t>(BLOCK, c.out_channels - block * BLOCK);
        g.zero(high * wide * width);
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
                             int64_t steps, Conv c, int threads) {
    c.table = 0;
    const Maps spikes(bits, c, steps);
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
        part.zero(size);
        const int64_t tasks = c.images * bands;
        for (int64_t task = tasks * thread / threads; task < tasks * (thread + 1) / threads; task++) {
            const int64_t y0 = task % bands * rows, y1 = std::min(y0 + rows, c.height);
            grad_weight_band(spikes, grad_out, part.data, c, task / bands, y0, y1, s, g);
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
