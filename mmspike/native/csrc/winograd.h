// The gradient of the inputs of a 3 x 3 convolution at stride 1, by Winograd's algorithm: a tile
// of 4 x 4 pixels takes 36 products for a pair of channels, instead of 144 (Lavin and Gray, "Fast
// Algorithms for Convolutional Neural Networks", CVPR 2016, section 4). Part of kernels.h.
//
// Filter and pixels are polynomials, multiplied by their values at 0, +-NEAR, +-FAR and infinity. The
// paper's points are 1 and 2; these lose half as much to rounding, and their powers are exact.
namespace winograd {
constexpr float NEAR = 0.75f, FAR = 1.5f;
constexpr float NEAR2 = NEAR * NEAR, FAR2 = FAR * FAR, BOTH2 = NEAR2 * FAR2;
constexpr int MADE = 4, READ = 6, FILTER = 3;  // sides of squares
constexpr int POINTS = READ * READ;

static inline VF less(VF a, float factor, VF b) { return fma(VF{} - factor, b, a); }
static inline VF plus(VF a, float factor, VF b) { return fma(VF{} + factor, b, a); }

// One line of a square; sums and differences of points that differ in their sign alone.
static inline void values_of_pixels(const VF* d, VF* values) {
    const VF near = less(d[4], FAR2, d[2]), odd_near = less(d[3], FAR2, d[1]) * NEAR;
    const VF far = less(d[4], NEAR2, d[2]), odd_far = less(d[3], NEAR2, d[1]) * FAR;
    values[0] = plus(less(d[4], NEAR2 + FAR2, d[2]), BOTH2, d[0]);
    values[1] = near + odd_near;
    values[2] = near - odd_near;
    values[3] = far + odd_far;
    values[4] = far - odd_far;
    values[5] = plus(less(d[5], NEAR2 + FAR2, d[3]), BOTH2, d[1]);
}
static inline void values_of_filter(const VF* g, VF* values) {  // times the factors of the interpolation
    constexpr float AT_NEAR = 0.5f / (NEAR2 * (NEAR2 - FAR2)), AT_FAR = 0.5f / (FAR2 * (FAR2 - NEAR2));
    const VF near = plus(g[0], NEAR2, g[2]) * AT_NEAR, odd_near = g[1] * (NEAR * AT_NEAR);
    const VF far = plus(g[0], FAR2, g[2]) * AT_FAR, odd_far = g[1] * (FAR * AT_FAR);
    values[0] = g[0] * (1 / BOTH2);
    values[1] = near + odd_near;
    values[2] = near - odd_near;
    values[3] = far + odd_far;
    values[4] = far - odd_far;
    values[5] = g[2];
}
static inline void pixels_of_values(const VF* values, VF* made) {
    const VF near = values[1] + values[2], odd_near = (values[1] - values[2]) * NEAR;
    const VF far = values[3] + values[4], odd_far = (values[3] - values[4]) * FAR;
    made[0] = values[0] + near + far;
    made[1] = odd_near + odd_far;
    made[2] = plus(near * NEAR2, FAR2, far);
    made[3] = plus(plus(values[5], NEAR2, odd_near), FAR2, odd_far);
}

// Apply a map of lines to the columns of a square, then to the rows of what comes out.
template <int FROM, int TO, void (*map)(const VF*, VF*)>
static inline void along_both(const VF* in, VF* out) {
    VF half[TO][FROM], line[FROM], mapped[TO];
#pragma GCC unroll 6
    for (int x = 0; x < FROM; x++) {
#pragma GCC unroll 6
        for (int i = 0; i < FROM; i++) line[i] = in[i * FROM + x];
        map(line, mapped);
#pragma GCC unroll 6
        for (int i = 0; i < TO; i++) half[i][x] = mapped[i];
    }
#pragma GCC unroll 6
    for (int y = 0; y < TO; y++) map(half[y], out + y * TO);
}

// What is computed at once: as many tiles, out of all of them, as the caches hold, in whole ROWS. Channels
// are padded with zeros: those of the gradient to whole vectors, those that are made to whole PANELs.
constexpr int ROWS = 6, PANEL = 2 * LANES, AT_ONCE = 36;
struct Tiles {
    int64_t across, down, all, at_once;
    int64_t read, made;  // channels
    int64_t next_read, next_made;  // floats from the values at one point to those at the next

