#include "partial_vision.h"

#include "guard.h"
#include "hooks/sharpv-clip.h"

// These headers define static functions that not every source uses.
#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#endif
#include "clip-graph.h"
#include "ggml-impl.h"
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

#include <algorithm>
#include <cmath>
#include <functional>
#include <new>
#include <stdexcept>
#include <string>

namespace {

// The order of an image's rows between the layers.
enum class row_order {
    RASTER, // as the patches in the image
    GROUPS, // cell by cell; with window attention (Qwen2.5-VL), in the order of the graph's input `inv_window_idx`
};

// What the current pass computes.
enum class pass_kind { NONE, LOOK, ALL_LAYERS, FIRST_LAYERS, LAST_LAYERS };

// The number of rows is padded to a multiple of this: kernels work on blocks of rows, and few shapes mean few plans.
constexpr size_t ROW_STEP = 8;

// Graph inputs of a pass. Each is null if the pass does not need it.
struct pass_inputs {
    ggml_tensor * read       = nullptr; // rows to compute
    ggml_tensor * write      = nullptr; // where to write them: the same rows, or the spare ones for padding
    ggml_tensor * write_cell = nullptr; // the cells of these rows, for what is cached by cell
    ggml_tensor * positions  = nullptr; // M-RoPE positions of these rows
    ggml_tensor * visible    = nullptr; // [rows]: 0 for a row that has keys and values in the last layers, else -inf
    ggml_tensor * filled     = nullptr; // rows that receive the gain of a donor
    ggml_tensor * donors     = nullptr; // rows that went through the last layers

    ggml_tensor * all_positions = nullptr; // llama.cpp's positions of all rows
};

ggml_tensor * new_input(ggml_context * ctx, ggml_type type, int64_t n, const char * name) {
    ggml_tensor * tensor = ggml_new_tensor_1d(ctx, type, n);
    ggml_set_name(tensor, name);
    ggml_set_input(tensor);
    return tensor;
}

template <typename T>
void set(ggml_tensor * tensor, const std::vector<T> & values) {
    if (tensor) {
        GGML_ASSERT(ggml_nbytes(tensor) == values.size() * sizeof(T));
        ggml_backend_tensor_set(tensor, values.data(), 0, ggml_nbytes(tensor));
    }
}

std::vector<int32_t> get_i32(const ggml_tensor * tensor) {
    std::vector<int32_t> values(ggml_nelements(tensor));
    ggml_backend_tensor_get(tensor, values.data(), 0, ggml_nbytes(tensor));
    return values;
}

} // namespace

struct sharpv_vision_stream {
    // The images.
    sharpv_image image = {};
    row_order      order   = row_order::RASTER;
    bool           classes = false;       // whether there is a class token
    bool           classes_first = false; // whether it is the first row, rather than the last

    // The cache. Each tensor ends with spare rows, into which padding is written.
    ggml_context_ptr        ctx;
    ggml_backend_buffer_ptr buffer;
    ggml_backend_t          backend = nullptr;
    std::vector<ggml_tensor *> k, v;               // for each layer [n_embd_kv, rows + spare] F16
    ggml_tensor *              middle   = nullptr; // [n_embd, rows + spare], the input of the layer `split`
    ggml_tensor *              last     = nullptr; // [n_embd, rows + spare], the output of the last layer
    std::vector<ggml_tensor *> features;           // for each layer that has them [n, cells + 1]
    bool                       is_empty = true;    // no image was computed yet

    // The pass.
    pass_kind             kind  = pass_kind::NONE;
    bool                  building = false; // between begin() and the end of clip_encode()
    std::vector<uint32_t> cells;            // the cells to compute, ascending
    bool                  all   = false;    // whether these are all cells
    int                   split = 0;        // the first of the last layers
    std::vector<uint8_t>  states;           // a sharpv_cell_state for each cell
    pass_inputs           in;
    std::vector<int32_t>  row_of;           // the rows of each cell, one cell after the other
    ggml_tensor *         middle_out = nullptr;
    int                   n_cut      = 0;   // nodes of the graph that FIRST_LAYERS needs
    float *               middle_to  = nullptr; // has `n_middle` values
    size_t                n_middle   = 0;
    std::string           error;

