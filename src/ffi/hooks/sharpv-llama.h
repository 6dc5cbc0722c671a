// Hooks that the patches call in llama.cpp. The build includes this file at the top of the sources that call them
// (hooks.cmake), so that patches need no #include. The hooks are defined in sharpv's own C++ (src/ffi), and do nothing
// until they are switched on.

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
    // Called with every tensor that a model names: before anything else in a graph, and between any two layers.
    static void named(const llm_graph_context & graph, ggml_tensor * cur, const char * name, int il);

    // Called after a ubatch was computed.
    static void computed(llama_context & lctx, const llm_graph_result & res);
};

// The layered KV cache: layers from which cells were evicted have smaller tensors of their own. For a cache that is not
// layered (llama_kv_cache::sharpv is null), all of these make llama.cpp do what it would do without them.
struct sharpv_kv_hooks {
    // Creation: allocates a buffer for each tensor of `ctx`, so that a layer can be freed alone, and takes ownership of
    // `ctx`; false if llama.cpp should allocate them.
    static bool alloc(llama_kv_cache & kv, ggml_backend_buffer_type_t buft, ggml_context_ptr & ctx);

    // Cells: whether the evicted layers have free rows for these ubatches; which cells a ubatch was assigned.
    static bool has_room(const llama_kv_cache & kv, const std::vector<llama_ubatch> & ubatches);
    static void applied (llama_kv_cache & kv, const std::vector<uint32_t> & cells, const llama_ubatch & ubatch);
    static bool can_shift(const llama_kv_cache & kv);

    // Tensors of an evicted layer, for the graph that is being built; null for other layers. `full` requests the graph
    // of the worst case.
    static ggml_tensor * get_k(const llama_kv_cache & kv, ggml_context * ctx, int32_t il, bool full);
    static ggml_tensor * get_v(const llama_kv_cache & kv, ggml_context * ctx, int32_t il, bool full);
    static ggml_tensor * cpy_k(const llama_kv_cache & kv, ggml_context * ctx, ggml_tensor * k_cur, int32_t il);
    static ggml_tensor * cpy_v(const llama_kv_cache & kv, ggml_context * ctx, ggml_tensor * v_cur, int32_t il);

    // The mask for attention to `k`, which the last get_k() returned: `kq_mask`, or one of the cache's own.
    static ggml_tensor * mask(const ggml_tensor * k, ggml_tensor * kq_mask, int32_t il);
};
