//! The cache of the Hugging Face Hub on this machine, in the layout of huggingface_hub, whose tools share it:
//!
//! ```text
//! models--ORG--NAME/refs/REVISION          the commit, 40 hexadecimal digits and nothing else
//! models--ORG--NAME/snapshots/COMMIT/FILE  a link to ../../blobs/ETAG, or the file itself where there are no links
//! models--ORG--NAME/blobs/ETAG             the bytes; ETAG.incomplete while they are being downloaded
//! .locks/models--ORG--NAME/ETAG.lock       held by whoever writes or removes the blob
//! ```
//!
//! Here it is found, read and locked. It must not know about servers.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::name::{Repo, is_commit, is_gguf, is_revision};
use crate::failure::{Failure, Result};

/// How deep folders are looked into; repositories of models have one or two levels.
const DEPTH_MAX: usize = 8;

/// The folder with all repositories.
pub(crate) struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The user's, as huggingface_hub finds it.
    ///
    /// # Errors
    /// If no variable names it and there is no home folder either.
    pub(crate) fn of_user() -> Result<Cache> {
        let root = root(&|name| std::env::var_os(name), std::env::home_dir()).ok_or_else(|| {
            Failure::user("there is no home folder for the cache of models; set HF_HUB_CACHE to a folder")
        })?;
        Ok(Cache { root })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of a repository, which need not exist.
    pub(crate) fn repo(&self, repo: &Repo) -> RepoFolder {
        let folder = format!("models--{}--{}", repo.org, repo.name);
        RepoFolder {
            repo: repo.clone(),
            path: self.root.join(&folder),
            locks: self.root.join(".locks").join(folder),
        }
    }

    /// All repositories of models that are here, by name.
    pub(crate) fn repos(&self) -> Vec<RepoFolder> {
        let mut repos: Vec<Repo> = names(&self.root)
            .iter()
            .filter_map(|folder| {
                let (org, name) = folder.strip_prefix("models--")?.split_once("--")?;
                Repo::new(org, name)
            })
            .collect();
        repos.sort();
        repos.iter().map(|repo| self.repo(repo)).collect()
    }
}

/// What is here of a repository.
#[derive(Clone, Debug)]
pub(crate) struct RepoFolder {
    pub(crate) repo: Repo,
    pub(crate) path: PathBuf,
    locks: PathBuf,
}

impl RepoFolder {
    /// The commit that a revision means here, if that is known.
    pub(crate) fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let mut text = String::new();
        File::open(self.path.join("refs").join(revision)).ok()?.take(64).read_to_string(&mut text).ok()?;
        is_commit(&text).then_some(text)
    }

    /// The revisions that have a name, with their commits.
    pub(crate) fn refs(&self) -> Vec<(String, String)> {
        let refs = files_below(&self.path.join("refs"));
        refs.into_iter()
            .filter(|name| is_revision(name))
            .filter_map(|r| Some((r.clone(), self.commit(&r)?)))
            .collect()
    }

    /// The commits of which there are files.
    pub(crate) fn commits(&self) -> Vec<String> {
        let mut commits = names(&self.path.join("snapshots"));
        commits.retain(|name| is_commit(name));
        commits.sort();
        commits
    }

    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.path.join("snapshots").join(commit)
    }

    /// The GGUF files of a commit that are here, as paths with `/`.
    pub(crate) fn files(&self, commit: &str) -> Vec<String> {
        let folder = self.snapshot(commit);
        let mut files = files_below(&folder);
        // A link to a blob that is gone is no file.
        files.retain(|file| is_gguf(file) && folder.join(file).is_file());
        files
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.path.join("blobs")
    }

    /// Waits until no other process writes or removes the blob; `on_wait` is called if there is one.
    ///
    /// # Errors
    /// If the lock's file cannot be written.
    #[cfg(feature = "hub")]
    pub(crate) fn lock(&self, etag: &str, on_wait: impl FnOnce()) -> Result<Lock> {
        let (path, file) = self.lock_file(etag)?;
        let taken = match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                on_wait();
                file.lock()
            }
            Err(TryLockError::Error(e)) => Err(e),
            Ok(()) => Ok(()),
        };
        match taken {
            // Without locks, two downloads of one file may cost each other time, but the checksum is checked.
            Err(e) if e.kind() != io::ErrorKind::Unsupported => Err(writing(&path, &e)),
            _ => Ok(Lock(file)),
        }
    }

    /// The lock if no other process has it.
    ///
    /// # Errors
    /// As [`lock`](Self::lock).
    pub(crate) fn try_lock(&self, etag: &str) -> Result<Option<Lock>> {
        let (_, file) = self.lock_file(etag)?;
        Ok(match file.try_lock() {
            Err(TryLockError::WouldBlock) => None,
            _ => Some(Lock(file)),
        })
    }

    fn lock_file(&self, etag: &str) -> Result<(PathBuf, File)> {
        let path = self.locks.join(format!("{etag}.lock"));
        let opened = fs::create_dir_all(&self.locks)
            .and_then(|()| File::options().create(true).truncate(false).write(true).open(&path));
        opened.map(|file| (path.clone(), file)).map_err(|e| writing(&path, &e))
    }
}