    size_t rows_per_cell() const { return (size_t) image.merge * image.merge; }
    size_t n_cells()       const { return (size_t) image.cells_x * image.cells_y; }
    size_t n_rows()        const { return n_cells() * rows_per_cell() + classes; }
    size_t n_spare()       const { return rows_per_cell(); }
    int    class_row()     const { return classes_first ? 0 : (int) n_rows() - 1; }

    // The number of values in the hidden states of the cells to compute.
    size_t n_middle_of(size_t n_embd) const { return cells.size() * rows_per_cell() * n_embd; }

    // The number of cells that a pass computes, with padding; and of rows, with padding and the class token.
    size_t n_padded() const {
        const size_t rpc  = rows_per_cell();
        const size_t step = std::max<size_t>(1, ROW_STEP / rpc);
        return (std::max<size_t>(1, cells.size()) + step - 1) / step * step;
    }
    size_t n_computed() const { return all ? n_rows() : n_padded() * rows_per_cell() + classes; }

    [[noreturn]] void fail(const char * what) {
        error = what;
        throw std::runtime_error(what);
    }

    void empty() {
        buffer.reset();
        ctx.reset();
        k.clear();
        v.clear();
        features.clear();
        middle = last = nullptr;
        is_empty = true;
    }

    void allocate(const clip_graph & graph);

    // Returns `row_of`. The inputs of the graph must be set.
    std::vector<int32_t> rows_of_cells(ggml_cgraph * gf) const;
};

