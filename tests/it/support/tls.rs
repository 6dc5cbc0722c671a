//! What is between a company's machines and a hub: a private certificate authority, and a proxy.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A certificate authority that no system trusts.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate.
    pub pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "An authority of this test");
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// The configuration of a server with a certificate for these names or addresses.
    fn server(&self, names: &[&str]) -> Arc<ServerConfig> {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        let certificate = params.expect("names").signed_by(&key, &self.issuer).expect("a certificate");
        let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().expect("versions");
        Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).expect("a certificate and its key"))
    }
}

/// A server that terminates TLS and forwards requests to a plain one.
pub struct TlsServer {
    pub port: u16,
    /// The number of connections so far.
    connections: Arc<Mutex<usize>>,
}

impl TlsServer {
    /// Starts in front of the server at `plain`, `http://HOST:PORT`.
    pub fn start(authority: &Authority, names: &[&str], plain: &str) -> Self {
        let config = authority.server(names);
        let plain = plain.trim_start_matches("http://").to_owned();
        let connections = Arc::new(Mutex::new(0));
        let count = Arc::clone(&connections);
        let port = listen(move |stream| {
            *count.lock().expect("a number") += 1;
            let connection = ServerConnection::new(Arc::clone(&config)).expect("a connection");
            // A client that does not trust the server disconnects.
            let _ = answer(StreamOwned::new(connection, stream), &plain);
        });
        Self { port, connections }
    }

    pub fn connections(&self) -> usize {
        *self.connections.lock().expect("a number")
    }
}

/// Forwards one request: the servers of the tests close the connection after each.
fn answer(mut client: StreamOwned<ServerConnection, TcpStream>, plain: &str) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if client.read(&mut byte)? == 0 {
            return Ok(());
        }
        head.push(byte[0]);
    }
    let mut server = TcpStream::connect(plain)?;
    server.write_all(&head)?;
    io::copy(&mut server, &mut client)?;
    client.conn.send_close_notify();
    client.flush()
}

/// A proxy that connects clients to servers, among them one whose name exists only here.
pub struct Proxy {
    pub address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Through the proxy, `name` is this machine, on any port.
    pub fn start(name: &'static str) -> Self {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&asked);
        let port = listen(move |stream| {
            let mut lines = BufReader::new(stream.try_clone().expect("a copy")).lines();
            let Some(Ok(first)) = lines.next() else { return };
            lines.map_while(Result::ok).take_while(|line| !line.is_empty()).for_each(drop);
            seen.lock().expect("a list").push(first.clone());
            let to = first.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).unwrap_or_default();
            let _ = connect(stream, &to.replace(name, "127.0.0.1"));
        });
        Self { address: format!("http://127.0.0.1:{port}"), asked }
    }

    /// The first lines of the requests.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("a list").clone()
    }
}

fn connect(mut client: TcpStream, to: &str) -> io::Result<()> {
    let mut server = TcpStream::connect(to)?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    let up = thread::spawn(move || {
        let _ = io::copy(&mut from_client, &mut to_server);
        to_server.shutdown(Shutdown::Write)
    });
    let _ = io::copy(&mut server, &mut client);
    client.shutdown(Shutdown::Both)?;
    let _ = up.join();
    Ok(())
}

/// Starts a server with one thread per connection, and returns its port.
fn listen(handle: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let handle = Arc::new(handle);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let handle = Arc::clone(&handle);
            thread::spawn(move || handle(stream));
        }
    });
    port
}
