// The spikes that a convolution reads, in the order in which it adds up weights. Part of kernels.h.

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
    std::vector<uint8_t> pixel_bytes;
    int64_t room = 0;  // numbers that the list takes
    int64_t groups, groups_at_once;  // groups of a pixel; those that pay together
    int64_t rows, starts_of_row;  // rows of a step

    // Read these rows, of which the first begins with the bit numbered first, at every step.
    void read(const Maps& maps, int64_t first, const Conv& c, int64_t steps, int64_t row_count) {
        const int64_t group = group_of(c), most = steps * row_count * c.width * c.channels + 8;
        rows = row_count;
        groups = (c.channels + group - 1) / group;
        starts_of_row = (c.width + 2 * c.pad_width) * groups + 1;
        if (room < most) list.reset(new int[room = most]);
        starts.resize(steps * rows * starts_of_row);
        const int64_t bytes_of_pixel = (c.channels + 7) / 8;
        pixel_bytes.resize(bytes_of_pixel);
        int count = 0, *start = starts.data();
        for (int64_t row = 0; row < steps * rows; row++) {
            int64_t bit = first + row / rows * maps.step + row % rows * c.width * c.channels;
            start = std::fill_n(start, c.pad_width * groups, count);
            const uint8_t* pixel = maps.bits + bit / 8;
            for (int64_t x = 0; x < c.width; x++, bit += c.channels, pixel += bytes_of_pixel) {
                if (c.channels % 8) pixel = copy_bits(maps.bits, bit, c.channels, pixel_bytes.data());
                for (int64_t channel = 0; channel < c.channels; channel += group) {
                    const int bytes = int((std::min(group, c.channels - channel) + 7) / 8);
                    const int base = int(x * shift_of(c) + channel);
                    *start++ = count;
                    count += c.table ? list_table_rows(pixel, bytes, base, &list[count])
                                     : list_bits(pixel + channel / 8, bytes, base, &list[count]);
                }
            }
            start = std::fill_n(start, c.pad_width * groups + 1, count);
        }
        const int64_t spikes = std::max(1, count);
        const int64_t wanted = (FEW * int64_t(starts.size()) + spikes - 1) / spikes;
        groups_at_once = std::min(std::max<int64_t>(1, wanted), c.kernel_width * groups);
    }
};
