// The C interface between our Rust and llama.cpp, for what bindgen cannot reach: interfaces in C++, and functions that may
// throw. No exception leaves these functions: where one is caught, its text goes to `error` (cut to `error_size`, always
// terminated) and the function answers with the failure that its comment names.
#pragma once

#include <stddef.h>
#include <stdint.h>

struct llama_model;
struct llama_context;
struct llama_vocab;
struct llama_batch;
struct ggml_backend_device;
struct ggml_backend_buffer_type;

#ifdef __cplusplus
extern "C" {
#endif

// Sizes of everything that the engine took from one buffer type.
struct lm_buffer {
    struct ggml_backend_buffer_type * type;
    size_t model;
    size_t context;
    size_t compute;
};

// Fills at most `capacity` entries, in no particular order, and answers how many there are; -1 on an exception.
int32_t lm_memory_breakdown(const struct llama_context * context, struct lm_buffer * out, int32_t capacity);

int32_t lm_model_expert_count(const struct llama_model * model);
int32_t lm_model_device_count(const struct llama_model * model);
// NULL past the end.
struct ggml_backend_device * lm_model_device(const struct llama_model * model, int32_t index);

// As llama_decode, with -99 on an exception.
int32_t lm_decode(struct llama_context * context, int32_t * tokens, int32_t count, char * error, size_t error_size);
// As llama_tokenize, with INT32_MIN on an exception.
int32_t lm_tokenize(const struct llama_vocab * vocab, const char * text, int32_t length, int32_t * tokens, int32_t capacity, char * error,
                    size_t error_size);

// How a pretended device behaves.
struct lm_pretended {
    const char * name;
    const char * description;
    size_t       memory;
    size_t       used;
    uint8_t      integrated;  // shares the host's memory, as an IGPU does
    uint8_t      pipeline;    // has asynchronous copies and events
    uint8_t      host_buffer; // offers a buffer type in host memory
};

// Devices for one caller, not entered into ggml's registry; NULL on an exception. They must outlive every model that uses them.
struct lm_pretended_set * lm_pretended_new(const struct lm_pretended * devices, size_t count);
struct ggml_backend_device * lm_pretended_device(struct lm_pretended_set * set, size_t index);
void lm_pretended_free(struct lm_pretended_set * set);

#ifdef __cplusplus
}
#endif
