// Memory SharpV: how much of the visual tokens is left at each layer, and evicting them from the KV cache where little
// is.
//
// Layers are counted as the model counts them, from 0. A visual token is any row that entered as an embedding. Errors
// as in shim.h.

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
    bool     evicted; // rows were taken out of it
    uint32_t rows;    // that are allocated
    uint64_t bytes;
};

// llama_init_from_model. With `memory_sharpv` the context measures similarities, and its KV cache can be evicted;
// without, it is stock.
//
// With `window_layers` (may be NULL), the layers that are marked have `window_rows` rows, and visual tokens are there
// only for the batch that they come in: evicted as soon as that can be. At least one layer keeps them.
int32_t sharpv_try_init_from_model(
        struct llama_model * model, struct llama_context_params params, bool memory_sharpv,
        const bool * window_layers, size_t n_layer, uint32_t window_rows,
        struct llama_context ** result, char * err, size_t err_len);

// llama_free, for contexts of the function above.
void sharpv_free(struct llama_context * ctx);

// Whether layers of this context can be evicted.
bool sharpv_can_evict(struct llama_context * ctx);

// `out` has one entry for each of `n_layer` layers.
int32_t sharpv_kv_layers(
        struct llama_context * ctx, struct sharpv_kv_layer * out, size_t n_layer,
        char * err, size_t err_len);

// The mean cosine of each layer's input with the embedding that entered the model, over the visual tokens in the cache:
// `n_layer` values, NaN where there is none. `*n_tokens` is the number of visual tokens that were measured.
int32_t sharpv_similarity(
        struct llama_context * ctx, float * out, size_t n_layer, size_t * n_tokens,
        char * err, size_t err_len);

// Takes the visual tokens out of the layers that are marked, and out of those that were before, and frees their memory.
int32_t sharpv_evict_layers(
        struct llama_context * ctx, const bool * layers, size_t n_layer,
        char * err, size_t err_len);

// What eviction does to the answers, without doing it: the visual tokens that are in the cache, and whose similarity is
// less than `below` on average (INFINITY for all), are masked in the layers that are marked, for every later query.
// With no layer marked, this ends.
int32_t sharpv_hide_layers(
        struct llama_context * ctx, const bool * layers, size_t n_layer, float below,
        char * err, size_t err_len);

// Takes the visual tokens whose similarity is less than `threshold` on average out of all layers. Which rows they are
// goes to `rows`, ascending, up to `capacity` of them: counted among the rows that were in the cache, in the order in
// which they came. `*n_tokens` is their number.
int32_t sharpv_evict_tokens(
        struct llama_context * ctx, float threshold, uint32_t * rows, size_t capacity, size_t * n_tokens,
        char * err, size_t err_len);

// What has to be saved beside llama_state_get_data to restore a layered cache. To be freed with sharpv_bytes_free; NULL
// if there is nothing to save.
int32_t sharpv_state_get(
        struct llama_context * ctx, uint8_t ** data, size_t * size,
        char * err, size_t err_len);

void sharpv_bytes_free(uint8_t * data);

// Restores both parts into a context that was just made.
int32_t sharpv_state_set(
        struct llama_context * ctx, const uint8_t * llama_data, size_t llama_size, const uint8_t * data, size_t size,
        char * err, size_t err_len);

#ifdef __cplusplus
}
#endif
