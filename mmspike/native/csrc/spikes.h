// The spikes that a convolution reads, listed in the order in which it adds up weights. Part of kernels.h.

// Rows of a block of weights are taken in groups: those of so many input channels of a tap as the
// innermost cache holds, for TILE pixels before the next group is. A group that has fewer than FEW
// spikes on average does not pay for loading and storing the sums, and is taken together with the next.
constexpr int CACHED = 8192, TILE = 32, FEW = 10;
// What the next cache holds: spikes that are listed at once, and floats of the gradient of the outputs.
constexpr int LISTED = 32768, BANDED = 49152;

static inline int64_t group_of(const Conv& c) {  // input channels
    const int64_t rows = CACHED / (vectors_of(c, 0) * LANES) & ~7;
    return c.table ? c.channels : std::min(c.channels, std::max<int64_t>(8, rows));
}

// Rows of weights by which the spikes of a pixel lie after those of the one before.
static inline int64_t shift_of(const Conv& c) { return c.kernel_width > 1 ? rows_of_tap(c) : 0; }

// The spikes of some rows of the input, of all steps, pixel by pixel and group by group. starts has, for
// every row, where the spikes of each group of each pixel begin, and where the last end; pixels without
// spikes surround a row. A spike is the number of its row of weights in a tap, plus the number of its
// pixel times the rows of a tap: those that lie under a row of the kernel stand one after the other.
struct Spikes {
    std::unique_ptr<int[]> list;
    std::vector<int> starts;
    std::vector<uint8_t> pixel_room;
    int64_t room = 0, groups, at_once, height, across;  // at_once: groups that pay together

    // rows, of which the first begins with the bit numbered from, at every step
    void read(const Maps& maps, int64_t from, const Conv& c, int64_t steps, int64_t rows) {
        const int64_t group = group_of(c), most = steps * rows * c.width * c.channels + 8;
        groups = (c.channels + group - 1) / group;
        height = rows;
        across = (c.width + 2 * c.pad_width) * groups + 1;
        if (room < most) list.reset(new int[room = most]);
        starts.resize(steps * rows * across);
        pixel_room.resize((c.channels + 7) / 8);
        int n = 0, *start = starts.data();
        for (int64_t row = 0; row < steps * rows; row++) {
            int64_t bit = from + row / rows * maps.step + row % rows * c.width * c.channels;
            start = std::fill_n(start, c.pad_width * groups, n);
            for (int64_t x = 0; x < c.width; x++, bit += c.channels) {
                const uint8_t* pixel = bytes_from(maps.bits, bit, c.channels, pixel_room.data());
                for (int64_t channel = 0; channel < c.channels; channel += group) {
                    const int bytes = int((std::min(group, c.channels - channel) + 7) / 8);
                    const int base = int(x * shift_of(c) + channel);
                    *start++ = n;
                    n += c.table ? list_table_rows(pixel, bytes, base, &list[n])
                                 : list_bits(pixel + channel / 8, bytes, base, &list[n]);
                }
            }
            start = std::fill_n(start, c.pad_width * groups + 1, n);
        }
        const int64_t some = std::max(1, n), wanted = (FEW * int64_t(starts.size()) + some - 1) / some;
        at_once = std::min(std::max<int64_t>(1, wanted), c.kernel_width * groups);
    }
};
