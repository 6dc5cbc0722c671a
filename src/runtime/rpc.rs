//! Computing on other machines: llama.cpp's RPC backend, as a client and as a server. It requires a build with the
//! Cargo feature `rpc`.
//!
//! The protocol is llama.cpp's own and has neither encryption nor authentication: whoever reaches the port can use the
//! server, and may be able to take over its machine. Run it only on a trusted network.

use super::backend;
use super::call::guarded;
use super::context::threads;
use super::device::{self, Device, DeviceKind};
use super::model::c_path;
use crate::error::{Error, RemoteKind, Result, START_SERVER};
use crate::ffi;
use std::convert::Infallible;
use std::ffi::CString;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

/// The default port of llama.cpp's RPC servers.
pub const RPC_PORT: u16 = 50052;

/// How long a server may take to accept a connection, and then to answer. It does not answer while it serves another
/// client.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connects to an RPC server and adds its devices to those of this program ([`devices`](super::devices)), where they
/// stay. Models that are loaded later use them like GPUs. Returns the server's devices. If the server was added before,
/// no new connection is made.
///
/// Do not call this from the progress callback of a model that is being loaded.
///
/// # Errors
/// [`Error::InvalidParameter`] if `address` is not `HOST:PORT`; [`Error::Remote`] if there is no usable server, or if
/// this build has no RPC.
pub fn add_rpc_server(address: &str) -> Result<Vec<Device>> {
    let (host, port) = parse(address)?;
    needs_feature(address)?;
    backend::init()?;
    let mut added = device::change_registry();
    if let Some(handles) = added.get(address) {
        return Ok(handles.iter().map(|&handle| device::describe(handle.0)).collect());
    }
    greet(address, host, port)?;
    let endpoint = c_string(address)?;
    // SAFETY: the string outlives the call, which copies it; the registry is ours until `added` is dropped.
    let registered = guarded(std::ptr::null_mut(), |result, err, err_len| unsafe {
        ffi::sharpv_try_rpc_add_server(endpoint.as_ptr(), result, err, err_len)
    });
    let failed = |reason: String| failure(address, reason, "check the server's output");
    let registry = registered.into_result().map_err(failed)?;
    if registry.is_null() {
        return Err(failed("the server has no devices".into()));
    }
    // SAFETY: the registry of a server is never freed; indices are below its count.
    let handles: Vec<_> = (0..unsafe { ffi::ggml_backend_reg_dev_count(registry) })
        .map(|i| device::Handle(unsafe { ffi::ggml_backend_reg_dev_get(registry, i) }))
        .collect();
    let described = handles.iter().map(|&handle| device::describe(handle.0)).collect();
    added.insert(address.to_owned(), handles);
    Ok(described)
}

/// Where an RPC server listens, and what it offers.
#[derive(Debug, Clone, PartialEq)]
pub struct RpcServerParams {
    /// The address of this machine to listen on. Any but a loopback address lets others in without a password.
    pub host: Ipv4Addr,
    /// The port; 0 means any free one.
    pub port: u16,
    /// The devices to offer, by [`Device::name`]; empty means all GPUs, or the CPU if there are none.
    pub devices: Vec<String>,
    /// Threads of the CPU, up to 512; `None` means one for each core.
    pub n_threads: Option<usize>,
    /// A folder that caches large weights, so that clients need not send them again; `None` caches nothing.
    pub cache: Option<PathBuf>,
}

impl Default for RpcServerParams {
    fn default() -> Self {
        Self { host: Ipv4Addr::LOCALHOST, port: RPC_PORT, devices: Vec::new(), n_threads: None, cache: None }
    }
}

/// A server that lets other machines compute on the devices of this one.
#[derive(Debug)]
pub struct RpcServer {
    address: SocketAddrV4,
    names: Vec<String>,
    devices: Vec<Device>,
    n_threads: usize,
    cache: Option<CString>,
}

impl RpcServer {
    /// Chooses the devices and checks that the port is free. [`run`](Self::run) opens it.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for an unknown device, or a number of threads out of range; [`Error::Io`] if the
    /// folder for weights cannot be created; [`Error::Remote`] if the port cannot be opened, or if this build has no
    /// RPC.
    pub fn new(params: &RpcServerParams) -> Result<Self> {
        let wanted = SocketAddrV4::new(params.host, params.port);
        needs_feature(&wanted.to_string())?;
        let advice = match params.port {
            0 => "use an address of this machine",
            _ => "use an address of this machine, and a port that no other program uses",
        };
        let cannot_listen =
            |error: io::Error| failure(&wanted.to_string(), format!("cannot listen on it: {error}"), advice);
        // llama.cpp opens the port itself, but its errors say less.
        let port = TcpListener::bind(wanted).and_then(|listener| listener.local_addr()).map_err(cannot_listen)?.port();
        let mut devices = super::devices();
        let mut names = params.devices.clone();
        if names.is_empty() {
            let is_gpu = |device: &&Device| matches!(device.kind, DeviceKind::Gpu | DeviceKind::IntegratedGpu);
            let of = |devices: &[Device], gpu: bool| -> Vec<String> {
                devices.iter().filter(|device| is_gpu(device) == gpu).map(|device| device.name.clone()).collect()
            };
            names = of(&devices, true);
            if names.is_empty() {
                names = of(&devices, false);
            }
        }
        device::by_names(&names)?;
        devices.retain(|device| names.iter().any(|name| name.eq_ignore_ascii_case(&device.name)));
        let cache = match &params.cache {
            None => None,
            Some(folder) => {
                std::fs::create_dir_all(folder).map_err(Error::io("creating the folder for weights", folder))?;
                Some(c_path(folder)?)
            }
        };
        let n_threads = threads(params.n_threads)? as usize;
        Ok(Self { address: SocketAddrV4::new(params.host, port), names, devices, n_threads, cache })
    }

