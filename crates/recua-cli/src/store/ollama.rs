//! Models that Ollama has stored on this machine: `ollama:name[:tag]`. They are only read.
//!
//! ```text
//! manifests/HOST/NAMESPACE/NAME/TAG  JSON: the layers of a model and the digests of their blobs
//! blobs/sha256-DIGEST                the bytes of a layer
//! ```

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::cache::files_below;
use crate::failure::{Failure, Result};

/// Where Ollama's own models come from, which its names leave out.
const DEFAULT_HOST: &str = "registry.ollama.ai";
const DEFAULT_NAMESPACE: &str = "library";
const DEFAULT_TAG: &str = "latest";

/// The layer with the weights.
const MODEL_LAYER: &str = "application/vnd.ollama.image.model";
/// The layer with a LoRA adapter, without which the model would be another one.
const ADAPTER_LAYER: &str = "application/vnd.ollama.image.adapter";

/// Where Ollama runs as a service on Linux, its models are in that user's home.
const SERVICE_FOLDER: &str = "/usr/share/ollama/.ollama/models";

/// A model in Ollama's store.
pub(crate) struct Stored {
    /// As in `ollama list`: `llama3.2:1b`, `someone/model:latest`.
    pub(crate) name: String,
    folder: PathBuf,
    // HOST/NAMESPACE/NAME/TAG.
    manifest: String,
}

#[derive(Deserialize)]
struct Manifest {
    config: Option<Layer>,
    #[serde(default)]
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Layer {
    #[serde(rename = "mediaType", default)]
    media_type: String,
    #[serde(default)]
    digest: String,
}

#[derive(Deserialize)]
struct Config {
    file_type: Option<String>,
}

/// The GGUF file of the model with this name, which is what follows `ollama:`.
///
/// # Errors
/// If there is no such model; the message lists those that there are.
pub(crate) fn find(name: &str) -> Result<PathBuf> {
    let wanted = full_name(name).ok_or_else(|| {
        Failure::user(format!(
            "ollama:{name}: is no name of a model; write it as `ollama list` does, such as llama3.2:1b"
        ))
    })?;
    let stored = list();
    match stored.iter().find(|model| model.manifest.eq_ignore_ascii_case(&wanted)) {
        Some(model) => model.file(),
        None if stored.is_empty() => {
            let folders: Vec<_> = folders().iter().map(|f| f.display().to_string()).collect();
            Err(Failure::user(format!(
                "ollama:{name}: there are no models of Ollama in {}",
                folders.join(" or ")
            )))
        }
        None => {
            let names: Vec<&str> = stored.iter().map(|model| model.name.as_str()).collect();
            let have = names.join(", ");
            Err(Failure::user(format!(
                "ollama:{name}: Ollama has no such model; it has {have}; `ollama pull {name}` gets it"
            )))
        }
    }
}

/// All models in Ollama's store, by name.
pub(crate) fn list() -> Vec<Stored> {
    let mut models: Vec<Stored> = Vec::new();
    for folder in folders() {
        for manifest in files_below(&folder.join("manifests")) {
            let is_known = models.iter().any(|model| model.manifest == manifest);
            if let Some(name) = short_name(&manifest).filter(|_| !is_known) {
                models.push(Stored { name, folder: folder.clone(), manifest });
            }
        }
    }
    models.sort_by(|a, b| a.name.cmp(&b.name));
    models
}

impl Stored {
    /// The GGUF file.
    ///
    /// # Errors
    /// If the manifest names none, or none that is there.
    pub(crate) fn file(&self) -> Result<PathBuf> {
        let path = self.folder.join("manifests").join(&self.manifest);
        let failure = |message: &str| Failure::user(format!("ollama:{}: {message}", self.name));
        let manifest: Manifest = json(&path).ok_or_else(|| {
            failure(&format!(
                "{} is not a manifest that can be read; `ollama pull {}` renews it",
                path.display(),
                self.name
            ))
        })?;
        if manifest.layers.iter().any(|layer| layer.media_type == ADAPTER_LAYER) {
            return Err(failure("has a LoRA adapter, which recua cannot apply"));
        }
        let mut layers = manifest.layers.iter().filter(|layer| layer.media_type == MODEL_LAYER);
        let (Some(layer), None) = (layers.next(), layers.next()) else {
            return Err(failure("is not stored as one GGUF file"));
        };
        let blob =
            self.blob(&layer.digest).ok_or_else(|| failure("its manifest has a digest that is none"))?;
        if !blob.is_file() {
            let message =
                format!("its file {} is missing; `ollama pull {}` gets it", blob.display(), self.name);
            return Err(failure(&message));
        }
        Ok(blob)
    }