namespace {

thread_local sharpv_vision_stream * current = nullptr;

// The stream whose pass this thread is building or computing.
sharpv_vision_stream * active() {
    return current && current->building ? current : nullptr;
}

// Describes the image in `s`; false if the encoder cannot compute parts of it.
bool describe(sharpv_vision_stream & s, const clip_model & model, const clip_image_f32_batch & imgs) {
    const auto & hparams = model.hparams;
    if (imgs.is_audio || imgs.entries.empty() || imgs.entries.size() > 2) {
        return false;
    }
    uint32_t n_layers = hparams.n_layer;
    uint32_t merge    = hparams.n_merge;
    bool     tokens   = true;
    bool     pairs    = false;
    s.order         = row_order::RASTER;
    s.classes       = model.class_embedding != nullptr;
    s.classes_first = false;
    switch (model.proj_type) {
        case PROJECTOR_TYPE_IDEFICS3:
        case PROJECTOR_TYPE_GEMMA3:
        case PROJECTOR_TYPE_INTERNVL:
            break;
        case PROJECTOR_TYPE_MLP:
            if (hparams.feature_layers.size() > 1) {
                return false; // Granite uses the outputs of several layers
            }
            // As in clip_graph_llava: unless the file names a layer, the last one is not run if the file contains it.
            n_layers = !hparams.feature_layers.empty() ? hparams.feature_layers[0] : n_layers - !s.classes;
            merge = 1;
            s.classes_first = true;
            break;
        case PROJECTOR_TYPE_MINICPMV:
            merge  = 1; // the resampler makes each token from all patches
            tokens = false;
            break;
        case PROJECTOR_TYPE_QWEN2VL:
        case PROJECTOR_TYPE_QWEN25VL:
        case PROJECTOR_TYPE_QWEN3VL:
            merge   = 2;
            s.order = row_order::GROUPS;
            pairs   = true;
            break;
        default:
            return false;
    }
    if (imgs.entries.size() > 1 && !pairs) {
        return false;
    }
    const auto & first = imgs.entries[0];
    if (merge < 1 || n_layers < 1 || n_layers > model.layers.size() || hparams.n_embd < 1 || hparams.patch_size < 1 || first.is_placeholder() || first.anyres.is_tiled()) {
        return false;
    }
    // Callers rely on the number of values.
    const size_t n_values = (size_t) 3 * first.nx() * first.ny();
    for (const auto & image : imgs.entries) {
        if (image.nx() != first.nx() || image.ny() != first.ny() || image.get_ro_buf().size() != n_values) {
            return false;
        }
    }
    // The rest at the right and at the bottom belongs to no patch: 384 pixels are 27 patches of 14.
    const uint32_t patches_x = first.nx() / hparams.patch_size;
    const uint32_t patches_y = first.ny() / hparams.patch_size;
    if (patches_x < merge || patches_y < merge || patches_x % merge != 0 || patches_y % merge != 0) {
        return false;
    }
    auto & p = s.image;
    p = {};
    p.n_images = imgs.entries.size();
    for (size_t i = 0; i < imgs.entries.size(); i++) {
        p.images[i] = imgs.entries[i].get_ro_buf().data();
    }
    p.width    = first.nx();
    p.height   = first.ny();
    p.patch    = hparams.patch_size;
    p.merge    = merge;
    p.cells_x  = patches_x / merge;
    p.cells_y  = patches_y / merge;
    p.n_embd   = hparams.n_embd;
    p.n_layers = n_layers;
    p.cells_are_tokens = tokens;
    std::copy(hparams.image_std, hparams.image_std + 3, p.std);

    const uint64_t rows    = s.n_rows() + s.n_spare();
    const uint64_t d_head  = hparams.n_embd_head > 0 ? hparams.n_embd_head : hparams.n_embd / std::max(1, hparams.n_head);
    const uint64_t n_kv    = d_head * hparams.n_head_kv;
    p.cache_bytes = rows * (2 * n_layers * n_kv * sizeof(ggml_fp16_t) + 2 * p.n_embd * sizeof(float));
    for (const auto & layer : model.layers) {
        if (model.proj_type == PROJECTOR_TYPE_QWEN3VL && layer.has_deepstack()) {
            p.cache_bytes += (s.n_cells() + 1) * layer.deepstack_fc2_w->ne[1] * sizeof(float);
        }
    }
    return true;
}

// Selects the rows to compute from `cur` [n, all rows].
ggml_tensor * select(const clip_graph & graph, const sharpv_vision_stream & s, ggml_tensor * cur) {
    return s.all ? cur : ggml_get_rows(graph.ctx0, cur, s.in.read);
}

// Writes the rows of `cur` into `cache`. Returns the first `n` rows of the cache, which excludes the spare ones.
ggml_tensor * write(const clip_graph & graph, ggml_tensor * cache, ggml_tensor * cur, ggml_tensor * where, int64_t n) {
    ggml_context * ctx = graph.ctx0;
    ggml_tensor * to;
    if (where) {
        to = ggml_set_rows(ctx, cache, cur, where);
        // Even if this pass does not read it.
        ggml_build_forward_expand(graph.gf, to);
        return ggml_view_2d(ctx, to, to->ne[0], n, to->nb[1], 0);
    }
    to = ggml_cpy(ctx, cur, ggml_view_2d(ctx, cache, cache->ne[0], n, cache->nb[1], 0));
    ggml_build_forward_expand(graph.gf, to);
    return to;
}

// Makes the inputs that select the rows to compute.
void make_row_inputs(const clip_graph & graph, sharpv_vision_stream & s) {
    ggml_context * ctx = graph.ctx0;
    s.in.read = s.in.write = s.in.write_cell = nullptr;
    if (s.all) {
        return;
    }
    s.in.read       = new_input(ctx, GGML_TYPE_I32, s.n_computed(), "sharpv_read");
    s.in.write      = new_input(ctx, GGML_TYPE_I32, s.n_computed(), "sharpv_write");
    s.in.write_cell = new_input(ctx, GGML_TYPE_I32, s.n_padded(),   "sharpv_write_cell");
    for (ggml_tensor * tensor : { s.in.read, s.in.write, s.in.write_cell }) {
        ggml_build_forward_expand(graph.gf, tensor);
    }
}

size_t count(const std::vector<uint8_t> & states, sharpv_cell_state state) {
    return std::count(states.begin(), states.end(), (uint8_t) state);
}

// Whether no cell may attend to this one in the last layers.
bool is_hidden(uint8_t state) {
    return state == SHARPV_CELL_STOPPED || state == SHARPV_CELL_FILLED;
}

// Clears the graph for a pass over only the last layers, but keeps the inputs, which llama.cpp will set.
void start_over(ggml_cgraph * gf) {
    std::vector<ggml_tensor *> inputs;
    for (int i = 0; i < gf->n_leafs; i++) {
        if (gf->leafs[i]->flags & GGML_TENSOR_FLAG_INPUT) {
            inputs.push_back(gf->leafs[i]);
        }
    }
    ggml_graph_clear(gf);
    for (ggml_tensor * input : inputs) {
        ggml_build_forward_expand(gf, input);
    }
}

} // namespace

