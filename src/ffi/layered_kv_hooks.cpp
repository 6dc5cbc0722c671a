// The layered KV cache's hooks in llama.cpp, which calls them while it creates caches, assigns cells and builds graphs.

#include "hooks/sharpv-llama.h"
#include "layered_kv.h"

#include "llama-kv-cache-iswa.h"
#include "llama-memory-hybrid-iswa.h"
#include "llama-memory-hybrid.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

namespace {

thread_local bool layered_wanted = false;

// The layers of a new cache that get a window, by model layer, and its rows.
thread_local std::vector<bool> window_layers;
thread_local uint32_t          window_rows = 0;

// What this thread is building. Every graph names a tensor before its first attention and after each one, which sets
// both pointers: neither is used after its target was freed.
thread_local struct {
    const llm_graph_context * graph = nullptr;
    sharpv_kv *               kv    = nullptr; // the cache of the last get_k()
} building;

} // namespace

void sharpv_kv_building(const llm_graph_context & graph) { building = { &graph, nullptr }; }

sharpv_kv_scope::sharpv_kv_scope(bool on, std::vector<bool> layers, uint32_t rows) {
    layered_wanted = on;
    window_layers  = std::move(layers);
    window_rows    = rows;
}

sharpv_kv_scope::~sharpv_kv_scope() {
    layered_wanted = false;
    window_layers.clear();
}

//
// the inputs of a graph
//

// The mask of the layers that do not see all cells; for evicted layers also the indices of the rows to write.
class sharpv_attn_input : public llm_graph_input_i {
public:
    sharpv_attn_input(sharpv_kv & kv, bool evicted) : kv(kv), evicted(evicted) {}

    void set_input(const llama_ubatch * ubatch) override {
        if (k_idxs && k_idxs->buffer) {
            // Inputs are in host memory, as llama.cpp's own: the scheduler copies them to the device.
            GGML_ASSERT(ggml_backend_buffer_is_host(k_idxs->buffer));
            auto * data = static_cast<int64_t *>(k_idxs->data);
            for (uint32_t i = 0; i < ubatch->n_tokens; ++i) {
                data[i] = row_of(i);
            }
        }
        if (v_idxs && v_idxs->buffer) {
            GGML_ASSERT(ggml_backend_buffer_is_host(v_idxs->buffer));
            auto * data = static_cast<int64_t *>(v_idxs->data);
            const int64_t n_embd = v_idxs->ne[0]/ubatch->n_tokens;
            for (uint32_t i = 0; i < ubatch->n_tokens; ++i) {
                for (int64_t j = 0; j < n_embd; ++j) {
                    // n_embd is 1 if V is not transposed
                    data[i*n_embd + j] = j*kv.n_rows + row_of(i);
                }
            }
        }
        if (mask && mask->buffer) {
            if (mask->type == GGML_TYPE_F16) {
                fill_mask<ggml_fp16_t>(ggml_fp32_to_fp16(-INFINITY));
            } else {
                fill_mask<float>(-INFINITY);
            }
        }
    }

    bool can_reuse(const llm_graph_params & params) override {
        return mask && mask->ne[1] == params.ubatch.n_tokens && (!evicted || mask->ne[0] == kv.n_kv);
    }

    // Adds the indices of the rows of evicted layers to write.
    void add_idxs(const llm_graph_context & graph) {
        const int64_t n_tokens = graph.ubatch.n_tokens;
        k_idxs = ggml_new_tensor_1d(graph.ctx0, GGML_TYPE_I64, n_tokens);
        v_idxs = ggml_new_tensor_1d(graph.ctx0, GGML_TYPE_I64, n_tokens*kv.n_v_idxs());
        ggml_set_input(k_idxs);
        ggml_set_input(v_idxs);
        ggml_set_name(k_idxs, "sharpv_k_idxs");
        ggml_set_name(v_idxs, "sharpv_v_idxs");
    }

