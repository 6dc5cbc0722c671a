//! The safe wrapper over llama.cpp: models, contexts, samplers and the vision encoder.
//!
//! Each concept has its own module. No other Rust calls llama.cpp through [`ffi`](crate::ffi).

mod abort;
mod backend;
mod call;
mod cancel;
mod checkpoint;
mod context;
mod convert;
mod device;
mod evict;
mod free;
mod layered_state;
mod log;
mod measure;
mod memory;
mod model;
mod processor;
mod rpc;
mod sampler;
mod state;
mod vision;
mod vulkan;

pub use abort::{Abort, on_abort};
pub use backend::{exit_now, peak_rss_bytes, system_info};
pub use cancel::CancelToken;
pub use context::{
    ComputeParams, Context, ContextParams, FlashAttention, KvWindow, Position, Row, RowInput, default_threads,
};
pub use convert::{WeightType, convert};
pub use device::{Device, DeviceKind, devices};
pub use evict::{KvLayer, Similarity};
pub use free::{FreeMemory, free_system_bytes};
pub use measure::{ModelNeed, vision_need};
pub use memory::{DeviceMemory, KvType, MemoryUsage};
pub use model::{LoraAdapter, Model, ModelParams, SpecialToken, Token};
pub use processor::{check_processor, needed_extensions};
pub use rpc::{RPC_PORT, RpcServer, RpcServerParams, add_rpc_server};
pub use sampler::{Sampler, SamplerParams};
pub(crate) use state::SavedCells;
#[cfg(all(any(test, fuzzing), feature = "lab"))]
pub(crate) use state::fuzz_state;
pub use vision::{Bitmap, CellState, Chunk, Chunks, Image, ImageChunk, Part, Vision, VisionParams, VisionStream};
pub use vulkan::{VulkanDevice, VulkanObstacle, vulkan_devices};
