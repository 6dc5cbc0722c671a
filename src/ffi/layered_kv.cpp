#include "layered_kv.h"

#include "llama-kv-cache-iswa.h"
#include "llama-memory-hybrid-iswa.h"
#include "llama-memory-hybrid.h"
#include "llama-model.h"
#include "sharpv-kv.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>
#include <stdexcept>

namespace {

thread_local bool layered_wanted = false;

// llama.cpp pads what attention reads in the same way, so that graphs can be used again.
constexpr uint32_t N_KV_STEP = 256;

void alloc_alone(std::vector<std::pair<ggml_context_ptr, ggml_backend_buffer_ptr>> & bufs,
        ggml_backend_buffer_type_t buft, ggml_tensor * tensor) {
    ggml_backend_buffer_ptr buffer(ggml_backend_buft_alloc_buffer(buft, ggml_backend_buft_get_alloc_size(buft, tensor)));
    if (!buffer) {
        throw std::runtime_error("not enough memory for the KV cache");
    }
    ggml_backend_tensor_alloc(buffer.get(), tensor, ggml_backend_buffer_get_base(buffer.get()));
    // Attention reads padding, too: no NaN may be there.
    ggml_backend_buffer_clear(buffer.get(), 0);
    bufs.emplace_back(ggml_context_ptr(), std::move(buffer));
}

// Copies rows of tensors whose rows are contiguous, on the device where both are.
void copy_rows(ggml_tensor * src, ggml_tensor * dst, const std::vector<uint32_t> & from) {
    struct run { uint32_t src; uint32_t dst; uint32_t n; };
    std::vector<run> runs;
    for (uint32_t i = 0; i < from.size(); ++i) {
        if (!runs.empty() && runs.back().src + runs.back().n == from[i]) {
            runs.back().n++;
        } else {
            runs.push_back({ from[i], i, 1 });
        }
    }
    ggml_context_ptr ctx(ggml_init({ 2*(runs.size() + 1)*ggml_tensor_overhead(), nullptr, true }));
    auto view = [&](ggml_tensor * tensor, uint32_t row, uint32_t n) {
        ggml_tensor * res = ggml_view_2d(ctx.get(), tensor, tensor->ne[0], n, tensor->nb[1], row*tensor->nb[1]);
        ggml_backend_view_init(res);
        return res;
    };
    for (const run & r : runs) {
        ggml_backend_tensor_copy(view(src, r.src, r.n), view(dst, r.dst, r.n));
    }
}

// The same for a transposed V: [embd][cell].
void copy_columns(ggml_tensor * src, ggml_tensor * dst, const std::vector<uint32_t> & from) {
    if (from.empty()) {
        return;
    }
    const size_t   el      = ggml_type_size(src->type);
    const size_t   n_src   = src->ne[1];
    const size_t   n_dst   = dst->ne[1];
    const uint32_t n_read  = *std::max_element(from.begin(), from.end()) + 1;
    std::vector<uint8_t> in(n_read*el);
    std::vector<uint8_t> out(from.size()*el);
    for (int64_t j = 0; j < src->ne[0]; ++j) {
        ggml_backend_tensor_get(src, in.data(), j*n_src*el, in.size());
        for (size_t i = 0; i < from.size(); ++i) {
            std::memcpy(out.data() + i*el, in.data() + from[i]*el, el);
        }
        ggml_backend_tensor_set(dst, out.data(), j*n_dst*el, out.size());
    }
}

// Bytes of a saved state, in the order of writing.
struct writer {
    std::vector<uint8_t> data;

    void bytes(const void * src, size_t n) {
        const auto * p = static_cast<const uint8_t *>(src);
        data.insert(data.end(), p, p + n);
    }

    template <typename T> void value(T v) { bytes(&v, sizeof(v)); }
};

struct reader {
    const std::vector<uint8_t> & data;
    size_t at = 0;

    void bytes(void * dst, size_t n) {
        if (n > data.size() - at) {
            throw std::runtime_error("the saved KV cache is cut short");
        }
        std::memcpy(dst, data.data() + at, n);
        at += n;
    }

