// Floats in 16 bits, rounded to the nearest, halves to even: the instructions, for NVRTC has no headers beside it.

__device__ unsigned short float_to_half(float x) {
    unsigned short half;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(x));
    return half;
}

__device__ float half_to_float(unsigned half) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"((unsigned short)half));
    return x;
}
