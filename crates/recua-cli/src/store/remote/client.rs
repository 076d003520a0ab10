//! Requests to the Hub: the token goes to the Hub's own server only, redirects are few, nothing is waited for without
//! end, and what a server says about sizes is not believed.

use std::io::{ErrorKind, Read};
use std::path::PathBuf;
use std::time::Duration;

use ureq::http::{Method, Request, Response, Uri, header};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use super::redirect::{Origin, encode, follow};
use super::status::{Status, Trouble};
use crate::failure::{Failure, Result};
use crate::output::note;
use crate::store::cache::{expand, hf_home, is_true};
use crate::store::name::Repo;

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
/// How long no byte may come; huggingface_hub's default.
const STALL_SECONDS: u64 = 10;
/// How long a small answer may take in all.
const SMALL_TIMEOUT: Duration = Duration::from_secs(60);
/// The most bytes of a small answer. The list of a repository with 10,000 files has about one million.
const SMALL_BYTES_MAX: u64 = 16 << 20;
const REDIRECTS_MAX: usize = 10;
/// How often a server that asks for patience is asked again.
const RETRIES_MAX: u32 = 4;
/// The longest wait that is not left to the user: the Hub counts requests over five minutes.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// A connection to a Hub.
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    host: String,
    origin: Origin,
    token: Option<String>,
}

/// An answer, and what was said about the file on the way to it.
pub(super) struct Reply {
    pub(super) response: Response<Body>,
    /// The checksum of the file.
    pub(super) etag: Option<String>,
    /// The size of the file in bytes.
    pub(super) size: Option<u64>,
}