    /// The address that clients connect to.
    pub fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// The devices that the server offers.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// Serves one client after the other until the program ends. llama.cpp reports on stdout who connects and
    /// disconnects.
    ///
    /// # Errors
    /// [`Error::Remote`] if the port cannot be opened, or if no more clients can be accepted.
    pub fn run(self) -> Result<Infallible> {
        let address = self.address.to_string();
        let endpoint = c_string(&address)?;
        let mut handles = device::by_names(&self.names)?;
        let cache = self.cache.as_ref().map_or(std::ptr::null(), |folder| folder.as_ptr());
        // SAFETY: strings and handles outlive the call; `by_names` ends the handles with a null pointer, which is not
        // counted.
        let ended = guarded((), |(), err, err_len| unsafe {
            ffi::sharpv_try_rpc_start_server(
                endpoint.as_ptr(),
                cache,
                self.n_threads,
                self.names.len(),
                handles.as_mut_ptr(),
                err,
                err_len,
            )
        });
        Err(failure(&address, format!("the server ended: {}", ended.reason), "start it again"))
    }
}

fn failure(address: &str, reason: String, advice: &'static str) -> Error {
    Error::Remote {
        kind: RemoteKind::RpcServer,
        what: address.to_owned(),
        status: None,
        reason,
        advice: advice.to_owned(),
    }
}

fn needs_feature(address: &str) -> Result<()> {
    if cfg!(feature = "rpc") {
        return Ok(());
    }
    let reason = "this build does not support RPC".into();
    Err(failure(address, reason, "use one that was built with the Cargo feature rpc"))
}

fn c_string(address: &str) -> Result<CString> {
    CString::new(address).map_err(|_| not_an_address(address))
}

fn not_an_address(address: &str) -> Error {
    Error::InvalidParameter {
        name: "the address of an RPC server",
        value: if address.is_empty() { "empty".into() } else { address.to_owned() },
        expected: format!("HOST:PORT, with a name or an IPv4 address, for example 192.168.1.20:{RPC_PORT}"),
    }
}

/// Parses `HOST:PORT`. llama.cpp would abort the process for anything else.
fn parse(address: &str) -> Result<(&str, u16)> {
    let parts = address.split_once(':').filter(|(host, _)| !host.is_empty() && !host.contains(char::is_whitespace));
    let (host, port) = parts.ok_or_else(|| not_an_address(address))?;
    let port = port.parse().ok().filter(|&port| port > 0).ok_or_else(|| not_an_address(address))?;
    Ok((host, port))
}

/// Checks that there is a server that llama.cpp can talk to, with the first message of its protocol. ggml itself would
/// wait for an answer forever.
fn greet(address: &str, host: &str, port: u16) -> Result<()> {
    let start = START_SERVER;
    let found = (host, port).to_socket_addrs();
    let advice = "check the name, or use its IPv4 address";
    let found = found.map_err(|error| failure(address, format!("the host cannot be found: {error}"), advice))?;
    // llama.cpp uses the first IPv4 address, too.
    let target = found.into_iter().find(SocketAddr::is_ipv4);
    let target = target.ok_or_else(|| failure(address, "the host has no IPv4 address".into(), advice))?;
    let mut stream = TcpStream::connect_timeout(&target, PATIENCE)
        .map_err(|error| failure(address, format!("no RPC server can be reached: {error}"), start))?;
    let version = match hello(&mut stream) {
        Ok(version) => version,
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            let reason = format!("no answer within {} s: a server serves one client at a time", PATIENCE.as_secs());
            return Err(failure(address, reason, "wait until it is free, or start another one"));
        }
        Err(error) => return Err(failure(address, format!("this is no llama.cpp RPC server: {error}"), start)),
    };
    let (major, minor) = (ffi::RPC_PROTO_MAJOR_VERSION, ffi::RPC_PROTO_MINOR_VERSION);
    if u32::from(version[0]) != major || u32::from(version[1]) > minor {
        let reason =
            format!("the server speaks version {}.{} of the protocol, not {major}.{minor}", version[0], version[1]);
        return Err(failure(address, reason, "use the same version of the program on both machines"));
    }
    Ok(())
}

/// Sends the first message, and returns the major and minor version of the server's protocol.
fn hello(stream: &mut TcpStream) -> io::Result<[u8; 2]> {
    const HELLO: u8 = 14;
    // Bytes that describe the transport; all zero for plain TCP.
    const CAPABILITIES: usize = 24;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request = vec![HELLO];
    request.extend((CAPABILITIES as u64).to_le_bytes());
    request.extend([0; CAPABILITIES]);
    stream.write_all(&request)?;
    // The answer's size, the version (three numbers and a byte of padding), and capabilities.
    let mut answer = [0; 8 + 4 + CAPABILITIES];
    stream.read_exact(&mut answer)?;
    if answer[..8] != ((answer.len() - 8) as u64).to_le_bytes() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "unexpected answer"));
    }
    Ok([answer[8], answer[9]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_host_and_a_port() {
        assert_eq!(parse("box:50052").expect("an address"), ("box", 50052));
        assert_eq!(parse("127.0.0.1:1").expect("an address"), ("127.0.0.1", 1));
        for wrong in
            ["", "box", ":50052", "box:", "box:0", "box:65536", "box:port", "[::1]:50052", "::1:50052", "a b:1"]
        {
            let error = parse(wrong).expect_err(wrong).to_string();
            assert!(error.contains("HOST:PORT") && error.contains(wrong), "{error}");
        }
    }
}
