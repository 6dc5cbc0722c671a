//! bindgen's declarations of the C interfaces of llama.cpp, ggml, mtmd and our own C++ (`shim.h`).
//!
//! Nothing here is safe or stable: use the safe modules of [`crate`]. It is public so that tests can compare them with
//! the C functions underneath. The headers document the functions: `llama.h`, `ggml.h`, `mtmd.h` and `shim.h`. C enums
//! are integer constants.

#![allow(missing_docs, non_camel_case_types, non_snake_case, non_upper_case_globals)]
#![allow(clippy::all, unsafe_op_in_unsafe_fn, dead_code)]

pub mod ffmpeg;

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
