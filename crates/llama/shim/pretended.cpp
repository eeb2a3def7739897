// GPUs that are not there. A pretended device has a name and a size, follows the allocation rules of ggml's CUDA backend
// (llama.cpp v0.6.0-dev, ggml/src/ggml-cuda/ggml-cuda.cu: alignment :893, padded quantised rows :903, batches worth moving
// to the GPU :5735-5758, capabilities :5226) and leaves the computing to the CPU backend. It supports whatever the CPU
// supports; CUDA's extra scratch behind flash attention (:906) depends on the GPU's generation and is not modelled.
//
// Two ways in: lm_pretended_new makes devices for one dry run in this process, where nothing is allocated; compiled with
// LM_PRETENDED_PLUGIN it is a loadable backend for other programs (GGML_BACKEND_PATH), which reads
//   PRETENDED_GPUS=24GiB,8192      memory of each device; a bare number is in MiB
//   PRETENDED_USED=300,0           what others hold of it, likewise
//   PRETENDED_NAME=FAKE            the devices are FAKE0, FAKE1, ...; GPU0, GPU1, ... by default
//   PRETENDED_PIPELINE=1           asynchronous copies and events, so that several devices form a pipeline
//   PRETENDED_HOST_BUFFER=1        a pinned host buffer type
//   PRETENDED_INTEGRATED=1         integrated instead of discrete
//   PRETENDED_THREADS=4            threads that compute, all cores by default
#include "shim.h"

#include "ggml-backend-impl.h"
#include "ggml-backend.h"
#include "ggml.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr size_t  TENSOR_ALIGNMENT   = 128;
constexpr int64_t ROW_PADDING        = 512;
constexpr int64_t OFFLOAD_BATCH      = 32;
constexpr size_t  HOST_PAGE          = 4096;

struct Device {
    std::string              name, host_name, description;
    size_t                   memory, used;
    std::atomic<size_t>      allocated{0};
    bool                     integrated, pipeline, host_buffer;
    int                      threads;
    ggml_backend_device      device;
    ggml_backend_buffer_type type, host_type;

    size_t free_memory() const {
        const size_t taken = used + allocated;
        return taken < memory ? memory - taken : 0;
    }
};

Device & of(ggml_backend_dev_t device) { return *static_cast<Device *>(device->context); }
Device & of(ggml_backend_buffer_type_t type) { return *static_cast<Device *>(type->context); }
ggml_backend_dev_t cpu() { return ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU); }

// A buffer on the device: zeroed-on-touch host memory that counts against the device's size.
namespace buffer {

struct Memory {
    Device * device;
    void *   base;
    size_t   size;
};

Memory & of(ggml_backend_buffer_t buffer) { return *static_cast<Memory *>(buffer->context); }

void release(ggml_backend_buffer_t buffer) {
    Memory & memory = of(buffer);
    std::free(memory.base);
    memory.device->allocated -= memory.size;
    delete &memory;
}
void * base(ggml_backend_buffer_t buffer) { return of(buffer).base; }
void fill(ggml_backend_buffer_t, ggml_tensor * tensor, uint8_t value, size_t offset, size_t size) {
    memset(static_cast<char *>(tensor->data) + offset, value, size);
}
void write(ggml_backend_buffer_t, ggml_tensor * tensor, const void * from, size_t offset, size_t size) {
    memcpy(static_cast<char *>(tensor->data) + offset, from, size);
}
void read(ggml_backend_buffer_t, const ggml_tensor * tensor, void * to, size_t offset, size_t size) {
    memcpy(to, static_cast<const char *>(tensor->data) + offset, size);
}
bool copy(ggml_backend_buffer_t, const ggml_tensor * from, ggml_tensor * to) {
    if (!ggml_backend_buffer_is_host(from->buffer)) return false;
    memcpy(to->data, from->data, ggml_nbytes(from));
    return true;
}
void clear(ggml_backend_buffer_t buffer, uint8_t value) { memset(of(buffer).base, value, of(buffer).size); }

} // namespace buffer

