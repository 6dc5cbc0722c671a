#include "similarity.h"

#include "hooks/sharpv-llama.h"
#include "layered_kv.h"

#include "llama-context.h"
#include "llama-graph.h"

#include <cstring>
#include <mutex>
#include <set>

namespace {

// All probes: a context's user data may be something else.
std::mutex             live_mutex;
std::set<const void *> live;

// The probe's nodes in one graph. It has no input tensors; as an llm_graph_input_i it lives as long as the graph.
class probe_nodes : public llm_graph_input_i {
public:
    void set_input(const llama_ubatch * ubatch) override { GGML_UNUSED(ubatch); }

    // What the nodes depend on, llama.cpp compares anyway: see is_measured().
    bool can_reuse(const llm_graph_params & params) override { GGML_UNUSED(params); return true; }

    ggml_tensor *    unit    = nullptr; // the embeddings, with a mean square of 1: [n_embd, n_tokens]
    ggml_tensor *    state   = nullptr; // the latest output of a layer that is not measured yet
    int              layer   = -1;      // the layer that `state` enters
    ggml_tensor *    results = nullptr; // [layers.size(), n_tokens]
    std::vector<int> layers;
};

template <typename Inputs>
probe_nodes * find(const Inputs & inputs) {
    for (const auto & input : inputs) {
        if (auto * mine = dynamic_cast<probe_nodes *>(input.get())) {
            return mine;
        }
    }
    return nullptr;
}

// A single text token is not measured, so that decoding costs nothing.
bool is_measured(const llama_ubatch & ubatch) {
    return ubatch.n_tokens > 1 || !ubatch.token;
}

// Adds the cosines of `nodes.state`.
void measure(const llm_graph_context & graph, probe_nodes & nodes) {
    constexpr float EPS = 1e-12f;
    ggml_context * ctx = graph.ctx0;
    if (!nodes.unit) {
        ggml_tensor * embd = graph.res->t_inp_embd;
        if (!ggml_is_contiguous(embd)) {
            embd = ggml_cont(ctx, embd);
        }
        nodes.unit = ggml_rms_norm(ctx, embd, EPS);
        ggml_set_name(nodes.unit, "sharpv_unit");
    }
    ggml_tensor * cosine = ggml_sum_rows(ctx, ggml_mul(ctx, ggml_rms_norm(ctx, nodes.state, EPS), nodes.unit));
    if (nodes.results) {
        nodes.results->flags &= ~GGML_TENSOR_FLAG_OUTPUT;
        nodes.results = ggml_concat(ctx, nodes.results, cosine, 0);
    } else {
        nodes.results = cosine;
    }
    ggml_set_name(nodes.results, "sharpv_similarity");
    ggml_set_output(nodes.results);
    ggml_build_forward_expand(graph.gf, nodes.results);
    nodes.layers.push_back(nodes.layer);
    nodes.state = nullptr;
}

} // namespace

sharpv_probe::sharpv_probe() {
    const std::lock_guard<std::mutex> lock(live_mutex);
    live.insert(this);
}

sharpv_probe::~sharpv_probe() {
    const std::lock_guard<std::mutex> lock(live_mutex);
    live.erase(this);
}

sharpv_probe * sharpv_probe::of(const llama_cparams & cparams) {
    void * data = cparams.cb_eval ? nullptr : cparams.cb_eval_user_data;
    if (!data) {
        return nullptr;
    }
    const std::lock_guard<std::mutex> lock(live_mutex);
    return live.count(data) ? static_cast<sharpv_probe *>(data) : nullptr;
}

sharpv_probe * sharpv_probe::of(const llama_context * lctx) {
    return of(lctx->get_cparams());
}

void sharpv_graph_hooks::named(const llm_graph_context & graph, ggml_tensor * cur, const char * name, int il) {
    sharpv_kv_building(graph);
    if (il < 0 || !is_measured(graph.ubatch) || !graph.res->t_inp_embd || !sharpv_probe::of(graph.cparams)) {
        return;
    }
    probe_nodes * nodes = find(graph.res->inputs);
    // Some models add features of the image after a layer (deepstack). What counts is the input of the next layer.
    const bool is_output = std::strcmp(name, "l_out")         == 0;
    const bool is_added  = std::strcmp(name, "deepstack_out") == 0;
    const bool is_input  = std::strcmp(name, "deepstack_in")  == 0;
    const int  layer     = is_input ? il : il + 1;
    if (is_output || is_added || is_input) {
        // The last layer's output enters no layer, and has only the rows whose outputs are requested.
        const bool fits = layer < graph.n_layer && cur->ne[0] == graph.n_embd && cur->ne[1] == graph.n_tokens && ggml_nrows(cur) == graph.n_tokens;
        if (!fits) {
            return;
        }
        if (!nodes) {
            nodes = static_cast<probe_nodes *>(graph.res->add_input(std::make_unique<probe_nodes>()));
        }
        if (nodes->state && nodes->layer != layer) {
            measure(graph, *nodes);
        }
        nodes->state = cur;
        nodes->layer = layer;
    } else if (nodes && nodes->state && il >= nodes->layer) {
        measure(graph, *nodes);
    }
}

void sharpv_graph_hooks::computed(llama_context & lctx, const llm_graph_result & res) {
    sharpv_probe * probe = sharpv_probe::of(&lctx);
    if (!probe) {
        return;
    }
    const probe_nodes * nodes = find(res.inputs);
    const sharpv_kv * kv = probe->kv;
    if (!nodes || !nodes->results || !kv) {
        return;
    }
    auto result = std::make_unique<sharpv_probe::pending>();
    result->cells  = kv->ubatch_cells;
    result->layers = nodes->layers;
    result->n_embd = nodes->unit->ne[0];
    bool any_visual = false;
    for (const uint32_t cell : result->cells) {
        result->serials.push_back(kv->cells[cell].serial);
        any_visual |= kv->cells[cell].visual;
    }
    if (!any_visual || (int64_t) result->cells.size() != nodes->results->ne[1]) {
        return;
    }
    result->values.resize(ggml_nelements(nodes->results));
    ggml_backend_t backend = ggml_backend_sched_get_tensor_backend(lctx.get_sched(), nodes->results);
    ggml_backend_tensor_get_async(backend, nodes->results, result->values.data(), 0, ggml_nbytes(nodes->results));
    probe->results.push_back(std::move(result));
}

void sharpv_probe::flush(llama_context * lctx, sharpv_kv & kv) {
    if (results.empty()) {
        return;
    }
    llama_synchronize(lctx);
    for (const auto & result : results) {
        for (float & value : result->values) {
            value /= result->n_embd;
        }
        kv.store(result->cells, result->serials, result->layers, result->values.data());
    }
    results.clear();
}
