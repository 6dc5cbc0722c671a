//! Code that tests share.

pub mod adapter;
pub mod broken_videos;
#[cfg(all(feature = "cli", unix))]
pub mod browser;
pub mod families;
pub mod gguf;
pub mod gpu;
#[cfg(feature = "cli")]
pub mod hub_server;
#[cfg(feature = "cli")]
pub mod json_schema;
pub mod lcg;
pub mod memory;
pub mod npy;
#[cfg(feature = "cli")]
pub mod program;
pub mod saved_session;
pub mod smol;
#[cfg(feature = "cli")]
pub mod tls;
pub mod video_clips;