namespace type {

const char * name(ggml_backend_buffer_type_t type) { return of(type).name.c_str(); }
const char * host_name(ggml_backend_buffer_type_t type) { return of(type).host_name.c_str(); }
size_t alignment(ggml_backend_buffer_type_t) { return TENSOR_ALIGNMENT; }
bool not_host(ggml_backend_buffer_type_t) { return false; }

ggml_backend_buffer_t allocate(ggml_backend_buffer_type_t type, size_t size) {
    Device & device = of(type);
    if (size > device.free_memory()) return nullptr;
    const size_t rounded = (size + HOST_PAGE - 1) / HOST_PAGE * HOST_PAGE;
    void *       base    = std::aligned_alloc(HOST_PAGE, rounded);
    auto *       memory  = new (std::nothrow) buffer::Memory{&device, base, size};
    if (!base || !memory) {
        std::free(base);
        delete memory;
        return nullptr;
    }
    device.allocated += size;
    ggml_backend_buffer_i calls = {};
    calls.free_buffer           = buffer::release;
    calls.get_base              = buffer::base;
    calls.memset_tensor         = buffer::fill;
    calls.set_tensor            = buffer::write;
    calls.get_tensor            = buffer::read;
    calls.cpy_tensor            = buffer::copy;
    calls.clear                 = buffer::clear;
    return ggml_backend_buffer_init(type, calls, memory, size);
}

size_t tensor_size(ggml_backend_buffer_type_t, const ggml_tensor * tensor) {
    const size_t  size = ggml_nbytes(tensor);
    const int64_t rest = tensor->ne[0] % ROW_PADDING;
    return ggml_is_quantized(tensor->type) && rest ? size + ggml_row_size(tensor->type, ROW_PADDING - rest) : size;
}

// Host memory as CUDA pins it: the CPU's own buffer under another type.
ggml_backend_buffer_t allocate_host(ggml_backend_buffer_type_t type, size_t size) {
    ggml_backend_buffer_t made = ggml_backend_buft_alloc_buffer(ggml_backend_dev_buffer_type(cpu()), size);
    if (made) made->buft = type;
    return made;
}
size_t host_alignment(ggml_backend_buffer_type_t) { return ggml_backend_buft_get_alignment(ggml_backend_dev_buffer_type(cpu())); }
bool host(ggml_backend_buffer_type_t) { return true; }

} // namespace type

// A stream: the graph goes to a CPU backend of its own.
namespace stream {

const char * name(ggml_backend_t stream) { return of(stream->device).name.c_str(); }
void release(ggml_backend_t stream) {
    ggml_backend_free(static_cast<ggml_backend_t>(stream->context));
    delete stream;
}
ggml_status compute(ggml_backend_t stream, ggml_cgraph * graph) {
    return ggml_backend_graph_compute(static_cast<ggml_backend_t>(stream->context), graph);
}
// Computing is synchronous, so that events have always happened.
void synchronize(ggml_backend_t) {}
void record(ggml_backend_t, ggml_backend_event_t) {}
void wait(ggml_backend_t, ggml_backend_event_t) {}

} // namespace stream

