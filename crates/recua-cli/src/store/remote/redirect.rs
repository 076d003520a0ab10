//! Addresses: which server one belongs to, and where a redirect leads.

use ureq::http::Uri;

/// The server of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    is_https: bool,
    host: String,
    port: u16,
}

impl Origin {
    /// Of an `http` or `https` address.
    pub(super) fn of(uri: &Uri) -> Option<Origin> {
        let is_https = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        Some(Origin { is_https, host: uri.host()?.to_ascii_lowercase(), port })
    }

    /// Whether what is secret on the way to `self` would be open on the way to `next`.
    pub(super) fn would_be_exposed_at(&self, next: &Origin) -> bool {
        self.is_https && !next.is_https
    }
}

/// The address to which `location`, the header of an answer from `from`, leads.
pub(super) fn follow(from: &Uri, location: &str) -> Option<Uri> {
    let scheme = from.scheme_str()?;
    let authority = from.authority()?;
    let is_absolute = location.split(['/', '?', '#']).next().is_some_and(|first| first.contains(':'));
    let text = if is_absolute {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    let text = text.split('#').next().unwrap_or_default();
    let uri: Uri = text.parse().ok()?;
    Origin::of(&uri).map(|_| uri)
}

/// Percent-encodes everything that is not plain in every part of an address; `/` as well, unless it is `kept`.
pub(super) fn encode(text: &str, kept: Option<u8>) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || Some(byte) == kept {
            out.push(byte.into());
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_redirects_lead() {
        let from: Uri = "https://hub.example/a/b?c".parse().unwrap();
        for (location, expected) in [
            ("https://cdn.example/x?y=z", Some("https://cdn.example/x?y=z")),
            ("//cdn.example/x", Some("https://cdn.example/x")),
            ("/x/y", Some("https://hub.example/x/y")),
            ("x", Some("https://hub.example/a/x")),
            ("/x#y", Some("https://hub.example/x")),
            ("/x?u=http://y", Some("https://hub.example/x?u=http://y")),
            ("file:///etc/passwd", None),
            ("ftp://cdn.example/x", None),
            ("http://", None),
            ("/a b", None),
        ] {
            let uri = follow(&from, location).map(|uri| uri.to_string());
            assert_eq!(uri.as_deref(), expected, "{location}");
        }
    }

    #[test]
    fn servers_differ_in_scheme_host_and_port() {
        let origin = |text: &str| Origin::of(&text.parse().unwrap()).unwrap();
        assert_eq!(origin("https://Hub.example/a"), origin("https://hub.example:443/b"));
        for other in ["http://hub.example/", "https://hub.example:8443/", "https://hub.example.org/"] {
            assert_ne!(origin("https://hub.example/"), origin(other));
        }
        assert!(origin("https://a/").would_be_exposed_at(&origin("http://a/")));
        assert!(!origin("http://a/").would_be_exposed_at(&origin("http://b/")));
    }

    #[test]
    fn names_in_addresses() {
        assert_eq!(encode("refs/pr/1", None), "refs%2Fpr%2F1");
        assert_eq!(encode("a b/ü#?.gguf", Some(b'/')), "a%20b/%C3%BC%23%3F.gguf");
    }
}
