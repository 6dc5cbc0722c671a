//! The C interfaces of llama.cpp, ggml, mtmd and our own C++ (`shim.h`), as bindgen sees them.
//!
//! Nothing here is safe, stable or meant for users of this library; [`crate`]'s safe modules are. It is public so that
//! tests can compare them with the C functions beneath. What each function does is written in llama.cpp's headers
//! (`llama.h`, `ggml.h`, `mtmd.h`) and in `shim.h`. C enums are plain integer constants.

#![allow(missing_docs, non_camel_case_types, non_snake_case, non_upper_case_globals)]
#![allow(clippy::all, unsafe_op_in_unsafe_fn, dead_code)]

pub mod ffmpeg;

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
