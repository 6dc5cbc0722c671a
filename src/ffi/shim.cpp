#include "shim.h"

#include "guard.h"

#include "clip.h"
#include "ggml-rpc.h"
#include "llama-arch.h"
#include "llama-ext.h"
#include "llama-memory-hybrid-iswa.h"
#include "llama-memory-hybrid.h"
#include "llama-memory-recurrent.h"
#include "llama-model.h"
#include "mtmd-helper.h"

#include <cstdio>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>

// sharpv_vision_memory() casts one to the other.
static_assert(int(CLIP_FLASH_ATTN_TYPE_AUTO) == int(LLAMA_FLASH_ATTN_TYPE_AUTO), "clip.h");
static_assert(int(CLIP_FLASH_ATTN_TYPE_DISABLED) == int(LLAMA_FLASH_ATTN_TYPE_DISABLED), "clip.h");
static_assert(int(CLIP_FLASH_ATTN_TYPE_ENABLED) == int(LLAMA_FLASH_ATTN_TYPE_ENABLED), "clip.h");

namespace {

void add(sharpv_memory & sum, const llama_memory_breakdown_data & data) {
    sum.model   += data.model;
    sum.context += data.context;
    sum.compute += data.compute;
}

void write(const std::map<std::string, sharpv_memory> & sums, sharpv_device_memory * out, size_t capacity, size_t * n) {
    size_t i = 0;
    for (const auto & entry : sums) {
        if (i < capacity) {
            out[i] = {};
            std::snprintf(out[i].device, sizeof(out[i].device), "%s", entry.first.c_str());
            out[i].bytes = entry.second;
        }
        i++;
    }
    *n = i;
}

} // namespace

extern "C" {

//
// memory of a context
//

int32_t sharpv_memory_breakdown(const llama_context * ctx, sharpv_memory * out, char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] {
        sharpv_memory sum = {};
        for (const auto & entry : llama_get_memory_breakdown(ctx)) {
            add(sum, entry.second);
        }
        *out = sum;
    });
}

int32_t sharpv_memory_by_device(
        const llama_context * ctx, sharpv_device_memory * out, size_t capacity, size_t * n,
        char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] {
        std::map<std::string, sharpv_memory> sums;
        for (const auto & entry : llama_get_memory_breakdown(ctx)) {
            // Pinned host memory counts as main memory.
            ggml_backend_dev_t device =
                ggml_backend_buft_is_host(entry.first) ? nullptr : ggml_backend_buft_get_device(entry.first);
            add(sums[device ? ggml_backend_dev_name(device) : "CPU"], entry.second);
        }
        write(sums, out, capacity, n);
    });
}

uint64_t sharpv_recurrent_bytes(const llama_context * ctx) {
    const llama_memory_i * memory = llama_get_memory(ctx);
    const llama_memory_i * recurrent = dynamic_cast<const llama_memory_recurrent *>(memory);
    if (const auto * m = dynamic_cast<const llama_memory_hybrid *>(memory)) {
        recurrent = m->get_mem_recr();
    } else if (const auto * m = dynamic_cast<const llama_memory_hybrid_iswa *>(memory)) {
        recurrent = m->get_mem_recr();
    }
    uint64_t sum = 0;
    if (recurrent) {
        for (const auto & entry : recurrent->memory_breakdown()) {
            sum += entry.second;
        }
    }
    return sum;
}

int32_t sharpv_vision_memory(
        const char * path, mtmd_context_params params,
        sharpv_device_memory * out, size_t capacity, size_t * n, char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] {
        // Like mtmd_get_memory_usage(), which turns mtmd's log off for all threads during the call, and forever if two
        // threads call it at once.
        clip_context_params clip = {};
        clip.use_gpu          = params.use_gpu;
        clip.device           = params.device;
        clip.flash_attn_type  = static_cast<clip_flash_attn_type>(params.flash_attn_type);
        clip.image_min_tokens = params.image_min_tokens;
        clip.image_max_tokens = params.image_max_tokens;
        clip.warmup           = params.warmup;
        clip.no_alloc         = true;
        const clip_init_result found = clip_init(path, clip);
        std::map<std::string, sharpv_memory> sums;
        for (clip_ctx * ctx : { found.ctx_v, found.ctx_a, found.ctx_gen_a }) {
            const std::unique_ptr<clip_ctx, decltype(&clip_free)> owned(ctx, clip_free);
            if (!ctx || ctx == found.ctx_gen_a) {
                continue;
            }
            for (const auto & entry : clip_get_mem_usage(ctx)) {
                sums[ggml_backend_dev_name(entry.first)].model += entry.second;
            }
        }
        write(sums, out, capacity, n);
    });
}

//
// facts about a model that llama.h does not expose
//

bool sharpv_supports_mixed_batch(const llama_model * model) {
    return llm_arch_supports_mixed_batch(model->arch);
}

//
// sampling
//

