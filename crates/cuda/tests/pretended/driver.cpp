// A CUDA driver and an NVRTC without a GPU: the functions that this crate calls, over memory of the host, and the crate's own kernels compiled
// for the CPU. What it cannot show is that a GPU does the same; that their source is CUDA is shown by the real NVRTC (tests/compile.rs).
//
// PRETENDED_MEMORY: bytes of the device; PRETENDED_TAKEN: bytes of it that another program takes unseen. PRETENDED_ORDER: forward, backward or mixed. PRETENDED_CAPABILITY: such as 86.
// PRETENDED_FAILS_AFTER: launches after which the device is lost.

#include "device.hpp"

#include "../../src/kernels/shared.cu"
#include "../../src/kernels/quantize.cu"
#include "../../src/kernels/product.cu"
#include "../../src/kernels/kept.cu"
#include "../../src/kernels/turn.cu"
#include "../../src/kernels/attend.cu"
#include "../../src/kernels/gated.cu"
#include "../../src/kernels/head.cu"
#include "../../src/kernels/lose.cu"

#include <map>
#include <mutex>
#include <string>
#include <sys/mman.h>
#include <unistd.h>

namespace {

// CUresult, as cuda.h numbers it.
enum : unsigned {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_BINARY_FOR_GPU = 209,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    ILLEGAL_INSTRUCTION = 715,
};

struct Allocation {
    char *pages;
    std::size_t mapped;
    std::size_t bytes;
};

struct Kernel {
    const char *name;
    void (*run)(const void *parameters, pretended::Dim grid, pretended::Dim size);
};

std::mutex lock;
std::map<std::uintptr_t, Allocation> allocations;
std::size_t used = 0;
bool initialised = false, lost = false;
int retained = 0;
long launches = 0;
thread_local void *current = nullptr;
int context, module;

const char *setting(const char *name, const char *otherwise) {
    const char *value = std::getenv(name);
    return value != nullptr ? value : otherwise;
}

std::size_t total() { return std::strtoull(setting("PRETENDED_MEMORY", "1073741824"), nullptr, 10); }

pretended::Order order() {
    const std::string name = setting("PRETENDED_ORDER", "forward");
    return name == "backward" ? pretended::Order::Backward : name == "mixed" ? pretended::Order::Mixed : pretended::Order::Forward;
}

template <typename Parameters, void (*function)(Parameters)> void run(const void *parameters, pretended::Dim grid, pretended::Dim size) {
    Parameters copy;
    std::memcpy(&copy, parameters, sizeof copy);
    pretended::run_grid(grid, size, order(), [&] { function(copy); });
}

const Kernel KERNELS[] = {
    {"quantize", run<Quantize, quantize>},   {"quantize_norm", run<Quantize, quantize_norm>}, {"one", run<Product, one>},
    {"many", run<Product, many>},            {"turn_f32", run<Turn, turn_f32>},       {"turn_f16", run<Turn, turn_f16>},
    {"attend_f32", run<Attend, attend_f32>}, {"attend_f16", run<Attend, attend_f16>}, {"gated", run<Gated, gated>},
    {"last", run<Last, last>},               {"logits_f32", run<Logits, logits_f32>}, {"logits_f16", run<Logits, logits_f16>},
    {"logits_bf16", run<Logits, logits_bf16>}, {"logits_q8_0", run<Logits, logits_q8_0>}, {"lose", run<Lose, lose>},
};

// Whether a call is in order: what comes before the first failure is, nothing after it.
unsigned ready(bool with_context) {
    if (!initialised) {
        return NOT_INITIALIZED;
    }
    if (with_context && current == nullptr) {
        return INVALID_CONTEXT;
    }
    return lost ? ILLEGAL_INSTRUCTION : SUCCESS;
}

// Whether so many bytes from an address on are memory of the device.
bool holds(std::uint64_t at, std::size_t bytes) {
    auto after = allocations.upper_bound(at);
    if (after == allocations.begin()) {
        return false;
    }
    const auto &[begin, allocation] = *std::prev(after);
    return at - begin <= allocation.bytes && bytes <= allocation.bytes - (at - begin);
}

} // namespace

#define API extern "C" __attribute__((visibility("default"))) unsigned

