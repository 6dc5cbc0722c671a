use clap::Args;
use sharpv::runtime::RPC_PORT;
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// See [`Command::RpcServer`](super::Command::RpcServer).
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RpcServerArgs {
    /// The IPv4 address to listen on; 0.0.0.0 is every interface [default: 127.0.0.1, which admits no other machine]
    #[arg(long, value_name = "ADDRESS", default_value_t = Ipv4Addr::LOCALHOST, hide_default_value = true)]
    pub host: Ipv4Addr,

    /// The port; 0 picks a free one
    #[arg(short, long, value_name = "N", default_value_t = RPC_PORT)]
    pub port: u16,

    /// Devices to offer, comma-separated (`sharpv doctor` lists them) [short: -dev] [default: all GPUs, or else the
    /// CPU]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub device: Vec<String>,

    /// CPU threads [default: one per core]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub threads: Option<u16>,

    /// Cache large weights in this folder, so that they are sent only once
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  sharpv rpc-server                                        try it on one machine
  sharpv rpc-server --host 192.168.1.20 --cache weights    on the machine with that address
  sharpv ask clip.mp4 \"What moves?\" --rpc 192.168.1.20:50052        on another one";