    // Adds a mask over `n_kv` rows, which is filled from `kq_mask`.
    void add_mask(const llm_graph_context & graph, ggml_tensor * kq_mask, int64_t n_kv) {
        primary = kq_mask;
        // Even if no layer uses it, it must be in the graph: llama.cpp fills it.
        ggml_build_forward_expand(graph.gf, kq_mask);
        mask = ggml_new_tensor_4d(graph.ctx0, kq_mask->type, n_kv, kq_mask->ne[1], 1, 1);
        ggml_set_input(mask);
        ggml_set_name(mask, evicted ? "sharpv_mask_evicted" : "sharpv_mask_hidden");
    }

    sharpv_kv & kv;
    const bool  evicted; // the mask of evicted layers; else that of layers with hidden cells

    ggml_tensor * k_idxs  = nullptr; // I64 [n_tokens]
    ggml_tensor * v_idxs  = nullptr; // I64 [n_tokens] or [n_tokens*n_embd_v_gqa]
    ggml_tensor * mask    = nullptr; // like `primary`, with another number of columns
    ggml_tensor * primary = nullptr; // the mask of the layers that see all cells; llama.cpp fills it first

private:
    int64_t row_of(uint32_t i) const { return kv.cells[kv.ubatch_cells[i]].row; }

    template <typename T>
    void fill_mask(T drop) {
        // For each column of the mask, the column of `primary` to copy; -1 for none.
        const int64_t n = mask->ne[0];
        const int64_t n_primary = primary->ne[0];
        std::vector<int32_t> from(n, -1);
        for (int64_t j = 0; j < n; ++j) {
            const int64_t cell = !evicted ? j : kv.is_live(j) ? kv.cell_of_row[j] : -1;
            if (cell >= 0 && cell < n_primary && !(!evicted && kv.is_used(cell) && kv.cells[cell].hidden)) {
                from[j] = cell;
            }
        }
        GGML_ASSERT(ggml_backend_buffer_is_host(primary->buffer) && ggml_backend_buffer_is_host(mask->buffer));
        const auto * src = static_cast<const T *>(primary->data);
        auto       * dst = static_cast<T *>(mask->data);
        for (int64_t i = 0; i < mask->ne[1]; ++i) {
            for (int64_t j = 0; j < n; ++j) {
                dst[i*n + j] = from[j] < 0 ? drop : src[i*n_primary + from[j]];
            }
        }
    }
};

namespace {

// The input of the graph that is being built. Adds it if it is missing.
sharpv_attn_input & input_of(sharpv_kv & s, bool evicted) {
    const llm_graph_context & graph = *building.graph;
    for (const auto & other : graph.res->inputs) {
        auto * mine = dynamic_cast<sharpv_attn_input *>(other.get());
        if (mine && &mine->kv == &s && mine->evicted == evicted) {
            return *mine;
        }
    }
    auto made = std::make_unique<sharpv_attn_input>(s, evicted);
    if (evicted) {
        made->add_idxs(graph);
    }
    return *static_cast<sharpv_attn_input *>(graph.res->add_input(std::move(made)));
}

} // namespace

//
// creation
//

sharpv_kv * sharpv_kv::of(llama_kv_cache * kv) {
    // With several streams, each sequence has its own set of cells, which is not supported.
    if (kv && !kv->sharpv && layered_wanted && kv->n_stream == 1 && !kv->other && !kv->hparams.no_alloc) {
        kv->sharpv = std::make_shared<sharpv_kv>(*kv);
    }
    return kv ? kv->sharpv.get() : nullptr;
}

