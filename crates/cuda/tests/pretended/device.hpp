// What the kernels use of CUDA, for a CPU: one thread of the machine is in turn each thread of a block, and changes at barriers. A barrier
// that not all of its threads reach ends the program, as it would hang or break a GPU.
#pragma once

#include <cmath>
#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <ucontext.h>
#include <vector>

#define __device__
#define __global__
#define __shared__ static

namespace pretended {

struct Dim {
    unsigned x = 1, y = 1, z = 1;
};

enum class State { Ready, AtBlock, AtWarp, Done };

// In which order the threads of a block and the blocks of a grid take their turns: a kernel that needs none gives the same in each.
enum class Order { Forward, Backward, Mixed };

struct Lane {
    State state = State::Done;
    bool begun = false;
    jmp_buf at;
    ucontext_t first;
    std::unique_ptr<char[]> stack;
};

constexpr std::size_t STACK = 64 << 10;
constexpr unsigned WARP_WIDTH = 32;

struct Block {
    std::vector<Lane> lanes;
    unsigned running = 0;
    jmp_buf scheduler;
    ucontext_t home;
    const std::function<void()> *body = nullptr;
    std::uint64_t exchanged[1024] = {};
    bool trapped = false;
};

inline Block block;
inline Dim block_index, block_size, grid_size;

inline void fail(const char *what) {
    std::fprintf(stderr, "pretended device: %s\n", what);
    std::abort();
}

inline void stop(State state) {
    Lane &lane = block.lanes[block.running];
    lane.state = state;
    if (_setjmp(lane.at) == 0) {
        _longjmp(block.scheduler, 1);
    }
}

// The life of a lane: body after body, so that its stack is made once.
inline void live() {
    for (;;) {
        (*block.body)();
        stop(State::Done);
    }
}

inline void go_on(unsigned i) {
    block.running = i;
    Lane &lane = block.lanes[i];
    if (_setjmp(block.scheduler) != 0) {
        return;
    }
    if (lane.begun) {
        _longjmp(lane.at, 1);
    }
    lane.begun = true;
    lane.stack.reset(new char[STACK]);
    getcontext(&lane.first);
    lane.first.uc_stack.ss_sp = lane.stack.get();
    lane.first.uc_stack.ss_size = STACK;
    lane.first.uc_link = nullptr;
    makecontext(&lane.first, live, 0);
    setcontext(&lane.first);
}

inline std::uint32_t mixed(std::uint32_t x) {
    x = (x ^ (x >> 16)) * 0x7FEB352Du;
    x = (x ^ (x >> 15)) * 0x846CA68Bu;
    return x ^ (x >> 16);
}

// The place that has the turn `i` of `count`.
inline unsigned turn_of(Order order, unsigned i, unsigned count, unsigned round) {
    switch (order) {
    case Order::Forward: return i;
    case Order::Backward: return count - 1 - i;
    case Order::Mixed: {
        // Another step that visits each place once, and another beginning, every round.
        unsigned step = mixed(round + 1) % count | 1;
        auto divisor = [](unsigned a, unsigned b) {
            while (b != 0) {
                unsigned rest = a % b;
                a = b;
                b = rest;
            }
            return a;
        };
        while (divisor(step, count) != 1) {
            step += 2;
        }
        return (unsigned)(((std::uint64_t)i * step + mixed(round + 77)) % count);
    }
    }
    return i;
}

inline void run_block(const std::function<void()> &body, Order order, unsigned &round) {
    const unsigned count = block_size.x;
    if (block.lanes.size() < count) {
        block.lanes.resize(1024);
    }
    block.body = &body;
    for (unsigned i = 0; i < count; i++) {
        block.lanes[i].state = State::Ready;
    }
    const unsigned warps = (count + WARP_WIDTH - 1) / WARP_WIDTH;
    for (;;) {
        round++;
        bool any = false;
        // A warp goes as far as it can before the next: nothing but a barrier of the block holds it.
        for (unsigned w = 0; w < warps; w++) {
            const unsigned first = turn_of(order, w, warps, round) * WARP_WIDTH;
            const unsigned width = count - first < WARP_WIDTH ? count - first : WARP_WIDTH;
            for (bool released = true; released;) {
                unsigned at_warp = 0;
                for (unsigned i = 0; i < width && !block.trapped; i++) {
                    const unsigned lane = first + turn_of(order, i, width, round);
                    if (block.lanes[lane].state == State::Ready) {
                        any = true;
                        go_on(lane);
                    }
                }
                for (unsigned i = first; i < first + width; i++) {
                    at_warp += block.lanes[i].state == State::AtWarp;
                }
                released = at_warp == WARP_WIDTH && !block.trapped;
                for (unsigned i = first; i < first + width && released; i++) {
                    block.lanes[i].state = State::Ready;
                }
            }
        }
        if (block.trapped) {
            // Lanes in the middle of a body begin anew with the next.
            for (Lane &lane : block.lanes) {
                lane.begun = false;
            }
            return;
        }
        unsigned done = 0, at_block = 0;
        for (unsigned i = 0; i < count; i++) {
            at_block += block.lanes[i].state == State::AtBlock;
            done += block.lanes[i].state == State::Done;
        }
        if (done == count) {
            return;
        }
        if (at_block == count) {
            for (unsigned i = 0; i < count; i++) {
                block.lanes[i].state = State::Ready;
            }
        } else if (!any) {
            fail("threads wait for others that do not come");
        }
    }
}

inline void run_grid(Dim grid, Dim size, Order order, const std::function<void()> &body) {
    static unsigned round = 0;
    const unsigned first = round;
    grid_size = grid;
    block_size = size;
    for (unsigned y = 0; y < grid.y; y++) {
        for (unsigned x = 0; x < grid.x; x++) {
            block_index = Dim{turn_of(order, x, grid.x, first), turn_of(order, y, grid.y, first), 0};
            run_block(body, order, round);
        }
    }
}

struct ThreadIndex {
    struct {
        operator unsigned() const { return block.running; }
    } x;
};
inline ThreadIndex thread_index;

// One after the other: the same value of `peer` again only after all have read.
template <typename T> T exchanged(T value, unsigned peer) {
    static_assert(sizeof(T) <= 8, "values of up to 64 bits are exchanged");
    const unsigned own = block.running;
    std::memcpy(&block.exchanged[own], &value, sizeof(T));
    stop(State::AtWarp);
    std::memcpy(&value, &block.exchanged[peer], sizeof(T));
    stop(State::AtWarp);
    return value;
}

} // namespace pretended

