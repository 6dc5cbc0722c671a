// The vision encoder at work on a part of an image.
//
// Terms. A *cell* is the least part of an image that can be computed alone: the patches of one visual token where the
// encoder merges patches, else one patch. A *row* is a patch's vector between the layers; a class token is a row more,
// which is computed in each pass. Keys, values and hidden states of every row stay in a stream's cache, in memory of
// the encoder's backend. A pass computes some cells, whose queries meet the keys of all; the others are as they were.
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

// An image as the encoder sees it, and how it is divided.
struct sharpv_image {
    // `n_images` images (merged frames), each [height × width × 3], as long as the chunk lives: normalized, so that
    // a difference of 1 of 255 is 1/(255·std[channel]).
    const float * images[2];
    uint32_t n_images;
    uint32_t width;
    uint32_t height;
    float    std[3];

    uint32_t patch;      // side of a patch, in pixels
    uint32_t merge;      // patches on the side of a cell
    uint32_t cells_x;
    uint32_t cells_y;
    uint32_t n_embd;     // values of a row
    uint32_t n_layers;   // that are run
    bool     cells_are_tokens; // one visual token comes of each cell, in the same order
    uint64_t cache_bytes; // what a stream takes of the backend's memory for such images
};

struct sharpv_vision_stream * sharpv_vision_stream_new(void);
void sharpv_vision_stream_free(struct sharpv_vision_stream * stream);

// Looks at an image and computes nothing. A size that is not that of the image before empties the cache. An encoder
// that cannot work on parts of this image gives a width of 0.
int32_t sharpv_try_vision_look(
        struct sharpv_vision_stream * stream, struct mtmd_context * ctx, const struct mtmd_input_chunk * chunk,
        struct sharpv_image * out, char * err, size_t err_len);

// Computes `cells` (ascending; all if the cache is empty) through all layers, and the embeddings of all tokens, to be
// had by mtmd_get_output_embd().
int32_t sharpv_try_vision_encode(
        struct sharpv_vision_stream * stream, struct mtmd_context * ctx, const struct mtmd_input_chunk * chunk,
        const uint32_t * cells, size_t n_cells, char * err, size_t err_len);

// Computes `cells` through the first `layer` layers. `middle` gets what enters the next one,
// [n_cells × merge² × n_embd]; `n_middle` is how many values it has room for. Throws if that is another number.
int32_t sharpv_try_vision_begin(
        struct sharpv_vision_stream * stream, struct mtmd_context * ctx, const struct mtmd_input_chunk * chunk,
        const uint32_t * cells, size_t n_cells, uint32_t layer, float * middle, size_t n_middle,
        char * err, size_t err_len);

// Computes the rest of the layers of some of the cells that went through sharpv_try_vision_begin(): `states` has a
// sharpv_cell_state for each cell of the image. Then the embeddings of all tokens.
enum sharpv_cell_state {
    SHARPV_CELL_KEPT,     // as it was, with keys and values of its own in all layers
    SHARPV_CELL_STOPPED,  // as it was, without: nobody attends to it
    SHARPV_CELL_COMPUTED, // computed now
    SHARPV_CELL_FILLED,   // ends as what it was in the middle, plus what the row most like it gained from there on
};
int32_t sharpv_try_vision_finish(
        struct sharpv_vision_stream * stream, struct mtmd_context * ctx, const struct mtmd_input_chunk * chunk,
        const uint8_t * states, size_t n_states, char * err, size_t err_len);

#ifdef __cplusplus
}
#endif
