// Memory SharpV: how similar visual tokens still are to their embeddings at each layer, and evicting them from the KV
// cache in the layers where they are not.
//
// Layers are numbered as in the model, from 0. A visual token is any row that entered as an embedding. Errors are
// reported as in shim.h.

#pragma once

#include "llama.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// A layer's part of the KV cache.
struct sharpv_kv_layer {
    bool     has_kv;  // false for recurrent layers, and for those with a sliding window
    bool     evicted; // its visual tokens were evicted
    uint32_t rows;    // allocated
    uint64_t bytes;   // allocated
};

// llama_init_from_model(). With `memory_sharpv`, the context measures similarities, and its KV cache can be evicted.
// Without it, the context is stock llama.cpp.
//
// With `window_layers` (may be NULL), the marked layers have `window_rows` rows, and hold visual tokens only while
// their own batch is computed. At least one layer keeps them.
int32_t sharpv_try_init_from_model(
        struct llama_model * model, struct llama_context_params params, bool memory_sharpv,
        const bool * window_layers, size_t n_layer, uint32_t window_rows,
        struct llama_context ** result, char * err, size_t err_len);

// llama_free(), for contexts made by the function above.
void sharpv_free(struct llama_context * ctx);

// Whether visual tokens can be evicted from layers of this context.
bool sharpv_can_evict(struct llama_context * ctx);

// Writes one entry to `out` for each of the `n_layer` layers.
int32_t sharpv_kv_layers(
        struct llama_context * ctx, struct sharpv_kv_layer * out, size_t n_layer,
        char * err, size_t err_len);

// Writes, for each of the `n_layer` layers, the cosine similarity of its input and the embedding that entered the
// model, averaged over the visual tokens in the cache; NaN if nothing was measured. `*n_tokens` becomes the number of
// visual tokens that were measured.
int32_t sharpv_similarity(
        struct llama_context * ctx, float * out, size_t n_layer, size_t * n_tokens,
        char * err, size_t err_len);

// Evicts the visual tokens from the marked layers, and from those that were evicted before, and frees their memory.
int32_t sharpv_evict_layers(
        struct llama_context * ctx, const bool * layers, size_t n_layer,
        char * err, size_t err_len);

// Has the effect of an eviction on answers, without freeing anything: for every later query, masks the visual tokens
// that are in the cache, and whose average similarity is less than `below` (INFINITY for all), in the marked layers. If
// no layer is marked, the mask ends.
int32_t sharpv_hide_layers(
        struct llama_context * ctx, const bool * layers, size_t n_layer, float below,
        char * err, size_t err_len);

// Evicts the visual tokens whose average similarity is less than `threshold` from all layers. Writes the evicted rows
// to `rows`, ascending, at most `capacity`: their indices among the rows that were in the cache, in order of arrival.
// `*n_tokens` becomes their number.
int32_t sharpv_evict_tokens(
        struct llama_context * ctx, float threshold, uint32_t * rows, size_t capacity, size_t * n_tokens,
        char * err, size_t err_len);

// What must be saved besides llama_state_get_data() to restore a layered cache; NULL if nothing. Free it with
// sharpv_bytes_free().
int32_t sharpv_state_get(
        struct llama_context * ctx, uint8_t ** data, size_t * size,
        char * err, size_t err_len);

void sharpv_bytes_free(uint8_t * data);

// Restores both parts into a context from which nothing was evicted.
int32_t sharpv_state_set(
        struct llama_context * ctx, const uint8_t * llama_data, size_t llama_size, const uint8_t * data, size_t size,
        char * err, size_t err_len);

#ifdef __cplusplus
}
#endif