#define threadIdx pretended::thread_index
#define blockIdx pretended::block_index
#define blockDim pretended::block_size
#define gridDim pretended::grid_size

inline void __syncthreads() { pretended::stop(pretended::State::AtBlock); }

template <typename T> T __shfl_xor_sync(unsigned mask, T value, unsigned step) {
    if (mask != 0xFFFFFFFFu) {
        pretended::fail("a shuffle of a part of a warp");
    }
    return pretended::exchanged(value, pretended::block.running ^ step);
}

inline void __trap() {
    pretended::block.trapped = true;
    pretended::stop(pretended::State::Done);
}

// Four products of signed bytes (PTX ISA, dp4a.s32.s32).
inline int __dp4a(int a, int b, int c) {
    for (int i = 0; i < 4; i++) {
        c += (int)(std::int8_t)(a >> (8 * i)) * (int)(std::int8_t)(b >> (8 * i));
    }
    return c;
}

inline int __float_as_int(float x) {
    int bits;
    std::memcpy(&bits, &x, 4);
    return bits;
}

inline float __int_as_float(int bits) {
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }

// Halves by their definition (IEEE 754 binary16), rounded to the nearest, halves to even.
inline float half_to_float(unsigned half) {
    const int exponent = (half >> 10) & 31, fraction = half & 1023;
    float x;
    if (exponent == 31) {
        x = fraction == 0 ? INFINITY : NAN;
    } else if (exponent == 0) {
        x = std::ldexp((float)fraction, -24);
    } else {
        x = std::ldexp((float)(fraction + 1024), exponent - 25);
    }
    return half & 0x8000 ? -x : x;
}

inline unsigned short float_to_half(float x) {
    const unsigned short sign = std::signbit(x) ? 0x8000 : 0;
    const float size = std::fabs(x);
    if (size != size) {
        return 0x7FFF;
    }
    // Halfway from the largest half to the next power of two: what is as large or larger is infinite.
    if (size >= 65520.0f) {
        return sign | 0x7C00;
    }
    int exponent;
    std::frexp(size, &exponent);
    // The last place of halves of this size; below 2^-14 they are 2^-24 apart.
    const int last = (exponent < -13 ? -13 : exponent) - 11;
    const int places = (int)std::nearbyint(std::ldexp(size, -last));
    // A carry into the exponent is the next half.
    return sign | (unsigned short)(exponent < -13 ? places : ((last + 25) << 10) + places - 1024);
}
