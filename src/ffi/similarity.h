// The similarity probe: the cosine of the state that enters a layer with the embedding that entered the model, for each row of a
// ubatch and each layer. It is computed in the graph, next to the layers, so that only `n_layer × n_tokens` values leave the device.

#pragma once

#include "llama.h"

#include <cstdint>
#include <memory>
#include <vector>

struct sharpv_kv;

struct sharpv_probe {
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

// Gives the context that this thread creates a probe, while it lives. Frees the probe, unless it is told to keep it: then whoever
// frees the context does.
struct sharpv_probe_scope {
    explicit sharpv_probe_scope(bool on);
    ~sharpv_probe_scope();

    void keep();
};
