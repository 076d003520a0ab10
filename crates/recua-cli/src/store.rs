//! The model store: models by name instead of by path. `hf:org/repo:Q4_K_M` is in the Hugging Face cache or comes from
//! the Hub, `ollama:name` is in Ollama's store.
//!
//! Start at [`locate`]. Only [`remote`] knows a network; a build without the feature `hub` has no such module, and
//! still finds what is here.

pub(crate) mod cache;
pub(crate) mod choose;
pub(crate) mod hub;
pub(crate) mod name;
pub(crate) mod ollama;
#[cfg(feature = "hub")]
mod remote;
pub(crate) mod remove;

use std::path::PathBuf;

#[cfg(feature = "hub")]
pub(crate) use remote::pull;

use crate::failure::Result;
use name::HubName;

/// Begins the name of a model on the Hub.
pub(crate) const HUB: &str = "hf:";
/// Begins the name of one of Ollama's models.
pub(crate) const OLLAMA: &str = "ollama:";

/// Where the model with this name is, after it was downloaded if need be. `None` if this is no name but a path.
///
/// # Errors
/// If there is no such model, if the name fits several, or if it cannot be downloaded.
pub(crate) fn locate(model: &str) -> Result<Option<PathBuf>> {
    if let Some(name) = model.strip_prefix(HUB) {
        return Ok(Some(hub::find(&HubName::parse(name)?)?.path()));
    }
    model.strip_prefix(OLLAMA).map(ollama::find).transpose()
}

/// Downloads need the feature `hub`.
#[cfg(not(feature = "hub"))]
pub(crate) fn pull(name: &HubName) -> std::result::Result<hub::Located, hub::NotPulled> {
    let message = "is not in the cache, and this build cannot download; build recua with its feature `hub`, which is \
                   on by default";
    let failure = crate::failure::Failure::user(format!("{name}: {message}"));
    Err(hub::NotPulled { failure, is_unreachable: true })
}
