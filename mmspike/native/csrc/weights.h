// How the weights of a convolution are laid out. Part of kernels.h.

// Blocks of up to BLOCK output channels; in a block [kernel, in, channels of the block]. In a
// lookup table, the input channels are taken four at a time, and there are 16 rows for each four: the
// sums of the weights of every choice among them.
static inline int64_t blocks_of(const Conv& c) { return (c.out_channels + BLOCK - 1) / BLOCK; }
static inline int64_t taps_of(const Conv& c) { return c.kernel_height * c.kernel_width; }
static inline int vectors_of(const Conv& c, int64_t block) {
    const int64_t left = std::min<int64_t>(BLOCK, c.out_channels - block * BLOCK);
    return int((left + LANES - 1) / LANES);
}
static inline int64_t rows_of_tap(const Conv& c) { return c.channels * (c.table ? 4 : 1); }
static inline int64_t offset_of(const Conv& c, int64_t block) {
    return block * BLOCK * taps_of(c) * rows_of_tap(c);
}

static int64_t laid_out_size(const Conv& c) {
    const int64_t last = blocks_of(c) - 1;
    return offset_of(c, last) + vectors_of(c, last) * LANES * taps_of(c) * rows_of_tap(c);
}

static void lay_out_weight(const float* weight, const int64_t* strides, float* laid_out, const Conv& c,
                           int threads) {
    const int64_t taps = taps_of(c), rows = taps * rows_of_tap(c);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t task = 0; task < blocks_of(c) * rows; task++) {
        const int64_t block = task / rows, row = task % rows, tap = row / rows_of_tap(c);
        const int width = vectors_of(c, block) * LANES;
        const int left = int(std::min<int64_t>(width, c.out_channels - block * BLOCK));
        const float* w = weight + block * BLOCK * strides[0] + tap / c.kernel_width * strides[2] +
                         tap % c.kernel_width * strides[3];
        float* to = laid_out + offset_of(c, block) + row * width;
        std::fill(to, to + width, 0.0f);
        const int64_t in_tap = row % rows_of_tap(c);
        if (!c.table) {
            for (int i = 0; i < left; i++) to[i] = w[in_tap * strides[1] + i * strides[0]];
            continue;
        }
        for (int64_t k = 0; k < 4; k++)
            if (in_tap >> k & 1)  // the lowest four bits choose among four channels
                for (int i = 0; i < left; i++)
                    to[i] += w[(in_tap / 16 * 4 + k) * strides[1] + i * strides[0]];
    }
}