    template <typename T> T value() { T v; bytes(&v, sizeof(v)); return v; }
};

constexpr uint32_t STATE_VERSION = 1;

// What stands at the beginning of a saved state.
struct header {
    uint32_t version;
    uint32_t n_layer;
    uint32_t n_cells;    // cells in use
    uint32_t n_rows;     // of them, those with a row in the evicted layers
    uint32_t transposed; // V is
    uint32_t n_evicted;  // evicted layers
};

} // namespace

//
// the inputs of a graph
//

// The mask of the layers that do not see all cells, and of evicted layers the places where new rows go.
class sharpv_attn_input : public llm_graph_input_i {
public:
    sharpv_attn_input(sharpv_kv & kv, bool evicted) : kv(kv), evicted(evicted) {}

    void set_input(const llama_ubatch * ubatch) override {
        if (k_idxs && k_idxs->buffer) {
            auto * data = static_cast<int64_t *>(k_idxs->data);
            for (uint32_t i = 0; i < ubatch->n_tokens; ++i) {
                data[i] = row_of(i);
            }
        }
        if (v_idxs && v_idxs->buffer) {
            auto * data = static_cast<int64_t *>(v_idxs->data);
            const int64_t n_embd = v_idxs->ne[0]/ubatch->n_tokens;
            for (uint32_t i = 0; i < ubatch->n_tokens; ++i) {
                for (int64_t j = 0; j < n_embd; ++j) {
                    // n_embd is 1 for a V that is not transposed
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
        return mask->ne[1] == params.ubatch.n_tokens && (!evicted || mask->ne[0] == kv.n_kv);
    }

    sharpv_kv & kv;
    const bool  evicted; // else: hidden

    ggml_tensor * k_idxs  = nullptr; // I64 [n_tokens]
    ggml_tensor * v_idxs  = nullptr; // I64 [n_tokens] or [n_tokens*n_embd_v_gqa]
    ggml_tensor * mask    = nullptr; // as `primary`, with another number of cells
    ggml_tensor * primary = nullptr; // the mask of the layers that see all cells; llama.cpp fills it before

private:
    int64_t row_of(uint32_t i) const { return kv.cells[kv.ubatch_cells[i]].row; }

    template <typename T>
    void fill_mask(T drop) {
        // For each column of the mask the column of `primary` that it is a copy of; -1 for none.
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

//
// sharpv_kv
//

sharpv_kv::sharpv_kv(llama_kv_cache & kv) : kv(kv), cells(kv.get_size()), n_layer(kv.hparams.n_layer()) {}

bool sharpv_kv::is_used(uint32_t cell) const {
    return !kv.v_cells[0].is_empty(cell);
}

bool sharpv_kv::is_live(uint32_t row) const {
    const int32_t cell = cell_of_row[row];
    return cell >= 0 && is_used(cell) && cells[cell].row == (int32_t) row;
}

sharpv_kv::layer_size sharpv_kv::size_of(int32_t il) const {
    auto bytes = [](const ggml_tensor * k, const ggml_tensor * v) { return ggml_nbytes(k) + (v ? ggml_nbytes(v) : 0); };
    if (const auto it = layer_of.find(il); it != layer_of.end()) {
        const layer & l = layers[it->second];
        return { true, true, n_rows, bytes(l.k, l.v) };
    }
    if (const auto it = kv.map_layer_ids.find(il); it != kv.map_layer_ids.end()) {
        const auto & l = kv.layers[it->second];
        return { true, false, kv.get_size(), bytes(l.k, l.v) };
    }
    return {};
}

bool sharpv_kv::can_evict() const {
    // Models with a compressed V (MLA) read the cache in another way.
    return !kv.layers.empty() && std::all_of(kv.layers.begin(), kv.layers.end(), [](const auto & l) { return l.v != nullptr; });
}

uint32_t sharpv_kv::n_free_rows() const {
    uint32_t n = 0;
    for (uint32_t row = 0; row < n_rows; ++row) {
        n += !is_live(row);
    }
    return n;
}

uint32_t sharpv_kv::find_row_end() const {
    uint32_t end = n_rows;
    while (end > 0 && !is_live(end - 1)) {
        --end;
    }
    return end;
}

uint32_t sharpv_kv::take_row(uint32_t cell) {
    // The row that the cell had before it was freed is still its own.
    if (cells[cell].row >= 0) {
        return cells[cell].row;
    }
    for (uint32_t n = 0; n < n_rows; ++n) {
        const uint32_t row = (row_head + n) % n_rows;
        const int32_t  old = cell_of_row[row];
        if (is_live(row)) {
            continue;
        }
        if (old >= 0 && cells[old].row == (int32_t) row) {
            cells[old].row = -1;
        }
        cell_of_row[row] = cell;
        cells[cell].row  = row;
        row_head = row + 1;
        return row;
    }
    throw std::runtime_error("the evicted layers have no row left"); // has_room() was asked before
}

void sharpv_kv::applied(const std::vector<uint32_t> & used_cells, const llama_ubatch & ubatch) {
    ubatch_cells = used_cells;
    for (uint32_t i = 0; i < ubatch_cells.size(); ++i) {
        cell_info & cell = cells[ubatch_cells[i]];
        cell.serial   = next_serial++;
        cell.visual   = !ubatch.token || (ubatch.is_mixed() && ubatch.type[i]);
        cell.measured = false;
        cell.hidden   = false;
    }
    if (layers.empty()) {
        return;
    }
    row_head = std::min(row_head, find_row_end());
    for (const uint32_t cell : ubatch_cells) {
        take_row(cell);
    }
    n_kv = std::min<uint32_t>(n_rows, std::max(N_KV_STEP, GGML_PAD(find_row_end(), N_KV_STEP)));
}

void sharpv_kv::release(ggml_tensor * tensor) {
    auto & bufs = kv.ctxs_bufs;
    bufs.erase(std::remove_if(bufs.begin(), bufs.end(),
            [&](const auto & entry) { return entry.second.get() == tensor->buffer; }), bufs.end());
    tensor->buffer = nullptr;
    tensor->data   = nullptr;
}

void sharpv_kv::rebuild(const std::vector<size_t> & targets, const std::vector<uint32_t> & kept, uint32_t size) {
    std::vector<layer> old = layers;
    for (const size_t i : targets) {
        old.push_back({ kv.layers[i].il, kv.layers[i].k, kv.layers[i].v });
    }

    // All memory first: what fails, fails before anything was changed.
    ggml_context_ptr ctx(ggml_init({ 2*(old.size() + 1)*ggml_tensor_overhead(), nullptr, true }));
    std::vector<std::pair<ggml_context_ptr, ggml_backend_buffer_ptr>> bufs;
    auto alloc_like = [&](const ggml_tensor * tensor) {
        ggml_tensor * res = ggml_new_tensor_3d(ctx.get(), tensor->type, tensor->ne[0], size, 1);
        ggml_set_name(res, tensor->name);
        alloc_alone(bufs, ggml_backend_buffer_get_type(tensor->buffer), res);
        return res;
    };
    std::vector<layer> fresh;
    for (const layer & l : old) {
        fresh.push_back({ l.il, alloc_like(l.k), alloc_like(l.v) });
    }

    std::vector<uint32_t> rows(kept.size());
    for (size_t i = 0; i < old.size(); ++i) {
        // An evicted layer has its own rows, another one a row for each cell.
        std::transform(kept.begin(), kept.end(), rows.begin(),
                [&](uint32_t cell) { return i < layers.size() ? (uint32_t) cells[cell].row : cell; });
        copy_rows(old[i].k, fresh[i].k, rows);
        (kv.v_trans ? copy_columns : copy_rows)(old[i].v, fresh[i].v, rows);
        release(old[i].k);
        release(old[i].v);
    }
    for (auto & buf : bufs) {
        kv.ctxs_bufs.push_back(std::move(buf));
    }
    contexts.push_back(std::move(ctx));

    // The layers that moved leave llama.cpp's lists. Some models let a layer use the cache of another one.
    std::unordered_map<int32_t, int32_t> stay;
    std::vector<int32_t> new_index(kv.layers.size(), -1);
    for (size_t i = 0, n = 0; i < kv.layers.size(); ++i) {
        if (std::find(targets.begin(), targets.end(), i) == targets.end()) {
            new_index[i] = n++;
        }
    }
    for (const auto & [il, ikv] : kv.map_layer_ids) {
        if (new_index[ikv] >= 0) {
            stay[il] = new_index[ikv];
        } else {
            const auto target = std::find(targets.begin(), targets.end(), (size_t) ikv);
            layer_of[il] = layers.size() + (target - targets.begin());
        }
    }
    kv.map_layer_ids = std::move(stay);
    for (size_t i = kv.layers.size(); i-- > 0;) {
        if (new_index[i] < 0) {
            kv.layers.erase(kv.layers.begin() + i);
        }
    }
    layers = std::move(fresh);

    n_rows = size;
    cell_of_row.assign(size, -1);
    for (cell_info & cell : cells) {
        cell.row = -1;
    }
    for (uint32_t row = 0; row < kept.size(); ++row) {
        cell_of_row[row] = kept[row];
        cells[kept[row]].row = row;
    }
    row_head = 0;
    n_kv     = size;
}

uint32_t sharpv_kv::padded(uint32_t n) const {
    // Fused attention on a GPU wants whole steps. Elsewhere they would eat up what the eviction of a short video frees.
    const ggml_tensor * k = kv.layers.front().k;
    const uint32_t step = ggml_backend_buffer_is_host(k->buffer) ? 32 : N_KV_STEP;
    return std::min<uint32_t>(cells.size(), GGML_PAD(std::max<uint32_t>(1, n), step));
}

void sharpv_kv::evict(const std::vector<bool> & wanted) {
    if (!can_evict()) {
        throw std::runtime_error("this model's KV cache cannot be evicted layer by layer");
    }
    std::vector<size_t> targets;
    for (size_t i = 0; i < kv.layers.size(); ++i) {
        if (kv.layers[i].il < wanted.size() && wanted[kv.layers[i].il]) {
            targets.push_back(i);
        }
    }
    if (targets.size() == kv.layers.size()) {
        throw std::runtime_error("at least one layer has to keep its visual tokens");
    }
    if (targets.empty() && layers.empty()) {
        return;
    }
    std::vector<uint32_t> kept;
    uint32_t n_used = 0;
    for (uint32_t cell = 0; cell < cells.size(); ++cell) {
        n_used += is_used(cell);
        if (is_used(cell) && !cells[cell].visual) {
            kept.push_back(cell);
        }
    }
    // As many rows can come as before.
    rebuild(targets, kept, padded(kept.size() + cells.size() - n_used));
}

float sharpv_kv::mean_similarity(uint32_t cell) const {
    if (!cells[cell].measured) {
        return std::numeric_limits<float>::infinity();
    }
    double sum = 0.0;
    size_t n   = 0;
    for (uint32_t il = 0; il < n_layer; ++il) {
        const float value = similarity[(size_t) cell*n_layer + il];
        if (!std::isnan(value)) {
            sum += value;
            n++;
        }
    }
    return sum/n; // of the first layer there is always one
}

void sharpv_kv::hide(const std::vector<bool> & wanted, float below) {
    hidden_layers = wanted;
    const bool any = std::find(wanted.begin(), wanted.end(), true) != wanted.end();
    for (uint32_t cell = 0; cell < cells.size(); ++cell) {
        cells[cell].hidden = any && is_visual(cell) && (below == std::numeric_limits<float>::infinity() || mean_similarity(cell) < below);
    }
}

std::vector<llama_pos> sharpv_kv::evict_tokens(float threshold) {
    std::vector<llama_pos> res;
    auto & used = kv.v_cells[0];
    for (uint32_t cell = 0; cell < cells.size(); ++cell) {
        if (is_visual(cell) && mean_similarity(cell) < threshold) {
            const auto & ext = used.ext_get(cell);
            res.insert(res.end(), { used.pos_get(cell), ext.y, ext.x });
            used.rm(cell);
        }
    }
    return res;
}

void sharpv_kv::drop(const std::vector<llama_pos> & positions) {
    std::set<std::array<llama_pos, 3>> gone;
    for (size_t i = 0; i + 2 < positions.size(); i += 3) {
        gone.insert({ positions[i], positions[i + 1], positions[i + 2] });
    }
    auto & used = kv.v_cells[0];
    for (uint32_t cell = 0; cell < cells.size(); ++cell) {
        if (is_visual(cell) && gone.count({ used.pos_get(cell), used.ext_get(cell).y, used.ext_get(cell).x })) {
            used.rm(cell);
        }
    }
}

std::vector<float> sharpv_kv::curve(size_t & n_cells) const {
    std::vector<double> sum(n_layer, 0.0);
    n_cells = 0;
    for (uint32_t cell = 0; cell < cells.size(); ++cell) {
        if (is_visual(cell) && cells[cell].measured) {
            n_cells++;
            for (uint32_t il = 0; il < n_layer; ++il) {
                sum[il] += similarity[(size_t) cell*n_layer + il];
            }
        }
    }
    std::vector<float> res(n_layer, std::numeric_limits<float>::quiet_NaN());
    for (uint32_t il = 0; il < n_layer && n_cells > 0; ++il) {
        res[il] = sum[il]/n_cells;
    }
    return res;
}

void sharpv_kv::store(const std::vector<uint32_t> & of_cells, const std::vector<uint32_t> & serials,
        const std::vector<int> & measured_layers, const float * values) {
    similarity.resize((size_t) cells.size()*n_layer);
    for (size_t i = 0; i < of_cells.size(); ++i) {
        cell_info & cell = cells[of_cells[i]];
        if (cell.serial != serials[i] || !cell.visual) {
            continue;
        }
        float * dst = similarity.data() + (size_t) of_cells[i]*n_layer;
        std::fill(dst, dst + n_layer, std::numeric_limits<float>::quiet_NaN());
        // What enters the first layer is the embedding itself.
        dst[0] = 1.0f;
        for (size_t l = 0; l < measured_layers.size(); ++l) {
            dst[measured_layers[l]] = values[i*measured_layers.size() + l];
        }
        cell.measured = true;
    }
}

std::vector<uint8_t> sharpv_kv::save() const {
    std::vector<uint32_t> used;
    std::vector<uint32_t> rows; // of the evicted layers, in the order of the cells
    for (uint32_t cell = 0; cell < cells.size(); ++cell) {
        if (is_used(cell)) {
            used.push_back(cell);
            if (!layers.empty() && cells[cell].row >= 0) {
                rows.push_back(cells[cell].row);
            }
        }
    }
    writer w;
    w.value(header { STATE_VERSION, n_layer, (uint32_t) used.size(), (uint32_t) rows.size(), kv.v_trans, (uint32_t) layers.size() });
    for (const layer & l : layers) {
        w.value(l.il);
    }
    for (const uint32_t cell : used) {
        const cell_info & info = cells[cell];
        const uint8_t flags = (info.visual ? 1 : 0) | (info.measured ? 2 : 0) | (!layers.empty() && info.row >= 0 ? 4 : 0);
        w.value(flags);
        if (info.measured) {
            w.bytes(similarity.data() + (size_t) cell*n_layer, n_layer*sizeof(float));
        }
    }
    const uint32_t n_read = rows.empty() ? 0 : *std::max_element(rows.begin(), rows.end()) + 1;
    std::vector<uint8_t> all;
    auto put = [&](const ggml_tensor * tensor, size_t stride, size_t n, size_t size) {
        // `n` lines of `stride` bytes; of each, the elements of `size` bytes that belong to `rows`
        all.resize((size_t) n_read*size);
        w.value<uint32_t>(tensor->type);
        w.value<uint64_t>(size);
        w.value<uint64_t>(n);
        for (size_t i = 0; i < n; ++i) {
            if (!all.empty()) {
                ggml_backend_tensor_get(tensor, all.data(), i*stride, all.size());
            }
            for (const uint32_t row : rows) {
                w.bytes(all.data() + row*size, size);
            }
        }
    };
    for (const layer & l : layers) {
        put(l.k, 0, 1, l.k->nb[1]);
        if (kv.v_trans) {
            const size_t el = ggml_type_size(l.v->type);
            put(l.v, (size_t) n_rows*el, l.v->ne[0], el);
        } else {
            put(l.v, 0, 1, l.v->nb[1]);
        }
    }
    return std::move(w.data);
}

void sharpv_kv::shape(const std::vector<uint8_t> & data) {
    reader r { data };
    const auto h = r.value<header>();
    if (h.version != STATE_VERSION) {
        throw std::runtime_error("the saved KV cache is of another version");
    }
    if (h.n_layer != n_layer) {
        throw std::runtime_error("the saved KV cache is of another model");
    }
    if (h.n_cells > cells.size()) {
        throw std::runtime_error("the saved KV cache has more cells than the context");
    }
    std::vector<size_t> targets;
    for (uint32_t i = 0; i < h.n_evicted; ++i) {
        const auto il = r.value<uint32_t>();
        const auto it = std::find_if(kv.layers.begin(), kv.layers.end(), [&](const auto & l) { return l.il == il; });
        if (it == kv.layers.end() || !layers.empty()) {
            throw std::runtime_error("the saved KV cache has other layers");
        }
        targets.push_back(it - kv.layers.begin());
    }
    if (!targets.empty()) {
        if (h.transposed != (uint32_t) kv.v_trans) {
            throw std::runtime_error("the KV cache was saved with another setting of flash attention");
        }
        if (targets.size() == kv.layers.size() || h.n_rows > h.n_cells || !can_evict()) {
            throw std::runtime_error("the saved KV cache is damaged");
        }
        kv.clear(false);
        rebuild(targets, {}, padded(h.n_rows + cells.size() - h.n_cells));
    }
}

void sharpv_kv::fill(const std::vector<uint8_t> & data) {
    reader r { data };
    const auto h = r.value<header>();
    r.at += h.n_evicted*sizeof(uint32_t);
    const auto & used = kv.v_cells[0];
    if (used.get_used() != h.n_cells || used.used_max_p1() != h.n_cells) {
        throw std::runtime_error("the saved KV cache is damaged");
    }
    for (uint32_t cell = 0; cell < h.n_cells; ++cell) {
        // llama.cpp takes what it reads.
        if (used.pos_get(cell) < 0) {
            throw std::runtime_error("the saved KV cache is damaged");
        }
    }
    similarity.resize((size_t) cells.size()*n_layer);
    uint32_t n = 0;
    for (uint32_t cell = 0; cell < h.n_cells; ++cell) {
        const auto flags = r.value<uint8_t>();
        cell_info & info = cells[cell];
        info = {};
        info.serial   = next_serial++;
        info.visual   = flags & 1;
        info.measured = flags & 2;
        if (info.measured) {
            r.bytes(similarity.data() + (size_t) cell*n_layer, n_layer*sizeof(float));
        }
        if (flags & 4) {
            if (n >= h.n_rows || n >= n_rows) {
                throw std::runtime_error("the saved KV cache is damaged");
            }
            info.row = n;
            cell_of_row[n++] = cell;
        }
    }
    if (n != h.n_rows) {
        throw std::runtime_error("the saved KV cache is damaged");
    }
    std::vector<uint8_t> line;
    auto get = [&](ggml_tensor * tensor, size_t stride, size_t n_lines, size_t size) {
        if (r.value<uint32_t>() != (uint32_t) tensor->type || r.value<uint64_t>() != size || r.value<uint64_t>() != n_lines) {
            throw std::runtime_error("the KV cache was saved with other types");
        }
        line.resize(n*size);
        for (size_t i = 0; i < n_lines; ++i) {
            r.bytes(line.data(), line.size());
            if (!line.empty()) {
                ggml_backend_tensor_set(tensor, line.data(), i*stride, line.size());
            }
        }
    };
    for (const layer & l : layers) {
        get(l.k, 0, 1, l.k->nb[1]);
        if (kv.v_trans) {
            const size_t el = ggml_type_size(l.v->type);
            get(l.v, (size_t) n_rows*el, l.v->ne[0], el);
        } else {
            get(l.v, 0, 1, l.v->nb[1]);
        }
    }
}

sharpv_kv * sharpv_kv::of(llama_kv_cache * kv) {
    return kv ? kv->sharpv.get() : nullptr;
}

//
// finding it
//

sharpv_kv_scope::sharpv_kv_scope(bool on) { layered_wanted = on; }
sharpv_kv_scope::~sharpv_kv_scope()       { layered_wanted = false; }

//
// the call sites
//

bool sharpv_kv_hooks::wanted(const llama_kv_cache & kv) {
    // Sequences in streams of their own have a set of cells each.
    return layered_wanted && kv.n_stream == 1 && !kv.other && !kv.hparams.no_alloc;
}

void sharpv_kv_hooks::alloc(llama_kv_cache & kv, ggml_backend_buffer_type_t buft, ggml_context_ptr ctx) {
    create(kv);
    for (ggml_tensor * t = ggml_get_first_tensor(ctx.get()); t != nullptr; t = ggml_get_next_tensor(ctx.get(), t)) {
        if (t->view_src) {
            ggml_backend_view_init(t);
        } else {
            alloc_alone(kv.ctxs_bufs, buft, t);
        }
    }
    kv.sharpv->contexts.push_back(std::move(ctx));
}

void sharpv_kv_hooks::create(llama_kv_cache & kv) {
    if (wanted(kv) && !kv.sharpv) {
        kv.sharpv = std::make_shared<sharpv_kv>(kv);
    }
}

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

void sharpv_kv_hooks::applied(llama_kv_cache & kv, const llama_kv_cache::slot_info & sinfo, const llama_ubatch & ubatch) {
    if (kv.sharpv) {
        kv.sharpv->applied(sinfo.idxs[0], ubatch);
    }
}

void sharpv_kv_hooks::full(llama_kv_cache & kv) {
    if (kv.sharpv) {
        kv.sharpv->n_kv = kv.sharpv->n_kv_full();
    }
}

bool sharpv_kv_hooks::can_shift(const llama_kv_cache & kv) {
    return !kv.sharpv || kv.sharpv->layers.empty();
}

ggml_tensor * sharpv_kv_hooks::get_k(const llama_kv_cache & kv, ggml_context * ctx, int32_t il) {
    if (!kv.sharpv || !kv.sharpv->owns(il)) {
        return nullptr;
    }
    const sharpv_kv & s = *kv.sharpv;
    ggml_tensor * k = s.layers[s.layer_of.at(il)].k;
    const int64_t n_head = kv.hparams.n_embd_head_k(il);
    return ggml_view_4d(ctx, k, n_head, kv.hparams.n_head_kv(il), s.n_kv, 1,
            ggml_row_size(k->type, n_head), k->nb[1], k->nb[2], 0);
}

ggml_tensor * sharpv_kv_hooks::get_v(const llama_kv_cache & kv, ggml_context * ctx, int32_t il) {
    if (!kv.sharpv || !kv.sharpv->owns(il)) {
        return nullptr;
    }
    const sharpv_kv & s = *kv.sharpv;
    ggml_tensor * v = s.layers[s.layer_of.at(il)].v;
    const int64_t n_head = kv.hparams.n_embd_head_v(il);
    if (!kv.v_trans) {
        return ggml_view_4d(ctx, v, n_head, kv.hparams.n_head_kv(il), s.n_kv, 1,
                ggml_row_size(v->type, n_head), v->nb[1], v->nb[2], 0);
    }
    const size_t line = ggml_row_size(v->type, s.n_rows);
    return ggml_view_4d(ctx, v, s.n_kv, kv.hparams.n_head_kv(il), n_head, 1, line*n_head, line, line*v->ne[0], 0);
}

ggml_tensor * sharpv_kv_hooks::cpy_k(const llama_kv_cache & kv, ggml_context * ctx, ggml_tensor * k_cur, int32_t il) {
    if (!kv.sharpv || !kv.sharpv->owns(il)) {
        return nullptr;
    }
    const sharpv_kv & s = *kv.sharpv;
    ggml_tensor * k = s.layers[s.layer_of.at(il)].k;
    GGML_ASSERT(ggml_row_size(k_cur->type, k_cur->ne[0]) == k_cur->nb[1]);
    k_cur = ggml_view_2d(ctx, k_cur, k_cur->ne[0]*k_cur->ne[1], k_cur->ne[2], k_cur->nb[2], 0);
    return ggml_set_rows(ctx, k, k_cur, s.building->k_idxs);
}

ggml_tensor * sharpv_kv_hooks::cpy_v(const llama_kv_cache & kv, ggml_context * ctx, ggml_tensor * v_cur, int32_t il) {
    if (!kv.sharpv || !kv.sharpv->owns(il)) {
        return nullptr;
    }
    const sharpv_kv & s = *kv.sharpv;
    ggml_tensor * v = s.layers[s.layer_of.at(il)].v;
    GGML_ASSERT(ggml_row_size(v_cur->type, v_cur->ne[0]) == v_cur->nb[1]);
    const int64_t n_embd   = v_cur->ne[0]*v_cur->ne[1];
    const int64_t n_tokens = v_cur->ne[2];
    if (!kv.v_trans) {
        v_cur = ggml_view_2d(ctx, v_cur, n_embd, n_tokens, v_cur->nb[2], 0);
        return ggml_set_rows(ctx, v, v_cur, s.building->v_idxs);
    }
    v_cur = ggml_row_size(v_cur->type, n_embd) == v_cur->nb[2]
        ? ggml_reshape_2d(ctx, v_cur, n_embd, n_tokens)
        : ggml_cont_2d   (ctx, v_cur, n_embd, n_tokens);
    // Heads of different sizes: V has the width of the largest.
    if (n_embd < v->ne[0]) {
        v_cur = ggml_pad(ctx, v_cur, v->ne[0] - n_embd, 0, 0, 0);
    }
    // A transposed V is written element by element.
    return ggml_set_rows(ctx,
            ggml_reshape_2d(ctx, v, 1, ggml_nelements(v)), ggml_reshape_2d(ctx, v_cur, 1, ggml_nelements(v_cur)), s.building->v_idxs);
}

ggml_tensor * sharpv_kv_hooks::mask(
        llm_graph_result * res, ggml_context * ctx, const llama_ubatch & ubatch, const llama_kv_cache_context * mctx,
        ggml_tensor * kq_mask, int32_t il) {
    llama_kv_cache & kv = *mctx->kv;
    if (!kv.sharpv) {
        return kq_mask;
    }
    sharpv_kv & s = *kv.sharpv;
    const bool evicted = s.owns(il);
    if (!evicted && !s.hides(il)) {
        return kq_mask;
    }
    sharpv_attn_input * input = nullptr;
    for (const auto & other : res->inputs) {
        auto * mine = dynamic_cast<sharpv_attn_input *>(other.get());
        if (mine && &mine->kv == &s && mine->evicted == evicted) {
            input = mine;
        }
    }
    if (!input) {
        auto made = std::make_unique<sharpv_attn_input>(s, evicted);
        made->primary = kq_mask;
        // In the graph even if no layer uses it itself: llama.cpp fills it.
        ggml_build_forward_expand(res->get_gf(), kq_mask);
        made->mask = ggml_new_tensor_4d(ctx, kq_mask->type, evicted ? s.n_kv : kq_mask->ne[0], kq_mask->ne[1], 1, 1);
        ggml_set_input(made->mask);
        ggml_set_name(made->mask, evicted ? "sharpv_mask_evicted" : "sharpv_mask_hidden");
        if (evicted) {
            const int64_t n_tokens = ubatch.n_tokens;
            made->k_idxs = ggml_new_tensor_1d(ctx, GGML_TYPE_I64, n_tokens);
            made->v_idxs = ggml_new_tensor_1d(ctx, GGML_TYPE_I64, kv.v_trans ? n_tokens*kv.hparams.n_embd_v_gqa_max() : n_tokens);
            for (ggml_tensor * idxs : { made->k_idxs, made->v_idxs }) {
                ggml_set_input(idxs);
            }
            ggml_set_name(made->k_idxs, "sharpv_k_idxs");
            ggml_set_name(made->v_idxs, "sharpv_v_idxs");
        }
        input = static_cast<sharpv_attn_input *>(res->add_input(std::move(made)));
    }
    if (evicted) {
        s.building = input;
    }
    return input->mask;
}

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
