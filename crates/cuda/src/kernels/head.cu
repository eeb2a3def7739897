// The output head: the last token of a pass after the output norm, and its products with rows in whole chunks of 16 bytes.

struct Last {
    const Batch *batch;
    const float *x;
    // Of the norm.
    const float *weights;
    float *token;
    // Values of a token, and what they are filled up to with zeros.
    unsigned columns;
    unsigned filled;
    float eps;
    unsigned unused;
};

extern "C" __global__ void last(Last of) {
    const float *x = of.x + (size_t)(of.batch->tokens - 1) * of.columns;
    float squares = 0.0f;
    for (unsigned i = threadIdx.x; i < of.columns; i += blockDim.x) {
        squares += x[i] * x[i];
    }
    const float rms = 1.0f / sqrtf(of_block<Sum>(squares) / (float)of.columns + of.eps);
    for (unsigned i = threadIdx.x; i < of.filled; i += blockDim.x) {
        of.token[i] = i < of.columns ? of.weights[i] * (x[i] * rms) : 0.0f;
    }
}

// What a thread reads of a row at once.
struct alignas(16) Chunk {
    unsigned words[4];
};

struct Logits {
    const Chunk *weights;
    const float *token;
    float *out;
    unsigned rows;
    // Chunks of a row, and how many of them are weights: the others are scales.
    unsigned chunks;
    unsigned used;
    unsigned unused;
};

// Each kind of weights: how many values a chunk has, and the sum of their products with as many of the token.
struct F32 {
    static constexpr unsigned VALUES = 4;
    static __device__ float product(const Logits &, const Chunk *row, unsigned chunk, const float *x) {
        const Chunk w = row[chunk];
        float sum = 0.0f;
        for (unsigned i = 0; i < 4; i++) {
            sum += __int_as_float((int)w.words[i]) * x[i];
        }
        return sum;
    }
};

// Two weights of 16 bits in a word, the first in its lower half.
struct Half {
    static __device__ float first(unsigned word) { return half_to_float(word & 0xFFFFu); }
    static __device__ float second(unsigned word) { return half_to_float(word >> 16); }
};

// The upper halves of floats.
struct Bfloat {
    static __device__ float first(unsigned word) { return __int_as_float((int)(word << 16)); }
    static __device__ float second(unsigned word) { return __int_as_float((int)(word & 0xFFFF0000u)); }
};

template <typename Two> struct Sixteen {
    static constexpr unsigned VALUES = 8;
    static __device__ float product(const Logits &, const Chunk *row, unsigned chunk, const float *x) {
        const Chunk w = row[chunk];
        float sum = 0.0f;
        for (unsigned i = 0; i < 4; i++) {
            sum += Two::first(w.words[i]) * x[2 * i];
            sum += Two::second(w.words[i]) * x[2 * i + 1];
        }
        return sum;
    }
};

// Blocks of 32 integers: two chunks have one scale, 16 bits behind all integers of the row.
struct Q8 {
    static constexpr unsigned VALUES = 16;
    static __device__ float product(const Logits &of, const Chunk *row, unsigned chunk, const float *x) {
        const Chunk w = row[chunk];
        float sum = 0.0f;
        for (unsigned i = 0; i < 16; i++) {
            sum += (float)(signed char)(w.words[i / 4] >> (8 * (i % 4)) & 0xFFu) * x[i];
        }
        const unsigned block = chunk / 2;
        const unsigned two = ((const unsigned *)(row + of.used))[block / 2];
        return half_to_float(block % 2 == 0 ? two & 0xFFFFu : two >> 16) * sum;
    }
};

// A warp computes a row, its threads share the chunks.
template <typename Kind> __device__ void logits(const Logits &of) {
    const unsigned row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    if (row >= of.rows) {
        return;
    }
    const Chunk *weights = of.weights + (size_t)row * of.chunks;
    float sum = 0.0f;
    for (unsigned chunk = threadIdx.x % WARP; chunk < of.used; chunk += WARP) {
        sum += Kind::product(of, weights, chunk, of.token + chunk * Kind::VALUES);
    }
    sum = of_warp<Sum>(sum);
    if (threadIdx.x % WARP == 0) {
        of.out[row] = sum;
    }
}

extern "C" __global__ void logits_f32(Logits of) { logits<F32>(of); }

extern "C" __global__ void logits_f16(Logits of) { logits<Sixteen<Half>>(of); }

extern "C" __global__ void logits_bf16(Logits of) { logits<Sixteen<Bfloat>>(of); }

extern "C" __global__ void logits_q8_0(Logits of) { logits<Q8>(of); }