void sharpv_vision_stream::allocate(const clip_graph & graph) {
    if (buffer) {
        return;
    }
    const int64_t rows = n_rows() + n_spare();
    const int64_t n_kv = (int64_t) graph.d_head * graph.n_head_kv;
    const size_t  n    = 2 * image.n_layers + 2 + graph.model.layers.size();
    ctx.reset(ggml_init({ n * ggml_tensor_overhead(), nullptr, true }));
    k.resize(image.n_layers);
    v.resize(image.n_layers);
    features.assign(image.n_layers, nullptr);
    for (uint32_t il = 0; il < image.n_layers; il++) {
        k[il] = ggml_new_tensor_2d(ctx.get(), GGML_TYPE_F16, n_kv, rows);
        v[il] = ggml_new_tensor_2d(ctx.get(), GGML_TYPE_F16, n_kv, rows);
        const auto & layer = graph.model.layers[il];
        if (graph.proj_type == PROJECTOR_TYPE_QWEN3VL && layer.has_deepstack()) {
            features[il] = ggml_new_tensor_2d(ctx.get(), GGML_TYPE_F32, layer.deepstack_fc2_w->ne[1], n_cells() + 1);
        }
    }
    middle = ggml_new_tensor_2d(ctx.get(), GGML_TYPE_F32, graph.n_embd, rows);
    last   = ggml_new_tensor_2d(ctx.get(), GGML_TYPE_F32, graph.n_embd, rows);
    buffer.reset(ggml_backend_alloc_ctx_tensors(ctx.get(), backend));
    if (!buffer) {
        empty();
        fail("not enough memory for the encoder's cache between frames");
    }
    // Rows that no pass has written yet must be zero.
    ggml_backend_buffer_clear(buffer.get(), 0);
}

std::vector<int32_t> sharpv_vision_stream::rows_of_cells(ggml_cgraph * gf) const {
    const size_t rpc = rows_per_cell();
    std::vector<int32_t> rows(n_cells() * rpc);
    if (order == row_order::GROUPS) {
        std::vector<int32_t> place(n_cells());
        if (ggml_tensor * windows = ggml_graph_get_tensor(gf, "inv_window_idx")) {
            const auto cell_at = get_i32(windows);
            for (size_t i = 0; i < cell_at.size(); i++) {
                place.at(cell_at[i]) = i;
            }
        } else {
            for (size_t i = 0; i < place.size(); i++) {
                place[i] = i;
            }
        }
        for (size_t cell = 0; cell < n_cells(); cell++) {
            for (size_t i = 0; i < rpc; i++) {
                rows[cell * rpc + i] = place[cell] * rpc + i;
            }
        }
        return rows;
    }
    const size_t merge = image.merge;
    const size_t width = image.cells_x * merge;
    const size_t first = classes && classes_first;
    for (size_t cell = 0; cell < n_cells(); cell++) {
        const size_t x = cell % image.cells_x * merge;
        const size_t y = cell / image.cells_x * merge;
        for (size_t i = 0; i < rpc; i++) {
            rows[cell * rpc + i] = first + (y + i / merge) * width + x + i % merge;
        }
    }
    return rows;
}

bool sharpv_clip_hooks::begin(ggml_backend_t backend, const clip_model & model, const clip_image_f32_batch & imgs) {
    sharpv_vision_stream * s = current;
    if (!s) {
        return true;
    }
    if (s->kind == pass_kind::LOOK) {
        const sharpv_image before = s->image;
        if (!describe(*s, model, imgs)) {
            s->image = {};
            s->empty();
            return false;
        }
        const auto & p = s->image;
        if (p.width != before.width || p.height != before.height || p.n_embd != before.n_embd || backend != s->backend) {
            s->empty();
        }
        s->backend = backend;
        return false;
    }
    if (backend != s->backend) {
        s->fail("the stream belongs to another encoder");
    }
    s->in         = {};
    s->middle_out = nullptr;
    s->n_cut      = 0;
    s->building   = true;
    return true;
}

