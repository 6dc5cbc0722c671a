// The layered KV cache: cells of visual tokens leave some layers and stay in others.
//
// Terms. A cell is what llama.cpp calls so: a place for one row of a batch, with its position and its sequences, the
// same for all layers. A layer from which cells were evicted does not have a row for each cell: its K and V live in
// smaller tensors of their own, and `sharpv_kv` knows which row belongs to which cell. Cells, positions and sequences
// stay llama.cpp's business, so that truncating a sequence or copying it needs nothing from us: a row is free when its
// cell is.

#pragma once

#include "llama-kv-cache.h"

#include <array>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

struct llm_graph_context;

struct sharpv_kv {
    explicit sharpv_kv(llama_kv_cache & kv);

    // That of a cache; nullptr if it was made without. In a sharpv_kv_scope, makes it.
    static sharpv_kv * of(llama_kv_cache * kv);

    // What is known of a cell. Valid while llama.cpp's cell is in use.
    struct cell_info {
        int32_t  row      = -1;    // its row in the evicted layers; -1 if it has none
        uint32_t serial   = 0;     // which use of the cell this is: grows from row to row, in the order in which they came
        bool     visual   = false; // it came in as an embedding
        bool     measured = false; // `similarity` has values for it
        bool     hidden   = false; // see hide()
    };

    // A layer from which cells were evicted. The tensors have `n_rows` rows, in llama.cpp's layout.
    struct layer {
        uint32_t      il;
        ggml_tensor * k;
        ggml_tensor * v;
    };

    // Bytes and rows of a layer of the model, evicted or not.
    struct layer_size {
        bool     has_kv  = false;
        bool     evicted = false;
        uint32_t rows    = 0;
        uint64_t bytes   = 0;
    };

    bool is_used  (uint32_t cell) const;
    bool is_visual(uint32_t cell) const { return is_used(cell) && cells[cell].visual; }

    bool owns (int32_t il) const { return layer_of.count(il) > 0; }
    bool hides(int32_t il) const { return il >= 0 && (size_t) il < hidden_layers.size() && hidden_layers[il]; }

    layer_size size_of(int32_t il) const;

    // Of each token: a transposed V is written element by element.
    int64_t n_v_idxs() const { return kv.v_trans ? kv.hparams.n_embd_v_gqa_max() : 1; }

    // The tensor with the keys of a layer of the model, evicted or not; nullptr if it has none.
    const ggml_tensor * keys_of(int32_t il) const;

    // Whether there are layers with K and V of which cells can be evicted.
    bool can_evict() const;

    // All layers are in main memory. To be told before anything is allocated.
    void all_in_main_memory() { row_step = HOST_STEP; }

    // Before any cell is used: makes `windowed` (indices in kv.layers), whose tensors have no memory yet, layers with
    // room for `size` rows, in which visual cells have a row only while the ubatch that they came with is computed.
    // Later ubatches do not see them there. Ends with evict(). Called for each kind of buffer that layers are in.
    void open_window(const std::vector<size_t> & windowed, uint32_t size);

    // Takes the rows of all visual cells out of `layers` (by model layer) and of the layers that were evicted before,
    // and gives their memory back. New rows go to all layers again. Throws if no layer would be left that has all
    // cells.
    void evict(const std::vector<bool> & layers);

    // As hide() below, for the cells of the rows that `other` hides, where both have them: a model with sliding windows
    // has two caches, of which one is measured. Nothing of `other` ends it.
    void hide_like(const std::vector<bool> & layers, const sharpv_kv * other);

    // The slow way to the same result, for comparing: the visual cells that are there now and whose similarity,
    // averaged over the layers, is below `below` are masked in `layers` for every later query, and nothing is freed. An
    // empty list ends it.
    void hide(const std::vector<bool> & layers, float below);

    // A cell that was freed: which row it held, counted among the rows that had cells in the order in which they came,
    // and where that stood. Positions alone do not tell rows apart: under M-RoPE, two frames may share theirs.
    struct freed {
        uint32_t                 row;
        std::array<llama_pos, 3> position; // as in llama.cpp's batches: temporal, vertical, horizontal
    };

    // Frees the visual cells in all layers whose similarity, averaged over the layers, is below `threshold`. Returns
    // them in the order of their rows.
    std::vector<freed> evict_tokens(float threshold);

    // Frees the cells of rows that another cache of the same context freed, as far as they are here: as many at each
    // position. No model has a cache with a window and frames that share positions.
    void drop(const std::vector<freed> & rows);

