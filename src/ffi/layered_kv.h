// The layered KV cache: visual tokens can be evicted from some layers and stay in others.
//
// Terms. A *cell* is llama.cpp's: it holds one row of a batch, with its position and its sequences, in all layers. An
// *evicted layer* does not have a row for each cell: its K and V are in smaller tensors of their own, and `sharpv_kv`
// maps their *rows* to cells. Cells, positions and sequences remain llama.cpp's, so truncating or copying a sequence
// needs nothing from us: a row is free when its cell is.

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

    // The layered part of a cache; nullptr if it has none. In a sharpv_kv_scope, creates it if it is missing.
    static sharpv_kv * of(llama_kv_cache * kv);

    // Facts about a cell. Valid while llama.cpp's cell is in use.
    struct cell_info {
        int32_t  row      = -1;    // its row in the evicted layers; -1 if it has none
        uint32_t serial   = 0;     // identifies the row of the batch that the cell holds; ascends in order of arrival
        bool     visual   = false; // it entered as an embedding
        bool     measured = false; // `similarity` has values for it
        bool     hidden   = false; // see hide()
    };

    // An evicted layer. The tensors have `n_rows` rows, in llama.cpp's layout.
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

    // The number of indices for each token's V. A transposed V is written element by element.
    int64_t n_v_idxs() const { return kv.v_trans ? kv.hparams.n_embd_v_gqa_max() : 1; }

    // The tensor with the keys of a layer of the model, evicted or not; nullptr if it has none.
    const ggml_tensor * keys_of(int32_t il) const;

    // Whether there are layers whose K and V can be evicted.
    bool can_evict() const;

    // Declares that all layers are in main memory. Call it before anything is allocated.
    void all_in_main_memory() { row_step = HOST_STEP; }

    // Makes `windowed` (indices in kv.layers) layers of `size` rows, in which visual cells have a row only while their
    // own ubatch is computed: later ubatches do not see them there. evict() ends the window. Call it before any cell is
    // used and while the tensors of these layers have no memory, once for each type of buffer that layers are in.
    void open_window(const std::vector<size_t> & windowed, uint32_t size);

    // Frees the rows of all visual cells in `layers` (by model layer) and in the layers that were evicted before. Later
    // rows are stored in all layers again. Throws if no layer would keep all cells.
    void evict(const std::vector<bool> & layers);

    // As hide(), for the cells of rows that `other` hides, if they are in this cache: a model with sliding windows has
    // two caches, of which only one is measured. With nullptr for `other`, no cell is hidden.
    void hide_like(const std::vector<bool> & layers, const sharpv_kv * other);

    // Has the effect of an eviction without freeing anything, for comparison: for every later query, masks the visual
    // cells that are in use now, and whose similarity, averaged over the layers, is below `below`, in `layers`. An
    // empty list ends the mask.
    void hide(const std::vector<bool> & layers, float below);

    // A cell that was freed, by the row that it held: its index among the rows in use, in order of arrival, and its
    // position. Positions alone are ambiguous: under M-RoPE, two frames may share theirs.
    struct freed {
        uint32_t                 row;
        std::array<llama_pos, 3> position; // time, height, width, as in llama.cpp's batches
    };

    // Frees, in all layers, the visual cells whose similarity, averaged over the layers, is below `threshold`. Returns
    // them in the order of their rows.
    std::vector<freed> evict_tokens(float threshold);

    // Frees the cells of rows that another cache of the same context freed, if they are in this cache: as many at each
    // position. That suffices, because no model has both a sliding window and frames that share positions.
    void drop(const std::vector<freed> & rows);

    // For each layer of the model, the mean similarity over the visual cells that were measured; NaN if there is none.
    // `n_cells` becomes the number of these cells.
    std::vector<float> curve(size_t & n_cells) const;

    // Stores results of the probe, `values[token][layer]` for the layers in `measured_layers`. Skips cells that hold
    // another row by now than the one in `serials`.
    void store(const std::vector<uint32_t> & of_cells, const std::vector<uint32_t> & serials, const std::vector<int> & measured_layers,
            const float * values);

    // Our part of a saved state. To restore it, call shape() before llama.cpp restores its part, and fill() after.
    std::vector<uint8_t> save() const;
    void shape(const std::vector<uint8_t> & data);
    void fill (const std::vector<uint8_t> & data);

    //
    // for the hooks
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
    uint32_t                             n_kv   = 0; // rows that attention reads in the evicted layers for this ubatch

    // Visual cells lose their rows when the next ubatch begins: see open_window().
    bool has_window = false;

    std::vector<bool> hidden_layers;

    std::vector<uint32_t> ubatch_cells; // of the current ubatch

    // The contexts of tensors that were allocated one by one.
    std::vector<ggml_context_ptr> contexts;

    using buffers = std::vector<std::pair<ggml_context_ptr, ggml_backend_buffer_ptr>>;

    // Allocates a buffer of zeros for one tensor, so that it can be freed alone.
    static void alloc(buffers & bufs, ggml_backend_buffer_type_t buft, ggml_tensor * tensor);

private:
    // The rows that attention reads are padded to a multiple of this, as in llama.cpp, so that graphs can be reused.
    static constexpr uint32_t N_KV_STEP = 256;

    // `row_step` if all layers are in main memory. A larger one would use up what evicting a short video frees.
    static constexpr uint32_t HOST_STEP = 32;

    // The number of rows to allocate for `n` rows. All evicted layers have the same number, on all devices.
    uint32_t padded(uint32_t n) const;

    // Rows are allocated in multiples of this. Flash attention on a GPU requires whole steps.
    uint32_t row_step = N_KV_STEP;

    // The cells in use, in order of arrival.
    std::vector<uint32_t> by_row() const;

    // The position of a cell in use.
    std::array<llama_pos, 3> position(uint32_t cell) const;

    // The similarity of a visual cell, averaged over the layers; infinity if it was not measured.
    float mean_similarity(uint32_t cell) const;

    uint32_t take_row(uint32_t cell);
    uint32_t find_row_end() const;

    // Makes `targets` (indices in kv.layers) evicted layers, and allocates new tensors for all evicted layers, with
    // `size` rows. The first of them are copies of the rows of `kept`.
    void rebuild(const std::vector<size_t> & targets, const std::vector<uint32_t> & kept, uint32_t size);

    // Removes `targets` (indices in kv.layers) from llama.cpp's lists, and numbers them after the layers in `layers`.
    void take_over(const std::vector<size_t> & targets);

    // Sets the number of rows to `size`, and assigns the first rows to the cells `kept`.
    void assign_rows(const std::vector<uint32_t> & kept, uint32_t size);

    // Frees the rows of visual cells.
    void drop_visual_rows();

    void release(ggml_tensor * tensor);

    uint32_t next_serial = 1;
    uint32_t row_head    = 0;
};

// While it lives, the KV caches that this thread creates are layered. The layers in `window_layers` (by model layer)
// get a window of `window_rows` rows (open_window()), unless no other layer would be left.
struct sharpv_kv_scope {
    sharpv_kv_scope(bool on, std::vector<bool> window_layers = {}, uint32_t window_rows = 0);
    ~sharpv_kv_scope();
};

// Records that this thread is building `graph`.
void sharpv_kv_building(const llm_graph_context & graph);

// The cache of a memory's attention layers; for models with sliding windows, that of the layers without one. nullptr if
// there is none, or if it cannot be layered.
sharpv_kv * sharpv_kv_of(llama_memory_i * memory);

// The cache of the layers with a sliding window; nullptr if there is none.
sharpv_kv * sharpv_kv_window_of(llama_memory_i * memory);
