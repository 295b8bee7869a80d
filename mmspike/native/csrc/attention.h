// Attention of spikes. Part of kernels.h.

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

// out = scale q (k^T v), head by head, from spikes [images, pixels, 3 channels]: q, k, v one after the
// other. Both products are additions of what spikes choose; k^T v are whole numbers.
static void attention(const uint8_t* bits, float* out, int64_t steps, int64_t images, int64_t pixels,
                      int64_t channels, int64_t heads, float scale, int threads) {
    const Maps in(bits, images, pixels * 3 * channels, steps);
    const int depth = int(channels / heads), wide = int(rounded_up(depth, LANES));
#pragma omp parallel num_threads(threads)
    {
        Floats kv, sums;
        std::vector<uint16_t> rows(depth), columns(depth);  // of k^T v
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < images * heads; task++) {
            const int64_t image = task / heads, head = task % heads;
            const int64_t first = in.begin(image) + head * depth;
            kv.zero(depth * wide);
            for (int64_t i = 0; i < pixels; i++) {
                const int64_t q = first + i * 3 * channels;
                const int row_count = list_range(bits, q + channels, depth, rows.data());
                if (!row_count) continue;
                const int column_count = list_range(bits, q + 2 * channels, depth, columns.data());
                for (int a = 0; a < row_count; a++)
                    for (int b = 0; b < column_count; b++) kv.data[rows[a] * wide + columns[b]] += 1.0f;
            }
            for (int64_t i = 0; i < pixels; i++) {
                const int64_t q = first + i * 3 * channels;
                const int row_count = list_range(bits, q, depth, rows.data());
                sums.zero(wide);
                for (int a = 0; a < row_count; a++)
                    for (int j = 0; j < wide; j += LANES)
                        store(sums.data + j, load(sums.data + j) + load(kv.data + rows[a] * wide + j));
                float* to = out + (image * pixels + i) * channels + head * depth;
                for (int j = 0; j < depth; j++) to[j] = sums.data[j] * scale;
            }
        }
    }
}
