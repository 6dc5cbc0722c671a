//! `sharpv serve` over HTTP, as clients use it.
#![cfg(feature = "cli")]

mod api;
mod cache;
mod client;
mod limits;
#[cfg(target_os = "linux")]
mod load;
mod media;
mod openai;
#[cfg(target_os = "linux")]
mod patience;
mod security;
mod slots;
mod thinking;
