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
pub(crate) fn find(name: &HubName) -> Result<Located> {
    let folder = Cache::of_user()?.repo(&name.repo);
    if let Ok(located) = in_cache(&folder, name, false) {
        return Ok(located);
    }
    if is_offline() {
        return find_in_cache(name);
    }
    super::pull(name).or_else(|e| match in_cache(&folder, name, true) {
        Ok(located) if e.is_unreachable => {
            note!("note: {name}: the Hub cannot be reached; using what is in the cache");
            Ok(located)
        }
        _ => Err(e.failure),
    })
}

/// The model with this name if it is in the cache.
///
/// # Errors
/// If it is not, or if the name fits several; the message lists what there is.
pub(crate) fn find_in_cache(name: &HubName) -> Result<Located> {
    let folder = Cache::of_user()?.repo(&name.repo);
    in_cache(&folder, name, true).map_err(|miss| {
        let here = folder.commit(&name.revision).map(|commit| folder.files(&commit)).unwrap_or_default();
        let message = describe(name, &miss, &here, "the cache");
        if is_offline() && miss == Miss::NotFound {
            return Failure::user(format!("{message}; HF_HUB_OFFLINE forbids downloads"));
        }
        Failure::user(message)
    })
}

fn in_cache(folder: &RepoFolder, name: &HubName, is_all: bool) -> std::result::Result<Located, Miss> {
    let commit = folder.commit(&name.revision).ok_or(Miss::NotFound)?;
    let model = choose(&folder.files(&commit), &name.wanted, is_all)?;
    if !model.is_complete() {
        return Err(Miss::NotFound);
    }
    Ok(Located { folder: folder.clone(), commit, model })
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
