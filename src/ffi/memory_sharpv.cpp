#include "memory_sharpv.h"

#include "guard.h"
#include "layered_kv.h"
#include "similarity.h"

#include "llama-context.h"
#include "llama-ext.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <stdexcept>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace {

// As many as llama.cpp supports (GGML_RPC_MAX_SERVERS).
constexpr int MAX_LOST_SERVERS = 16;

// The layered KV cache of a context, with all pending measurements stored.
sharpv_kv & cache_of(llama_context * ctx) {
    sharpv_kv * kv = sharpv_kv_of(llama_get_memory(ctx));
    sharpv_probe * probe = sharpv_probe::of(ctx);
    if (!kv || !probe) {
        throw std::runtime_error("the KV cache of this context cannot be evicted");
    }
    probe->flush(ctx, *kv);
    return *kv;
}

std::vector<bool> to_vector(const bool * layers, size_t n_layer) {
    return std::vector<bool>(layers, layers + n_layer);
}

// Discards the graphs that were built, and the memory that was reserved, for the old layout. Otherwise ggml would
// mistake a new graph with the same number of nodes for the old one.
void layout_changed(llama_context * ctx) {
    // Changes no setting, but makes llama.cpp discard its graphs and reserve again before the next batch.
    llama_set_embeddings_layer_inp(ctx, 0, false);
}

void return_memory_to_system() {
#if defined(__GLIBC__)
    malloc_trim(0);
#endif
}

} // namespace

extern "C" {

int32_t sharpv_try_init_from_model(
        llama_model * model, llama_context_params params, bool memory_sharpv,
        const bool * window_layers, size_t n_layer, uint32_t window_rows,
        llama_context ** result, char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] {
        std::unique_ptr<sharpv_probe> probe;
        if (memory_sharpv) {
            if (params.cb_eval) {
                throw std::runtime_error("a context with an evaluation callback cannot measure similarities");
            }
            probe = std::make_unique<sharpv_probe>();
            params.cb_eval_user_data = probe.get();
        }
        const sharpv_kv_scope kv(memory_sharpv, window_layers ? to_vector(window_layers, n_layer) : std::vector<bool>(), window_rows);
        *result = llama_init_from_model(model, params);
        if (*result && probe) {
            probe->kv = sharpv_kv_of(llama_get_memory(*result));
            sharpv_kv_window_of(llama_get_memory(*result)); // makes the sharpv_kv of a cache without tensors, too
            probe.release(); // sharpv_free() frees it
        }
    });
}

void sharpv_free(llama_context * ctx) {
    const sharpv_probe * probe = sharpv_probe::of(ctx);
    // The context's destructor waits for all devices, and must not throw. Each lost RPC server throws once.
    int32_t waited = SHARPV_THROWN;
    for (int i = 0; i < MAX_LOST_SERVERS && waited != SHARPV_OK; ++i) {
        waited = sharpv_guarded(nullptr, 0, [&] { llama_synchronize(ctx); });
    }
    llama_free(ctx);
    delete probe;
}

bool sharpv_can_evict(llama_context * ctx) {
    const sharpv_kv * kv = sharpv_kv_of(llama_get_memory(ctx));
    return kv && kv->can_evict();
}

int32_t sharpv_kv_layers(
        llama_context * ctx, sharpv_kv_layer * out, size_t n_layer,
        char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] {
        const sharpv_kv & kv = cache_of(ctx);
        for (size_t il = 0; il < n_layer; ++il) {
            const auto size = kv.size_of(il);
            out[il] = { size.has_kv, size.evicted, size.rows, size.bytes };
        }
    });
}

int32_t sharpv_similarity(
        llama_context * ctx, float * out, size_t n_layer, size_t * n_tokens,
        char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] {
        const std::vector<float> curve = cache_of(ctx).curve(*n_tokens);
        if (curve.size() != n_layer) {
            throw std::runtime_error("the model has another number of layers");
        }
        std::copy(curve.begin(), curve.end(), out);
    });
}

int32_t sharpv_evict_layers(
        llama_context * ctx, const bool * layers, size_t n_layer,
        char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] {
        sharpv_kv & kv = cache_of(ctx);
        llama_synchronize(ctx);
        kv.evict(to_vector(layers, n_layer));
        layout_changed(ctx);
        return_memory_to_system();
    });
}

int32_t sharpv_hide_layers(
        llama_context * ctx, const bool * layers, size_t n_layer, float below,
        char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] {
        const std::vector<bool> wanted = to_vector(layers, n_layer);
        const bool tokens = below < std::numeric_limits<float>::infinity();
        sharpv_kv & kv = cache_of(ctx);
        kv.hide(wanted, below);
        // Like eviction: tokens are removed from both caches, layers only from the one without a sliding window.
        if (sharpv_kv * window = sharpv_kv_window_of(llama_get_memory(ctx))) {
            window->hide_like(wanted, tokens ? &kv : nullptr);
        }
        layout_changed(ctx);
    });
}

int32_t sharpv_evict_tokens(
        llama_context * ctx, float threshold, uint32_t * rows, size_t capacity, size_t * n_tokens,
        char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] {
        sharpv_kv & kv = cache_of(ctx);
        llama_synchronize(ctx);
        const std::vector<sharpv_kv::freed> gone = kv.evict_tokens(threshold);
        if (sharpv_kv * window = sharpv_kv_window_of(llama_get_memory(ctx))) {
            window->drop(gone);
        }
        *n_tokens = gone.size();
        for (size_t i = 0; i < std::min(gone.size(), capacity); ++i) {
            rows[i] = gone[i].row;
        }
    });
}

int32_t sharpv_state_get(
        llama_context * ctx, uint8_t ** data, size_t * size,
        char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] {
        *data = nullptr;
        *size = 0;
        if (!sharpv_kv_of(llama_get_memory(ctx)) || !sharpv_probe::of(ctx)) {
            return;
        }
        const std::vector<uint8_t> saved = cache_of(ctx).save();
        auto * copy = static_cast<uint8_t *>(std::malloc(saved.size()));
        if (!copy) {
            throw std::bad_alloc();
        }
        std::memcpy(copy, saved.data(), saved.size());
        *data = copy;
        *size = saved.size();
    });
}

void sharpv_bytes_free(uint8_t * data) {
    std::free(data);
}

int32_t sharpv_state_set(
        llama_context * ctx, const uint8_t * llama_data, size_t llama_size, const uint8_t * data, size_t size,
        char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] {
        const std::vector<uint8_t> saved(data, data + size);
        sharpv_kv * kv = sharpv_kv_of(llama_get_memory(ctx));
        if (!saved.empty()) {
            cache_of(ctx).shape(saved);
            layout_changed(ctx);
        } else if (kv) {
            // llama.cpp's part alone has no rows of evicted layers.
            if (!kv->layers.empty()) {
                throw std::runtime_error("the saved KV cache has other layers");
            }
            std::fill(kv->cells.begin(), kv->cells.end(), sharpv_kv::cell_info());
        }
        if (llama_state_set_data(ctx, llama_data, llama_size) == 0) {
            throw std::runtime_error("llama.cpp rejected the saved state");
        }
        if (!saved.empty()) {
            cache_of(ctx).fill(saved);
        }
    });
}

} // extern "C"
