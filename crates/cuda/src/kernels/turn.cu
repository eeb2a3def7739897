// Rotary positions in halves, of queries in place and of keys on their way into the cache, where values go as they are: a block per head and
// token, query heads first.

struct Turn {
    const Batch *batch;
    float *queries;
    const float *keys;
    const float *values;
    void *kept_keys;
    void *kept_values;
    // Per position: cosines, then sines, of half a head each.
    const float *angles;
    // Query heads, key heads, width of a head (even).
    unsigned heads;
    unsigned key_heads;
    unsigned head;
    unsigned unused;
};

// Element `i` of a head, turned.
__device__ float turned(const float *x, const float *angles, unsigned half, unsigned i) {
    const unsigned j = i % half;
    const float a = x[j], b = x[half + j], cosine = angles[j], sine = angles[half + j];
    return i < half ? a * cosine - b * sine : b * cosine + a * sine;
}

template <typename Type> __device__ void turn_head(const Turn &of) {
    const unsigned half = of.head / 2, position = of.batch->start + blockIdx.y;
    const float *angles = of.angles + (size_t)position * of.head;
    if (blockIdx.x < of.heads) {
        float *x = of.queries + ((size_t)blockIdx.y * of.heads + blockIdx.x) * of.head;
        for (unsigned j = threadIdx.x; j < half; j += blockDim.x) {
            const float a = turned(x, angles, half, j), b = turned(x, angles, half, half + j);
            x[j] = a;
            x[half + j] = b;
        }
        return;
    }
    const unsigned key_head = blockIdx.x - of.heads;
    const size_t first = ((size_t)blockIdx.y * of.key_heads + key_head) * of.head;
    const float *keys = of.keys + first, *values = of.values + first;
    const size_t at = kept_at(position, of.key_heads, key_head, of.head);
    typename Type::Kept *kept_keys = (typename Type::Kept *)of.kept_keys + at, *kept_values = (typename Type::Kept *)of.kept_values + at;
    for (unsigned i = threadIdx.x; i < half; i += blockDim.x) {
        kept_keys[i] = Type::kept(turned(keys, angles, half, 2 * i), turned(keys, angles, half, 2 * i + 1));
        kept_values[i] = Type::kept(values[2 * i], values[2 * i + 1]);
    }
}

extern "C" __global__ void turn_f32(Turn of) { turn_head<Floats>(of); }

extern "C" __global__ void turn_f16(Turn of) { turn_head<Halves>(of); }
