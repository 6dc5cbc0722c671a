// The similarity probe: the cosine of the state that enters a layer with the embedding that entered the model, for each
// row of a ubatch and each layer. It is computed in the graph, next to the layers, so that only `n_layer × n_tokens`
// values leave the device.

#pragma once

#include "llama.h"

#include <cstdint>
#include <memory>
#include <vector>

struct llama_cparams;
struct sharpv_kv;

// A context carries its probe as the user data of an evaluation callback that it does not have
// (llama_context_params.cb_eval): llama.cpp keeps it, hands it on to each graph, and does not look at it.
struct sharpv_probe {
    sharpv_probe();
    ~sharpv_probe();

    sharpv_probe(const sharpv_probe &) = delete;
    sharpv_probe & operator=(const sharpv_probe &) = delete;

    // That of a context; nullptr if it has none.
    static sharpv_probe * of(const llama_cparams & cparams);
    static sharpv_probe * of(const llama_context * lctx);

    // Results that may still be on their way from the device.
    struct pending {
        std::vector<uint32_t> cells;
        std::vector<uint32_t> serials;
        std::vector<int>      layers;
        std::vector<float>    values; // [token][layer]: the cosine times n_embd
        int64_t               n_embd;
    };

    // Hands the results to the cells of the cache.
    void flush(llama_context * lctx, sharpv_kv & kv);

    // The cache whose rows are measured; set when the context was made.
    const sharpv_kv * kv = nullptr;

    std::vector<std::unique_ptr<pending>> results;
};