/// Held while a blob is written or removed. The file stays behind, as huggingface_hub leaves it.
pub(crate) struct Lock(#[expect(dead_code, reason = "closing the file gives the lock back")] File);

/// A failure to write into the cache.
pub(crate) fn writing(path: &Path, e: &io::Error) -> Failure {
    let advice = match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free some space (`recua list`, `recua rm MODEL`), or set HF_HUB_CACHE to a folder on another disk"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; set HF_HUB_CACHE to a folder that can be written"
        }
        _ => "",
    };
    Failure::other(format!("{}: cannot be written: {e}{advice}", path.display()))
}

/// Whether the user has switched the network off.
pub(crate) fn is_offline() -> bool {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    set("HF_HUB_OFFLINE").or_else(|| set("TRANSFORMERS_OFFLINE")).is_some_and(|value| is_true(&value))
}

/// As huggingface_hub reads a switch in a variable.
pub(crate) fn is_true(value: &str) -> bool {
    ["1", "ON", "YES", "TRUE"].contains(&value.to_ascii_uppercase().as_str())
}

/// Hugging Face's folder, which also has the token.
#[cfg(feature = "hub")]
pub(crate) fn hf_home() -> Option<PathBuf> {
    home_of(&|name| std::env::var_os(name), std::env::home_dir().as_deref())
}

type Variables<'a> = &'a dyn Fn(&str) -> Option<OsString>;

fn home_of(variable: Variables<'_>, home: Option<&Path>) -> Option<PathBuf> {
    let folder = match (variable("HF_HOME"), variable("XDG_CACHE_HOME")) {
        (Some(folder), _) => folder.into(),
        (None, Some(caches)) => Path::new(&caches).join("huggingface"),
        (None, None) => home?.join(".cache/huggingface"),
    };
    Some(expand(folder, variable, home))
}

fn root(variable: Variables<'_>, home: Option<PathBuf>) -> Option<PathBuf> {
    let home = home.as_deref();
    let root = match variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE")) {
        Some(folder) => folder.into(),
        None => home_of(variable, home)?.join("hub"),
    };
    Some(expand(root, variable, home))
}

/// A path with its `~`, `$NAME` and `${NAME}` replaced by what they mean. What means nothing stays.
pub(crate) fn expand(path: PathBuf, variable: Variables<'_>, home: Option<&Path>) -> PathBuf {
    let path = match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) if rest.as_os_str().is_empty() => home.to_owned(),
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path,
    };
    let Some(text) = path.to_str().filter(|text| text.contains('$')) else { return path };
    let mut out = OsString::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push(&rest[..at]);
        rest = &rest[at..];
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let braced = rest[1..].strip_prefix('{').and_then(|inner| Some((inner.split_once('}')?.0, 3)));
        let (name, marks) = braced.unwrap_or_else(|| {
            let word = &rest[1..];
            (&word[..word.find(|c| !is_word(c)).unwrap_or(word.len())], 1)
        });
        let len = name.len() + marks;
        match variable(name).filter(|_| !name.is_empty()) {
            Some(value) => out.push(value),
            None => out.push(&rest[..len]),
        }
        rest = &rest[len..];
    }
    out.push(rest);
    out.into()
}

/// The names in a folder that are UTF-8; none if it cannot be read.
fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

/// The files and links below a folder, as paths with `/`, sorted. Links to folders are not followed.
pub(crate) fn files_below(folder: &Path) -> Vec<String> {
    fn walk(folder: &Path, prefix: &str, depth: usize, out: &mut BTreeMap<String, ()>) {
        for name in names(folder) {
            let path = folder.join(&name);
            let is_folder = fs::symlink_metadata(&path).is_ok_and(|m| m.is_dir());
            if !is_folder {
                out.insert(format!("{prefix}{name}"), ());
            } else if depth < DEPTH_MAX {
                walk(&path, &format!("{prefix}{name}/"), depth + 1, out);
            }
        }
    }
    let mut out = BTreeMap::new();
    walk(folder, "", 0, &mut out);
    out.into_keys().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cache for these variables, given as `NAME=value`.
    fn root_for(settings: &[&str]) -> PathBuf {
        let variable = |name: &str| {
            settings.iter().find_map(|s| s.strip_prefix(name)?.strip_prefix('=').map(OsString::from))
        };
        root(&variable, Some("/home/u".into())).unwrap()
    }

    #[test]
    fn the_folder_is_that_of_huggingface_hub() {
        for (settings, expected) in [
            (&[][..], "/home/u/.cache/huggingface/hub"),
            (&["XDG_CACHE_HOME=/x"], "/x/huggingface/hub"),
            (&["XDG_CACHE_HOME=/x", "HF_HOME=/h"], "/h/hub"),
            (&["HF_HOME=/h", "HUGGINGFACE_HUB_CACHE=/old"], "/old"),
            (&["HUGGINGFACE_HUB_CACHE=/old", "HF_HUB_CACHE=/c"], "/c"),
            (&["HF_HUB_CACHE=~/c"], "/home/u/c"),
            (&["HF_HOME=~"], "/home/u/hub"),
            (&["HF_HOME=$A/${B}x/$C", "A=/a", "B=b"], "/a/bx/$C/hub"),
            (&["HF_HUB_CACHE=/a$"], "/a$"),
            (&["HF_HUB_CACHE=/${"], "/${"),
            (&["HF_HUB_CACHE="], ""),
        ] {
            assert_eq!(root_for(settings), PathBuf::from(expected), "{settings:?}");
        }
    }
}
