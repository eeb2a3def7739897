// How keys and values are kept: two elements at a time, in 32 bits each or in 16.

struct Pair {
    float x;
    float y;
};

struct Floats {
    typedef Pair Kept;
    static __device__ Kept kept(float x, float y) { return Pair{x, y}; }
    static __device__ Pair held(Kept kept) { return kept; }
};

struct Halves {
    typedef unsigned Kept;
    static __device__ Kept kept(float x, float y) { return float_to_half(x) | (unsigned)float_to_half(y) << 16; }
    static __device__ Pair held(Kept kept) { return Pair{half_to_float(kept & 0xFFFFu), half_to_float(kept >> 16)}; }
};

// Where a head of a position begins, in pairs: position by position, key head by key head.
__device__ size_t kept_at(unsigned position, unsigned key_heads, unsigned key_head, unsigned head) {
    return ((size_t)position * key_heads + key_head) * (head / 2);
}