    // The mean similarity of each layer of the model over the visual cells that were measured; NaN for a layer without
    // a value.
    std::vector<float> curve(size_t & n_cells) const;

    // Results of the probe, `values[token][layer]` for the layers in `measured_layers`; `serials` tells whether a cell
    // is still the same.
    void store(const std::vector<uint32_t> & of_cells, const std::vector<uint32_t> & serials, const std::vector<int> & measured_layers,
            const float * values);

    // What a saved state needs beside llama.cpp's own. `shape` goes before llama.cpp restores its part, `fill` behind
    // it.
    std::vector<uint8_t> save() const;
    void shape(const std::vector<uint8_t> & data);
    void fill (const std::vector<uint8_t> & data);

    //
    // for the call sites
    //

    void     applied(const std::vector<uint32_t> & used_cells, const llama_ubatch & ubatch);
    uint32_t n_free_rows() const;
    bool     is_live(uint32_t row) const;

    llama_kv_cache & kv;

    std::vector<cell_info> cells;
    std::vector<float>     similarity; // [cell][n_layer]; empty until something was measured
    uint32_t               n_layer = 0;

    std::vector<layer>                   layers;   // the evicted ones
    std::unordered_map<int32_t, int32_t> layer_of; // model layer → index in `layers`
    std::vector<int32_t>                 cell_of_row;
    uint32_t                             n_rows = 0;
    uint32_t                             n_kv   = 0; // rows that attention reads in the evicted layers, for the current ubatch

    // Visual cells lose their rows with the next ubatch.
    bool has_window = false;

    std::vector<bool> hidden_layers;

    std::vector<uint32_t> ubatch_cells; // of the current ubatch

    // Of tensors that were allocated one by one.
    std::vector<ggml_context_ptr> contexts;

    using buffers = std::vector<std::pair<ggml_context_ptr, ggml_backend_buffer_ptr>>;

    // Gives a tensor a buffer of its own, filled with zeros, so that it can be freed alone.
    static void alloc(buffers & bufs, ggml_backend_buffer_type_t buft, ggml_tensor * tensor);

private:
    // llama.cpp pads what attention reads in the same way, so that graphs can be used again.
    static constexpr uint32_t N_KV_STEP = 256;

    // Where all layers are in main memory: larger steps would eat up what the eviction of a short video frees.
    static constexpr uint32_t HOST_STEP = 32;

    // The number of rows to allocate for `n`: one for all evicted layers, wherever they are.
    uint32_t padded(uint32_t n) const;

    // Rows are allocated in multiples of this. Fused attention on a GPU wants whole steps.
    uint32_t row_step = N_KV_STEP;

    // The cells in use, in the order in which their rows came.
    std::vector<uint32_t> by_row() const;

    // Where the row of a cell in use stands.
    std::array<llama_pos, 3> position(uint32_t cell) const;

    // The similarity of a visual cell, averaged over the layers; infinity if it was not measured.
    float mean_similarity(uint32_t cell) const;

    uint32_t take_row(uint32_t cell);
    uint32_t find_row_end() const;

    // Moves `targets` (indices in kv.layers) to the evicted ones, and gives all evicted layers tensors with `size`
    // rows, which begin with the rows of `kept`.
    void rebuild(const std::vector<size_t> & targets, const std::vector<uint32_t> & kept, uint32_t size);

    // Takes `targets` (indices in kv.layers) off llama.cpp's lists; in their order, they follow the layers that are
    // here.
    void take_over(const std::vector<size_t> & targets);

    // Gives the evicted layers `size` rows, the first of which are those of `kept`.
    void assign_rows(const std::vector<uint32_t> & kept, uint32_t size);

    // Frees the rows of visual cells.
    void drop_visual_rows();

    void release(ggml_tensor * tensor);

    uint32_t next_serial = 1;
    uint32_t row_head    = 0;
};

// Makes the KV caches that this thread creates layered, while it lives. Where `window_layers` (by model layer) are
// given, those get `window_rows` rows and a window (open_window()), as far as another layer is left.
struct sharpv_kv_scope {
    sharpv_kv_scope(bool on, std::vector<bool> window_layers = {}, uint32_t window_rows = 0);
    ~sharpv_kv_scope();
};

// This thread builds `graph` now.
void sharpv_kv_building(const llm_graph_context & graph);

// The cache of a memory's attention layers; of models with sliding windows, that of the layers without one. nullptr if
// there is none, or none that can be layered.
sharpv_kv * sharpv_kv_of(llama_memory_i * memory);

// The cache of the layers with a sliding window; nullptr if there is none.
sharpv_kv * sharpv_kv_window_of(llama_memory_i * memory);