    Tiles(const Conv& c, int threads)
        : across((c.width + MADE - 1) / MADE), down((c.height + MADE - 1) / MADE),
          all(c.images * down * across), read(rounded_up(c.out_channels, LANES)),
          made(rounded_up(c.channels, PANEL)) {
        const int64_t most = AT_ONCE * threads;
        const int64_t runs = std::max<int64_t>(1, (all + most - 1) / most * threads);
        at_once = rounded_up((all + runs - 1) / runs, ROWS);
        next_read = at_once * read + 16;  // 16: or all points would share a few places in the cache
        next_made = at_once * made + 16;
    }
    int64_t image(int64_t tile) const { return tile / (down * across); }
    int64_t y(int64_t tile) const { return tile / across % down * MADE; }
    int64_t x(int64_t tile) const { return tile % across * MADE; }
};

// The filters' values [points, panels, read, PANEL], of the weights turned by half a turn.
static void filters_of(const float* weight, const int64_t* strides, float* filters, const Conv& c,
                       const Tiles& tiles, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t from = 0; from < tiles.read; from++)
        for (int64_t to = 0; to < tiles.made; to += LANES) {
            VF taps[FILTER * FILTER] = {}, values[POINTS];
            const int64_t channels = from < c.out_channels ? std::min<int64_t>(LANES, c.channels - to) : 0;
            for (int tap = 0; tap < FILTER * FILTER; tap++)
                for (int i = 0; i < channels; i++)
                    taps[tap][i] = weight[from * strides[0] + (to + i) * strides[1] +
                                          (2 - tap / FILTER) * strides[2] + (2 - tap % FILTER) * strides[3]];
            along_both<FILTER, READ, values_of_filter>(taps, values);
            float* at = filters + (to / PANEL * tiles.read + from) * PANEL + to % PANEL;
            for (int i = 0; i < POINTS; i++) store(at + i * tiles.read * tiles.made, values[i]);
        }
}

// Where the pixels of a square lie that begins at y, x; null outside the map.
template <int SIDE, typename F>
static inline void places_of(F* map, int64_t y, int64_t x, int64_t height, int64_t width, int64_t channels,
                             F** places) {
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) {
            const bool inside = y + i >= 0 && y + i < height && x + j >= 0 && x + j < width;
            places[i * SIDE + j] = inside ? map + ((y + i) * width + x + j) * channels : nullptr;
        }
}

// The values [points, tiles, read] of one tile; values begins with those of the tile.
static void read_tile(const float* grad_out, float* values, const Conv& c, const Tiles& tiles, int64_t tile) {
    const float* from[POINTS];
    places_of<READ>(grad_out + tiles.image(tile) * c.out_height * c.out_width * c.out_channels,
                    tiles.y(tile) + c.pad_height - 2, tiles.x(tile) + c.pad_width - 2, c.out_height,
                    c.out_width, c.out_channels, from);
    for (int64_t channel = 0; channel < c.out_channels; channel += LANES) {
        const int count = int(std::min<int64_t>(LANES, c.out_channels - channel));
        VF pixels[POINTS], at[POINTS];
        for (int i = 0; i < POINTS; i++) pixels[i] = from[i] ? load_some(from[i] + channel, count) : VF{};
        if (channel % 16 == 0)  // of the tile to the right, those that this one does not read
            for (int i = 0; i < POINTS; i++)
                if (i % READ >= 2 && from[i]) __builtin_prefetch(from[i] + MADE * c.out_channels + channel);
        along_both<READ, READ, values_of_pixels>(pixels, at);
        for (int i = 0; i < POINTS; i++) store(values + i * tiles.next_read + channel, at[i]);
    }
}

