// Weights of two bits times tokens in 8: 8 words are a block of 128 weights; word j of it holds the weights 32g + 4j + 0..3 at the bits 6 - 2g
// of its bytes, each as a code, which is the weight plus one.

struct Product {
    const Batch *batch;
    const unsigned *values;
    const Mark *marks;
    const unsigned *codes;
    float *out;
    // Rows, and words of codes of each.
    unsigned rows;
    unsigned words;
    // The weights' scale.
    float scale;
    // Whether sums are added to what is there.
    unsigned adds;
};

// What the ones of codes add is the sum of the token's values.
__device__ void put(const Product &of, size_t token, unsigned row, int sum) {
    const Mark mark = of.marks[token];
    const float y = (float)(sum - mark.sum) * (mark.scale * of.scale);
    float *at = of.out + token * of.rows + row;
    *at = of.adds ? *at + y : y;
}

// 16 codes times the values of the four groups that they belong to.
__device__ int dot(unsigned code, int v0, int v1, int v2, int v3, int sum) {
    sum = __dp4a((int)((code >> 6) & 0x03030303u), v0, sum);
    sum = __dp4a((int)((code >> 4) & 0x03030303u), v1, sum);
    sum = __dp4a((int)((code >> 2) & 0x03030303u), v2, sum);
    return __dp4a((int)(code & 0x03030303u), v3, sum);
}

// Rows that a warp computes of one token.
constexpr unsigned ROWS = 2;

// One token: a warp computes ROWS rows, its threads share the columns.
extern "C" __global__ void one(Product of) {
    const unsigned lane = threadIdx.x % WARP;
    const unsigned row = (blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP) * ROWS;
    if (row >= of.rows) {
        return;
    }
    const unsigned *codes[ROWS];
    int sums[ROWS];
    for (unsigned r = 0; r < ROWS; r++) {
        codes[r] = of.codes + (size_t)min(row + r, of.rows - 1) * of.words;
        sums[r] = 0;
    }
    for (unsigned word = lane; word < of.words; word += WARP) {
        const unsigned *values = of.values + (word / 8) * 32 + word % 8;
        const int v0 = (int)values[0], v1 = (int)values[8], v2 = (int)values[16], v3 = (int)values[24];
        for (unsigned r = 0; r < ROWS; r++) {
            sums[r] = dot(codes[r][word], v0, v1, v2, v3, sums[r]);
        }
    }
    for (unsigned r = 0; r < ROWS; r++) {
        const int sum = of_warp<Sum>(sums[r]);
        if (lane == 0 && row + r < of.rows) {
            put(of, 0, row + r, sum);
        }
    }
}

// Rows and tokens of a tile; each of 16 x 8 threads computes 4 x 4 of it.
constexpr unsigned TILE_ROWS = 64;
constexpr unsigned TILE_TOKENS = 32;
constexpr unsigned SIDE_ROWS = 16;
constexpr unsigned SIDE_TOKENS = 8;
constexpr unsigned EACH = 4;
// Words of a block: codes of a row, values of a token. One word more than they are, so that columns of threads read different banks.
constexpr unsigned CODES = 9;
constexpr unsigned VALUES = 33;

// Many tokens: a block computes a tile of rows and tokens, 128 columns after another.
extern "C" __global__ void many(Product of) {
    __shared__ unsigned tile_codes[TILE_ROWS * CODES];
    __shared__ unsigned tile_values[TILE_TOKENS * VALUES];
    const unsigned tokens = of.batch->tokens;
    const unsigned row = blockIdx.x * TILE_ROWS, token = blockIdx.y * TILE_TOKENS;
    const unsigned x = threadIdx.x % SIDE_ROWS, y = threadIdx.x / SIDE_ROWS;
    int sums[EACH][EACH] = {};
    for (unsigned block = 0; block < of.words / 8; block++) {
        for (unsigned i = threadIdx.x; i < TILE_ROWS * 8; i += blockDim.x) {
            const size_t r = min(row + i / 8, of.rows - 1);
            tile_codes[i / 8 * CODES + i % 8] = of.codes[r * of.words + block * 8 + i % 8];
        }
        for (unsigned i = threadIdx.x; i < TILE_TOKENS * 32; i += blockDim.x) {
            const size_t t = min(token + i / 32, tokens - 1);
            tile_values[i / 32 * VALUES + i % 32] = of.values[t * of.words * 4 + block * 32 + i % 32];
        }
        __syncthreads();
        for (unsigned j = 0; j < 8; j++) {
            unsigned codes[EACH];
            for (unsigned r = 0; r < EACH; r++) {
                codes[r] = tile_codes[(x + r * SIDE_ROWS) * CODES + j];
            }
            for (unsigned t = 0; t < EACH; t++) {
                const unsigned *values = tile_values + (y + t * SIDE_TOKENS) * VALUES + j;
                const int v0 = (int)values[0], v1 = (int)values[8], v2 = (int)values[16], v3 = (int)values[24];
                for (unsigned r = 0; r < EACH; r++) {
                    sums[t][r] = dot(codes[r], v0, v1, v2, v3, sums[t][r]);
                }
            }
        }
        __syncthreads();
    }
    for (unsigned t = 0; t < EACH; t++) {
        for (unsigned r = 0; r < EACH; r++) {
            const unsigned to_token = token + y + t * SIDE_TOKENS, to_row = row + x + r * SIDE_ROWS;
            if (to_token < tokens && to_row < of.rows) {
                put(of, to_token, to_row, sums[t][r]);
            }
        }
    }
}
