//! Rules for the whole source of the library: which words it uses, and how it calls C++.

use predicates::Predicate as _;
use predicates::str::is_match;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The files with the extension `kind` below a folder of the source: their paths there, and their text.
fn files(below: &str, kind: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![source().join(below)];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == kind) {
                let name = path.strip_prefix(source()).expect("below it").to_string_lossy().replace('\\', "/");
                found.push((name, std::fs::read_to_string(&path).expect("a source file")));
            }
        }
    }
    found
}

/// Only the program knows the names of options and commands. It adds them to the library's messages.
#[test]
fn the_library_names_no_option_and_no_command() {
    // Headings of pages, and advice for people who fetch a model.
    const MAY: [(&str, &str); 3] = [
        ("lab/report/page.rs", "sharpv report</"),
        ("lab/inspect/page.rs", "sharpv inspect</"),
        ("models/hub/choice.rs", "sharpv pull "),
    ];
    let option = is_match("(^|[ `(])--[a-z][a-z-]+").expect("a pattern");
    let short = is_match("\"[^\"]* -[a-z][ ),;:]").expect("a pattern");
    let commands = "ask|chat|watch|plan|serve|inspect|calibrate|eval|bench|report|models|pull|doctor|rpc-server";
    let command = is_match(format!(r"\bsharpv ({commands})\b")).expect("a pattern");
    let is_wrong = |line: &str| {
        let line = line.trim_start();
        // A comment may mention a command of the program, but no option.
        let is_comment = line.starts_with("//");
        (option.eval(line) && !line.contains("var(--")) || (!is_comment && (short.eval(line) || command.eval(line)))
    };
    for wrong in
        ["\"run it with `--fps 2`\"", "give --fps", "// By `--json`.", "\"again with -v\"", "\"see sharpv eval\""]
    {
        // A closing quote ends a word, too.
        assert!(is_wrong(&wrong.replace("-v\"", "-v for it\"")), "{wrong}");
    }
    for good in ["\"--target\".into()", "// All that `sharpv eval` does.", "let a = b - c;", "a --- b"] {
        assert!(!is_wrong(good), "{good}");
    }
    let (mut n, mut wrong) = (0, Vec::new());
    for (name, text) in files("", "rs").iter().filter(|(name, _)| !name.starts_with("bin/")) {
        for (number, line) in text.lines().enumerate() {
            n += 1;
            let may = MAY.iter().any(|(file, words)| name == file && line.contains(words));
            if is_wrong(line) && !may {
                wrong.push(format!("src/{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(n > 20_000, "{n} lines were read");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Functions of llama.cpp that are called directly. They read a value, set one, or free, and allocate nothing. An
/// exception in any other function would end the program, so those are called through a `sharpv_try_…` of
/// `src/ffi/shim.h`.
const UNGUARDED: &str = "
    ggml_backend_dev_count ggml_backend_dev_description ggml_backend_dev_get ggml_backend_dev_name ggml_backend_dev_type
    ggml_backend_reg_dev_count ggml_backend_reg_dev_get
    ggml_cpu_has_avx ggml_cpu_has_avx2 ggml_cpu_has_avx512 ggml_cpu_has_avx512_bf16 ggml_cpu_has_avx512_vbmi
    ggml_cpu_has_avx512_vnni ggml_cpu_has_avx_vnni ggml_cpu_has_bmi2 ggml_cpu_has_dotprod ggml_cpu_has_f16c
    ggml_cpu_has_fma ggml_cpu_has_fp16_va ggml_cpu_has_matmul_int8 ggml_cpu_has_ssse3 ggml_cpu_has_sve
    ggml_set_abort_callback
    llama_batch_ext_clear llama_batch_ext_free llama_context_default_params llama_get_memory llama_log_set
    llama_memory_clear llama_memory_seq_pos_max llama_memory_seq_pos_min
    llama_model_default_params llama_model_free llama_model_get_vocab llama_model_has_encoder llama_model_is_hybrid
    llama_model_is_recurrent llama_model_n_ctx_train llama_model_n_embd llama_model_n_embd_inp llama_model_n_layer
    llama_model_n_swa llama_model_quantize_default_params llama_model_rope_type llama_model_size
    llama_n_ctx llama_n_ubatch llama_print_system_info llama_sampler_free llama_set_causal_attn
    llama_vocab_bos llama_vocab_eos llama_vocab_get_add_bos llama_vocab_get_attr llama_vocab_get_text
    llama_vocab_is_eog llama_vocab_n_tokens
    mtmd_bitmap_free mtmd_bitmap_set_mergeable mtmd_context_params_default mtmd_decode_use_mrope
    mtmd_decode_use_non_causal mtmd_free mtmd_get_output_embd mtmd_helper_log_set mtmd_image_tokens_get_decoder_pos
    mtmd_input_chunk_get_n_pos mtmd_input_chunk_get_n_tokens mtmd_input_chunk_get_tokens_image
    mtmd_input_chunk_get_tokens_text mtmd_input_chunk_get_type mtmd_input_chunks_free mtmd_input_chunks_get
    mtmd_input_chunks_size mtmd_support_vision";

/// The functions of llama.cpp, ggml and mtmd that a source calls.
fn called(text: &str) -> impl Iterator<Item = &str> {
    text.split("ffi::").skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| c != '_' && !c.is_ascii_alphanumeric())?;
        let (name, rest) = rest.split_at(end);
        let is_theirs = ["llama_", "ggml_", "gguf_", "mtmd_"].iter().any(|start| name.starts_with(start));
        (is_theirs && rest.starts_with('(')).then_some(name)
    })
}

#[test]
fn every_call_that_can_throw_is_guarded() {
    let (runtime, others): (Vec<_>, Vec<_>) =
        files("", "rs").into_iter().partition(|(name, _)| name.starts_with("runtime/"));
    let found: BTreeSet<&str> = runtime.iter().flat_map(|(_, text)| called(text)).collect();
    assert_eq!(found, UNGUARDED.split_whitespace().collect(), "on the left what is called, on the right what may be");
    // No other module calls C++.
    let elsewhere: Vec<_> = others.iter().filter(|(_, text)| called(text).next().is_some()).collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
}

/// Our own functions that report exceptions do not throw.
#[test]
fn our_own_functions_are_guarded() {
    let names_in = |text: &str| -> Vec<(String, usize)> {
        let starts = text.match_indices("\nint32_t sharpv_").map(|(at, _)| at + "\nint32_t ".len());
        starts.filter_map(|at| Some((text[at..].split_once('(')?.0.to_owned(), at))).collect()
    };
    let mut guarded = BTreeSet::new();
    for (file, text) in files("ffi", "cpp") {
        for (name, at) in names_in(&text) {
            let (_, body) = text[at..].split_once(") {").expect("a body");
            assert!(body.trim_start().starts_with("return sharpv_guarded(err, err_len, ["), "{file}: {name}");
            guarded.insert(name);
        }
    }
    let declared: BTreeSet<String> = files("ffi", "h")
        .iter()
        .filter(|(file, _)| ["shim.h", "memory_sharpv.h", "partial_vision.h"].iter().any(|name| file.ends_with(name)))
        .flat_map(|(_, text)| names_in(text).into_iter().map(|(name, _)| name))
        .collect();
    assert!(declared.len() > 30, "{declared:?}");
    assert_eq!(declared, guarded);
}
