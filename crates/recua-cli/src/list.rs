//! `recua list`: the models that are here by name.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::args::ListArgs;
use crate::failure::Result;
use crate::output::{self, bytes, note, printable, write_json};
use crate::store::cache::{Cache, RepoFolder};
use crate::store::choose::{Model, models};
use crate::store::hub::shown;
use crate::store::name::{DEFAULT_REVISION, HubName, Wanted};
use crate::store::{OLLAMA, ollama};
use crate::table::{Style, Table};

/// The JSON output.
#[derive(Serialize)]
struct List {
    models: Vec<Entry>,
}

/// A model.
#[derive(Serialize)]
struct Entry {
    /// What to type for MODEL.
    name: String,
    quant: Option<String>,
    /// Of all its files.
    bytes: u64,
    /// When its newest file was written, in seconds since 1970.
    modified: u64,
    /// The file, or the first one.
    path: PathBuf,
    /// Whether all parts are here.
    complete: bool,
}

pub(crate) fn run(args: ListArgs) -> Result {
    let cache = Cache::of_user()?;
    let mut models: Vec<Entry> = cache.repos().iter().flat_map(of_repo).collect();
    models.extend(ollama::list().iter().filter_map(of_ollama));
    let mut out = output::stdout();
    if args.json {
        write_json(&mut out, &List { models })?;
    } else if models.is_empty() {
        note!(
            "no models in {}; `recua pull hf:ORG/REPO` gets one",
            printable(&cache.root().display().to_string())
        );
    } else {
        write_table(&mut out, &models)?;
    }
    out.flush()?;
    Ok(())
}

fn write_table(out: &mut impl Write, models: &[Entry]) -> Result {
    let mut table = Table::new(&["<name", "<quant", "size", "<modified"]);
    for model in models {
        let age =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + Duration::from_secs(model.modified));
        let state = if model.complete { "" } else { " (incomplete)" };
        table.row([
            printable(&model.name),
            printable(model.quant.as_deref().unwrap_or("-")),
            bytes(model.bytes),
            format!("{}{state}", ago(age.unwrap_or_default())),
        ]);
    }
    table.write(out, Style::Plain)?;
    Ok(())
}

/// The models of a repository, in every commit of which there are files.
fn of_repo(folder: &RepoFolder) -> Vec<Entry> {
    let refs = folder.refs();
    let of_commit = |commit: String| {
        let named = |(_, of): &&(String, String)| *of == commit;
        let is_default = refs.iter().filter(named).any(|(revision, _)| revision == DEFAULT_REVISION);
        let revision = match refs.iter().find(named) {
            _ if is_default => DEFAULT_REVISION.to_owned(),
            Some((revision, _)) => revision.clone(),
            None => commit.clone(),
        };
        let files = folder.files(&commit);
        let all = models(files.iter().map(String::as_str));
        let entry = |model: &Model| {
            let wanted = match shown(model, &all) {
                file if file == model.file() => Wanted::File(file.to_owned()),
                quant => Wanted::Quant(quant.to_owned()),
            };
            let name = HubName { repo: folder.repo.clone(), revision: revision.clone(), wanted };
            let paths: Vec<PathBuf> =
                model.files.iter().map(|file| folder.snapshot(&commit).join(file)).collect();
            Entry::of(name.to_string(), model.quant.clone(), &paths, model.is_complete())
        };
        all.iter().filter_map(entry).collect::<Vec<_>>()
    };
    folder.commits().into_iter().flat_map(of_commit).collect()
}

fn of_ollama(model: &ollama::Stored) -> Option<Entry> {
    let path = model.file().ok()?;
    Entry::of(format!("{OLLAMA}{}", model.name), model.quant(), &[path], true)
}

impl Entry {
    fn of(name: String, quant: Option<String>, paths: &[PathBuf], complete: bool) -> Option<Entry> {
        let facts: Vec<_> = paths.iter().filter_map(|path| fs::metadata(path).ok()).collect();
        let seconds = |m: &fs::Metadata| {
            Some(m.modified().ok()?.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs())
        };
        Some(Entry {
            name,
            quant,
            bytes: facts.iter().map(fs::Metadata::len).fold(0, u64::saturating_add),
            modified: facts.iter().filter_map(seconds).max().unwrap_or_default(),
            path: paths.first().map(|path: &PathBuf| Path::to_owned(path))?,
            complete,
        })
    }
}

/// A time in the past, as people say it.
fn ago(age: Duration) -> String {
    let seconds = age.as_secs();
    let (n, unit) = match seconds {
        0..60 => return "just now".into(),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{} ago", output::count(usize::try_from(n).unwrap_or(usize::MAX), unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_readable() {
        for (seconds, expected) in
            [(0, "just now"), (60, "1 minute ago"), (7300, "2 hours ago"), (200_000, "2 days ago")]
        {
            assert_eq!(ago(Duration::from_secs(seconds)), expected);
        }
    }
}