bool sharpv_kv_hooks::alloc(llama_kv_cache & kv, ggml_backend_buffer_type_t buft, ggml_context_ptr & ctx) {
    sharpv_kv * s = sharpv_kv::of(&kv);
    if (!s) {
        return false;
    }
    const auto is_here = [&](const auto & l) { return ggml_get_tensor(ctx.get(), l.k->name) == l.k; };
    // Windows are opened before their tensors are allocated: at full size, clearing the memory would commit it.
    std::vector<size_t> windowed;
    for (size_t i = 0; i < kv.layers.size(); ++i) {
        const auto & l = kv.layers[i];
        if (is_here(l) && l.il < window_layers.size() && window_layers[l.il] && windowed.size() + 1 < kv.layers.size()) {
            windowed.push_back(i);
        }
    }
    if (s->contexts.empty() && ggml_backend_buft_is_host(buft) && std::all_of(kv.layers.begin(), kv.layers.end(), is_here)) {
        // The first type of buffer is the only one.
        s->all_in_main_memory();
    }
    if (!windowed.empty() && s->can_evict()) {
        s->open_window(windowed, window_rows);
    }
    for (ggml_tensor * t = ggml_get_first_tensor(ctx.get()); t != nullptr; t = ggml_get_next_tensor(ctx.get(), t)) {
        if (t->view_src && t->view_src->ne[1] != t->ne[1]) {
            continue; // a view of a layer with a window, which is not used any more
        }
        if (t->view_src) {
            ggml_backend_view_init(t);
        } else {
            sharpv_kv::alloc(kv.ctxs_bufs, buft, t);
        }
    }
    s->contexts.push_back(std::move(ctx));
    return true;
}

//
// cells
//

bool sharpv_kv_hooks::has_room(const llama_kv_cache & kv, const std::vector<llama_ubatch> & ubatches) {
    if (!kv.sharpv || kv.sharpv->layers.empty()) {
        return true;
    }
    uint32_t n = 0;
    for (const auto & ubatch : ubatches) {
        n += ubatch.n_tokens;
    }
    return n <= kv.sharpv->n_free_rows();
}

void sharpv_kv_hooks::applied(llama_kv_cache & kv, const std::vector<uint32_t> & cells, const llama_ubatch & ubatch) {
    if (kv.sharpv) {
        kv.sharpv->applied(cells, ubatch);
    }
}

bool sharpv_kv_hooks::can_shift(const llama_kv_cache & kv) {
    return !kv.sharpv || kv.sharpv->layers.empty();
}

//
// tensors
//

ggml_tensor * sharpv_kv_hooks::get_k(const llama_kv_cache & kv, ggml_context * ctx, int32_t il, bool full) {
    building.kv = kv.sharpv.get();
    if (!kv.sharpv || !kv.sharpv->owns(il)) {
        return nullptr;
    }
    const sharpv_kv & s = *kv.sharpv;
    ggml_tensor * k = s.layers[s.layer_of.at(il)].k;
    const int64_t n_head = kv.hparams.n_embd_head_k(il);
    return ggml_view_4d(ctx, k, n_head, kv.hparams.n_head_kv(il), full ? s.n_rows : s.n_kv, 1,
            ggml_row_size(k->type, n_head), k->nb[1], k->nb[2], 0);
}

ggml_tensor * sharpv_kv_hooks::get_v(const llama_kv_cache & kv, ggml_context * ctx, int32_t il, bool full) {
    if (!kv.sharpv || !kv.sharpv->owns(il)) {
        return nullptr;
    }
    const sharpv_kv & s = *kv.sharpv;
    ggml_tensor * v = s.layers[s.layer_of.at(il)].v;
    const int64_t n_head = kv.hparams.n_embd_head_v(il);
    const int64_t n_kv   = full ? s.n_rows : s.n_kv;
    if (!kv.v_trans) {
        return ggml_view_4d(ctx, v, n_head, kv.hparams.n_head_kv(il), n_kv, 1,
                ggml_row_size(v->type, n_head), v->nb[1], v->nb[2], 0);
    }
    const size_t line = ggml_row_size(v->type, s.n_rows);
    return ggml_view_4d(ctx, v, n_kv, kv.hparams.n_head_kv(il), n_head, 1, line*n_head, line, line*v->ne[0], 0);
}

