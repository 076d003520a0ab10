//! Takes a model out of the cache: its links in one snapshot, and the blobs to which no other link leads.

use std::fs;
use std::path::{Path, PathBuf};

use super::cache::{Lock, RepoFolder, files_below};
use super::hub::Located;
use crate::failure::{Failure, Result};

/// A file of a model that is to go.
struct Doomed {
    link: PathBuf,
    /// The name of the blob to which it leads; `None` if it is the file itself.
    etag: Option<String>,
    // Held until the file is gone.
    _lock: Option<Lock>,
}

/// Removes a model and returns how many bytes that has freed.
///
/// # Errors
/// If a file is not one of the cache, is being downloaded, or cannot be removed. The first two are found before
/// anything is removed.
pub(crate) fn remove(located: &Located) -> Result<u64> {
    let folder = &located.folder;
    let snapshot = folder.snapshot(&located.commit);
    let doomed = located.model.files.iter().map(|file| check(folder, &snapshot, file));
    let doomed: Vec<Doomed> = doomed.collect::<Result<_>>()?;
    let mut freed = 0;
    for Doomed { link, etag, .. } in &doomed {
        if etag.is_none() {
            freed += size(link);
        }
        fs::remove_file(link).map_err(|e| failure(link, &e.to_string()))?;
    }
    for etag in doomed.iter().filter_map(|doomed| doomed.etag.as_deref()) {
        if is_used(folder, etag) {
            continue;
        }
        let blob = folder.blobs().join(etag);
        // Newer versions of huggingface_hub share blobs among repositories: then this is a link, and they remove the
        // blob when the last one is gone.
        freed += size(&blob);
        fs::remove_file(&blob).map_err(|e| failure(&blob, &e.to_string()))?;
        let _ = fs::remove_file(blob.with_file_name(format!("{etag}.incomplete")));
    }
    tidy(located);
    Ok(freed)
}

/// Removes what interrupted downloads have left of a repository and returns how many bytes that has freed.
///
/// # Errors
/// If a file cannot be removed.
pub(crate) fn remove_leftovers(folder: &RepoFolder) -> Result<u64> {
    let mut freed = 0;
    for name in files_below(&folder.blobs()) {
        let Some(etag) = name.strip_suffix(".incomplete") else { continue };
        // huggingface_hub puts a word of its own between the two.
        let Some(_lock) = folder.try_lock(etag.split('.').next().unwrap_or(etag))? else { continue };
        let path = folder.blobs().join(&name);
        freed += size(&path);
        fs::remove_file(&path).map_err(|e| failure(&path, &e.to_string()))?;
    }
    Ok(freed)
}

/// The size of a file; a link has none.
fn size(path: &Path) -> u64 {
    fs::symlink_metadata(path).map_or(0, |m| if m.is_file() { m.len() } else { 0 })
}

/// Refuses what is not a file of the cache, or is in use.
fn check(folder: &RepoFolder, snapshot: &Path, file: &str) -> Result<Doomed> {
    let link = snapshot.join(file);
    // If a folder on the way were a link, the file would be somewhere else.
    let mut parent = link.parent();
    while let Some(path) = parent.filter(|path| path.starts_with(&folder.path)) {
        if fs::symlink_metadata(path).map_or(true, |m| !m.is_dir()) {
            return Err(failure(&link, "is not in the cache: a folder above it is a link"));
        }
        parent = path.parent();
    }
    let is_link = fs::symlink_metadata(&link).map_err(|e| failure(&link, &e.to_string()))?.is_symlink();
    if !is_link {
        return Ok(Doomed { link, etag: None, _lock: None });
    }
    let etag =
        blob_of(folder, &link).ok_or_else(|| failure(&link, "leads out of the cache; remove it by hand"))?;
    let lock = folder.try_lock(&etag)?.ok_or_else(|| failure(&link, "another process downloads it now"))?;
    Ok(Doomed { link, etag: Some(etag), _lock: Some(lock) })
}

/// The name of the blob to which a link of a snapshot leads, if it leads to one of this repository.
fn blob_of(folder: &RepoFolder, link: &Path) -> Option<String> {
    let target = fs::read_link(link).ok()?;
    let etag = target.file_name()?.to_str()?;
    // Of the link's one step, because the blob may be a link itself.
    let target_folder = link.parent()?.join(&target).parent()?.canonicalize().ok()?;
    (target_folder == folder.blobs().canonicalize().ok()?).then(|| etag.to_owned())
}

/// Whether a link of any snapshot leads to the blob.
fn is_used(folder: &RepoFolder, etag: &str) -> bool {
    folder.commits().iter().any(|commit| {
        let snapshot = folder.snapshot(commit);
        files_below(&snapshot)
            .iter()
            .any(|file| blob_of(folder, &snapshot.join(file)).as_deref() == Some(etag))
    })
}

/// Removes what is left of the snapshot and of the repository if nothing is in it. It does not matter if that fails.
fn tidy(Located { folder, commit, model }: &Located) {
    let snapshot = folder.snapshot(commit);
    for file in &model.files {
        let above = snapshot.join(file);
        let mut parent = above.parent();
        // Only empty folders can be removed so.
        while let Some(path) =
            parent.filter(|path| path.starts_with(&snapshot) && fs::remove_dir(path).is_ok())
        {
            parent = path.parent();
        }
    }
    if snapshot.exists() {
        return;
    }
    let _ = fs::remove_dir_all(folder.path.join(".no_exist").join(commit));
    for (revision, of) in folder.refs() {
        if of == *commit {
            let _ = fs::remove_file(folder.path.join("refs").join(revision));
        }
    }
    let is_empty =
        fs::remove_dir(folder.path.join("snapshots")).is_ok() && fs::remove_dir(folder.blobs()).is_ok();
    if is_empty {
        let _ = fs::remove_dir_all(&folder.path);
    }
}

fn failure(path: &Path, why: &str) -> Failure {
    Failure::user(format!("{}: {why}", path.display()))
}