namespace device {

uint8_t guid[16] = {0x6c, 0x6d, 0x70, 0x72, 0x65, 0x74, 0x65, 0x6e, 0x64, 0x65, 0x64, 0x67, 0x70, 0x75, 0x00, 0x01};

const char * name(ggml_backend_dev_t device) { return of(device).name.c_str(); }
const char * description(ggml_backend_dev_t device) { return of(device).description.c_str(); }
void memory(ggml_backend_dev_t device, size_t * free, size_t * total) {
    *free  = of(device).free_memory();
    *total = of(device).memory;
}
enum ggml_backend_dev_type kind(ggml_backend_dev_t device) {
    return of(device).integrated ? GGML_BACKEND_DEVICE_TYPE_IGPU : GGML_BACKEND_DEVICE_TYPE_GPU;
}
void properties(ggml_backend_dev_t device, ggml_backend_dev_props * props) {
    // Field by field: another ggml's structure may be shorter than ours, and the caller has zeroed it.
    props->name        = name(device);
    props->description = description(device);
    props->type        = kind(device);
    memory(device, &props->memory_free, &props->memory_total);
    props->caps.async       = of(device).pipeline;
    props->caps.events      = of(device).pipeline;
    props->caps.host_buffer = of(device).host_buffer;
    props->caps.mmap_support = !of(device).integrated;
}
ggml_backend_t open(ggml_backend_dev_t device, const char *) {
    ggml_backend_t worker = ggml_backend_dev_init(cpu(), nullptr);
    if (!worker) return nullptr;
    auto set_threads = reinterpret_cast<ggml_backend_set_n_threads_t>(
        ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(cpu()), "ggml_backend_set_n_threads"));
    if (set_threads) set_threads(worker, of(device).threads);
    ggml_backend_i calls = {};
    calls.get_name       = stream::name;
    calls.free           = stream::release;
    calls.graph_compute  = stream::compute;
    if (of(device).pipeline) {
        calls.synchronize  = stream::synchronize;
        calls.event_record = stream::record;
        calls.event_wait   = stream::wait;
    }
    return new (std::nothrow) ggml_backend{&guid, calls, device, worker};
}
ggml_backend_buffer_type_t buffer_type(ggml_backend_dev_t device) { return &of(device).type; }
ggml_backend_buffer_type_t host_buffer_type(ggml_backend_dev_t device) { return &of(device).host_type; }
bool supports(ggml_backend_dev_t, const ggml_tensor * operation) { return ggml_backend_dev_supports_op(cpu(), operation); }
bool reaches(ggml_backend_dev_t device, ggml_backend_buffer_type_t type) { return type == &of(device).type; }
bool worth_moving(ggml_backend_dev_t, const ggml_tensor * operation) {
    switch (operation->op) {
        case GGML_OP_GET_ROWS:
            return false;
        case GGML_OP_MUL_MAT:
            return operation->ne[1] >= OFFLOAD_BATCH;
        case GGML_OP_MUL_MAT_ID:
        case GGML_OP_ROPE:
        case GGML_OP_ROPE_BACK:
            return operation->ne[2] >= OFFLOAD_BATCH;
        default:
            return ggml_nrows(operation) >= OFFLOAD_BATCH;
    }
}
ggml_backend_event_t new_event(ggml_backend_dev_t device) { return new (std::nothrow) ggml_backend_event{device, nullptr}; }
void free_event(ggml_backend_dev_t, ggml_backend_event_t event) { delete event; }
void wait_event(ggml_backend_dev_t, ggml_backend_event_t) {}

} // namespace device

} // namespace

struct lm_pretended_set {
    ggml_backend_reg                     registry = {};
    std::vector<std::unique_ptr<Device>> devices;
};

namespace {

const char * registry_name(ggml_backend_reg_t) { return "Pretended"; }
size_t device_count(ggml_backend_reg_t registry) { return static_cast<lm_pretended_set *>(registry->context)->devices.size(); }
ggml_backend_dev_t device_at(ggml_backend_reg_t registry, size_t index) {
    return &static_cast<lm_pretended_set *>(registry->context)->devices[index]->device;
}
void * no_address(ggml_backend_reg_t, const char *) { return nullptr; }

std::unique_ptr<Device> make(const lm_pretended & wanted, ggml_backend_reg_t registry) {
    auto made         = std::make_unique<Device>();
    made->name        = wanted.name;
    made->host_name   = made->name + "_Host";
    made->description = wanted.description;
    made->memory      = wanted.memory;
    made->used        = wanted.used;
    made->integrated  = wanted.integrated;
    made->pipeline    = wanted.pipeline;
    made->host_buffer = wanted.host_buffer;
    made->threads     = static_cast<int>(std::thread::hardware_concurrency());

    ggml_backend_device_i calls = {};
    calls.get_name              = device::name;
    calls.get_description       = device::description;
    calls.get_memory            = device::memory;
    calls.get_type              = device::kind;
    calls.get_props             = device::properties;
    calls.init_backend          = device::open;
    calls.get_buffer_type       = device::buffer_type;
    calls.supports_op           = device::supports;
    calls.supports_buft         = device::reaches;
    calls.offload_op            = device::worth_moving;
    if (made->host_buffer) calls.get_host_buffer_type = device::host_buffer_type;
    if (made->pipeline) {
        calls.event_new         = device::new_event;
        calls.event_free        = device::free_event;
        calls.event_synchronize = device::wait_event;
    }
    made->device = {calls, registry, made.get()};

    ggml_backend_buffer_type_i rules = {};
    rules.get_name                   = type::name;
    rules.alloc_buffer               = type::allocate;
    rules.get_alignment              = type::alignment;
    rules.get_alloc_size             = type::tensor_size;
    rules.is_host                    = type::not_host;
    made->type                       = {rules, &made->device, made.get()};

    ggml_backend_buffer_type_i host_rules = {};
    host_rules.get_name                   = type::host_name;
    host_rules.alloc_buffer               = type::allocate_host;
    host_rules.get_alignment              = type::host_alignment;
    host_rules.is_host                    = type::host;
    made->host_type                       = {host_rules, &made->device, made.get()};
    return made;
}

} // namespace

