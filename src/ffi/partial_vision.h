// Encoding a part of an image.
//
// Terms. A *cell* is the smallest part of an image that can be computed alone: the patches of one visual token if the
// encoder merges patches, else one patch. A *row* is the hidden state of a patch. A class token is one more row, which
// every pass computes. A stream caches the keys, values and hidden states of every row in the memory of the encoder's
// backend. A pass computes some cells, which attend to the cached keys of all cells; the others stay as they were.
//
// One stream serves one video: images of one size, one after the other. A pass that fails empties the cache.

#pragma once

#include "mtmd.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct sharpv_vision_stream;

// A preprocessed image, and how the encoder divides it.
struct sharpv_image {
    // The normalized values of `n_images` images (merged frames), each [height × width × 3], valid as long as the
    // chunk. A difference of 1 between 8-bit pixels becomes 1/(255·std[channel]).
    const float * images[2];
    uint32_t n_images;
    uint32_t width;
    uint32_t height;
    float    std[3];

    uint32_t patch;      // side of a patch, in pixels
    uint32_t merge;      // side of a cell, in patches
    uint32_t cells_x;    // cells in a row
    uint32_t cells_y;    // rows of cells
    uint32_t n_embd;     // values of a row
    uint32_t n_layers;   // layers that the encoder runs
    bool     cells_are_tokens; // each cell becomes one visual token, in the same order
    uint64_t cache_bytes; // bytes of a stream's cache for images of this size
};

struct sharpv_vision_stream * sharpv_vision_stream_new(void);
void sharpv_vision_stream_free(struct sharpv_vision_stream * stream);

// Describes an image, and computes nothing. Empties the cache if the size differs from the previous image's. The width
// in `*out` is 0 if the encoder cannot compute parts of this image.
int32_t sharpv_try_vision_look(
        struct sharpv_vision_stream * stream, struct mtmd_context * ctx, const struct mtmd_input_chunk * chunk,
        struct sharpv_image * out, char * err, size_t err_len);

// Computes `cells` (ascending; all cells if the cache is empty) through all layers, and then the embeddings of all
// tokens, which mtmd_get_output_embd() returns.
int32_t sharpv_try_vision_encode(
        struct sharpv_vision_stream * stream, struct mtmd_context * ctx, const struct mtmd_input_chunk * chunk,
        const uint32_t * cells, size_t n_cells, char * err, size_t err_len);

// Computes `cells` through the first `layer` layers. Writes the hidden states that enter the next one to `middle`,
// [n_cells × merge² × n_embd]. Throws if `n_middle`, the length of `middle`, is another number.
int32_t sharpv_try_vision_begin(
        struct sharpv_vision_stream * stream, struct mtmd_context * ctx, const struct mtmd_input_chunk * chunk,
        const uint32_t * cells, size_t n_cells, uint32_t layer, float * middle, size_t n_middle,
        char * err, size_t err_len);

// Computes the remaining layers for some of the cells of sharpv_try_vision_begin(), and then the embeddings of all
// tokens. `states` has a sharpv_cell_state for each cell of the image.
enum sharpv_cell_state {
    SHARPV_CELL_KEPT,     // stays as it was; it has keys and values in all layers
    SHARPV_CELL_STOPPED,  // stays as it was; it has none in the last layers, so no cell attends to it there
    SHARPV_CELL_COMPUTED, // is computed
    SHARPV_CELL_FILLED,   // its state before these layers, plus what the most similar row gained in them
};
int32_t sharpv_try_vision_finish(
        struct sharpv_vision_stream * stream, struct mtmd_context * ctx, const struct mtmd_input_chunk * chunk,
        const uint8_t * states, size_t n_states, char * err, size_t err_len);

#ifdef __cplusplus
}
#endif