int32_t sharpv_try_sampler_init(
        const llama_vocab * vocab, const sharpv_sampler * params,
        llama_sampler ** result, char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] {
        using owned = std::unique_ptr<llama_sampler, decltype(&llama_sampler_free)>;
        const sharpv_sampler & p = *params;
        owned chain(llama_sampler_chain_init(llama_sampler_chain_default_params()), llama_sampler_free);
        const auto add = [&](llama_sampler * made) {
            owned sampler(made, llama_sampler_free);
            if (!sampler) {
                throw std::bad_alloc();
            }
            llama_sampler_chain_add(chain.get(), sampler.get());
            sampler.release(); // the chain frees it
        };
        *result = nullptr;
        if (p.grammar) {
            llama_sampler * grammar = llama_sampler_init_grammar(vocab, p.grammar, "root");
            if (!grammar) {
                return;
            }
            add(grammar);
        }
        if (p.repeat_penalty != 1.0f || p.frequency_penalty != 0.0f || p.presence_penalty != 0.0f) {
            add(llama_sampler_init_penalties(
                    llama_vocab_n_tokens(vocab), p.repeat_last_n, p.repeat_penalty, p.frequency_penalty, p.presence_penalty));
        }
        if (p.temperature == 0.0f) {
            add(llama_sampler_init_greedy());
        } else {
            add(llama_sampler_init_top_k(p.top_k));
            add(llama_sampler_init_top_p(p.top_p, 1));
            add(llama_sampler_init_min_p(p.min_p, 1));
            add(llama_sampler_init_temp(p.temperature));
            add(llama_sampler_init_dist(p.seed));
        }
        *result = chain.release();
    });
}

//
// devices
//

int32_t sharpv_try_dev_memory(ggml_backend_dev_t device, size_t * free, size_t * total, char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] { ggml_backend_dev_memory(device, free, total); });
}

int32_t sharpv_try_dev_buffer_type(
        ggml_backend_dev_t device,
        ggml_backend_buffer_type_t * result, char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] { *result = ggml_backend_dev_buffer_type(device); });
}

int32_t sharpv_try_rpc_add_server(
        const char * endpoint,
        ggml_backend_reg_t * result, char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] {
#ifdef SHARPV_RPC
        *result = ggml_backend_rpc_add_server(endpoint);
        if (*result) {
            ggml_backend_register(*result);
        }
#else
        GGML_UNUSED(endpoint);
        GGML_UNUSED(result);
        throw std::runtime_error("built without RPC");
#endif
    });
}

int32_t sharpv_try_rpc_start_server(
        const char * endpoint, const char * cache_dir, size_t n_threads, size_t n_devices, ggml_backend_dev_t * devices,
        char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] {
#ifdef SHARPV_RPC
        ggml_backend_rpc_start_server(endpoint, cache_dir, n_threads, n_devices, devices);
#else
        GGML_UNUSED(endpoint);
        GGML_UNUSED(cache_dir);
        GGML_UNUSED(n_threads);
        GGML_UNUSED(n_devices);
        GGML_UNUSED(devices);
        throw std::runtime_error("built without RPC");
#endif
    });
}

//
// guarded calls
//

int32_t sharpv_try_backend_init(char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [] { llama_backend_init(); });
}

int32_t sharpv_try_model_load_from_file(
        const char * path, llama_model_params params,
        llama_model ** result, char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] { *result = llama_model_load_from_file(path, params); });
}

int32_t sharpv_try_model_quantize(
        const char * source, const char * target, const llama_model_quantize_params * params,
        uint32_t * result, char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] { *result = llama_model_quantize(source, target, params); });
}

int32_t sharpv_try_model_desc(
        const llama_model * model, char * buf, size_t buf_size,
        int32_t * result, char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] { *result = llama_model_desc(model, buf, buf_size); });
}

int32_t sharpv_try_model_meta_val_str(
        const llama_model * model, const char * key, char * buf, size_t buf_size,
        int32_t * result, char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] { *result = llama_model_meta_val_str(model, key, buf, buf_size); });
}

int32_t sharpv_try_model_chat_template(
        const llama_model * model, const char * name,
        const char ** result, char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] { *result = llama_model_chat_template(model, name); });
}

int32_t sharpv_try_batch_ext_init(
        llama_context * ctx,
        llama_batch_ext ** result, char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] { *result = llama_batch_ext_init(ctx); });
}

int32_t sharpv_try_batch_ext_add(
        llama_batch_ext * batch, llama_seq_id seq_id, llama_token token, llama_embd embd,
        const llama_pos * pos, bool output_logits,
        int32_t * result, char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] {
        const int32_t index = embd.data
            ? llama_batch_ext_add_embd (batch, seq_id, embd)
            : llama_batch_ext_add_token(batch, seq_id, token);
        if (index >= 0) {
            llama_batch_ext_set_pos(batch, index, pos);
            llama_batch_ext_set_output_logits(batch, index, output_logits);
        }
        *result = index;
    });
}

