// Spikes as bits, and lists of where they are. Part of kernels.h.

static void unpack(const uint8_t* bits, float* spikes, int64_t n, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t start = 0; start < n; start += 4096)
        for (int64_t i = start; i < std::min(start + 4096, n); i++)
            spikes[i] = float((bits[i / 8] >> (i % 8)) & 1);
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
