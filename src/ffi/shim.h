// C functions around llama.cpp's C++. Their names start with `sharpv_`. None of them throws.
//
// `sharpv_try_X(…, result, err, err_len)` calls `X(…)` of llama.cpp or mtmd, which may throw. If X returns, so does the
// function, with SHARPV_OK and X's result in `*result`. If X throws, the function returns SHARPV_THROWN, with the
// exception's message in `err`: UTF-8, always NUL-terminated, truncated to `err_len` bytes. `*result` is unchanged
// then, and what X was changing is in an unknown state.

#pragma once

#include "llama.h"
#include "mtmd.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum sharpv_status {
    SHARPV_OK     = 0,
    SHARPV_THROWN = 1,
};

//
// memory of a context
//

// Bytes, summed over all buffers.
struct sharpv_memory {
    size_t model;   // weights
    size_t context; // KV cache and outputs
    size_t compute; // graph buffers
};

// Bytes on one device, by its name in ggml: "CUDA0", or "CPU" for main memory.
struct sharpv_device_memory {
    char   device[64];
    struct sharpv_memory bytes;
};

int32_t sharpv_memory_breakdown(const struct llama_context * ctx, struct sharpv_memory * out, char * err, size_t err_len);

// Writes one entry for each device, at most `capacity`. `*n` becomes the number of devices, which may be larger.
int32_t sharpv_memory_by_device(
        const struct llama_context * ctx, struct sharpv_device_memory * out, size_t capacity, size_t * n,
        char * err, size_t err_len);

// The bytes of the states of recurrent layers, of all sequences: a part of `context`. 0 if there are none.
uint64_t sharpv_recurrent_bytes(const struct llama_context * ctx);

// The memory of the vision encoder in the file `path` by device, without loading it. `model` counts its weights and,
// with `warmup` in `params`, the buffers for an image of the size that llama.cpp plans with. `*n` is 0 if the file has
// no encoder.
int32_t sharpv_vision_memory(
        const char * path, struct mtmd_context_params params,
        struct sharpv_device_memory * out, size_t capacity, size_t * n, char * err, size_t err_len);

//
// facts about a model that llama.h does not expose
//

// Whether one batch may mix tokens and embeddings.
bool sharpv_supports_mixed_batch(const struct llama_model * model);

//
// sampling
//

// Parameters of llama.cpp's samplers. The caller has checked their ranges.
struct sharpv_sampler {
    const char * grammar; // NULL for none
    int32_t  repeat_last_n;
    float    repeat_penalty;
    float    frequency_penalty;
    float    presence_penalty;
    float    temperature; // 0 is greedy
    int32_t  top_k;
    float    top_p;
    float    min_p;
    uint32_t seed;
};

// Makes a chain of samplers in llama.cpp's order. `*result` is NULL if the grammar cannot be parsed.
int32_t sharpv_try_sampler_init(
        const struct llama_vocab * vocab, const struct sharpv_sampler * params,
        struct llama_sampler ** result, char * err, size_t err_len);

//
// devices
//

// Free and total memory of a device. Throws if the device is on an RPC server that was lost.
int32_t sharpv_try_dev_memory(ggml_backend_dev_t device, size_t * free, size_t * total, char * err, size_t err_len);

// The buffer type of a device. The first call opens a Vulkan device.
int32_t sharpv_try_dev_buffer_type(
        ggml_backend_dev_t device,
        ggml_backend_buffer_type_t * result, char * err, size_t err_len);

// Connects to an RPC server and adds its devices to ggml's registry, where they stay. This function and the next one
// throw in builds without RPC (SHARPV_RPC).
int32_t sharpv_try_rpc_add_server(
        const char * endpoint,
        ggml_backend_reg_t * result, char * err, size_t err_len);

// Serves one client after the other. Returns only if it fails. Prints to stdout.
int32_t sharpv_try_rpc_start_server(
        const char * endpoint, const char * cache_dir, size_t n_threads, size_t n_devices, ggml_backend_dev_t * devices,
        char * err, size_t err_len);

// A device of a Vulkan driver, whether ggml can use it or not.
struct sharpv_vulkan_device {
    char name[256];
    char driver[520];     // name and version of the driver; empty before Vulkan 1.2
    uint32_t api_major;   // the version of Vulkan that it supports
    uint32_t api_minor;
    uint32_t api_patch;
    bool software;        // computes on the CPU
    bool storage_16bit;   // buffers may hold 16-bit values; false before Vulkan 1.2
};

// Writes at most `n_max` devices, in the loader's order, which numbers them for GGML_VK_VISIBLE_DEVICES. `*result`
// becomes how many were written: 0 without a driver, and in builds without Vulkan (SHARPV_VULKAN).
int32_t sharpv_try_vulkan_devices(
        struct sharpv_vulkan_device * devices, size_t n_max,
        size_t * result, char * err, size_t err_len);

//
// preprocessing
//

// mtmd_tokenize_from_parts(). With `whole_frames`, images are not scaled up to be cut into tiles.
int32_t sharpv_try_mtmd_tokenize_from_parts(
        const struct mtmd_context * ctx, struct mtmd_input_chunks * output, const struct mtmd_input_part * const * parts,
        size_t n_parts, bool add_special, bool whole_frames,
        int32_t * result, char * err, size_t err_len);

//
// guarded calls
//

int32_t sharpv_try_backend_init(char * err, size_t err_len);

