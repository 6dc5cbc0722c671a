// The call sites that the patches put into llama.cpp. The build includes this file before the sources that have them
// (hooks.cmake), so that a patch needs no line for it. The functions are in sharpv's own C++ (src/ffi); until they are
// asked for something, they do nothing.

#pragma once

#include "ggml-cpp.h"
#include "ggml.h"

#include <cstdint>
#include <vector>

struct llama_context;
struct llama_ubatch;
struct llm_graph_context;
class  llama_kv_cache;
class  llm_graph_result;

// The graph that is being built, and its results.
struct sharpv_graph_hooks {
    // Called with every tensor that a model names: first of all for a graph, and between any two layers.
    static void named(const llm_graph_context & graph, ggml_tensor * cur, const char * name, int il);

    // A ubatch was computed.
    static void computed(llama_context & lctx, const llm_graph_result & res);
};

// The layered KV cache: layers from which cells were evicted live in smaller tensors of their own. For a cache that was
// made without it (llama_kv_cache::sharpv is null) all of these say that llama.cpp is to do what it does.
struct sharpv_kv_hooks {
    // Creation: gives each tensor of `ctx` a buffer of its own, so that a layer can be freed, and takes `ctx`; false if
    // llama.cpp is to.
    static bool alloc(llama_kv_cache & kv, ggml_backend_buffer_type_t buft, ggml_context_ptr & ctx);

    // Cells: whether the evicted layers have rows for these ubatches; which cells a ubatch was given.
    static bool has_room(const llama_kv_cache & kv, const std::vector<llama_ubatch> & ubatches);
    static void applied (llama_kv_cache & kv, const std::vector<uint32_t> & cells, const llama_ubatch & ubatch);
    static bool can_shift(const llama_kv_cache & kv);

    // Tensors of an evicted layer, for the graph that is being built; null for the others. `full` asks for the graph of
    // the worst case.
    static ggml_tensor * get_k(const llama_kv_cache & kv, ggml_context * ctx, int32_t il, bool full);
    static ggml_tensor * get_v(const llama_kv_cache & kv, ggml_context * ctx, int32_t il, bool full);
    static ggml_tensor * cpy_k(const llama_kv_cache & kv, ggml_context * ctx, ggml_tensor * k_cur, int32_t il);
    static ggml_tensor * cpy_v(const llama_kv_cache & kv, ggml_context * ctx, ggml_tensor * v_cur, int32_t il);

    // The mask for attention to `k`, which get_k() was asked for just before: `kq_mask`, or one of its own.
    static ggml_tensor * mask(const ggml_tensor * k, ggml_tensor * kq_mask, int32_t il);
};