API cuInit(unsigned flags) {
    std::lock_guard<std::mutex> guard(lock);
    initialised = flags == 0;
    return flags == 0 ? SUCCESS : INVALID_VALUE;
}

API cuDriverGetVersion(int *version) { return *version = 12090, SUCCESS; }

API cuDeviceGetCount(int *count) { return *count = 1, ready(false); }

API cuDeviceGet(int *device, int ordinal) { return *device = ordinal, ordinal == 0 ? ready(false) : INVALID_DEVICE; }

API cuDeviceGetName(char *name, int length, int) { return std::snprintf(name, length, "pretended CUDA device"), ready(false); }

API cuDeviceGetPCIBusId(char *name, int length, int) { return std::snprintf(name, length, "0000:77:00.0"), ready(false); }

API cuDeviceGetAttribute(int *value, int attribute, int) {
    const int capability = std::atoi(setting("PRETENDED_CAPABILITY", "86"));
    switch (attribute) {
    case 75: *value = capability / 10; break;
    case 76: *value = capability % 10; break;
    case 18: *value = 0; break;
    default: return INVALID_VALUE;
    }
    return ready(false);
}

API cuDevicePrimaryCtxRetain(void **to, int) {
    std::lock_guard<std::mutex> guard(lock);
    retained++;
    return *to = &context, ready(false);
}

API cuDevicePrimaryCtxRelease_v2(int) {
    std::lock_guard<std::mutex> guard(lock);
    if (--retained == 0 && used != 0 && !lost) {
        pretended::fail("a context is released before its memory");
    }
    return SUCCESS;
}

API cuCtxSetCurrent(void *to) { return current = to, ready(false); }

API cuCtxSynchronize() { return ready(true); }

API cuMemGetInfo_v2(std::size_t *free, std::size_t *all) {
    std::lock_guard<std::mutex> guard(lock);
    return *free = total() - used, *all = total(), ready(true);
}

// At the end of its pages, before one that nobody can touch, and full of what is no number.
API cuMemAlloc_v2(std::uint64_t *at, std::size_t bytes) {
    std::lock_guard<std::mutex> guard(lock);
    if (const unsigned said = ready(true)) {
        return said;
    }
    if (bytes == 0) {
        return INVALID_VALUE;
    }
    const std::size_t taken = std::strtoull(setting("PRETENDED_TAKEN", "0"), nullptr, 10);
    if (taken + used > total() || bytes > total() - used - taken) {
        return OUT_OF_MEMORY;
    }
    const std::size_t page = (std::size_t)sysconf(_SC_PAGESIZE), aligned = (bytes + 255) / 256 * 256;
    const std::size_t mapped = (aligned + page - 1) / page * page + page;
    char *pages = (char *)mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED || mprotect(pages + mapped - page, page, PROT_NONE) != 0) {
        return OUT_OF_MEMORY;
    }
    char *begin = pages + mapped - page - aligned;
    std::memset(begin, 0xFF, aligned);
    allocations[(std::uintptr_t)begin] = Allocation{pages, mapped, bytes};
    used += bytes;
    return *at = (std::uintptr_t)begin, SUCCESS;
}

API cuMemFree_v2(std::uint64_t at) {
    std::lock_guard<std::mutex> guard(lock);
    const auto found = allocations.find(at);
    if (found == allocations.end()) {
        return INVALID_VALUE;
    }
    const Allocation allocation = found->second;
    for (const char *byte = (const char *)at + allocation.bytes; byte < (const char *)at + (allocation.bytes + 255) / 256 * 256; byte++) {
        if (*byte != (char)0xFF) {
            pretended::fail("something was written behind the end of memory");
        }
    }
    used -= allocation.bytes;
    munmap(allocation.pages, allocation.mapped);
    allocations.erase(found);
    return ready(true);
}

API cuMemcpyHtoD_v2(std::uint64_t to, const void *from, std::size_t bytes) {
    std::lock_guard<std::mutex> guard(lock);
    if (const unsigned said = ready(true)) {
        return said;
    }
    return holds(to, bytes) ? (std::memcpy((void *)to, from, bytes), SUCCESS) : INVALID_VALUE;
}