int32_t sharpv_try_model_load_from_file(
        const char * path, struct llama_model_params params,
        struct llama_model ** result, char * err, size_t err_len);

int32_t sharpv_try_model_quantize(
        const char * source, const char * target, const struct llama_model_quantize_params * params,
        uint32_t * result, char * err, size_t err_len);

int32_t sharpv_try_model_desc(
        const struct llama_model * model, char * buf, size_t buf_size,
        int32_t * result, char * err, size_t err_len);

int32_t sharpv_try_model_meta_val_str(
        const struct llama_model * model, const char * key, char * buf, size_t buf_size,
        int32_t * result, char * err, size_t err_len);

int32_t sharpv_try_model_chat_template(
        const struct llama_model * model, const char * name,
        const char ** result, char * err, size_t err_len);

int32_t sharpv_try_batch_ext_init(
        struct llama_context * ctx,
        struct llama_batch_ext ** result, char * err, size_t err_len);

// Adds a row: `embd`, or `token` if `embd` has no data. `pos` has four values. `*result` is that of
// llama_batch_ext_add_token(): the index of the row, or a negative error.
int32_t sharpv_try_batch_ext_add(
        struct llama_batch_ext * batch, llama_seq_id seq_id, llama_token token, struct llama_embd embd,
        const llama_pos * pos, bool output_logits,
        int32_t * result, char * err, size_t err_len);

int32_t sharpv_try_process(
        struct llama_context * ctx, enum llama_process_type type, struct llama_batch_ext * batch,
        int32_t * result, char * err, size_t err_len);

int32_t sharpv_try_get_logits_ith(
        struct llama_context * ctx, int32_t i,
        float ** result, char * err, size_t err_len);

int32_t sharpv_try_memory_seq_rm(
        struct llama_context * ctx, llama_seq_id seq_id, llama_pos p0, llama_pos p1,
        bool * result, char * err, size_t err_len);

int32_t sharpv_try_memory_seq_cp(
        struct llama_context * ctx, llama_seq_id from, llama_seq_id to, llama_pos p0, llama_pos p1,
        char * err, size_t err_len);

int32_t sharpv_try_tokenize(
        const struct llama_vocab * vocab, const char * text, int32_t text_len,
        llama_token * tokens, int32_t n_tokens_max, bool add_special, bool parse_special,
        int32_t * result, char * err, size_t err_len);

int32_t sharpv_try_token_to_piece(
        const struct llama_vocab * vocab, llama_token token, char * buf, int32_t length, int32_t lstrip, bool special,
        int32_t * result, char * err, size_t err_len);

int32_t sharpv_try_adapter_lora_init(
        struct llama_model * model, const char * path_lora,
        struct llama_adapter_lora ** result, char * err, size_t err_len);

int32_t sharpv_try_set_adapters_lora(
        struct llama_context * ctx, struct llama_adapter_lora ** adapters, size_t n_adapters, float * scales,
        int32_t * result, char * err, size_t err_len);

int32_t sharpv_try_sampler_sample(
        struct llama_sampler * smpl, struct llama_context * ctx, int32_t idx,
        llama_token * result, char * err, size_t err_len);

int32_t sharpv_try_sampler_reset(struct llama_sampler * smpl, char * err, size_t err_len);

int32_t sharpv_try_state_get_size(
        struct llama_context * ctx,
        size_t * result, char * err, size_t err_len);

int32_t sharpv_try_state_get_data(
        struct llama_context * ctx, uint8_t * dst, size_t size,
        size_t * result, char * err, size_t err_len);

int32_t sharpv_try_state_seq_get_size_ext(
        struct llama_context * ctx, llama_seq_id seq_id, llama_state_seq_flags flags,
        size_t * result, char * err, size_t err_len);

int32_t sharpv_try_state_seq_get_data_ext(
        struct llama_context * ctx, uint8_t * dst, size_t size, llama_seq_id seq_id, llama_state_seq_flags flags,
        size_t * result, char * err, size_t err_len);

int32_t sharpv_try_state_seq_set_data_ext(
        struct llama_context * ctx, const uint8_t * src, size_t size, llama_seq_id seq_id, llama_state_seq_flags flags,
        size_t * result, char * err, size_t err_len);

int32_t sharpv_try_mtmd_init_from_file(
        const char * mmproj_fname, const struct llama_model * text_model, struct mtmd_context_params params,
        struct mtmd_context ** result, char * err, size_t err_len);

int32_t sharpv_try_mtmd_bitmap_init(
        uint32_t nx, uint32_t ny, const unsigned char * data,
        struct mtmd_bitmap ** result, char * err, size_t err_len);

int32_t sharpv_try_mtmd_input_chunks_init(
        struct mtmd_input_chunks ** result, char * err, size_t err_len);

int32_t sharpv_try_mtmd_encode_chunk(
        struct mtmd_context * ctx, const struct mtmd_input_chunk * chunk,
        int32_t * result, char * err, size_t err_len);

int32_t sharpv_try_mtmd_helper_eval_chunks(
        struct mtmd_context * ctx, struct llama_context * lctx, const struct mtmd_input_chunks * chunks,
        llama_pos n_past, llama_seq_id seq_id, int32_t n_batch, bool logits_last, llama_pos * new_n_past,
        int32_t * result, char * err, size_t err_len);

#ifdef __cplusplus
}
#endif