ggml_tensor * sharpv_kv_hooks::cpy_k(const llama_kv_cache & kv, ggml_context * ctx, ggml_tensor * k_cur, int32_t il) {
    if (!kv.sharpv || !kv.sharpv->owns(il)) {
        return nullptr;
    }
    sharpv_kv & s = *kv.sharpv;
    ggml_tensor * k = s.layers[s.layer_of.at(il)].k;
    GGML_ASSERT(building.graph && building.graph->ctx0 == ctx);
    GGML_ASSERT(ggml_row_size(k_cur->type, k_cur->ne[0]) == k_cur->nb[1]);
    k_cur = ggml_view_2d(ctx, k_cur, k_cur->ne[0]*k_cur->ne[1], k_cur->ne[2], k_cur->nb[2], 0);
    return ggml_set_rows(ctx, k, k_cur, input_of(s, true).k_idxs);
}

ggml_tensor * sharpv_kv_hooks::cpy_v(const llama_kv_cache & kv, ggml_context * ctx, ggml_tensor * v_cur, int32_t il) {
    if (!kv.sharpv || !kv.sharpv->owns(il)) {
        return nullptr;
    }
    sharpv_kv & s = *kv.sharpv;
    ggml_tensor * v = s.layers[s.layer_of.at(il)].v;
    GGML_ASSERT(building.graph && building.graph->ctx0 == ctx);
    GGML_ASSERT(ggml_row_size(v_cur->type, v_cur->ne[0]) == v_cur->nb[1]);
    const int64_t n_embd   = v_cur->ne[0]*v_cur->ne[1];
    const int64_t n_tokens = v_cur->ne[2];
    ggml_tensor * v_idxs   = input_of(s, true).v_idxs;
    if (!kv.v_trans) {
        v_cur = ggml_view_2d(ctx, v_cur, n_embd, n_tokens, v_cur->nb[2], 0);
        return ggml_set_rows(ctx, v, v_cur, v_idxs);
    }
    v_cur = ggml_row_size(v_cur->type, n_embd) == v_cur->nb[2]
        ? ggml_reshape_2d(ctx, v_cur, n_embd, n_tokens)
        : ggml_cont_2d   (ctx, v_cur, n_embd, n_tokens);
    // If layers differ in the size of their heads, V has the width of the largest.
    if (n_embd < v->ne[0]) {
        v_cur = ggml_pad(ctx, v_cur, v->ne[0] - n_embd, 0, 0, 0);
    }
    // A transposed V is written element by element.
    return ggml_set_rows(ctx,
            ggml_reshape_2d(ctx, v, 1, ggml_nelements(v)), ggml_reshape_2d(ctx, v_cur, 1, ggml_nelements(v_cur)), v_idxs);
}

ggml_tensor * sharpv_kv_hooks::mask(const ggml_tensor * k, ggml_tensor * kq_mask, int32_t il) {
    sharpv_kv * s = std::exchange(building.kv, nullptr);
    if (!s || (!s->owns(il) && !s->hides(il)) || k->view_src != s->keys_of(il)) {
        return kq_mask;
    }
    sharpv_attn_input & input = input_of(*s, s->owns(il));
    if (!input.mask) {
        input.add_mask(*building.graph, kq_mask, k->ne[2]);
    }
    return input.mask;
}

//
// finding the cache of a memory
//

sharpv_kv * sharpv_kv_of(llama_memory_i * memory) {
    if (auto * m = dynamic_cast<llama_kv_cache_iswa *>(memory)) {
        return sharpv_kv::of(m->get_base());
    }
    if (auto * m = dynamic_cast<llama_memory_hybrid *>(memory)) {
        return sharpv_kv::of(m->get_mem_attn());
    }
    if (auto * m = dynamic_cast<llama_memory_hybrid_iswa *>(memory)) {
        return sharpv_kv::of(m->get_mem_attn()->get_base());
    }
    return sharpv_kv::of(dynamic_cast<llama_kv_cache *>(memory));
}

sharpv_kv * sharpv_kv_window_of(llama_memory_i * memory) {
    if (auto * m = dynamic_cast<llama_kv_cache_iswa *>(memory)) {
        return sharpv_kv::of(m->get_swa());
    }
    if (auto * m = dynamic_cast<llama_memory_hybrid_iswa *>(memory)) {
        return sharpv_kv::of(m->get_mem_attn()->get_swa());
    }
    return nullptr;
}
