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
        std::vector<uint16_t> first(depth), second(depth);
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < images * heads; task++) {
            const int64_t image = task / heads, head = task % heads;
            kv.zero(depth * wide);
            for (int64_t i = 0; i < pixels; i++) {
                const int64_t at = in.begin(image) + i * 3 * channels + head * depth;
                const int n = list_range(bits, at + channels, depth, first.data());
                if (!n) continue;
                const int m = list_range(bits, at + 2 * channels, depth, second.data());
                for (int a = 0; a < n; a++)
                    for (int b = 0; b < m; b++) kv.data[first[a] * wide + second[b]] += 1.0f;
            }
            for (int64_t i = 0; i < pixels; i++) {
                const int64_t at = in.begin(image) + i * 3 * channels + head * depth;
                const int n = list_range(bits, at, depth, first.data());
                sums.zero(wide);
                for (int a = 0; a < n; a++)
                    for (int j = 0; j < wide; j += LANES)
                        store(sums.data + j, load(sums.data + j) + load(kv.data + first[a] * wide + j));
                float* to = out + (image * pixels + i) * channels + head * depth;
                for (int j = 0; j < depth; j++) to[j] = sums.data[j] * scale;
            }
        }
    }
}