API cuMemcpyDtoH_v2(void *to, std::uint64_t from, std::size_t bytes) {
    std::lock_guard<std::mutex> guard(lock);
    if (const unsigned said = ready(true)) {
        return said;
    }
    return holds(from, bytes) ? (std::memcpy(to, (const void *)from, bytes), SUCCESS) : INVALID_VALUE;
}

API cuModuleLoadData(void **to, const void *image) {
    if (const unsigned said = ready(true)) {
        return said;
    }
    return *to = &module, std::strncmp((const char *)image, "pretended", 9) == 0 ? SUCCESS : NO_BINARY_FOR_GPU;
}

API cuModuleUnload(void *of) { return of == &module ? ready(true) : INVALID_HANDLE; }

API cuModuleGetFunction(const Kernel **to, void *of, const char *name) {
    for (const Kernel &kernel : KERNELS) {
        if (of == &module && std::strcmp(kernel.name, name) == 0) {
            return *to = &kernel, ready(true);
        }
    }
    return NOT_FOUND;
}

API cuLaunchKernel(const Kernel *kernel, unsigned gx, unsigned gy, unsigned gz, unsigned x, unsigned y, unsigned z, unsigned shared, void *stream,
                   void **parameters, void **extra) {
    std::lock_guard<std::mutex> guard(lock);
    if (const unsigned said = ready(true)) {
        return said;
    }
    // What kernels of this crate and GPUs allow.
    const bool fits = gx > 0 && gy > 0 && gz == 1 && gx <= 0x7FFFFFFFu && gy <= 65535 && x > 0 && x % 32 == 0 && x <= 1024 && y == 1 && z == 1;
    if (!fits || shared != 0 || stream != nullptr || extra != nullptr) {
        return INVALID_VALUE;
    }
    kernel->run(parameters[0], pretended::Dim{gx, gy, 1}, pretended::Dim{x, 1, 1});
    lost = lost || pretended::block.trapped || ++launches > std::atol(setting("PRETENDED_FAILS_AFTER", "2000000000"));
    pretended::block.trapped = false;
    // As with a GPU, whoever asks next is told.
    return SUCCESS;
}

API cuGetErrorName(unsigned error, const char **name) {
    switch (error) {
    case OUT_OF_MEMORY: *name = "CUDA_ERROR_OUT_OF_MEMORY"; break;
    case ILLEGAL_INSTRUCTION: *name = "CUDA_ERROR_ILLEGAL_INSTRUCTION"; break;
    default: *name = "CUDA_ERROR"; break;
    }
    return SUCCESS;
}

API cuGetErrorString(unsigned error, const char **text) {
    switch (error) {
    case OUT_OF_MEMORY: *text = "out of memory"; break;
    case ILLEGAL_INSTRUCTION: *text = "an illegal instruction was encountered"; break;
    default: *text = "an error of the pretended driver"; break;
    }
    return SUCCESS;
}

// NVRTC: any program compiles to a word that the driver above knows.

API nvrtcVersion(int *major, int *minor) { return *major = 12, *minor = 9, 0; }

API nvrtcGetNumSupportedArchs(int *count) { return *count = 4, 0; }

API nvrtcGetSupportedArchs(int *to) {
    const int known[] = {61, 75, 80, 86};
    return std::memcpy(to, known, sizeof known), 0;
}

API nvrtcCreateProgram(void **program, const char *, const char *, int, const char *const *, const char *const *) {
    return *program = &module, 0;
}

API nvrtcCompileProgram(void *, int, const char *const *) { return 0; }

API nvrtcDestroyProgram(void **program) { return *program = nullptr, 0; }

API nvrtcGetCUBINSize(void *, std::size_t *bytes) { return *bytes = 10, 0; }

API nvrtcGetCUBIN(void *, char *to) { return std::memcpy(to, "pretended", 10), 0; }

API nvrtcGetPTXSize(void *, std::size_t *bytes) { return *bytes = 10, 0; }

API nvrtcGetPTX(void *, char *to) { return std::memcpy(to, "pretended", 10), 0; }

API nvrtcGetProgramLogSize(void *, std::size_t *bytes) { return *bytes = 1, 0; }

API nvrtcGetProgramLog(void *, char *to) { return *to = 0, 0; }
