//! The names of models on the Hugging Face Hub, as typed: `hf:org/repo`, with a revision, a quantization or a file.

use std::fmt;

use crate::failure::{Failure, Result};
use crate::output::printable;

/// How names are written, for messages.
pub(crate) const FORMS: &str = "write hf:org/repo, hf:org/repo:Q4_K_M or hf:org/repo/file.gguf; a revision goes behind the \
                                repository: hf:org/repo@revision:Q4_K_M";

/// The revision that is meant if none is given.
pub(crate) const DEFAULT_REVISION: &str = "main";

/// A repository of the Hub.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Repo {
    pub(crate) org: String,
    pub(crate) name: String,
}

impl fmt::Display for Repo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.org, self.name)
    }
}

impl Repo {
    /// The repository with this name, if the name is one that the Hub allows. No such name contains a path or the `--`
    /// that separates both halves in the cache.
    pub(crate) fn new(org: &str, name: &str) -> Option<Repo> {
        let is_valid = |part: &str| {
            (1..=96).contains(&part.len())
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
                && !part.starts_with(['.', '-'])
                && !part.ends_with(['.', '-'])
                && !part.contains("--")
                && !part.contains("..")
        };
        (is_valid(org) && is_valid(name)).then(|| Repo { org: org.into(), name: name.into() })
    }
}

/// Which of a repository's models is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The one that people take if they have no reason to take another.
    Default,
    /// The one with this quantization, such as `Q4_K_M`; case does not matter.
    Quant(String),
    /// The one in this file, a path with `/` inside the repository.
    File(String),
}

/// `hf:org/repo@revision:quant` in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HubName {
    pub(crate) repo: Repo,
    /// A branch, tag or commit; [`DEFAULT_REVISION`] if none was given.
    pub(crate) revision: String,
    pub(crate) wanted: Wanted,
}

impl fmt::Display for HubName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf:{}", self.repo)?;
        if self.revision != DEFAULT_REVISION {
            write!(f, "@{}", self.revision)?;
        }
        match &self.wanted {
            Wanted::Default => Ok(()),
            Wanted::Quant(quant) => write!(f, ":{quant}"),
            Wanted::File(file) => write!(f, "/{file}"),
        }
    }
}

impl HubName {
    /// Reads what follows `hf:`.
    ///
    /// # Errors
    /// If it has another form; the message shows the forms.
    pub(crate) fn parse(text: &str) -> Result<HubName> {
        Self::parts(text).map_err(|why| Failure::user(format!("hf:{text}: {why}; {FORMS}")))
    }

    fn parts(text: &str) -> std::result::Result<HubName, String> {
        let (org, rest) = text.split_once('/').ok_or("names no repository")?;
        let (name, rest) = rest.split_at(rest.find(['@', ':', '/']).unwrap_or(rest.len()));
        let repo = Repo::new(org, name)
            .ok_or_else(|| format!("the Hub has no repositories with names such as {org}/{name}"))?;
        let (revision, rest) = match rest.strip_prefix('@') {
            Some(rest) => rest.split_at(revision_len(rest)),
            None => (DEFAULT_REVISION, rest),
        };
        if !is_revision(revision) {
            return Err(format!("{revision:?} is no revision"));
        }
        let wanted = match rest.split_at_checked(1) {
            None => Wanted::Default,
            Some((":", quant)) if is_quant(quant) => Wanted::Quant(quant.into()),
            Some((":", quant)) => return Err(format!("{quant:?} is no quantization")),
            Some((_, file)) if is_relative(file) && is_gguf(file) => Wanted::File(file.into()),
            Some((_, file)) => return Err(format!("{file:?} is not the name of a GGUF file")),
        };
        Ok(HubName { repo, revision: revision.into(), wanted })
    }
}

/// Whether this is the name of a GGUF file.
pub(crate) fn is_gguf(file: &str) -> bool {
    file.len() > 5
        && file.is_char_boundary(file.len() - 5)
        && file[file.len() - 5..].eq_ignore_ascii_case(".gguf")
}

/// Whether this path stays inside the folder to which it is joined, on every system, and can be shown as it is.
pub(crate) fn is_relative(path: &str) -> bool {
    path.len() <= 1024
        && path.split('/').all(|part| {
            !part.is_empty()
                && part.len() <= 255
                && part != "."
                && part != ".."
                && !part.contains(['\\', ':', '*', '?', '"', '<', '>', '|'])
                && printable(part) == part
        })
}

/// Whether this is a commit in full.
pub(crate) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Whether the revision can be a file below `refs`.
pub(crate) fn is_revision(revision: &str) -> bool {
    is_relative(revision) && !revision.contains(char::is_whitespace)
}

/// Where a revision ends. Only the two kinds of references that the Hub makes by itself contain a `/`.
fn revision_len(text: &str) -> usize {
    let end = |from: usize| text[from..].find([':', '/']).map_or(text.len(), |at| from + at);
    match ["refs/pr/", "refs/convert/"].iter().find(|prefix| text.starts_with(**prefix)) {
        Some(prefix) => end(prefix.len()),
        None => end(0),
    }
}

fn is_quant(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_parts() {
        let quant = |q: &str| Wanted::Quant(q.into());
        let file = |f: &str| Wanted::File(f.into());
        for (text, revision, wanted) in [
            ("org/repo", "main", Wanted::Default),
            ("org/repo:q4_k_m", "main", quant("q4_k_m")),
            ("org/repo/a.gguf", "main", file("a.gguf")),
            ("org/repo/sub/a.GGUF", "main", file("sub/a.GGUF")),
            ("org/repo@v1.0", "v1.0", Wanted::Default),
            ("org/repo@v1:UD-Q4_K_XL", "v1", quant("UD-Q4_K_XL")),
            ("org/repo@v1/sub/a.gguf", "v1", file("sub/a.gguf")),
            ("org/repo@refs/pr/7", "refs/pr/7", Wanted::Default),
            ("org/repo@refs/pr/7:Q8_0", "refs/pr/7", quant("Q8_0")),
            ("org/repo@refs/pr/7/a.gguf", "refs/pr/7", file("a.gguf")),
        ] {
            let name = HubName::parse(text).unwrap_or_else(|e| panic!("{text}: {e:?}"));
            assert_eq!((name.revision.as_str(), &name.wanted), (revision, &wanted), "{text}");
            assert_eq!(name.repo, Repo { org: "org".into(), name: "repo".into() });
            assert_eq!(name.to_string(), format!("hf:{text}"));
        }
    }

    #[test]
    fn no_name_leaves_the_cache() {
        for text in [
            "",
            "repo",
            "/repo",
            "org/",
            "../repo",
            "org/..",
            "org/.hidden",
            "a--b/repo",
            "org/re--po",
            "o rg/repo",
            "org/repo:",
            "org/repo:Q4/K",
            "org/repo:Q4@main",
            "org/repo/",
            "org/repo/README.md",
            "org/repo/../a.gguf",
            "org/repo//a.gguf",
            "org/repo/a\\b.gguf",
            "org/repo/C:a.gguf",
            "org/repo/./a.gguf",
            "org/repo/.gguf",
            "org/repo@",
            "org/repo@../x",
            "org/repo@..",
            "org/repo@refs/pr/..",
            "org/repo@refs/pr/../x.gguf",
            "org/repo@a\0b",
            "org/repo/\u{202e}a.gguf",
        ] {
            assert!(HubName::parse(text).is_err(), "{text:?}");
        }
    }
}
