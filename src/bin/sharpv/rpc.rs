//! Computing on other machines: `sharpv rpc-server` there, `--rpc` here.

use crate::args::RpcServerArgs;
use crate::screen::Screen;
use sharpv::runtime::{self, Device, RpcServer, RpcServerParams};

/// Adds the devices of servers to those of this process. Servers that were added before are unchanged.
pub fn connect(servers: &[String]) -> sharpv::Result<()> {
    servers.iter().try_for_each(|server| runtime::add_rpc_server(server).map(drop))
}

pub fn run(args: &RpcServerArgs, screen: &Screen) -> anyhow::Result<()> {
    let server = RpcServer::new(&RpcServerParams {
        host: args.host,
        port: args.port,
        devices: args.device.clone(),
        n_threads: args.threads.map(usize::from),
        cache: args.cache.clone(),
    })?;
    let devices: Vec<&str> = server.devices().iter().map(|Device { name, .. }| name.as_str()).collect();
    if !args.host.is_loopback() {
        screen.warning(
            "Anyone who can reach this port can use this machine, and perhaps take it over: there is no password and no encryption. \
             Use it on a trusted network only.",
        );
    }
    screen.note(&format!("Serving {} at {}; Ctrl-C ends it", devices.join(", "), server.address()));
    match server.run()? {}
}