ggml_tensor * sharpv_clip_hooks::layer_in(const clip_graph & graph, ggml_tensor * cur, int il) {
    sharpv_vision_stream * s = active();
    if (!s) {
        return cur;
    }
    const int64_t n_rows = s->n_rows();
    if (il == 0) {
        if (ggml_nrows(cur) != n_rows) {
            s->fail("the encoder divides the image in another way than expected");
        }
        s->allocate(graph);
        if (s->kind != pass_kind::LAST_LAYERS) {
            make_row_inputs(graph, *s);
            cur = select(graph, *s, ggml_reshape_2d(graph.ctx0, cur, cur->ne[0], n_rows));
        }
    }
    if (il != s->split || s->kind == pass_kind::ALL_LAYERS) {
        return cur;
    }
    if (s->kind == pass_kind::FIRST_LAYERS) {
        write(graph, s->middle, cur, s->in.write, n_rows);
        ggml_set_output(cur);
        s->middle_out = cur;
        s->n_cut      = ggml_graph_n_nodes(graph.gf);
        return cur;
    }
    start_over(graph.gf);
    make_row_inputs(graph, *s);
    const size_t n_hidden = count(s->states, SHARPV_CELL_STOPPED) + count(s->states, SHARPV_CELL_FILLED);
    if (n_hidden > 0) {
        s->in.visible = new_input(graph.ctx0, GGML_TYPE_F32, n_rows, "sharpv_visible");
        ggml_build_forward_expand(graph.gf, s->in.visible);
    }
    ggml_tensor * middle =
        ggml_view_2d(graph.ctx0, s->middle, s->middle->ne[0], n_rows, s->middle->nb[1], 0);
    return select(graph, *s, middle);
}

ggml_tensor * sharpv_clip_hooks::layers_out(const clip_graph & graph, ggml_tensor * cur) {
    sharpv_vision_stream * s = active();
    if (!s) {
        return cur;
    }
    ggml_context * ctx = graph.ctx0;
    const int64_t n_rows = s->n_rows();
    if (s->kind == pass_kind::FIRST_LAYERS) {
        // A placeholder for the projector, which requires all rows. built() cuts it off.
        return ggml_view_2d(ctx, s->last, s->last->ne[0], n_rows, s->last->nb[1], 0);
    }
    ggml_tensor * out = write(graph, s->last, cur, s->in.write, n_rows);

    const size_t n_filled = count(s->states, SHARPV_CELL_FILLED) * s->rows_per_cell();
    if (s->kind != pass_kind::LAST_LAYERS || n_filled == 0) {
        return out;
    }
    const size_t n_donors =
        (count(s->states, SHARPV_CELL_COMPUTED) + count(s->states, SHARPV_CELL_KEPT)) * s->rows_per_cell();
    s->in.filled = new_input(ctx, GGML_TYPE_I32, n_filled, "sharpv_filled");
    ggml_tensor * middle = ggml_view_2d(ctx, s->middle, s->middle->ne[0], n_rows, s->middle->nb[1], 0);
    ggml_tensor * ends   = ggml_get_rows(ctx, middle, s->in.filled);
    if (n_donors > 0) {
        s->in.donors = new_input(ctx, GGML_TYPE_I32, n_donors, "sharpv_donors");
        ggml_tensor * before  = ggml_get_rows(ctx, middle, s->in.donors);
        ggml_tensor * gain    = ggml_sub(ctx, ggml_get_rows(ctx, out, s->in.donors), before);
        constexpr float EPS = 1e-12f;
        ggml_tensor * likeness = ggml_mul_mat(ctx, ggml_l2_norm(ctx, before, EPS), ggml_l2_norm(ctx, ends, EPS));
        ends = ggml_add(ctx, ends, ggml_get_rows(ctx, gain, ggml_argmax(ctx, likeness)));
    }
    // `out` is a view of the tensor that this writes to. The donors are read first.
    ggml_tensor * base = ggml_view_2d(ctx, out, out->ne[0], n_rows, out->nb[1], 0);
    ggml_tensor * to   = ggml_set_rows(ctx, base, ends, s->in.filled);
    ggml_build_forward_expand(graph.gf, to);
    return to;
}

