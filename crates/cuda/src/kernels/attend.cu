// Softmax attention over the cache without a table of scores: a block per query head and token. Keys are taken some at a time, each by a warp,
// and what was summed before is scaled down when a larger score turns up (Milakov and Gimelshein, arXiv 1805.02867).

struct Attend {
    const Batch *batch;
    const float *queries;
    const void *keys;
    const void *values;
    float *mixed;
    // Query heads, key heads, width of a head (even, 256 at most).
    unsigned heads;
    unsigned key_heads;
    unsigned head;
    unsigned unused;
};

// Keys that are taken at a time, and pairs of elements of a head: a thread each.
constexpr unsigned KEYS = 128;
// Below any score.
constexpr float LOWEST = -3.4e38f;

template <typename Type> __device__ void attend(const Attend &of) {
    __shared__ Pair query[KEYS];
    __shared__ float scores[KEYS];
    const unsigned half = of.head / 2, lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const size_t first = ((size_t)blockIdx.y * of.heads + blockIdx.x) * of.head;
    const unsigned key_head = blockIdx.x / (of.heads / of.key_heads);
    const typename Type::Kept *keys = (const typename Type::Kept *)of.keys, *values = (const typename Type::Kept *)of.values;
    const float scale = 1.0f / sqrtf((float)of.head);
    if (threadIdx.x < half) {
        query[threadIdx.x] = Pair{of.queries[first + 2 * threadIdx.x], of.queries[first + 2 * threadIdx.x + 1]};
    }
    __syncthreads();
    // All up to the token's own.
    const unsigned seen = of.batch->start + blockIdx.y + 1;
    float largest = LOWEST, sum = 0.0f;
    Pair out = {0.0f, 0.0f};
    for (unsigned begin = 0; begin < seen; begin += KEYS) {
        const unsigned count = min(KEYS, seen - begin);
        for (unsigned key = warp; key < count; key += KEYS / WARP) {
            const typename Type::Kept *kept = keys + kept_at(begin + key, of.key_heads, key_head, of.head);
            float products = 0.0f;
            for (unsigned i = lane; i < half; i += WARP) {
                const Pair pair = Type::held(kept[i]);
                products += query[i].x * pair.x + query[i].y * pair.y;
            }
            products = of_warp<Sum>(products);
            if (lane == 0) {
                scores[key] = scale * products;
            }
        }
        __syncthreads();
        const float score = threadIdx.x < count ? scores[threadIdx.x] : LOWEST;
        const float before = largest;
        largest = fmaxf(before, of_block<Most>(score));
        const float share = threadIdx.x < count ? exponential(score - largest) : 0.0f;
        const float shrink = exponential(before - largest);
        scores[threadIdx.x] = share;
        // Its barriers are those between the shares and who reads them.
        sum = sum * shrink + of_block<Sum>(share);
        if (threadIdx.x < half) {
            out.x *= shrink;
            out.y *= shrink;
            for (unsigned key = 0; key < count; key++) {
                const Pair pair = Type::held(values[kept_at(begin + key, of.key_heads, key_head, of.head) + threadIdx.x]);
                out.x += scores[key] * pair.x;
                out.y += scores[key] * pair.y;
            }
        }
        // Nobody writes the next scores before all have read these.
        __syncthreads();
    }
    if (threadIdx.x < half) {
        of.mixed[first + 2 * threadIdx.x] = out.x / sum;
        of.mixed[first + 2 * threadIdx.x + 1] = out.y / sum;
    }
}

extern "C" __global__ void attend_f32(Attend of) { attend<Floats>(of); }

extern "C" __global__ void attend_f16(Attend of) { attend<Halves>(of); }
