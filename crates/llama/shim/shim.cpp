// See shim.h.
#include "shim.h"

#include "llama-ext.h"
#include "llama.h"

#include <climits>
#include <cstdio>
#include <exception>

// Runs `call`; where it throws, writes what was thrown into `error` and answers `failure`.
template <typename Call> static int32_t guarded(int32_t failure, char * error, size_t error_size, Call call) {
    const char * what = "unknown exception";
    try {
        return call();
    } catch (const std::exception & thrown) {
        if (error && error_size) snprintf(error, error_size, "%s", thrown.what());
        return failure;
    } catch (...) {
        if (error && error_size) snprintf(error, error_size, "%s", what);
        return failure;
    }
}

int32_t lm_memory_breakdown(const llama_context * context, lm_buffer * out, int32_t capacity) {
    return guarded(-1, nullptr, 0, [&] {
        int32_t count = 0;
        for (const auto & [type, size] : llama_get_memory_breakdown(context)) {
            if (count < capacity) out[count] = {type, size.model, size.context, size.compute};
            ++count;
        }
        return count;
    });
}

int32_t lm_model_expert_count(const llama_model * model) { return llama_model_n_expert(model); }

int32_t lm_model_device_count(const llama_model * model) { return llama_model_n_devices(model); }

ggml_backend_device * lm_model_device(const llama_model * model, int32_t index) {
    return index < 0 || index >= llama_model_n_devices(model) ? nullptr : llama_model_get_device(model, index);
}

int32_t lm_decode(llama_context * context, int32_t * tokens, int32_t count, char * error, size_t error_size) {
    return guarded(-99, error, error_size, [&] { return llama_decode(context, llama_batch_get_one(tokens, count)); });
}

int32_t lm_tokenize(const llama_vocab * vocab, const char * text, int32_t length, int32_t * tokens, int32_t capacity, char * error,
                    size_t error_size) {
    // Special tokens are added as the model wants them, and their spellings in the text are understood, as llama-cli does.
    return guarded(INT_MIN, error, error_size, [&] { return llama_tokenize(vocab, text, length, tokens, capacity, true, true); });
}
