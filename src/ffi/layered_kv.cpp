#include "layered_kv.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <stdexcept>
#include <tuple>

namespace {

// Copies rows between tensors with contiguous rows, within the device that holds both.
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

// The same for a transposed V, [embd][cell].
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

} // namespace

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

const ggml_tensor * sharpv_kv::keys_of(int32_t il) const {
    if (const auto it = layer_of.find(il); it != layer_of.end()) {
        return layers[it->second].k;
    }
    const auto it = kv.map_layer_ids.find(il);
    return it != kv.map_layer_ids.end() ? kv.layers[it->second].k : nullptr;
}

bool sharpv_kv::can_evict() const {
    // Models with latent attention (MLA) have no V, and read the cache in another way.
    return !kv.layers.empty() && std::all_of(kv.layers.begin(), kv.layers.end(), [](const auto & l) { return l.v != nullptr; });
}

uint32_t sharpv_kv::n_free_rows() const {
    uint32_t n = 0;
    for (uint32_t row = 0; row < n_rows; ++row) {
        // A window drops the visual rows before the next ubatch.
        n += !is_live(row) || (has_window && cells[cell_of_row[row]].visual);
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
    // A cell that was freed and is used again keeps its row.
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
    throw std::runtime_error("the evicted layers have no free row"); // has_room() prevents this
}

void sharpv_kv::drop_visual_rows() {
    for (cell_info & cell : cells) {
        if (cell.visual && cell.row >= 0) {
            cell_of_row[cell.row] = -1;
            cell.row = -1;
        }
    }
    row_head = 0;
}

void sharpv_kv::applied(const std::vector<uint32_t> & used_cells, const llama_ubatch & ubatch) {
    if (has_window) {
        drop_visual_rows();
    }
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

void sharpv_kv::alloc(buffers & bufs, ggml_backend_buffer_type_t buft, ggml_tensor * tensor) {
    ggml_backend_buffer_ptr buffer(ggml_backend_buft_alloc_buffer(buft, ggml_backend_buft_get_alloc_size(buft, tensor)));
    if (!buffer) {
        throw std::runtime_error("not enough memory for the KV cache");
    }
    ggml_backend_tensor_alloc(buffer.get(), tensor, ggml_backend_buffer_get_base(buffer.get()));
    // Attention reads padding, too, which must not be NaN.
    ggml_backend_buffer_clear(buffer.get(), 0);
    bufs.emplace_back(ggml_context_ptr(), std::move(buffer));
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

    // Allocates everything first: if that fails, nothing was changed.
    ggml_context_ptr ctx(ggml_init({ 2*(old.size() + 1)*ggml_tensor_overhead(), nullptr, true }));
    buffers bufs;
    auto alloc_like = [&](const ggml_tensor * tensor) {
        ggml_tensor * res = ggml_new_tensor_3d(ctx.get(), tensor->type, tensor->ne[0], size, 1);
        ggml_set_name(res, tensor->name);
        alloc(bufs, ggml_backend_buffer_get_type(tensor->buffer), res);
        return res;
    };
    std::vector<layer> fresh;
    for (const layer & l : old) {
        fresh.push_back({ l.il, alloc_like(l.k), alloc_like(l.v) });
    }

    std::vector<uint32_t> rows(kept.size());
    for (size_t i = 0; i < old.size(); ++i) {
        // A layer that was evicted before has its own rows, the others have one for each cell.
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

    take_over(targets);
    layers = std::move(fresh);
    assign_rows(kept, size);
}

void sharpv_kv::take_over(const std::vector<size_t> & targets) {
    // In some models, a layer uses the cache of another one: several model layers may map to one index.
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
}

void sharpv_kv::assign_rows(const std::vector<uint32_t> & kept, uint32_t size) {
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

void sharpv_kv::open_window(const std::vector<size_t> & windowed, uint32_t wanted) {
    const uint32_t size = padded(wanted);
    std::vector<layer> fresh;
    for (const size_t i : windowed) {
        auto & l = kv.layers[i];
        for (ggml_tensor * tensor : { l.k, l.v }) {
            tensor->ne[1] = size;
            tensor->nb[2] = tensor->nb[1]*size;
            tensor->nb[3] = tensor->nb[2];
        }
        fresh.push_back({ l.il, l.k, l.v });
    }
    take_over(windowed);
    layers.insert(layers.end(), fresh.begin(), fresh.end());
    assign_rows({}, size);
    has_window = true;
}

uint32_t sharpv_kv::padded(uint32_t n) const {
    return std::min<uint32_t>(cells.size(), GGML_PAD(std::max<uint32_t>(1, n), row_step));
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
    // As many free rows as free cells.
    rebuild(targets, kept, padded(kept.size() + cells.size() - n_used));
    has_window = false;
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
    return sum/n; // n > 0: the first layer always has a value
}

void sharpv_kv::hide_like(const std::vector<bool> & wanted, const sharpv_kv * other) {
    const auto place = [](const sharpv_kv & s, uint32_t cell) {
        const auto & used = s.kv.v_cells[0];
        const auto & ext  = used.ext_get(cell);
        return std::make_tuple(used.pos_get(cell), ext.y, ext.x);
    };
    std::set<std::tuple<llama_pos, llama_pos, llama_pos>> hidden;
    for (uint32_t cell = 0; other && cell < other->cells.size(); ++cell) {
        if (other->is_used(cell) && other->cells[cell].hidden) {
            hidden.insert(place(*other, cell));
        }
    }
    hidden_layers = wanted;
    for (uint32_t cell = 0; cell < cells.size(); ++cell) {
        cells[cell].hidden = is_visual(cell) && hidden.count(place(*this, cell)) > 0;
    }
}

void sharpv_kv::hide(const std::vector<bool> & wanted, float below) {
    hidden_layers = wanted;
    const bool any = std::find(wanted.begin(), wanted.end(), true) != wanted.end();
    for (uint32_t cell = 0; cell < cells.size(); ++cell) {
        cells[cell].hidden = any && is_visual(cell) && (below == std::numeric_limits<float>::infinity() || mean_similarity(cell) < below);
    }
}

std::vector<uint32_t> sharpv_kv::by_row() const {
    std::vector<uint32_t> res;
    for (uint32_t cell = 0; cell < cells.size(); ++cell) {
        if (is_used(cell)) {
            res.push_back(cell);
        }
    }
    std::sort(res.begin(), res.end(), [&](uint32_t a, uint32_t b) { return cells[a].serial < cells[b].serial; });
    return res;
}

std::array<llama_pos, 3> sharpv_kv::position(uint32_t cell) const {
    const auto & ext = kv.v_cells[0].ext_get(cell);
    return { kv.v_cells[0].pos_get(cell), ext.y, ext.x };
}

std::vector<sharpv_kv::freed> sharpv_kv::evict_tokens(float threshold) {
    std::vector<freed> res;
    const std::vector<uint32_t> rows = by_row();
    for (uint32_t row = 0; row < rows.size(); ++row) {
        const uint32_t cell = rows[row];
        if (cells[cell].visual && mean_similarity(cell) < threshold) {
            res.push_back({ row, position(cell) });
            kv.v_cells[0].rm(cell);
        }
    }
    return res;
}

void sharpv_kv::drop(const std::vector<freed> & rows) {
    std::map<std::array<llama_pos, 3>, uint32_t> left;
    for (const freed & row : rows) {
        left[row.position]++;
    }
    for (uint32_t cell = 0; cell < cells.size(); ++cell) {
        if (!is_used(cell)) {
            continue;
        }
        const auto it = left.find(position(cell));
        if (it != left.end() && it->second > 0) {
            it->second--;
            kv.v_cells[0].rm(cell);
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
        // The embedding itself enters the first layer.
        dst[0] = 1.0f;
        for (size_t l = 0; l < measured_layers.size(); ++l) {
            dst[measured_layers[l]] = values[i*measured_layers.size() + l];
        }
        cell.measured = true;
    }
}
