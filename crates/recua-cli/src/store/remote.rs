//! The Hugging Face Hub: which files a repository has, and how they come into the cache.

mod client;
mod fetch;
mod redirect;
mod status;

use serde::Deserialize;

use super::cache::Cache;
use super::choose::choose;
use super::hub::{Located, NotPulled, describe};
use super::name::{HubName, is_commit, is_relative};
use crate::failure::Failure;
use crate::output::abbreviated;
use client::Client;
use status::Trouble;

/// What the Hub says about a revision of a repository; there is more that is not needed.
#[derive(Deserialize)]
struct Revision {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

/// A file.
#[derive(Deserialize)]
struct Sibling {
    #[serde(rename = "rfilename")]
    name: String,
}

/// Downloads what is missing of the model with this name.
///
/// # Errors
/// If the Hub cannot be reached or refuses, if the name fits no model or several, if what comes is not what was
/// announced, or if it cannot be written.
pub(crate) fn pull(name: &HubName) -> std::result::Result<Located, NotPulled> {
    let client = Client::from_user()?;
    let cache = Cache::of_user()?;
    let (commit, files) = list(&client, name)?;
    let model = choose(&files, &name.wanted, true)
        .map_err(|miss| Failure::user(describe(name, &miss, &files, &name.repo.to_string())))?;
    if !model.is_complete() {
        let message = format!("{name}: {} lacks parts of this split model", name.repo);
        return Err(Failure::user(message).into());
    }
    let folder = cache.repo(&name.repo);
    for file in &model.files {
        fetch::fetch(&client, &cache, &folder, &commit, file)?;
    }
    // Last, so that an interrupted download leaves the revision at what is complete.
    fetch::set_ref(&folder, &name.revision, &commit)?;
    Ok(Located { folder, commit, model })
}

/// The commit that a revision is at, and the files of that commit.
fn list(client: &Client, name: &HubName) -> std::result::Result<(String, Vec<String>), NotPulled> {
    let url = client.revision_url(&name.repo, &name.revision);
    let body = client.get_small(&url).map_err(|trouble| {
        let is_unreachable = matches!(trouble, Trouble::Network(_));
        NotPulled { failure: trouble.failure(client, &name.to_string(), &name.repo), is_unreachable }
    })?;
    let revision: Revision = serde_json::from_slice(&body).map_err(|e| {
        Failure::other(format!("{name}: {} does not answer as a Hugging Face Hub does: {e}", client.host()))
    })?;
    if !is_commit(&revision.sha) {
        let sha = abbreviated(&revision.sha, 40);
        let message = format!("{name}: {} names a commit that is none: {sha}", client.host());
        return Err(Failure::other(message).into());
    }
    // A name that would leave the folder of the snapshot is no file for us.
    let files =
        revision.siblings.into_iter().map(|file| file.name).filter(|file| is_relative(file)).collect();
    Ok((revision.sha, files))
}