ggml_tensor * sharpv_clip_hooks::positions(const clip_graph & graph, ggml_tensor * cur, int il) {
    sharpv_vision_stream * s = active();
    if (!s || s->all) {
        return cur;
    }
    const bool first = il == 0 && s->kind != pass_kind::LAST_LAYERS;
    const bool again = il == s->split && s->kind == pass_kind::LAST_LAYERS;
    if (!first && !again) {
        return cur;
    }
    // llama.cpp looks for its own input, with the positions of all rows, in the graph in order to set it.
    s->in.all_positions = cur;
    ggml_build_forward_expand(graph.gf, cur);
    s->in.positions = new_input(graph.ctx0, GGML_TYPE_I32, 4 * s->n_computed(), "sharpv_positions");
    return s->in.positions;
}

ggml_tensor * sharpv_clip_hooks::features(const clip_graph & graph, ggml_tensor * cur, int il) {
    sharpv_vision_stream * s = active();
    if (!s || (size_t) il >= s->features.size() || !s->features[il]) {
        return cur;
    }
    ggml_context * ctx = graph.ctx0;
    ggml_tensor * cache = s->features[il];
    const int64_t n_cells = s->n_cells();
    ggml_tensor * all;
    if (s->kind == pass_kind::LAST_LAYERS && il < s->split) {
        all = ggml_view_2d(ctx, cache, cache->ne[0], n_cells, cache->nb[1], 0);
    } else {
        cur = ggml_reshape_2d(ctx, cur, cur->ne[0], ggml_nrows(cur));
        all = write(graph, cache, cur, s->in.write_cell, n_cells);
    }
    return ggml_reshape_3d(ctx, all, all->ne[0], n_cells, 1);
}

ggml_tensor * sharpv_clip_hooks::attn(
        const clip_graph & graph, ggml_tensor * q, ggml_tensor * k, ggml_tensor * v, ggml_tensor * mask,
        float scale, int il) {
    sharpv_vision_stream * s = active();
    const bool mine = s && il >= 0 && (size_t) il < s->k.size() && (s->kind != pass_kind::LAST_LAYERS || il >= s->split);
    if (!mine) {
        return nullptr;
    }
    ggml_context * ctx    = graph.ctx0;
    const int64_t  n_rows = s->n_rows();

    // Writes `cur`, [d_head, n_head_kv, n], into the cache. Returns all rows of the cache, [d_head, n_head_kv, n_rows].
    const auto keep = [&](ggml_tensor * cache, ggml_tensor * cur) {
        const size_t head = ggml_row_size(cache->type, cur->ne[0]);
        if (s->all) {
            ggml_tensor * to = ggml_view_3d(ctx, cache, cur->ne[0], cur->ne[1], n_rows, head, cache->nb[1], 0);
            to = ggml_cpy(ctx, ggml_view_3d(ctx, cur, cur->ne[0], cur->ne[1], n_rows, cur->nb[1], cur->nb[2], 0), to);
            ggml_build_forward_expand(graph.gf, to);
            return to;
        }
        ggml_tensor * rows = ggml_view_2d(ctx, cur, cur->ne[0] * cur->ne[1], cur->ne[2], cur->nb[2], 0);
        ggml_tensor * to   = ggml_set_rows(ctx, cache, rows, s->in.write);
        ggml_build_forward_expand(graph.gf, to);
        return ggml_view_3d(ctx, to, cur->ne[0], cur->ne[1], n_rows, head, cache->nb[1], 0);
    };
    k = ggml_permute(ctx, keep(s->k[il], k), 0, 2, 1, 3);
    v = keep(s->v[il], v);
    q = ggml_permute(ctx, q, 0, 2, 1, 3);

    if (mask && !s->all) {
        mask = ggml_get_rows(ctx, mask, s->in.read);
    }
    if (s->in.visible) {
        if (mask && mask->type != GGML_TYPE_F32) {
            mask = ggml_cast(ctx, mask, GGML_TYPE_F32);
        }
        mask = mask ? ggml_add(ctx, mask, s->in.visible)
                    : ggml_repeat_4d(ctx, s->in.visible, n_rows, s->n_computed(), 1, 1);
    }

    if (graph.flash_attn_type == CLIP_FLASH_ATTN_TYPE_ENABLED) {
        if (mask && mask->type != GGML_TYPE_F16) {
            mask = ggml_cast(ctx, mask, GGML_TYPE_F16);
        }
        v = ggml_permute(ctx, v, 0, 2, 1, 3);
        ggml_tensor * out = ggml_flash_attn_ext(ctx, q, k, v, mask, scale, 0.0f, 0.0f);
        ggml_prec_set_acc(out, GGML_PREC_F32);
        return ggml_reshape_2d(ctx, out, out->ne[0] * out->ne[1], out->ne[2] * out->ne[3]);
    }
    v = ggml_cont(ctx, ggml_permute(ctx, v, 1, 2, 0, 3));
    ggml_tensor * kq  = ggml_soft_max_ext(ctx, ggml_mul_mat(ctx, k, q), mask, scale, 0.0f);
    ggml_tensor * out = ggml_permute(ctx, ggml_mul_mat(ctx, v, kq), 0, 2, 1, 3);
    return ggml_cont_2d(ctx, out, out->ne[0] * out->ne[1], out->ne[2] * out->ne[3]);
}

