use clap::Args;

/// Show this build, the devices, and what is missing.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// RPC servers whose devices to list as well
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',')]
    pub rpc: Vec<String>,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}
