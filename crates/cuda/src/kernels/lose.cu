// Ends the context, as a driver that is reset would: for tests of what comes after.

struct Lose {
    unsigned long long unused;
};

extern "C" __global__ void lose(Lose) { __trap(); }
