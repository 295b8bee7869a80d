// Convolutions that add up rows of weights where there are spikes. Part of kernels.h.

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

// Where outputs lie, and what they read: size pixels from x on in row y of the output, at all steps. The
// first row of the input in the lists is the one numbered top.
struct Tile {
    int64_t y, x, size, steps, top;
};

// sums [steps, size, N vectors]: bias, and the rows of w where there are spikes. The last additions go to
// out instead, if it is there, where a pixel lies stride floats after the one before.
template <int N, bool FETCH>
static void add_up(const Spikes& spikes, const Conv& c, const Tile& tile, const float* w, const float* bias,
                   float* sums, float* out, int64_t stride) {
    const int64_t rows = rows_of_tap(c), shift = shift_of(c), width = N * LANES;
    const int64_t first_y = tile.y * c.stride_height - c.pad_height;
    const int64_t first_x = tile.x * c.stride_width - c.pad_width;
    const int64_t first_ky = std::max<int64_t>(0, -first_y);
    const int64_t end_ky = std::min(c.kernel_height, c.height - first_y);
    const int64_t all_groups = c.kernel_width * spikes.groups, next_pixel = c.stride_width * spikes.groups;
    for (int64_t ky = first_ky; ky < end_ky; ky++)
        for (int64_t group = 0; group < all_groups; group += spikes.groups_at_once) {
            const int64_t groups = std::min(spikes.groups_at_once, all_groups - group);
            const bool begins = ky == first_ky && group == 0;
            const bool ends = ky == end_ky - 1 && group + groups == all_groups;
            const float* weights = w + (ky * c.kernel_width * rows - first_x * shift) * width;
            for (int64_t step = 0; step < tile.steps; step++) {
                const int64_t row = step * spikes.rows + first_y + ky - tile.top;
                const int* starts = &spikes.starts[row * spikes.starts_of_row + tile.x * next_pixel + group];
                float* sum = sums + step * tile.size * width;
                for (int64_t i = 0; i < tile.size; i++) {
                    const int begin = starts[i * next_pixel], end = starts[i * next_pixel + groups];
                    add_rows<N, FETCH>(weights - i * c.stride_width * shift * width, &spikes.list[begin],
                                       end - begin, begins ? bias : sum + i * width,
                                       ends && out ? out + i * stride : sum + i * width);
                }
            }
        }
    if (first_ky >= end_ky)  // nothing but padding
        for (int64_t i = 0; i < tile.steps * tile.size; i++)
            std::memcpy(out ? out + i * stride : sums + i * width, bias, width * sizeof(float));
}

template <int N>
static void add_up(const Spikes& spikes, const Conv& c, const Tile& tile, const float* w, const float* bias,
                   float* sums, float* out, int64_t stride) {
    const int64_t rows_at_once = spikes.groups_at_once * rows_of_tap(c) / spikes.groups;
    const bool cached = rows_at_once * N * LANES <= 3 * CACHED;
    (cached ? add_up<N, false> : add_up<N, true>)(spikes, c, tile, w, bias, sums, out, stride);
}

typedef void (*AddUp)(const Spikes&, const Conv&, const Tile&, const float*, const float*, float*, float*,
                      int64_t);
static const AddUp add_up_of[] = {nullptr,   add_up<1>, add_up<2>, add_up<3>, add_up<4>,
                                  add_up<5>, add_up<6>, add_up<7>, add_up<8>};

// The spikes, as bits, of the neurons of a pixel, which read sums [steps, channels]; sums of a step lie
// next_sums floats after those of the step before, bits next_bits bytes. Returns their number.
template <bool PUBLISHED>
static inline int64_t fire(Neuron<float, PUBLISHED> neuron, const float* sums, int64_t steps,
                           int64_t next_sums, int channels, uint8_t* bits, int64_t next_bits) {
    constexpr int WORDS = BLOCK / 64;
    VF potentials[BLOCK / LANES];
    int64_t fired = 0;
    for (int64_t t = 0; t < steps; t++, sums += next_sums, bits += next_bits) {
        uint64_t words[WORDS] = {};
        for (int channel = 0; channel < channels; channel += LANES) {
            VF& potential = potentials[channel / LANES];
            const VF input = load(sums + channel);
            const VF charged = t ? neuron.charge(potential, input) : neuron.charge(input);
            potential = neuron.reset(charged);
            words[channel / 64] |= uint64_t(bits_of(charged >= neuron.threshold)) << channel % 64;
        }
        for (int i = 0; i < WORDS; i++) {
            const int left = std::min(64, channels - 64 * i);
            if (left <= 0) break;
            if (left < 64) words[i] &= (uint64_t(1) << left) - 1;
            fired += __builtin_popcountll(words[i]);
            if (left == 64)  // mostly; the compiler makes one store of it
                for (int j = 0; j < 8; j++) bits[8 * i + j] = uint8_t(words[i] >> 8 * j);
            else
                for (int j = 0; j < left / 8; j++) bits[8 * i + j] = uint8_t(words[i] >> 8 * j);
        }
    }
    return fired;
}

