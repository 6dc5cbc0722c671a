//! What tests share.

#[cfg(all(feature = "cli", unix))]
pub mod browser;
pub mod families;
#[cfg(feature = "cli")]
pub mod hub_server;
#[cfg(feature = "cli")]
pub mod json_schema;
pub mod npy;
#[cfg(feature = "cli")]
pub mod program;
pub mod smol;
pub mod video_clips;
