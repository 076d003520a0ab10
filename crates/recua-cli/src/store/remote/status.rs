//! What goes wrong between here and the Hub, and what the user can do about it.

use std::time::Duration;

use ureq::http::{HeaderMap, StatusCode};

use super::client::Client;
use crate::failure::Failure;
use crate::store::name::Repo;

/// Why there is no answer, or no useful one.
pub(super) enum Trouble {
    /// No connection, or one that broke or stalled; another try may help.
    Network(String),
    /// The server refused.
    Status(Status),
    /// Anything that another try does not change.
    Final(String),
    /// As `Final`, and already a whole sentence.
    Failure(Failure),
}

/// A refusal.
pub(super) struct Status {
    code: u16,
    /// The Hub's own word for the reason, such as `GatedRepo`.
    reason: String,
    message: String,
    /// How long the server asks to wait before the next request.
    pub(super) retry_after: Option<Duration>,
}

impl Status {
    pub(super) fn new(code: StatusCode, headers: &HeaderMap) -> Status {
        const CHARS_MAX: usize = 300;
        let text = |name: &str| {
            let value = headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
            value.unwrap_or_default().chars().take(CHARS_MAX).collect::<String>()
        };
        let seconds = text("Retry-After").trim().parse().ok().or_else(|| reset(&text("RateLimit")));
        let retry_after = seconds.map(Duration::from_secs);
        Status {
            code: code.as_u16(),
            reason: text("X-Error-Code"),
            message: text("X-Error-Message"),
            retry_after,
        }
    }

    /// Whether the same request may succeed later.
    pub(super) fn is_temporary(&self) -> bool {
        matches!(self.code, 408 | 429 | 500 | 502 | 503 | 504)
    }

    /// Whether the file ends before the byte that was asked for.
    pub(super) fn is_beyond_end(&self) -> bool {
        self.code == 416
    }

    fn failure(&self, client: &Client, what: &str, repo: &Repo) -> Failure {
        let host = client.host();
        let page = client.page(repo);
        let user = |why: String| Failure::user(format!("{what}: {why}"));
        match (self.code, self.reason.as_str()) {
            (_, "GatedRepo") if client.has_token() => user(format!(
                "is gated, and the account of your token has no access yet; accept the terms at {page}"
            )),
            (_, "GatedRepo") => user(format!(
                "is gated; accept the terms at {page}, and set HF_TOKEN to a token of your account, which \
                 {}/settings/tokens makes",
                client.endpoint()
            )),
            (_, "RevisionNotFound") => {
                user(format!("{repo} has no such revision; {page} shows those it has"))
            }
            (_, "EntryNotFound") => user(format!("{repo} has no such file; {page} shows those it has")),
            (401, reason) if client.has_token() && reason != "RepoNotFound" => {
                user(format!("{host} does not accept your token; set HF_TOKEN to a valid one, or to nothing"))
            }
            (401 | 404, _) if client.has_token() => user(format!(
                "{repo} does not exist on {host}, or is private and the account of your token may not read it"
            )),
            (401 | 404, _) => user(format!(
                "{repo} does not exist on {host}, or is private; for a private one set HF_TOKEN to your token"
            )),
            (403, _) => user(format!("{host} refuses access{}", self.quoted())),
            (429, _) => {
                let wait = match self.retry_after {
                    Some(wait) => format!("try again in {} s", wait.as_secs()),
                    None => "try again later".into(),
                };
                let token =
                    if client.has_token() { "" } else { "; with a token in HF_TOKEN the limit is higher" };
                Failure::other(format!("{what}: {host} has had too many requests from here; {wait}{token}"))
            }
            (code, _) => {
                Failure::other(format!("{what}: {host} answers with status {code}{}", self.quoted()))
            }
        }
    }

    fn quoted(&self) -> String {
        if self.message.is_empty() { String::new() } else { format!(": {}", self.message) }
    }
}

/// The seconds until there may be requests again, from a header such as `"resolvers";r=0;t=55`, as the Hub sends it.
fn reset(rate_limit: &str) -> Option<u64> {
    let mut items = rate_limit.split([';', ',']).map(str::trim);
    items.find_map(|item| item.strip_prefix("t=")?.parse().ok())
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Trouble::Failure(failure)
    }
}

impl Trouble {
    /// The sentence for the user. `what` is what was asked for.
    pub(super) fn failure(self, client: &Client, what: &str, repo: &Repo) -> Failure {
        match self {
            Trouble::Network(why) => {
                Failure::other(format!("{what}: {} cannot be reached: {why}", client.host()))
            }
            Trouble::Status(status) => status.failure(client, what, repo),
            Trouble::Final(why) => Failure::other(format!("{what}: {why}")),
            Trouble::Failure(failure) => failure,
        }
    }
}
