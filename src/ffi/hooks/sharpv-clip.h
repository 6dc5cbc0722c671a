// The call sites that the patches put into mtmd's vision encoder (clip). Included and defined as those of
// sharpv-llama.h.

#pragma once

#include "ggml-backend.h"
#include "ggml.h"

struct clip_graph;
struct clip_image_f32_batch;
struct clip_model;

// The encoder at work on a part of an image (partial_vision.h). While the thread encodes nothing of that kind, all of
// these leave everything as it is.
struct sharpv_clip_hooks {
    // clip_encode(). `begin` before the graph is built, false if nothing is to be computed; `built` may cut the graph
    // short; `set_inputs` when llama.cpp's own are set; `computed` is false if this pass has no embeddings to give.
    static bool begin(ggml_backend_t backend, const clip_model & model, const clip_image_f32_batch & imgs);
    static void built(ggml_cgraph * gf);
    static void set_inputs(ggml_cgraph * gf);
    static bool computed();

    // A loop over layers: what enters layer `il`, [n_embd, rows]; what left the last one, of all rows.
    static ggml_tensor * layer_in  (const clip_graph & graph, ggml_tensor * cur, int il);
    static ggml_tensor * layers_out(const clip_graph & graph, ggml_tensor * cur);

    // M-RoPE positions of the rows in layer `il`, which were `cur` in the layer before.
    static ggml_tensor * positions(const clip_graph & graph, ggml_tensor * cur, int il);

    // What layer `il` hands to the language model directly (deepstack), of all tokens.
    static ggml_tensor * features(const clip_graph & graph, ggml_tensor * cur, int il);

    // The attention of layer `il`, [n_embd, rows], or null if llama.cpp is to compute it.
    static ggml_tensor * attn(
            const clip_graph & graph, ggml_tensor * q, ggml_tensor * k, ggml_tensor * v, ggml_tensor * mask,
            float scale, int il);
};
