// What all kernels share. Sums and products of floats are rounded one after the other (--fmad=false), so that a kernel has one result, whatever
// runs it. Beside CUDA these files are compiled for the CPU (tests/pretended), which is why they use so little of it.

// The tokens of a pass.
struct Batch {
    unsigned tokens;
    // Position of the first token.
    unsigned start;
    unsigned unused[2];
};

// What stands beside the 8 bits of a token: what an integer stands for, and the sum of them.
struct Mark {
    float scale;
    int sum;
};

// Threads of a warp, which compute in step.
constexpr unsigned WARP = 32;
constexpr unsigned ALL = 0xFFFFFFFFu;

struct Sum {
    template <typename T> static __device__ T of(T a, T b) { return a + b; }
};

struct Most {
    static __device__ float of(float a, float b) { return fmaxf(a, b); }
};

// What the values of a warp come to together, for each of its threads: pairs are joined in one order.
template <typename Join, typename T> __device__ T of_warp(T x) {
    for (unsigned step = WARP / 2; step > 0; step /= 2) {
        x = Join::of(x, __shfl_xor_sync(ALL, x, step));
    }
    return x;
}

// What the values of a block come to together, for each of its threads. Blocks are whole warps.
template <typename Join, typename T> __device__ T of_block(T x) {
    __shared__ T parts[WARP];
    x = of_warp<Join>(x);
    if (threadIdx.x % WARP == 0) {
        parts[threadIdx.x / WARP] = x;
    }
    __syncthreads();
    T all = parts[0];
    for (unsigned i = 1; i < blockDim.x / WARP; i++) {
        all = Join::of(all, parts[i]);
    }
    // Nobody writes the next parts before all have read these.
    __syncthreads();
    return all;
}

// e^x within 3 parts in 10^7 for x from -87 to 88, in the steps of the CPU's kernels: 0 below that, e^88 above. No number stays none.
__device__ float exponential(float x) {
    // Adding and taking away 1.5 * 2^23 rounds to a whole number; in between, the lowest bits are that number.
    const float ROUND = 12582912.0f;
    float within = x > 88.0f ? 88.0f : x;
    within = within < -87.0f ? -87.0f : within;
    const float shifted = within * 1.44269504f + ROUND;
    const float n = shifted - ROUND;
    // ln 2 in two parts, of which the first times any n here is exact.
    const float r = (within - n * 0.693359375f) - n * -2.12194440e-4f;
    float sum = 1.0f / 5040.0f;
    sum = sum * r + 1.0f / 720.0f;
    sum = sum * r + 1.0f / 120.0f;
    sum = sum * r + 1.0f / 24.0f;
    sum = sum * r + 1.0f / 6.0f;
    sum = sum * r + 0.5f;
    sum = sum * r + 1.0f;
    sum = sum * r + 1.0f;
    return x < -87.0f ? 0.0f : sum * __int_as_float((int)(((unsigned)__float_as_int(shifted) + 127u) << 23));
}
