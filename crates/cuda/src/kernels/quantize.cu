// Tokens in 8 bits, as they are or after an RMS norm: a block per token. a = 127 / max(|x|, 1e-5), q = round(a x) with halves to even; then 1/a
// and the sum of q.

struct Quantize {
    const Batch *batch;
    const float *x;
    // Of the norm.
    const float *weights;
    // Four to a word.
    unsigned *values;
    Mark *marks;
    // Values of a token, and words that they are filled up to.
    unsigned columns;
    unsigned words;
    float eps;
    unsigned unused;
};

template <bool NORM> __device__ float value(const Quantize &to, const float *x, unsigned column, float rms) {
    return NORM ? to.weights[column] * (x[column] * rms) : x[column];
}

// What is no number becomes 0.
__device__ int rounded(float x) { return x == x ? (int)rintf(fminf(fmaxf(x, -128.0f), 127.0f)) : 0; }

template <bool NORM> __device__ void quantized(const Quantize &to) {
    const size_t token = blockIdx.x;
    const float *x = to.x + token * to.columns;
    float rms = 1.0f;
    if (NORM) {
        float squares = 0.0f;
        for (unsigned i = threadIdx.x; i < to.columns; i += blockDim.x) {
            squares += x[i] * x[i];
        }
        rms = 1.0f / sqrtf(of_block<Sum>(squares) / (float)to.columns + to.eps);
    }
    float most = 0.0f;
    for (unsigned i = threadIdx.x; i < to.columns; i += blockDim.x) {
        most = fmaxf(most, fabsf(value<NORM>(to, x, i, rms)));
    }
    const float factor = 127.0f / fmaxf(of_block<Most>(most), 1e-5f);
    int sum = 0;
    for (unsigned word = threadIdx.x; word < to.words; word += blockDim.x) {
        unsigned packed = 0;
        for (unsigned i = 0; i < 4; i++) {
            const unsigned column = 4 * word + i;
            if (column < to.columns) {
                const int q = rounded(value<NORM>(to, x, column, rms) * factor);
                sum += q;
                packed |= ((unsigned)q & 0xFFu) << (8 * i);
            }
        }
        to.values[token * to.words + word] = packed;
    }
    sum = of_block<Sum>(sum);
    if (threadIdx.x == 0) {
        to.marks[token] = Mark{1.0f / factor, sum};
    }
}

extern "C" __global__ void quantize(Quantize to) { quantized<false>(to); }

extern "C" __global__ void quantize_norm(Quantize to) { quantized<true>(to); }
