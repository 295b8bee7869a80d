// The gradient of their weights. Part of kernels.h.

// Where the channels spiked in some rows of the input, strip by strip, each of as many rows as the
// innermost cache holds the gradients of: the pixels of channel i in strip j are those of
// lists[i * pixels] from counts[j * channels + i] to counts[(j + 1) * channels + i].
struct Places {
    std::vector<int> spikes, lists, counts;
    std::vector<uint8_t> pixel_bytes;
    int64_t pixels;

    // Read these rows, of which the first begins with the bit numbered bit; pixels are numbered with
    // row_pixels to a row.
    void read(const uint8_t* bits, int64_t bit, const Conv& c, int64_t rows, int64_t strip_rows,
              int64_t row_pixels) {
        const int64_t strips = (rows + strip_rows - 1) / strip_rows, bytes = (c.channels + 7) / 8;
        const int64_t channels = c.channels;
        pixels = rows * c.width;
        spikes.resize(channels + 8);
        pixel_bytes.resize(bytes);
        lists.resize(channels * pixels);
        counts.assign((strips + 1) * channels, 0);
        int* count = counts.data();
        for (int64_t y = 0; y < rows; y++) {
            if (y % strip_rows == 0) count = std::copy_n(count, channels, count + channels) - channels;
            const uint8_t* pixel = bits + bit / 8;
            for (int64_t x = 0; x < c.width; x++, bit += channels, pixel += bytes) {
                if (channels % 8) pixel = copy_bits(bits, bit, channels, pixel_bytes.data());
                const int n = list_bits(pixel, int(bytes), 0, spikes.data());
                const int place = int(y * row_pixels + x + c.pad_width);
                for (int i = 0; i < n; i++) lists[spikes[i] * pixels + count[spikes[i]]++] = place;
            }
        }
    }
};

// The gradient of one row of weights is the sum of grad_out over the pixels where its input spiked.
// grad_out of a band of pixels, a block of channels wide and padded with zeros, is laid out in grad.
template <int N>
static void grad_weight_block(const Places& places, const float* grad, float* laid_out, const Conv& c,
                              int64_t strips, int64_t row_pixels) {
    for (int64_t strip = 0; strip < strips; strip++)
        for (int64_t ky = 0; ky < c.kernel_height; ky++)
            for (int64_t kx = 0; kx < c.kernel_width; kx++) {
                const int64_t shift = (c.kernel_height - 1 - ky) * row_pixels + c.kernel_width - 1 - kx;
                const float* shifted = grad + shift * (N * LANES);
                float* row = laid_out + (ky * c.kernel_width + kx) * c.channels * (N * LANES);
                const int* begins = &places.counts[strip * c.channels];
                for (int64_t i = 0; i < c.channels; i++, row += N * LANES)
                    add_rows<N, false>(shifted, &places.lists[i * places.pixels + begins[i]],
                                       begins[c.channels + i] - begins[i], row, row);
            }
}
typedef void (*GradWeight)(const Places&, const float*, float*, const Conv&, int64_t, int64_t);
static const GradWeight grad_weight_of[] = {nullptr,
                                            grad_weight_block<1>,
                                            grad_weight_block<2>,
                                            grad_weight_block<3>,
                                            grad_weight_block<4>,
                                            grad_weight_block<5>,
                                            grad_weight_block<6>,
                                            grad_weight_block<7>,
                                            grad_weight_block<8>};

static void grad_weight_band(const Maps& maps, const float* grad_out, float* laid_out, const Conv& c,
                             int64_t image, int64_t y0, int64_t y1, Places& places, Floats& grad) {
    const int64_t border = c.kernel_width - 1, row_pixels = c.out_width + 2 * border;
    const int64_t block_channels = std::min<int64_t>(BLOCK, c.out_channels);
    const int64_t strip_rows = std::max<int64_t>(1, CACHED / (block_channels * row_pixels));
    const int64_t strips = (y1 - y0 + strip_rows - 1) / strip_rows;
    // a spike at input row y meets output rows y + pad - kernel + 1 to y + pad
    const int64_t top = y0 + c.pad_height - c.kernel_height + 1, rows = y1 - y0 + c.kernel_height - 1;
    places.read(maps.bits, maps.begin(image) + y0 * c.width * c.channels, c, y1 - y0, strip_rows, row_pixels);
    for (int64_t block = 0; block < blocks_of(c); block++) {
        const int64_t vectors = vectors_of(c, block), width = vectors * LANES;
        const int64_t channels = std::min<int64_t>(BLOCK, c.out_channels - block * BLOCK);
        grad.zero(rows * row_pixels * width);
        for (int64_t y = 0; y < rows; y++) {
            if (top + y < 0 || top + y >= c.out_height) continue;
            const int64_t pixel = (image * c.out_height + top + y) * c.out_width;
            const float* from = grad_out + pixel * c.out_channels + block * BLOCK;
            float* to = grad.data + (y * row_pixels + border) * width;
            for (int64_t x = 0; x < c.out_width; x++)
                std::copy_n(from + x * c.out_channels, channels, to + x * width);
        }
        grad_weight_of[vectors](places, grad.data, laid_out + offset_of(c, block), c, strips, row_pixels);
    }
}

// grad_weight [out, in, taps]: the parts, laid out, of all threads together.
static void add_parts(const std::vector<Floats>& parts, float* grad_weight, const Conv& c, int threads) {
    const int64_t taps = taps_of(c);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t channel = 0; channel < c.channels; channel++)
        for (int64_t block = 0; block < blocks_of(c); block++) {
            const int64_t width = vectors_of(c, block) * LANES;
            for (int64_t tap = 0; tap < taps; tap++) {
                const int64_t row = offset_of(c, block) + (tap * c.channels + channel) * width;
                for (int64_t i = 0; i < std::min(width, c.out_channels - block * BLOCK); i++) {
                    float sum = 0.0f;
                    for (int thread = 0; thread < threads; thread++) sum += parts[thread].data[row + i];
                    grad_weight[((block * BLOCK + i) * c.channels + channel) * taps + tap] = sum;
                }
            }
        }
}

static void conv_grad_weight(const uint8_t* bits, const float* grad_out, float* grad_weight, int64_t steps,
                             Conv c, int threads) {
    c.table = 0;
    const Maps maps(bits, c, steps);
    const int64_t row_pixels = c.out_width + 2 * (c.kernel_width - 1);
    const int64_t cached = BANDED / (std::min<int64_t>(BLOCK, c.out_channels) * row_pixels);
    const int64_t fair = std::max<int64_t>(1, c.images * c.height / (2 * threads));
    const int64_t rows = std::min({std::max<int64_t>(cached - c.kernel_height + 1, 2), c.height, fair});
    const int64_t bands = (c.height + rows - 1) / rows, tasks = c.images * bands;
    std::vector<Floats> parts(threads);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int thread = 0; thread < threads; thread++) {  // the same thread does the same in every run
        Floats& part = parts[thread];
        Floats grad;
        Places places;
        part.zero(laid_out_size(c));
        for (int64_t task = tasks * thread / threads; task < tasks * (thread + 1) / threads; task++) {
            const int64_t y0 = task % bands * rows, y1 = std::min(y0 + rows, c.height);
            grad_weight_band(maps, grad_out, part.data, c, task / bands, y0, y1, places, grad);
        }
    }
    add_parts(parts, grad_weight, c, threads);
}
