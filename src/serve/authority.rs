//! Strict parsing of hosts and ports.

use axum::http::uri::Authority;

/// The host, in lower case, and the port. `None` if there is a user name or password, or an invalid port: programs
/// disagree about the host then.
pub(super) fn host_and_port(authority: &Authority) -> Option<(String, Option<u16>)> {
    let host = authority.host();
    let port = match authority.as_str().strip_prefix(host)? {
        "" => None,
        rest => {
            let digits = rest.strip_prefix(':').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
            Some(digits.parse().ok()?)
        }
    };
    (!host.is_empty()).then(|| (host.to_ascii_lowercase(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_parsed_strictly() {
        let read = |text: &str| host_and_port(&text.parse().ok()?);
        assert_eq!(read("LocalHost"), Some(("localhost".into(), None)));
        assert_eq!(read("a.example:80"), Some(("a.example".into(), Some(80))));
        assert_eq!(read("[::1]:8080"), Some(("[::1]".into(), Some(8080))));
        for text in
            ["", ":80", "a@b", "a:b@c", "@a", "a:", "a:x", "a:99999", "a:+1", "a:80:81", "[::1", "a b", "a/b", "[::1]x"]
        {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
