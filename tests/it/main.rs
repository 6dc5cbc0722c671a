//! The tests, black box, as one program: it is linked once, and runs tests of all modules beside each other.
//!
//! So no test may assume to be alone in its process, or change what belongs to all of it: environment, current folder,
//! log subscriber. What needs that is a child process (`models::helper`), or a file of its own beside this folder
//! (`evict_rss.rs`, `rpc.rs`).

#[cfg(unix)]
mod abort;
mod bench;
mod calibrate;
mod checkpoints;
mod cli;
mod converted;
mod encode;
mod endurance;
mod eval;
mod evict;
mod families;
mod fit;
mod fixtures;
mod forged;
mod frames;
mod hostile_arguments;
#[cfg(feature = "lab")]
mod hostile_data;
mod hostile_videos;
mod hub;
mod inspect;
mod install;
mod library;
mod live;
mod long_videos;
mod make_clips;
mod model_files;
mod models;
mod package;
mod partial;
mod patches;
mod prompts;
mod prune;
mod release;
mod report;
mod save;
mod search;
mod serve;
mod session;
mod session_cache;
mod session_evict;
mod shared;
mod stream;
mod support;
mod thinking;
mod thoughts;
mod video;
mod vulkan;
mod watch;
mod weights;
mod width;
mod worker;