lm_pretended_set * lm_pretended_new(const lm_pretended * devices, size_t count) {
    try {
        auto set                  = std::make_unique<lm_pretended_set>();
        set->registry.api_version = GGML_BACKEND_API_VERSION;
        set->registry.iface       = {registry_name, device_count, device_at, no_address};
        set->registry.context     = set.get();
        for (size_t i = 0; i < count; ++i) set->devices.push_back(make(devices[i], &set->registry));
        return set.release();
    } catch (...) {
        return nullptr;
    }
}

ggml_backend_device * lm_pretended_device(lm_pretended_set * set, size_t index) {
    return index < set->devices.size() ? &set->devices[index]->device : nullptr;
}

void lm_pretended_free(lm_pretended_set * set) { delete set; }

#ifdef LM_PRETENDED_PLUGIN

namespace {

// Sizes separated by commas; a number without a unit is in MiB.
std::vector<size_t> sizes(const char * variable) {
    std::vector<size_t> found;
    const char *        text = getenv(variable);
    while (text && *text) {
        char *       unit   = nullptr;
        const double number = strtod(text, &unit);
        if (unit == text) break;
        const double scale = *unit == 'G' || *unit == 'g' ? 1073741824.0 : 1048576.0;
        found.push_back(number > 0 ? static_cast<size_t>(number * scale) : 0);
        text = strchr(unit, ',');
        if (text) ++text;
    }
    return found;
}
int number(const char * variable, int otherwise) {
    const char * text = getenv(variable);
    return text && *text ? atoi(text) : otherwise;
}

ggml_backend_reg_t plugin() {
    static lm_pretended_set * set = [] {
        const std::vector<size_t> memory = sizes("PRETENDED_GPUS"), used = sizes("PRETENDED_USED");
        const char *              name = getenv("PRETENDED_NAME");
        std::vector<std::string>  names;
        for (size_t i = 0; i < memory.size(); ++i) names.push_back((name && *name ? name : "GPU") + std::to_string(i));
        std::vector<lm_pretended> wanted;
        for (size_t i = 0; i < memory.size(); ++i) {
            lm_pretended one = {};
            one.name         = names[i].c_str();
            one.description  = "pretended GPU, computes on the CPU";
            one.memory       = memory[i];
            one.used         = i < used.size() ? used[i] : 0;
            one.integrated   = number("PRETENDED_INTEGRATED", 0) != 0;
            one.pipeline     = number("PRETENDED_PIPELINE", 0) != 0;
            one.host_buffer  = number("PRETENDED_HOST_BUFFER", 0) != 0;
            wanted.push_back(one);
        }
        lm_pretended_set * made    = lm_pretended_new(wanted.data(), wanted.size());
        const int          threads = number("PRETENDED_THREADS", 0);
        if (made && threads > 0) {
            for (auto & device : made->devices) device->threads = threads;
        }
        return made;
    }();
    return set ? &set->registry : nullptr;
}

} // namespace

GGML_BACKEND_DL_IMPL(plugin)

#endif
