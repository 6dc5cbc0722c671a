// The similarity probe: the cosine similarity of the hidden state that enters a layer and the embedding that entered
// the model, for each row of a ubatch and each layer. The graph of the model computes it, so that only
// `n_layer × n_tokens` values leave the device.

#pragma once

#include "llama.h"

#include <cstdint>
#include <memory>
#include <vector>

struct llama_cparams;
struct sharpv_kv;

// A context carries its probe as the user data of an evaluation callback (llama_context_params.cb_eval) that is null:
// llama.cpp stores the pointer and passes it on to each graph, but does not use it.
struct sharpv_probe {
    sharpv_probe();
    ~sharpv_probe();

    sharpv_probe(const sharpv_probe &) = delete;
    sharpv_probe & operator=(const sharpv_probe &) = delete;

    // The probe of a context; nullptr if it has none.
    static sharpv_probe * of(const llama_cparams & cparams);
    static sharpv_probe * of(const llama_context * lctx);

    // Results that may not have arrived from the device yet.
    struct pending {
        std::vector<uint32_t> cells;
        std::vector<uint32_t> serials;
        std::vector<int>      layers;
        std::vector<float>    values; // [token][layer]: the cosine times n_embd
        int64_t               n_embd;
    };

    // Waits for the device, and stores the results in the cells of the cache.
    void flush(llama_context * lctx, sharpv_kv & kv);

    // The cache whose rows are measured. Set once the context exists.
    const sharpv_kv * kv = nullptr;

    std::vector<std::unique_ptr<pending>> results;
};
