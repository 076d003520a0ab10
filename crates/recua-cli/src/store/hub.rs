//! Models of the Hugging Face Hub: what is in the cache is taken from there, the rest is downloaded.

use std::path::PathBuf;

use super::cache::{Cache, RepoFolder, is_offline};
use super::choose::{Miss, Model, choose, models};
use super::name::{HubName, Wanted};
use crate::failure::{Failure, Result};
use crate::output::note;

/// A model in the cache.
pub(crate) struct Located {
    pub(crate) folder: RepoFolder,
    pub(crate) commit: String,
    pub(crate) model: Model,
}

impl Located {
    /// Where its first file is.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.snapshot(&self.commit).join(self.model.file())
    }
}

/// Why a model was not downloaded.
pub(crate) struct NotPulled {
    pub(crate) failure: Failure,
    /// Whether no server could be asked, so that what is here must do.
    pub(crate) is_unreachable: bool,
}

impl From<Failure> for NotPulled {
    fn from(failure: Failure) -> Self {
        Self { failure, is_unreachable: false }
    }
}

/// The model with this name. The Hub is asked only if it is not in the cache.
///
/// # Errors
/// If there is no such model, if the name fits several, or if it cannot be downloaded.
pub(crate) fn find(name: &HubName) -> Result<Located> {
    let folder = Cache::of_user()?.repo(&name.repo);
    let is_complete = |located: &Located| located.model.is_complete();
    if let Some(located) = in_cache(&folder, name, false).ok().filter(is_complete) {
        return Ok(located);
    }
    if is_offline() {
        let why = match find_in_cache(&folder, name)? {
            Some(located) if is_complete(&located) => return Ok(located),
            Some(_) => format!("{name}: parts of it are missing in the cache"),
            None => not_in_cache(&folder, name),
        };
        return Err(Failure::user(format!("{why}; HF_HUB_OFFLINE forbids downloads")));
    }
    super::pull(name).or_else(|e| match in_cache(&folder, name, true) {
        Ok(located) if e.is_unreachable && is_complete(&located) => {
            note!("note: {name}: the Hub cannot be reached; using what is in the cache");
            Ok(located)
        }
        _ => Err(e.failure),
    })
}

/// The model with this name if it, or a part of it, is in the cache. `None` if it is not.
///
/// # Errors
/// If the name fits several; the message lists them.
pub(crate) fn find_in_cache(folder: &RepoFolder, name: &HubName) -> Result<Option<Located>> {
    match in_cache(folder, name, true) {
        Ok(located) => Ok(Some(located)),
        Err(Miss::NotFound) => Ok(None),
        Err(miss) => Err(Failure::user(describe(name, &miss, &files(folder, name), CACHE))),
    }
}

/// The sentence for a model that is not in the cache.
pub(crate) fn not_in_cache(folder: &RepoFolder, name: &HubName) -> String {
    describe(name, &Miss::NotFound, &files(folder, name), CACHE)
}

const CACHE: &str = "the cache";

/// `is_all` as for [`choose`].
fn in_cache(folder: &RepoFolder, name: &HubName, is_all: bool) -> std::result::Result<Located, Miss> {
    let commit = folder.commit(&name.revision).ok_or(Miss::NotFound)?;
    let model = choose(&folder.files(&commit), &name.wanted, is_all)?;
    Ok(Located { folder: folder.clone(), commit, model })
}

/// What is in the cache of the revision.
fn files(folder: &RepoFolder, name: &HubName) -> Vec<String> {
    folder.commit(&name.revision).map(|commit| folder.files(&commit)).unwrap_or_default()
}

/// What a name could have meant, in one sentence. `place` is where the files are.
pub(crate) fn describe(name: &HubName, miss: &Miss, files: &[String], place: &str) -> String {
    let all = models(files.iter().map(String::as_str));
    let list = |models: &[Model]| {
        const SHOWN_MAX: usize = 40;
        let names: Vec<&str> = models.iter().take(SHOWN_MAX).map(|m| shown(m, &all)).collect();
        let more = models.len().saturating_sub(SHOWN_MAX);
        format!("{}{}", names.join(", "), if more > 0 { format!(" and {more} more") } else { String::new() })
    };
    match miss {
        Miss::Ambiguous(several) if name.wanted == Wanted::Default => {
            format!(
                "{name}: has no Q4_K_M; add one of these to the name, behind `:` or `/`: {}",
                list(several)
            )
        }
        Miss::Ambiguous(several) => {
            format!(
                "{name}: fits {} models; name the file, behind `/`: {}",
                several.len(),
                list_files(several)
            )
        }
        Miss::NotFound if all.is_empty() => format!("{name}: there is no GGUF model of it in {place}"),
        Miss::NotFound => format!("{name}: is not in {place}, which has {}", list(&all)),
    }
}

fn list_files(models: &[Model]) -> String {
    models.iter().map(Model::file).collect::<Vec<_>>().join(", ")
}

/// The quantization if it names this model and no other, otherwise the file.
pub(crate) fn shown<'a>(model: &'a Model, all: &[Model]) -> &'a str {
    match &model.quant {
        Some(quant) if all.iter().filter(|other| other.quant.as_ref() == Some(quant)).count() == 1 => quant,
        _ => model.file(),
    }
}