void sharpv_clip_hooks::built(ggml_cgraph * gf) {
    sharpv_vision_stream * s = active();
    if (s && s->kind == pass_kind::FIRST_LAYERS) {
        if (s->n_cut == 0) {
            s->fail("the encoder has no such layer");
        }
        gf->n_nodes = s->n_cut;
    }
}

void sharpv_clip_hooks::set_inputs(ggml_cgraph * gf) {
    sharpv_vision_stream * s = active();
    if (!s) {
        return;
    }
    s->row_of = s->rows_of_cells(gf);
    const auto & rows_of = s->row_of;
    const size_t rpc     = s->rows_per_cell();
    const auto append = [&](std::vector<int32_t> & rows, size_t cell) {
        rows.insert(rows.end(), rows_of.begin() + cell * rpc, rows_of.begin() + (cell + 1) * rpc);
    };
    if (s->in.read) {
        std::vector<int32_t> read, to, to_cell;
        for (uint32_t cell : s->cells) {
            append(read, cell);
            to_cell.push_back(cell);
        }
        to = read;
        for (size_t i = s->cells.size(); i < s->n_padded(); i++) {
            append(read, s->cells.empty() ? 0 : s->cells.back());
            to_cell.push_back(s->n_cells());
            for (size_t j = 0; j < rpc; j++) {
                to.push_back(s->n_rows() + j);
            }
        }
        if (s->classes) {
            read.push_back(s->class_row());
            to.push_back(s->class_row());
        }
        set(s->in.read, read);
        set(s->in.write, to);
        set(s->in.write_cell, to_cell);
        if (s->in.positions) {
            const auto   all = get_i32(s->in.all_positions);
            const size_t n   = all.size() / 4;
            std::vector<int32_t> positions;
            for (size_t section = 0; section < 4; section++) {
                for (int32_t row : read) {
                    positions.push_back(all.at(section * n + row));
                }
            }
            set(s->in.positions, positions);
        }
    }
    if (s->in.visible || s->in.filled) {
        std::vector<float>   visible(s->n_rows(), 0.0f);
        std::vector<int32_t> filled, donors;
        for (size_t cell = 0; cell < s->states.size(); cell++) {
            const uint8_t state = s->states[cell];
            if (is_hidden(state)) {
                for (size_t i = 0; i < rpc; i++) {
                    visible[rows_of[cell * rpc + i]] = -INFINITY;
                }
            } else {
                append(donors, cell);
            }
            if (state == SHARPV_CELL_FILLED) {
                append(filled, cell);
            }
        }
        set(s->in.visible, visible);
        set(s->in.filled, filled);
        set(s->in.donors, donors);
    }
}

bool sharpv_clip_hooks::computed() {
    sharpv_vision_stream * s = active();
    if (!s) {
        return true;
    }
    if (s->kind != pass_kind::FIRST_LAYERS) {
        s->is_empty = false;
        return true;
    }
    if (s->n_middle_of(s->middle_out->ne[0]) != s->n_middle) {
        s->fail("the encoder's states have another width than expected");
    }
    if (!s->all) {
        // The computed cells come first, in order.
        ggml_backend_tensor_get(s->middle_out, s->middle_to, 0, s->n_middle * sizeof(float));
        return false;
    }
    // All rows come in the encoder's order.
    const size_t n = s->middle_out->ne[0];
    std::vector<float> states(s->n_rows() * n);
    ggml_backend_tensor_get(s->middle_out, states.data(), 0, states.size() * sizeof(float));
    for (size_t i = 0; i < s->row_of.size(); i++) {
        std::copy_n(states.begin() + s->row_of[i] * n, n, s->middle_to + i * n);
    }
    return false;
}

