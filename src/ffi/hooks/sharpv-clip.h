// Hooks that the patches call in mtmd's vision encoder (clip). They are included and defined in the same way as those
// in sharpv-llama.h.

#pragma once

#include "ggml-backend.h"
#include "ggml.h"

struct clip_graph;
struct clip_image_f32_batch;
struct clip_model;

// Encoding a part of an image (partial_vision.h). Unless the thread is doing that, these hooks return their argument,
// or whatever makes clip do what it would do without them.
struct sharpv_clip_hooks {
    // In clip_encode(): begin() before the graph is built, false to compute nothing; built() may truncate the graph;
    // set_inputs() after llama.cpp's own inputs are set; computed() is false if this pass produces no embeddings.
    static bool begin(ggml_backend_t backend, const clip_model & model, const clip_image_f32_batch & imgs);
    static void built(ggml_cgraph * gf);
    static void set_inputs(ggml_cgraph * gf);
    static bool computed();

    // In the loop over layers: the input of layer `il`, [n_embd, rows]; the output of the last layer, for all rows.
    static ggml_tensor * layer_in  (const clip_graph & graph, ggml_tensor * cur, int il);
    static ggml_tensor * layers_out(const clip_graph & graph, ggml_tensor * cur);

    // The M-RoPE positions of the rows in layer `il`; `cur` are those of the layer before.
    static ggml_tensor * positions(const clip_graph & graph, ggml_tensor * cur, int il);

    // The features that layer `il` passes to the language model directly (deepstack), for all tokens.
    static ggml_tensor * features(const clip_graph & graph, ggml_tensor * cur, int il);

    // The attention of layer `il`, [n_embd, rows]; null if clip should compute it.
    static ggml_tensor * attn(
            const clip_graph & graph, ggml_tensor * q, ggml_tensor * k, ggml_tensor * v, ggml_tensor * mask,
            float scale, int il);
};
