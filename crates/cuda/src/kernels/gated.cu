// gate = activation(gate) * up: ReLU^2, or SiLU in models of 2024. A thread per column, tokens in the second direction.

struct Gated {
    float *gate;
    const float *up;
    // Width of both.
    unsigned width;
    unsigned silu;
};

extern "C" __global__ void gated(Gated of) {
    const unsigned column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column < of.width) {
        const size_t at = (size_t)blockIdx.y * of.width + column;
        const float x = of.gate[at], relu = fmaxf(x, 0.0f);
        of.gate[at] = (of.silu ? x / (1.0f + exponential(-x)) : relu * relu) * of.up[at];
    }
}