// The outputs of rows y0 to y1, block by block, so that a block of weights stays in the cache. first_pixel
// is the number of the first pixel, step_pixels how many there are to a step, and top the first row of the
// input in the lists. Returns the number of spikes, where neurons fire.
template <bool PUBLISHED>
static int64_t convolve_rows(const Spikes& spikes, const float* laid_out, const float* bias, const Sink& sink,
                             const Conv& c, int64_t first_pixel, int64_t step_pixels, int64_t y0, int64_t y1,
                             int64_t top) {
    alignas(64) float start[BLOCK], few_sums[TILE * BLOCK];
    const int64_t tile_pixels = std::max<int64_t>(1, TILE / sink.steps);
    Floats many_sums;
    if (sink.steps > TILE) many_sums.zero(sink.steps * BLOCK);
    float* sums = sink.steps > TILE ? many_sums.data : few_sums;
    const Neuron<float, PUBLISHED> neuron(sink.neuron ? *sink.neuron : LIF());
    int64_t fired = 0;
    for (int64_t block = 0; block < blocks_of(c); block++) {
        const int vectors = vectors_of(c, block), width = vectors * LANES;
        const int channels = int(std::min<int64_t>(BLOCK, c.out_channels - block * BLOCK));
        const float* weights = laid_out + offset_of(c, block);
        for (int i = 0; i < BLOCK; i++) start[i] = bias && i < channels ? bias[block * BLOCK + i] : 0.0f;
        for (int64_t y = y0; y < y1; y++)
            for (int64_t x = 0; x < c.out_width; x += tile_pixels) {
                const Tile tile{y, x, std::min(tile_pixels, c.out_width - x), sink.steps, top};
                const int64_t pixel = first_pixel + (y - y0) * c.out_width + x;
                int64_t element = pixel * c.out_channels + block * BLOCK;
                float* out = sink.bits || channels < width ? nullptr : sink.out + element;
                add_up_of[vectors](spikes, c, tile, weights, start, sums, out, c.out_channels);
                for (int64_t i = 0; i < tile.size && !out; i++, element += c.out_channels)
                    if (sink.bits)
                        fired += fire(neuron, sums + i * width, sink.steps, tile.size * width, channels,
                                      sink.bits + element / 8, step_pixels * c.out_channels / 8);
                    else
                        std::memcpy(sink.out + element, sums + i * width, channels * sizeof(float));
            }
    }
    return fired;
}

// How the outputs are split into tasks: enough to keep all threads busy, of as many pixels as keep their
// lists in the cache, at a rate of 1 in 6.
struct Split {
    bool pointwise;  // pixels in a row, whatever image they are of; else rows of an image
    int64_t runs, pixels;  // pointwise: pixels are numbered through in every run
    int64_t images, rows;  // else: rows of a task
    int64_t size, tasks_of_each, tasks;  // pixels of a task, tasks of a run or image

    Split(const Conv& c, const Sink& sink, const Maps& maps, int threads) {
        pointwise = taps_of(c) == 1 && c.stride_height == 1 && c.stride_width == 1 && c.pad_height == 0 &&
                    c.pad_width == 0;
        images = c.images / sink.steps;
        const bool joined = sink.bits || maps.images * maps.size % 8 == 0;  // steps, in one run
        runs = joined ? 1 : images / maps.images;
        pixels = images / runs * c.out_height * c.out_width;
        const int64_t most = std::max<int64_t>(1, LISTED / (sink.steps * c.channels / 6 + 1));
        size = std::min(most, std::max<int64_t>(1, runs * pixels / (4 * threads)));
        const int64_t wanted = std::max<int64_t>(1, size / c.out_width);
        const int64_t bands = (c.out_height + wanted - 1) / wanted;
        rows = (c.out_height + bands - 1) / bands;
        tasks_of_each = pointwise ? (pixels + size - 1) / size : bands;
        tasks = (pointwise ? runs : images) * tasks_of_each;
    }
};

static int64_t conv_forward(const uint8_t* bits, const float* laid_out, const float* bias, const Sink& sink,
                            int64_t steps, const Conv& c, int threads) {
    if (c.images == 0) return 0;
    const auto run = sink.neuron && is_published(*sink.neuron) ? convolve_rows<true> : convolve_rows<false>;
    const Maps maps(bits, c, steps);
    const Split split(c, sink, maps, threads);
    const int64_t step_pixels = split.images * c.out_height * c.out_width;
    int64_t fired = 0;
#pragma omp parallel num_threads(threads) reduction(+ : fired)
    {
        Spikes spikes;
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < split.tasks; task++) {
            const int64_t each = task / split.tasks_of_each, part = task % split.tasks_of_each;
            if (split.pointwise) {
                const int64_t pixel = part * split.size;  // of the run
                Conv row = c;
                row.height = row.out_height = 1;
                row.width = row.out_width = std::min(split.size, split.pixels - pixel);
                spikes.read(maps, each * maps.step + pixel * c.channels, row, sink.steps, 1);
                fired +=
                    run(spikes, laid_out, bias, sink, row, each * split.pixels + pixel, step_pixels, 0, 1, 0);
                continue;
            }
            const int64_t y0 = part * split.rows, y1 = std::min(y0 + split.rows, c.out_height);
            const int64_t above = y0 * c.stride_height - c.pad_height;
            const int64_t below = (y1 - 1) * c.stride_height - c.pad_height + c.kernel_height;
            const int64_t top = std::min(std::max<int64_t>(above, 0), c.height);
            const int64_t bottom = std::max(std::min(below, c.height), top);
            spikes.read(maps, maps.begin(each) + top * c.width * c.channels, c, sink.steps, bottom - top);
            fired += run(spikes, laid_out, bias, sink, c, (each * c.out_height + y0) * c.out_width,
                         step_pixels, y0, y1, top);
        }
    }
    return fired;
}