int32_t sharpv_try_process(
        llama_context * ctx, llama_process_type type, llama_batch_ext * batch,
        int32_t * result, char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] { *result = llama_process(ctx, type, batch); });
}

int32_t sharpv_try_get_logits_ith(
        llama_context * ctx, int32_t i,
        float ** result, char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] { *result = llama_get_logits_ith(ctx, i); });
}

int32_t sharpv_try_memory_seq_rm(
        llama_context * ctx, llama_seq_id seq_id, llama_pos p0, llama_pos p1,
        bool * result, char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] { *result = llama_memory_seq_rm(llama_get_memory(ctx), seq_id, p0, p1); });
}

int32_t sharpv_try_memory_seq_cp(
        llama_context * ctx, llama_seq_id from, llama_seq_id to, llama_pos p0, llama_pos p1,
        char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] { llama_memory_seq_cp(llama_get_memory(ctx), from, to, p0, p1); });
}

int32_t sharpv_try_tokenize(
        const llama_vocab * vocab, const char * text, int32_t text_len,
        llama_token * tokens, int32_t n_tokens_max, bool add_special, bool parse_special,
        int32_t * result, char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] {
        *result = llama_tokenize(vocab, text, text_len, tokens, n_tokens_max, add_special, parse_special);
    });
}

int32_t sharpv_try_token_to_piece(
        const llama_vocab * vocab, llama_token token, char * buf, int32_t length, int32_t lstrip, bool special,
        int32_t * result, char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] { *result = llama_token_to_piece(vocab, token, buf, length, lstrip, special); });
}

int32_t sharpv_try_adapter_lora_init(
        llama_model * model, const char * path_lora,
        llama_adapter_lora ** result, char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] { *result = llama_adapter_lora_init(model, path_lora); });
}

int32_t sharpv_try_set_adapters_lora(
        llama_context * ctx, llama_adapter_lora ** adapters, size_t n_adapters, float * scales,
        int32_t * result, char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] { *result = llama_set_adapters_lora(ctx, adapters, n_adapters, scales); });
}

int32_t sharpv_try_sampler_sample(
        llama_sampler * smpl, llama_context * ctx, int32_t idx,
        llama_token * result, char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] { *result = llama_sampler_sample(smpl, ctx, idx); });
}

int32_t sharpv_try_sampler_reset(llama_sampler * smpl, char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] { llama_sampler_reset(smpl); });
}

int32_t sharpv_try_state_get_size(
        llama_context * ctx,
        size_t * result, char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] { *result = llama_state_get_size(ctx); });
}

int32_t sharpv_try_state_get_data(
        llama_context * ctx, uint8_t * dst, size_t size,
        size_t * result, char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] { *result = llama_state_get_data(ctx, dst, size); });
}

int32_t sharpv_try_state_seq_get_size_ext(
        llama_context * ctx, llama_seq_id seq_id, llama_state_seq_flags flags,
        size_t * result, char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] { *result = llama_state_seq_get_size_ext(ctx, seq_id, flags); });
}

int32_t sharpv_try_state_seq_get_data_ext(
        llama_context * ctx, uint8_t * dst, size_t size, llama_seq_id seq_id, llama_state_seq_flags flags,
        size_t * result, char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] { *result = llama_state_seq_get_data_ext(ctx, dst, size, seq_id, flags); });
}

int32_t sharpv_try_state_seq_set_data_ext(
        llama_context * ctx, const uint8_t * src, size_t size, llama_seq_id seq_id, llama_state_seq_flags flags,
        size_t * result, char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] { *result = llama_state_seq_set_data_ext(ctx, src, size, seq_id, flags); });
}

int32_t sharpv_try_mtmd_init_from_file(
        const char * mmproj_fname, const llama_model * text_model, mtmd_context_params params,
        mtmd_context ** result, char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] { *result = mtmd_init_from_file(mmproj_fname, text_model, params); });
}

int32_t sharpv_try_mtmd_bitmap_init(
        uint32_t nx, uint32_t ny, const unsigned char * data,
        mtmd_bitmap ** result, char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] { *result = mtmd_bitmap_init(nx, ny, data); });
}

int32_t sharpv_try_mtmd_input_chunks_init(mtmd_input_chunks ** result, char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] { *result = mtmd_input_chunks_init(); });
}

int32_t sharpv_try_mtmd_encode_chunk(
        mtmd_context * ctx, const mtmd_input_chunk * chunk,
        int32_t * result, char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] { *result = mtmd_encode_chunk(ctx, chunk); });
}

int32_t sharpv_try_mtmd_helper_eval_chunks(
        mtmd_context * ctx, llama_context * lctx, const mtmd_input_chunks * chunks,
        llama_pos n_past, llama_seq_id seq_id, int32_t n_batch, bool logits_last, llama_pos * new_n_past,
        int32_t * result, char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] {
        *result = mtmd_helper_eval_chunks(ctx, lctx, chunks, n_past, seq_id, n_batch, logits_last, new_n_past);
    });
}

} // extern "C"
