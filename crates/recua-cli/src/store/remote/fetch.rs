//! One file from the Hub into the cache: locked, resumed, checked, and only then given its name.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use ureq::http::{StatusCode, header};

use super::client::{Client, Reply};
use super::status::Trouble;
use crate::failure::Result;
use crate::output::{bytes, note, printable};
use crate::store::cache::{Cache, RepoFolder, writing};
use crate::store::name::is_commit;

/// How often a connection may break without a single new byte.
const FRUITLESS_TRIES_MAX: u32 = 5;
const BUFFER_BYTES: usize = 256 << 10;

/// What the Hub says about a file.
struct Facts {
    url: String,
    checksum: Checksum,
    /// In bytes.
    size: u64,
}

/// The name of a blob, which is the checksum of its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Checksum(String);

impl Checksum {
    /// From an `ETag`: SHA-256 for large files, and for small ones SHA-1 as git computes it.
    fn parse(etag: &str) -> Option<Checksum> {
        let hex = etag.trim_start_matches("W/").trim_matches('"');
        let is_hex = hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        (is_hex && matches!(hex.len(), 40 | 64)).then(|| Checksum(hex.to_owned()))
    }

    /// A computation that begins with nothing. `size` is that of the whole file.
    fn begin(&self, size: u64) -> Context {
        if self.0.len() == 64 {
            return Context::new(&SHA256);
        }
        let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
        context.update(format!("blob {size}\0").as_bytes());
        context
    }
}

/// Brings a file of a commit into the cache, unless it is there.
pub(super) fn fetch(client: &Client, cache: &Cache, folder: &RepoFolder, commit: &str, file: &str) -> Result {
    let link = folder.snapshot(commit).join(file);
    if link.is_file() {
        return Ok(());
    }
    let name = format!("hf:{}/{file}", folder.repo);
    let failure = |trouble: Trouble| trouble.failure(client, &name, &folder.repo);
    let facts = facts(client, folder, commit, file).map_err(failure)?;
    let _lock = folder
        .lock(&facts.checksum.0, || note!("note: waiting for another process that downloads {name}"))?;
    // The process that had the lock may have done it all.
    if link.is_file() {
        return Ok(());
    }
    let blob = folder.blobs().join(&facts.checksum.0);
    let is_new = !fs::metadata(&blob).is_ok_and(|m| m.is_file() && m.len() == facts.size);
    if is_new {
        create_folder(&folder.blobs())?;
        tag(cache.root());
        note!("downloading {} ({})", printable(&name), bytes(facts.size));
        download(client, &facts, &blob, file).map_err(failure)?;
    }
    place(&blob, &facts.checksum.0, &link, file, is_new)
}

/// Notes which commit a revision means.
pub(super) fn set_ref(folder: &RepoFolder, revision: &str, commit: &str) -> Result {
    if is_commit(revision) || folder.commit(revision).as_deref() == Some(commit) {
        return Ok(());
    }
    let path = folder.path.join("refs").join(revision);
    if let Some(parent) = path.parent() {
        create_folder(parent)?;
    }
    // Renamed, so that nobody reads half a commit; named after the process, so that two do not share it.
    let temporary = path.with_file_name(format!(".{}.tmp", std::process::id()));
    let written = fs::write(&temporary, commit).and_then(|()| fs::rename(&temporary, &path));
    written.map_err(|e| writing(&path, &e))
}

fn facts(
    client: &Client,
    folder: &RepoFolder,
    commit: &str,
    file: &str,
) -> std::result::Result<Facts, Trouble> {
    let url = client.file_url(&folder.repo, commit, file);
    let reply = client.head(&url)?;
    let checksum = reply.etag.as_deref().and_then(Checksum::parse).ok_or_else(|| {
        Trouble::Final(format!(
            "{} gives no checksum for it; a mirror must pass on X-Linked-Etag, as the Hub sends it",
            client.host()
        ))
    })?;
    let size = reply
        .size
        .ok_or_else(|| Trouble::Final(format!("{} does not say how large it is", client.host())))?;
    Ok(Facts { url, checksum, size })
}