// products [tiles, made] = values [tiles, read] * filter [panels, read, PANEL], at one point.
static void multiply(const float* values, const float* filter, float* products, const Tiles& tiles,
                     int64_t count) {
    constexpr int DEPTH = 256;  // rows of a panel that the innermost cache holds
    for (int64_t from = 0; from < tiles.read; from += DEPTH) {
        const int64_t depth = std::min<int64_t>(DEPTH, tiles.read - from);
        for (int64_t panel = 0; panel < tiles.made; panel += PANEL)
            for (int64_t tile = 0; tile < count; tile += ROWS) {
                const float* a = values + tile * tiles.read + from;
                const float* b = filter + panel * tiles.read + from * PANEL;
                VF sums[ROWS][2] = {};
                for (int64_t k = 0; k < depth; k++, b += PANEL) {
                    const VF left = load(b), right = load(b + LANES);
#pragma GCC unroll 6
                    for (int i = 0; i < ROWS; i++) {
                        const VF x = spread(a[i * tiles.read + k]);
                        sums[i][0] = fma(x, left, sums[i][0]);
                        sums[i][1] = fma(x, right, sums[i][1]);
                    }
                }
                float* to = products + tile * tiles.made + panel;
#pragma GCC unroll 6
                for (int i = 0; i < ROWS; i++)
                    for (int j = 0; j < 2; j++) {
                        float* at = to + i * tiles.made + j * LANES;
                        store(at, from ? load(at) + sums[i][j] : sums[i][j]);
                    }
            }
    }
}

// The gradient of the pixels of one tile; products begins with those of the tile.
static void write_tile(const float* products, float* grad_input, const Conv& c, const Tiles& tiles,
                       int64_t tile) {
    float* to[MADE * MADE];
    places_of<MADE>(grad_input + tiles.image(tile) * c.height * c.width * c.channels, tiles.y(tile),
                    tiles.x(tile), c.height, c.width, c.channels, to);
    for (int64_t channel = 0; channel < c.channels; channel += LANES) {
        const int count = int(std::min<int64_t>(LANES, c.channels - channel));
        VF at[POINTS], pixels[MADE * MADE];
        for (int i = 0; i < POINTS; i++) at[i] = load(products + i * tiles.next_made + channel);
        along_both<READ, MADE, pixels_of_values>(at, pixels);
        for (int i = 0; i < MADE * MADE; i++)
            if (to[i]) store_some(to[i] + channel, pixels[i], count);
    }
}

static void conv_grad_input(const float* grad_out, const float* weight, const int64_t* strides,
                            float* grad_input, const Conv& c, int threads) {
    const Tiles tiles(c, threads);
    Floats filters;
    filters.make_room(POINTS * tiles.read * tiles.made);
    filters_of(weight, strides, filters.data, c, tiles, threads);
#pragma omp parallel num_threads(threads)
    {
        Floats values, products;
        values.zero(POINTS * tiles.next_read);
        products.zero(POINTS * tiles.next_made);
#pragma omp for schedule(dynamic)
        for (int64_t start = 0; start < tiles.all; start += tiles.at_once) {
            const int64_t count = std::min(tiles.at_once, tiles.all - start);
            for (int64_t i = 0; i < count; i++)
                read_tile(grad_out, values.data + i * tiles.read, c, tiles, start + i);
            for (int64_t i = 0; i < POINTS; i++)
                multiply(values.data + i * tiles.next_read, filters.data + i * tiles.read * tiles.made,
                         products.data + i * tiles.next_made, tiles, count);
            for (int64_t i = 0; i < count; i++)
                write_tile(products.data + i * tiles.made, grad_input, c, tiles, start + i);
        }
    }
}

}  // namespace winograd
using winograd::conv_grad_input;