namespace {

// Runs a pass of `stream` over the image of `chunk`.
void run(sharpv_vision_stream & stream, pass_kind kind, mtmd_context * ctx, const mtmd_input_chunk * chunk) {
    struct scope {
        explicit scope(sharpv_vision_stream & stream) { current = &stream; }
        ~scope() {
            current->kind     = pass_kind::NONE;
            current->building = false;
            current = nullptr;
        }
    } scope(stream);
    stream.kind = kind;
    stream.error.clear();
    if (mtmd_encode_chunk(ctx, chunk) != 0) {
        // A failed pass may have written a part of the cache.
        stream.empty();
        throw std::runtime_error(stream.error.empty() ? "the encoder failed" : stream.error);
    }
}

void choose(sharpv_vision_stream & stream, const uint32_t * cells, size_t n_cells) {
    stream.cells.assign(cells, cells + n_cells);
    const auto out_of_order = std::adjacent_find(stream.cells.begin(), stream.cells.end(), std::greater_equal<uint32_t>());
    const bool ascending = out_of_order == stream.cells.end();
    if (!stream.image.width || !ascending || (n_cells > 0 && stream.cells.back() >= stream.n_cells())) {
        throw std::invalid_argument("there are no such cells");
    }
    stream.all = n_cells == stream.n_cells();
    if (stream.is_empty && !stream.all) {
        throw std::invalid_argument("all cells of the first image must be computed");
    }
}

} // namespace

extern "C" {

sharpv_vision_stream * sharpv_vision_stream_new(void) {
    return new (std::nothrow) sharpv_vision_stream();
}

void sharpv_vision_stream_free(sharpv_vision_stream * stream) {
    delete stream;
}

int32_t sharpv_try_vision_look(
        sharpv_vision_stream * stream, mtmd_context * ctx, const mtmd_input_chunk * chunk,
        sharpv_image * out, char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] {
        run(*stream, pass_kind::LOOK, ctx, chunk);
        *out = stream->image;
    });
}

int32_t sharpv_try_vision_encode(
        sharpv_vision_stream * stream, mtmd_context * ctx, const mtmd_input_chunk * chunk,
        const uint32_t * cells, size_t n_cells, char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] {
        choose(*stream, cells, n_cells);
        stream->states.clear();
        run(*stream, pass_kind::ALL_LAYERS, ctx, chunk);
    });
}

int32_t sharpv_try_vision_begin(
        sharpv_vision_stream * stream, mtmd_context * ctx, const mtmd_input_chunk * chunk,
        const uint32_t * cells, size_t n_cells, uint32_t layer, float * middle, size_t n_middle,
        char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] {
        choose(*stream, cells, n_cells);
        if (n_middle != stream->n_middle_of(stream->image.n_embd)) {
            throw std::invalid_argument("the buffer has another size than the hidden states");
        }
        if (layer == 0 || layer >= stream->image.n_layers) {
            throw std::invalid_argument("there is no such layer");
        }
        stream->split     = layer;
        stream->middle_to = middle;
        stream->n_middle  = n_middle;
        stream->states.clear();
        run(*stream, pass_kind::FIRST_LAYERS, ctx, chunk);
    });
}

int32_t sharpv_try_vision_finish(
        sharpv_vision_stream * stream, mtmd_context * ctx, const mtmd_input_chunk * chunk,
        const uint8_t * states, size_t n_states, char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] {
        if (!stream->buffer || n_states != stream->n_cells()) {
            throw std::invalid_argument("there are no such cells");
        }
        stream->states.assign(states, states + n_states);
        stream->cells.clear();
        for (size_t cell = 0; cell < n_states; cell++) {
            if (states[cell] == SHARPV_CELL_COMPUTED) {
                stream->cells.push_back(cell);
            }
        }
        stream->all = stream->cells.size() == n_states;
        run(*stream, pass_kind::LAST_LAYERS, ctx, chunk);
    });
}

}
