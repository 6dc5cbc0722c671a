//! HTTP clients, configured for this machine. Every client of this library starts from [`client`].
//!
//! **Certificate authorities.** A client trusts those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name, or else those of
//! `REQUESTS_CA_BUNDLE` or `CURL_CA_BUNDLE`, as pip and Hugging Face's tools do: companies whose proxy inspects TLS set
//! one of them. If none is set, it trusts the system's authorities. If the system has none, as in many containers, it
//! trusts Mozilla's, which are built in.
//!
//! **Proxies.** ureq reads `ALL_PROXY`, `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, in upper or lower case. A client
//! that must not use a proxy turns it off.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustls_native_certs::CertificateResult;
use ureq::Agent;
use ureq::config::ConfigBuilder;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::typestate::AgentScope;

/// The variable that error messages suggest.
pub(crate) const CERTIFICATES_VARIABLE: &str = "SSL_CERT_FILE";

/// The configuration of a client: its certificate authorities, its proxy and its user agent.
///
/// # Errors
/// The reason, if a variable names authorities that cannot be read.
pub(crate) fn client() -> Result<ConfigBuilder<AgentScope>, String> {
    let tls = TlsConfig::builder().root_certs(trust()?.roots.clone()).build();
    Ok(Agent::config_builder().tls_config(tls).user_agent(concat!("sharpv/", env!("CARGO_PKG_VERSION"))))
}

/// The problem with a server's certificate, if a request failed because of it.
pub(crate) fn certificate_problem(error: &ureq::Error) -> Option<CertificateProblem> {
    let reason = match error {
        ureq::Error::Rustls(error) => error.to_string(),
        // ureq may report a failed handshake as an error of the socket.
        ureq::Error::Io(error) => error.to_string(),
        _ => return None,
    };
    let reason = reason.strip_prefix("invalid peer certificate: ")?;
    // An authority of the same name with another key gives BadSignature.
    let is_unknown = ["UnknownIssuer", "BadSignature", "CaUsedAsEndEntity"].iter().any(|kind| reason.starts_with(kind));
    Some(CertificateProblem { reason: reason.to_owned(), is_unknown })
}

/// A problem with a server's certificate.
#[derive(Debug)]
pub(crate) struct CertificateProblem {
    /// The reason, as the TLS library reports it.
    pub reason: String,
    /// Whether its issuer is not trusted here.
    pub is_unknown: bool,
}

/// The certificate authorities that clients trust.
#[derive(Debug)]
pub(crate) struct Trust {
    roots: RootCerts,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// Those that variables name.
    Named(Named),
    System,
    BuiltIn,
}

impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Named(named) => write!(f, "the authorities of {named}"),
            Source::System => f.write_str("this system's authorities"),
            Source::BuiltIn => f.write_str("the built-in authorities, because this system has none"),
        }
    }
}

/// The certificate authorities. They are read once: there are about 150.
///
/// # Errors
/// Those of [`client`].
pub(crate) fn trust() -> Result<&'static Trust, String> {
    static TRUST: OnceLock<Result<Trust, String>> = OnceLock::new();
    TRUST.get_or_init(read_trust).as_ref().map_err(Clone::clone)
}

fn read_trust() -> Result<Trust, String> {
    if let Some(named) = Named::from_env() {
        let found = named.load();
        if found.certs.is_empty() {
            let reason = found.errors.first().map_or("it has no certificate".to_owned(), ToString::to_string);
            return Err(format!("no certificate authority can be read from {named}: {reason}"));
        }
        return Ok(Trust { roots: roots(&found), source: Source::Named(named) });
    }
    let system = rustls_native_certs::load_native_certs();
    Ok(match system.certs.is_empty() {
        false => Trust { roots: roots(&system), source: Source::System },
        true => Trust { roots: RootCerts::WebPki, source: Source::BuiltIn },
    })
}

fn roots(found: &CertificateResult) -> RootCerts {
    for error in &found.errors {
        tracing::info!("a certificate authority is skipped: {error}");
    }
    let certs: Vec<_> = found.certs.iter().map(|cert| Certificate::from_der(cert).to_owned()).collect();
    RootCerts::new_with_certs(&certs)
}

/// The variables that name authorities, and the files and folders in them.
#[derive(Debug)]
struct Named {
    variables: Vec<&'static str>,
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

impl Named {
    fn from_env() -> Option<Self> {
        let value = |name: &'static str| env::var_os(name).filter(|value| !value.is_empty()).map(|value| (name, value));
        let mut named = Self { variables: Vec::new(), files: Vec::new(), folders: Vec::new() };
        if let Some((name, file)) = value(CERTIFICATES_VARIABLE) {
            named.variables.push(name);
            named.files.push(file.into());
        }
        if let Some((name, folders)) = value("SSL_CERT_DIR") {
            named.variables.push(name);
            named.folders.extend(env::split_paths(&folders).filter(|folder| !folder.as_os_str().is_empty()));
        }
        if named.variables.is_empty() {
            let (name, path) = value("REQUESTS_CA_BUNDLE").or_else(|| value("CURL_CA_BUNDLE"))?;
            named.variables.push(name);
            let path = PathBuf::from(path);
            if path.is_dir() { named.folders.push(path) } else { named.files.push(path) }
        }
        Some(named)
    }

    fn load(&self) -> CertificateResult {
        let files = self.files.iter().map(|file| (Some(file.as_path()), None::<&Path>));
        let folders = self.folders.iter().map(|folder| (None, Some(folder.as_path())));
        let mut all = CertificateResult::default();
        for (file, folder) in files.chain(folders) {
            let CertificateResult { certs, errors, .. } = rustls_native_certs::load_certs_from_paths(file, folder);
            all.certs.extend(certs);
            all.errors.extend(errors);
        }
        all
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths: Vec<String> =
            self.files.iter().chain(&self.folders).map(|path| path.display().to_string()).collect();
        write!(f, "{} ({})", self.variables.join(" and "), paths.join(", "))
    }
}