/// The bytes that are there so far.
struct Partial {
    path: PathBuf,
    file: File,
    len: u64,
    digest: Context,
}

impl Partial {
    /// What an earlier try has left, or a new file.
    fn open(path: PathBuf, facts: &Facts) -> std::result::Result<Partial, Trouble> {
        let opened = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let file = opened.map_err(|e| writing(&path, &e))?;
        let mut partial = Partial { path, file, len: 0, digest: facts.checksum.begin(facts.size) };
        partial.read_what_is_there(facts)?;
        Ok(partial)
    }

    fn read_what_is_there(&mut self, facts: &Facts) -> std::result::Result<(), Trouble> {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let n = self.file.read(&mut buffer).map_err(|e| writing(&self.path, &e))?;
            if n == 0 {
                return Ok(());
            }
            self.len += n as u64;
            if self.len > facts.size {
                return self.restart(facts);
            }
            self.digest.update(&buffer[..n]);
        }
    }

    /// Forgets all bytes.
    fn restart(&mut self, facts: &Facts) -> std::result::Result<(), Trouble> {
        self.digest = facts.checksum.begin(facts.size);
        self.len = 0;
        let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map(drop).map_err(|e| writing(&self.path, &e).into())
    }

    fn append(&mut self, more: &[u8]) -> std::result::Result<(), Trouble> {
        self.file.write_all(more).map_err(|e| writing(&self.path, &e))?;
        self.digest.update(more);
        self.len += more.len() as u64;
        Ok(())
    }

    fn has(&self, checksum: &Checksum) -> bool {
        let digest = self.digest.clone().finish();
        let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        hex == checksum.0
    }
}

/// Downloads to `blob.incomplete` until it is complete, and renames it if it is what was announced.
fn download(client: &Client, facts: &Facts, blob: &Path, file: &str) -> std::result::Result<(), Trouble> {
    let path = blob.with_file_name(format!("{}.incomplete", facts.checksum.0));
    let mut partial = Partial::open(path, facts)?;
    let bar = progress_bar(facts.size, partial.len, file);
    let received = receive_verified(client, facts, &mut partial, &bar);
    bar.finish_and_clear();
    received?;
    // A blob that is there counts as complete, so it must not appear before its bytes are safe.
    let stored = partial.file.sync_all().and_then(|()| fs::rename(&partial.path, blob));
    stored.map_err(|e| writing(blob, &e).into())
}

/// Receives the whole file, and once more if bytes of an earlier time were at fault.
fn receive_verified(
    client: &Client,
    facts: &Facts,
    partial: &mut Partial,
    bar: &ProgressBar,
) -> std::result::Result<(), Trouble> {
    let mut is_resumed = partial.len > 0;
    loop {
        receive_all(client, facts, partial, bar)?;
        if partial.has(&facts.checksum) {
            return Ok(());
        }
        partial.restart(facts)?;
        if !is_resumed {
            let _ = fs::remove_file(&partial.path);
            let message = "what was downloaded has another checksum than the Hub announced, and was deleted";
            return Err(Trouble::Final(message.into()));
        }
        is_resumed = false;
    }
}

/// Receives until the file has its size, over as many connections as it takes.
fn receive_all(
    client: &Client,
    facts: &Facts,
    partial: &mut Partial,
    bar: &ProgressBar,
) -> std::result::Result<(), Trouble> {
    let mut fruitless = 0;
    while partial.len < facts.size {
        let before = partial.len;
        match receive(client, facts, partial, bar) {
            Ok(()) => {}
            Err(Trouble::Network(why)) => {
                fruitless = if partial.len > before { 0 } else { fruitless + 1 };
                if fruitless == FRUITLESS_TRIES_MAX {
                    let message =
                        format!("{why}; what has arrived is kept, so the same command goes on from there");
                    return Err(Trouble::Network(message));
                }
                std::thread::sleep(Duration::from_millis(250 << fruitless));
            }
            Err(other) => return Err(other),
        }
    }
    Ok(())
}