impl Client {
    /// The Hub that the user's variables name, with the user's token.
    ///
    /// # Errors
    /// If a variable has a value that cannot be used.
    pub(super) fn from_user() -> Result<Client> {
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.into());
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let uri: Option<Uri> = endpoint.parse().ok();
        let Some((origin, authority)) =
            uri.as_ref().and_then(|uri| Some((Origin::of(uri)?, uri.authority()?)))
        else {
            let message = "is not an address of a server; it looks like https://huggingface.co";
            return Err(Failure::user(format!("HF_ENDPOINT {endpoint:?}: {message}")));
        };
        // Without what is before an `@`, which may be a password.
        let host = authority.as_str().rsplit('@').next().unwrap_or_default().to_owned();
        let stall = variable("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|s| s.parse().ok()).filter(|s| *s > 0);
        let stall = Duration::from_secs(stall.unwrap_or(STALL_SECONDS));
        let mut config = Agent::config_builder()
            .user_agent(concat!("recua/", env!("CARGO_PKG_VERSION")))
            // A compressed file would have another length.
            .accept_encoding("identity")
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(Some(stall))
            .timeout_connect(Some(stall))
            .timeout_recv_response(Some(SMALL_TIMEOUT))
            .timeout_per_read(Some(stall))
            .timeout_per_write(Some(stall));
        if let Some(roots) = roots()? {
            config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
        }
        Ok(Client { agent: config.build().into(), endpoint, host, origin, token: token()? })
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// The page of a repository, for people.
    pub(super) fn page(&self, repo: &Repo) -> String {
        format!("{}/{repo}", self.endpoint)
    }

    pub(super) fn revision_url(&self, repo: &Repo, revision: &str) -> String {
        format!("{}/api/models/{repo}/revision/{}", self.endpoint, encode(revision, None))
    }

    pub(super) fn file_url(&self, repo: &Repo, commit: &str, file: &str) -> String {
        format!("{}/{repo}/resolve/{commit}/{}", self.endpoint, encode(file, Some(b'/')))
    }

    /// The whole of a small answer.
    pub(super) fn get_small(&self, url: &str) -> std::result::Result<Vec<u8>, Trouble> {
        let reply = self.send(&Method::GET, url, None, false)?;
        let mut body = Vec::new();
        let read = reply.response.into_body().into_reader().take(SMALL_BYTES_MAX + 1).read_to_end(&mut body);
        read.map_err(|e| Trouble::Network(e.to_string()))?;
        if body.len() as u64 > SMALL_BYTES_MAX {
            let max = SMALL_BYTES_MAX >> 20;
            return Err(Trouble::Final(format!("{} answers with more than {max} MiB", self.host)));
        }
        Ok(body)
    }

    /// What the Hub says about a file, without its bytes.
    pub(super) fn head(&self, url: &str) -> std::result::Result<Reply, Trouble> {
        self.send(&Method::HEAD, url, None, false)
    }

    /// The bytes of a file, from byte `from` on if the server can do that.
    pub(super) fn get(&self, url: &str, from: u64) -> std::result::Result<Reply, Trouble> {
        self.send(&Method::GET, url, Some(from), true)
    }

    /// Sends a request, and again if the server asks for patience. `is_file` is for answers of any length.
    fn send(
        &self,
        method: &Method,
        url: &str,
        from: Option<u64>,
        is_file: bool,
    ) -> std::result::Result<Reply, Trouble> {
        let mut tries = 0;
        loop {
            let status = match self.send_once(method, url, from, is_file) {
                Err(Trouble::Status(status)) if status.is_temporary() && tries < RETRIES_MAX => status,
                other => return other,
            };
            let wait = status.retry_after.unwrap_or(Duration::from_secs(1 << tries));
            if wait > WAIT_MAX {
                return Err(Trouble::Status(status));
            }
            if wait > Duration::from_secs(3) {
                note!("note: {} asks to wait {} s", self.host, wait.as_secs());
            }
            std::thread::sleep(wait);
            tries += 1;
        }
    }

    fn send_once(
        &self,
        method: &Method,
        url: &str,
        from: Option<u64>,
        is_file: bool,
    ) -> std::result::Result<Reply, Trouble> {
        let mut uri: Uri = url.parse().map_err(|e| Trouble::Final(format!("{url}: {e}")))?;
        let (mut etag, mut size) = (None, None);
        for _ in 0..=REDIRECTS_MAX {
            let origin = Origin::of(&uri);
            let mut request = Request::builder().method(method).uri(&uri);
            if let Some(token) = self.token.as_ref().filter(|_| origin.as_ref() == Some(&self.origin)) {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            if let Some(from) = from.filter(|from| *from > 0) {
                request = request.header(header::RANGE, format!("bytes={from}-"));
            }
            let request = request.body(()).map_err(|e| Trouble::Final(e.to_string()))?;
            let timeout = (!is_file).then_some(SMALL_TIMEOUT);
            let request = self.agent.configure_request(request).timeout_per_call(timeout).build();
            let response = self.agent.run(request).map_err(trouble)?;
            let headers = response.headers();
            let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
            etag = etag.or_else(|| text("X-Linked-Etag").map(str::to_owned));
            size = size.or_else(|| text("X-Linked-Size").and_then(|size| size.parse().ok()));
            if response.status().is_redirection() {
                let Some(next) = text("Location").and_then(|location| follow(&uri, location)) else {
                    return Err(Trouble::Final(format!("{} redirects to nowhere", self.host)));
                };
                let target = Origin::of(&next);
                // Elsewhere, the answer is no longer about the file but about a copy of its bytes.
                if *method == Method::HEAD && target != origin {
                    return Ok(Reply { response, etag, size });
                }
                if origin.zip(target).is_none_or(|(from, to)| from.would_be_exposed_at(&to)) {
                    return Err(Trouble::Final(format!("{} redirects from https to http", self.host)));
                }
                uri = next;
                continue;
            }
            if !response.status().is_success() {
                return Err(Trouble::Status(Status::new(response.status(), headers)));
            }
            etag = etag.or_else(|| text("ETag").map(str::to_owned));
            if *method == Method::HEAD {
                size = size.or_else(|| text("Content-Length").and_then(|size| size.parse().ok()));
            }
            return Ok(Reply { response, etag, size });
        }
        Err(Trouble::Final(format!("{} redirects more than {REDIRECTS_MAX} times", self.host)))
    }
}

/// Whether another try may help. A certificate that is refused today is refused in a second, too.
fn trouble(e: ureq::Error) -> Trouble {
    let insecure = |why: String| {
        Trouble::Final(format!(
            "no secure connection: {why}; if the network here has certificates of its own, set SSL_CERT_FILE to a file with them"
        ))
    };
    match e {
        ureq::Error::Timeout(_) => Trouble::Network("no answer in time".into()),
        ureq::Error::Io(e) if e.kind() == ErrorKind::TimedOut => Trouble::Network("no answer in time".into()),
        // rustls' errors come so.
        ureq::Error::Io(e) if e.kind() == ErrorKind::InvalidData => insecure(e.to_string()),
        ureq::Error::Io(e) => Trouble::Network(e.to_string()),
        ureq::Error::HostNotFound => Trouble::Network("there is no such host, or no network".into()),
        ureq::Error::ConnectionFailed => Trouble::Network("no connection".into()),
        e @ (ureq::Error::Rustls(_) | ureq::Error::Tls(_)) => insecure(e.to_string()),
        e => Trouble::Final(format!("the server's answer cannot be read: {e}")),
    }
}

/// A variable that is set to something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// The certificates of `SSL_CERT_FILE`, for networks that have their own; otherwise those of the web are built in.
fn roots() -> Result<Option<RootCerts>> {
    let Some(path) = variable("SSL_CERT_FILE") else { return Ok(None) };
    let failure = |why: String| Failure::user(format!("SSL_CERT_FILE {path}: {why}"));
    let pem = std::fs::read(&path).map_err(|e| failure(e.to_string()))?;
    let certificates: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(failure("has no certificate in PEM form".into()));
    }
    Ok(Some(RootCerts::new_with_certs(&certificates)))
}

/// The user's token: from a variable, or where `hf auth login` has put it.
fn token() -> Result<Option<String>> {
    if variable("HF_HUB_DISABLE_IMPLICIT_TOKEN").is_some_and(|value| is_true(&value)) {
        return Ok(None);
    }
    let from_file = || {
        let path = match std::env::var_os("HF_TOKEN_PATH") {
            Some(path) => {
                expand(PathBuf::from(path), &|name| std::env::var_os(name), std::env::home_dir().as_deref())
            }
            None => hf_home()?.join("token"),
        };
        let token = std::fs::read_to_string(path).ok()?.replace(['\r', '\n'], "");
        Some(token.trim().to_owned()).filter(|token| !token.is_empty())
    };
    let token = variable("HF_TOKEN").or_else(|| variable("HUGGING_FACE_HUB_TOKEN")).or_else(from_file);
    // It would end the header in which it is sent.
    if token.as_ref().is_some_and(|token| !token.bytes().all(|b| b.is_ascii_graphic())) {
        return Err(Failure::user(
            "the token of Hugging Face has characters that no token has; set HF_TOKEN anew",
        ));
    }
    Ok(token)
}
