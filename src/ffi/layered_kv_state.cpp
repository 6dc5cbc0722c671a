// Saving and restoring our part of a layered KV cache's state. src/runtime/layered_state.rs describes the format.

#include "layered_kv.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace {

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

constexpr uint32_t STATE_VERSION = 2;

// The beginning of a saved state.
struct header {
    uint32_t version;
    uint32_t n_layer;
    uint32_t n_cells;    // cells in use
    uint32_t n_rows;     // cells with a row in the evicted layers
    uint32_t transposed; // whether V is transposed
    uint32_t n_evicted;  // evicted layers
};

} // namespace

std::vector<uint8_t> sharpv_kv::save() const {
    std::vector<uint32_t> used;
    std::vector<uint32_t> rows; // rows of the evicted layers, in the order of the cells
    // The rank of each cell in order of arrival.
    std::vector<uint32_t> order(cells.size());
    const std::vector<uint32_t> in_order = by_row();
    for (uint32_t i = 0; i < in_order.size(); ++i) {
        order[in_order[i]] = i;
    }
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
        w.value(order[cell]);
        if (info.measured) {
            w.bytes(similarity.data() + (size_t) cell*n_layer, n_layer*sizeof(float));
        }
    }
    const uint32_t n_read = rows.empty() ? 0 : *std::max_element(rows.begin(), rows.end()) + 1;
    std::vector<uint8_t> all;
    auto put = [&](const ggml_tensor * tensor, size_t stride, size_t n, size_t size) {
        // Of each of `n` lines of `stride` bytes, writes the elements of `size` bytes that belong to `rows`.
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
        throw std::runtime_error("the saved KV cache has another version");
    }
    if (h.n_layer != n_layer) {
        throw std::runtime_error("the saved KV cache is for another model");
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
        const size_t target = it - kv.layers.begin();
        if (std::find(targets.begin(), targets.end(), target) != targets.end()) {
            throw std::runtime_error("the saved KV cache is damaged");
        }
        targets.push_back(target);
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
        // llama.cpp does not check positions.
        if (used.pos_get(cell) < 0) {
            throw std::runtime_error("the saved KV cache is damaged");
        }
    }
    similarity.resize((size_t) cells.size()*n_layer);
    uint32_t n = 0;
    std::vector<bool> seen(h.n_cells);
    const uint32_t first_serial = next_serial;
    next_serial += h.n_cells;
    for (uint32_t cell = 0; cell < h.n_cells; ++cell) {
        const auto flags = r.value<uint8_t>();
        const auto order = r.value<uint32_t>();
        if (order >= h.n_cells || seen[order]) {
            throw std::runtime_error("the saved KV cache is damaged");
        }
        seen[order] = true;
        cell_info & info = cells[cell];
        info = {};
        info.serial   = first_serial + order;
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
    for (uint32_t cell = 0; cell < h.n_cells; ++cell) {
        // Eviction relies on text being in all layers, and only visual cells are measured.
        const cell_info & info = cells[cell];
        if (!info.visual && (info.measured || (!layers.empty() && info.row < 0))) {
            throw std::runtime_error("the saved KV cache is damaged");
        }
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
    if (r.at != data.size()) {
        throw std::runtime_error("the saved KV cache is damaged");
    }
}