    /// The quantization, as Ollama notes it.
    pub(crate) fn quant(&self) -> Option<String> {
        let manifest: Manifest = json(&self.folder.join("manifests").join(&self.manifest))?;
        let config: Config = json(&self.blob(&manifest.config?.digest)?)?;
        config.file_type
    }

    fn blob(&self, digest: &str) -> Option<PathBuf> {
        let hex = digest.strip_prefix("sha256:")?;
        let is_digest = hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit());
        is_digest.then(|| self.folder.join("blobs").join(format!("sha256-{hex}")))
    }
}

/// Where models may be.
fn folders() -> Vec<PathBuf> {
    match std::env::var_os("OLLAMA_MODELS").filter(|folder| !folder.is_empty()) {
        Some(folder) => vec![folder.into()],
        None => {
            let own = std::env::home_dir().map(|home| home.join(".ollama").join("models"));
            own.into_iter()
                .chain([PathBuf::from(SERVICE_FOLDER)].into_iter().filter(|f| f.is_dir()))
                .collect()
        }
    }
}

/// `[HOST/][NAMESPACE/]NAME[:TAG]` as HOST/NAMESPACE/NAME/TAG.
fn full_name(name: &str) -> Option<String> {
    let (path, last) = name.rsplit_once('/').map_or((None, name), |(path, last)| (Some(path), last));
    let (model, tag) = last.split_once(':').unwrap_or((last, DEFAULT_TAG));
    let (host, namespace) = match path {
        Some(path) => path.rsplit_once('/').unwrap_or((DEFAULT_HOST, path)),
        None => (DEFAULT_HOST, DEFAULT_NAMESPACE),
    };
    let is_part = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
            && part != ".."
    };
    let is_host = host.split(':').count() <= 2 && host.split(':').all(is_part);
    ([namespace, model, tag].into_iter().all(is_part) && is_host)
        .then(|| format!("{host}/{namespace}/{model}/{tag}"))
}

/// What Ollama shows for a manifest.
fn short_name(manifest: &str) -> Option<String> {
    let parts: Vec<&str> = manifest.split('/').collect();
    let [host, namespace, model, tag] = parts[..] else { return None };
    if [namespace, model, tag].iter().any(|part| part.starts_with('.')) {
        return None;
    }
    Some(match (host, namespace) {
        (DEFAULT_HOST, DEFAULT_NAMESPACE) => format!("{model}:{tag}"),
        (DEFAULT_HOST, _) => format!("{namespace}/{model}:{tag}"),
        _ => format!("{host}/{namespace}/{model}:{tag}"),
    })
}

/// A small JSON file.
fn json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    const BYTES_MAX: u64 = 1 << 20;
    // A pipe would be waited for.
    if !path.is_file() {
        return None;
    }
    let mut text = Vec::new();
    File::open(path).ok()?.take(BYTES_MAX).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_manifests_and_back() {
        for (name, manifest, short) in [
            ("llama3.2", "registry.ollama.ai/library/llama3.2/latest", "llama3.2:latest"),
            ("llama3.2:1b", "registry.ollama.ai/library/llama3.2/1b", "llama3.2:1b"),
            ("someone/model", "registry.ollama.ai/someone/model/latest", "someone/model:latest"),
            ("hf.co/org/repo:Q8_0", "hf.co/org/repo/Q8_0", "hf.co/org/repo:Q8_0"),
            ("localhost:5000/a/b:c", "localhost:5000/a/b/c", "localhost:5000/a/b:c"),
        ] {
            assert_eq!(full_name(name).as_deref(), Some(manifest), "{name}");
            assert_eq!(short_name(manifest).as_deref(), Some(short), "{name}");
        }
        for name in
            ["", ":", "a:", "/a", "a/", "../a", "a/../b", "a/b/c/d", "a:b:c", "..", "a b", "a:1:2/b/c"]
        {
            assert_eq!(full_name(name), None, "{name}");
        }
    }
}
