// Spikes as bits, and lists of where they are. Part of kernels.h.

// Maps of spikes, a bit each: those of all images of a step lie side by side, channels last, the first in
// the lowest bit of the first byte; every step begins with a byte.
struct Maps {
    const uint8_t* bits;
    int64_t images, size, step;  // images of a step; bits of an image, and from a step to the next

    Maps(const uint8_t* bits, int64_t all_images, int64_t size, int64_t steps)
        : bits(bits), images(all_images / steps), size(size), step(rounded_up(images * size, 8)) {}
    Maps(const uint8_t* bits, const Conv& c, int64_t steps)
        : Maps(bits, c.images, c.height * c.width * c.channels, steps) {}
    int64_t begin(int64_t image) const { return image / images * step + image % images * size; }
};

// A float 0 or 1 for each of n elements.
static void unpack(const uint8_t* bits, float* spikes, int64_t n, int64_t steps, int threads) {
    constexpr int64_t TASK = 4096;
    const int64_t of_step = n / steps, bytes = (of_step + 7) / 8, tasks = (of_step + TASK - 1) / TASK;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t task = 0; task < steps * tasks; task++) {
        const int64_t step = task / tasks, start = task % tasks * TASK;
        for (int64_t i = start; i < std::min(start + TASK, of_step); i++)
            spikes[step * of_step + i] = float((bits[step * bytes + i / 8] >> (i % 8)) & 1);
    }
}

// Up to 16 bits from the one numbered from; whole bytes of them.
static inline int few_bytes(const uint8_t* bits, int64_t from, int count) {
    bits += from >> 3;
    return count > 8 ? bits[0] | bits[1] << 8 : bits[0];
}
// The same, wherever they begin and end.
static inline int few_bits(const uint8_t* bits, int64_t from, int count) {
    bits += from / 8;
    const int shift = int(from % 8), end = shift + count;
    int set = bits[0];
    if (end > 8) set |= bits[1] << 8;
    if (end > 16) set |= bits[2] << 16;
    return set >> shift & ((1 << count) - 1);
}

// The bits from the one numbered from, copied to room so that they begin with a byte and end in zeros.
__attribute__((noinline)) static const uint8_t* copy_bits(const uint8_t* bits, int64_t from, int64_t count,
                                                          uint8_t* room) {
    bits += from / 8;
    const int shift = int(from % 8), rest = int(count % 8);
    const int64_t bytes = (count + 7) / 8, last = (shift + count - 1) / 8;  // the last that is read
    for (int64_t i = 0; i < std::min(bytes, last); i++)
        room[i] = uint8_t(bits[i] >> shift | bits[i + 1] << (8 - shift));
    if (last < bytes) room[last] = uint8_t(bits[last] >> shift);
    if (rest) room[bytes - 1] &= uint8_t((1 << rest) - 1);
    return room;
}

// Write the places of the bits that are set, plus base; up to 7 more numbers after them are overwritten.
static inline int list_bits(const uint8_t* bits, int bytes, int base, int* list) {
    int n = 0;
    for (int i = 0; i < bytes; i++) {
        const int byte = bits[i];
        const Int8 places = __builtin_convertvector(*(const Short8*)places_of_bits.places[byte], Int8);
        *(Int8*)(list + n) = places + (base + 8 * i);
        n += __builtin_popcount(byte);
    }
    return n;
}

// The same for a lookup table over four channels: the number of its row for every four neighbouring
// bits, where any of them is set.
static inline int list_table_rows(const uint8_t* bits, int bytes, int base, int* list) {
    int n = 0;
    for (int i = 0; i < bytes; i++) {
        const int low = bits[i] & 15, high = bits[i] >> 4;
        list[n] = base + 32 * i + low;
        n += low != 0;
        list[n] = base + 32 * i + 16 + high;
        n += high != 0;
    }
    return n;
}