/// Receives as much as one connection gives.
fn receive(
    client: &Client,
    facts: &Facts,
    partial: &mut Partial,
    bar: &ProgressBar,
) -> std::result::Result<(), Trouble> {
    let response = match client.get(&facts.url, partial.len) {
        Ok(Reply { response, .. }) => response,
        // What is here was not the beginning of what is there.
        Err(Trouble::Status(status)) if status.is_beyond_end() && partial.len > 0 => {
            partial.restart(facts)?;
            return Err(Trouble::Network("the server cannot resume".into()));
        }
        Err(other) => return Err(other),
    };
    let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let announced = match response.status() {
        StatusCode::PARTIAL_CONTENT => {
            let (from, size) = text(header::CONTENT_RANGE).and_then(content_range).unzip();
            if from != Some(partial.len) {
                return Err(Trouble::Final(
                    "the server sends another part of the file than was asked for".into(),
                ));
            }
            size.flatten()
        }
        _ => {
            // A server that cannot resume begins anew.
            if partial.len > 0 {
                partial.restart(facts)?;
            }
            text(header::CONTENT_LENGTH).and_then(|len| len.parse().ok())
        }
    };
    if announced.is_some_and(|size| size != facts.size) {
        let (a, b) = (facts.size, announced.unwrap_or_default());
        return Err(Trouble::Final(format!("the Hub announced {a} bytes, but the server has {b}")));
    }
    let mut body = response.into_body().into_reader();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let n = match body.read(&mut buffer) {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) if e.kind() == io::ErrorKind::TimedOut => {
                return Err(Trouble::Network("the download has stalled".into()));
            }
            Err(e) => return Err(Trouble::Network(e.to_string())),
        };
        if n == 0 && partial.len < facts.size {
            return Err(Trouble::Network("the connection was closed too early".into()));
        }
        if n as u64 > facts.size - partial.len {
            let message =
                format!("the server sends more than the {} bytes that the Hub announced", facts.size);
            return Err(Trouble::Final(message));
        }
        if n == 0 {
            return Ok(());
        }
        partial.append(&buffer[..n])?;
        bar.set_position(partial.len);
    }
}

/// `bytes 5-9/10` is (5, Some(10)).
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, size.parse().ok()))
}

/// Gives a blob its name in a snapshot.
fn place(blob: &Path, etag: &str, link: &Path, file: &str, is_new: bool) -> Result {
    if let Some(folder) = link.parent() {
        create_folder(folder)?;
    }
    // A link to a blob that was gone, or one that another process has just made.
    let _ = fs::remove_file(link);
    let up = "../".repeat(2 + file.matches('/').count());
    match symlink(&format!("{up}blobs/{etag}"), link) {
        Err(_) if link.is_file() => Ok(()),
        Ok(()) => Ok(()),
        // Where there are no links, huggingface_hub too has the file itself in the snapshot.
        Err(_) if is_new => fs::rename(blob, link).map_err(|e| writing(link, &e)),
        Err(_) => fs::copy(blob, link).map(drop).map_err(|e| writing(link, &e)),
    }
}

#[cfg(unix)]
fn symlink(target: &str, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &str, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target.replace('/', "\\"), link)
}

fn create_folder(path: &Path) -> Result {
    fs::create_dir_all(path).map_err(|e| writing(path, &e))
}

/// Tells backup programs that the folder can be had again (the file of bford.info/cachedir).
fn tag(root: &Path) {
    const SIGNATURE: &str =
        "Signature: 8a477f597d28d172789f06886806bc55\n# A cache of models of the Hugging Face Hub.\n";
    let path = root.join("CACHEDIR.TAG");
    if !path.exists() {
        // Only a courtesy.
        let _ = fs::write(path, SIGNATURE);
    }
}

/// Shown on stderr, and only if that is a terminal. `len` bytes are there already.
fn progress_bar(size: u64, len: u64, file: &str) -> ProgressBar {
    let bar = ProgressBar::new(size).with_position(len);
    // What is there took no time.
    bar.reset_eta();
    let template = "{bar:30} {binary_bytes}/{binary_total_bytes}, {binary_bytes_per_sec}, {eta} left  {msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(printable(file.rsplit('/').next().unwrap_or(file)));
    bar
}
