//! Downloads from a server on this machine that answers as the Hub does, over connections that break.

mod hostile;
mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::store::Home;
use crate::{Ran, golden, refusal};
use server::{Answer, COMMIT, Change, Hub, Request, part, sha256};

const REPO: &str = "hub/models--org--repo";

impl Home {
    fn pulling(&self, hub: &Hub, args: &[&str]) -> Ran {
        self.run_with(args, &[("HF_ENDPOINT", &hub.hub.url()), ("HF_TOKEN", "hf_secret")])
    }

    fn blob(&self, bytes: &[u8]) -> PathBuf {
        self.path(&format!("{REPO}/blobs/{}", sha256(bytes))).into()
    }

    fn incomplete(&self, bytes: &[u8]) -> PathBuf {
        self.path(&format!("{REPO}/blobs/{}.incomplete", sha256(bytes))).into()
    }

    fn snapshot(&self, file: &str) -> PathBuf {
        self.path(&format!("{REPO}/snapshots/{COMMIT}/{file}")).into()
    }
}

/// A megabyte that is not the same everywhere.
fn large() -> Vec<u8> {
    (0..1_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// The first `n` calls.
fn first(n: usize, change: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Change {
    let calls = AtomicUsize::new(0);
    Box::new(move |request| (calls.fetch_add(1, Ordering::SeqCst) < n).then(|| change(request)))
}

fn unchanged() -> Change {
    Box::new(|_| None)
}

/// Fails unless the program fails with exit code 1, nothing on stdout, and a last sentence that has these words.
fn failed(ran: &Ran, words: &[&str]) {
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stdout.is_empty());
    let last = ran.stderr.lines().last().unwrap_or_default();
    assert!(last.starts_with("error: ") && !ran.stderr.contains("panicked"), "{}", ran.stderr);
    for word in words {
        assert!(last.contains(word), "{word:?} is not in {last:?}");
    }
}

#[test]
fn a_model_is_pulled_into_the_shared_cache() {
    let home = Home::new();
    let model = fs::read(golden("Q4_K_M")).unwrap();
    let hub = Hub::new(&[("README.md", b"#"), ("tiny-Q4_K_M.gguf", &model), ("mmproj-Q4_K_M.gguf", b"x")]);
    let ran = home.pulling(&hub, &["pull", "hf:org/repo"]).ok();
    let link = home.snapshot("tiny-Q4_K_M.gguf");
    assert_eq!(ran.text(), format!("{}\n", link.display()));
    assert!(ran.stderr.contains("downloading hf:org/repo/tiny-Q4_K_M.gguf"), "{}", ran.stderr);
    assert_eq!(fs::read_link(&link).unwrap(), Path::new(&format!("../../blobs/{}", sha256(&model))));
    assert_eq!(fs::read(&link).unwrap(), model);
    assert_eq!(fs::read_to_string(home.path(&format!("{REPO}/refs/main"))).unwrap(), COMMIT);
    assert!(
        fs::read_to_string(home.path("hub/CACHEDIR.TAG"))
            .unwrap()
            .starts_with("Signature: 8a477f597d28d172789f06")
    );
    assert!(Path::new(&home.path(&format!("hub/.locks/models--org--repo/{}.lock", sha256(&model)))).exists());
    assert!(!home.incomplete(&model).exists());

    // The token is for the Hub alone, and is told to nobody.
    let token = |request: &Request| request.headers.get("authorization").cloned();
    assert!(hub.hub.requests().iter().all(|r| token(r).as_deref() == Some("Bearer hf_secret")));
    assert!(hub.cdn.requests().len() == 1 && hub.cdn.requests().iter().all(|r| token(r).is_none()));
    assert!(!ran.stderr.contains("secret"));

    // What is here needs no network; `pull` asks whether there is something new, and downloads nothing.
    let n_asked = hub.hub.requests().len();
    for name in ["hf:org/repo", "hf:org/repo:q4_k_m", "hf:org/repo/tiny-Q4_K_M.gguf"] {
        home.pulling(&hub, &["inspect", name, "--strict"]).ok();
    }
    assert_eq!(hub.hub.requests().len(), n_asked);
    home.pulling(&hub, &["pull", "hf:org/repo"]).ok();
    assert_eq!((hub.hub.requests().len(), hub.cdn.requests().len()), (n_asked + 1, 1));
}

#[test]
fn every_command_downloads_what_is_missing() {
    let home = Home::new();
    let model = fs::read(golden("Q8_0")).unwrap();
    let hub = Hub::new(&[("sub/tiny-Q8_0.gguf", &model)]);
    let ran = home.pulling(&hub, &["tokenize", "hf:org/repo@refs/pr/1:q8_0", "a"]).ok();
    assert_eq!(ran.text(), crate::recua(&["tokenize", &golden("Q8_0"), "a"]).ok().text());
    assert_eq!(hub.hub.paths("GET")[0], "/api/models/org/repo/revision/refs%2Fpr%2F1");
    assert_eq!(fs::read_to_string(home.path(&format!("{REPO}/refs/refs/pr/1"))).unwrap(), COMMIT);
    let target = fs::read_link(home.snapshot("sub/tiny-Q8_0.gguf")).unwrap();
    assert_eq!(target, Path::new(&format!("../../../blobs/{}", sha256(&model))));
    let copy = home.path("copy.gguf");
    home.pulling(&hub, &["quantize", "hf:org/repo@refs/pr/1", &copy, "Q4_0"]).ok();
    let out = home.snapshot("sub/tiny-Q8_0.gguf");
    let args = ["quantize", "hf:org/repo@refs/pr/1", out.to_str().unwrap(), "Q4_0"];
    refusal(home.pulling(&hub, &args), &["is also the input"]);
}

#[test]
fn a_split_model_is_pulled_whole() {
    let home = Home::new();
    let names: Vec<String> = (1..=3).map(|i| format!("Q8_0/a-Q8_0-0000{i}-of-00003.gguf")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), name.as_bytes())).collect();
    let hub = Hub::new(&files);
    let ran = home.pulling(&hub, &["pull", "hf:org/repo"]).ok();
    assert_eq!(ran.text().trim_end(), home.snapshot(&names[0]).to_str().unwrap());
    for name in &names {
        assert_eq!(fs::read(home.snapshot(name)).unwrap(), name.as_bytes());
    }
    let hub = Hub::new(&files[1..]);
    refusal(home.pulling(&hub, &["pull", "hf:org/repo"]), &["lacks parts"]);
}

#[test]
fn a_name_that_fits_none_or_several_is_an_error_that_lists_them() {
    let home = Home::new();
    let hub = Hub::new(&[
        ("a-Q6_K.gguf", b"x"),
        ("a-Q8_0.gguf", b"x"),
        ("b-Q8_0.gguf", b"x"),
        ("c.safetensors", b"x"),
    ]);
    let pull = |name: &str, words: &[&str]| refusal(home.pulling(&hub, &["pull", name]), words);
    pull("hf:org/repo", &["has no Q4_K_M", "Q6_K, a-Q8_0.gguf, b-Q8_0.gguf"]);
    pull("hf:org/repo:Q8_0", &["fits 2 models", "a-Q8_0.gguf, b-Q8_0.gguf"]);
    pull("hf:org/repo:Q5_0", &["is not in org/repo, which has Q6_K"]);
    pull("hf:org/repo/c.gguf", &["is not in org/repo, which has"]);
    pull("a.gguf", &["not on the Hugging Face Hub", "hf:org/repo"]);
    assert!(!Path::new(&home.path("hub")).exists());
    refusal(home.run_with(&["pull", "hf:org/repo"], &[("HF_HUB_OFFLINE", "1")]), &["HF_HUB_OFFLINE"]);
}

#[test]
fn a_download_goes_on_where_it_was_cut() {
    let home = Home::new();
    let bytes = large();
    let sent = bytes.clone();
    let cut = first(2, move |request| Answer { cut_at: Some(300_000), ..part(request, &sent) });
    let hub = Hub::with(&[("a-Q4_K_M.gguf", &bytes)], unchanged(), cut);
    home.pulling(&hub, &["pull", "hf:org/repo"]).ok();
    let ranges: Vec<_> = hub.cdn.requests().iter().map(|r| r.headers.get("range").cloned()).collect();
    assert_eq!(ranges, [None, Some("bytes=300000-".into()), Some("bytes=600000-".into())]);
    assert_eq!(fs::read(home.blob(&bytes)).unwrap(), bytes);
}

#[test]
fn a_download_goes_on_where_an_earlier_one_ended() {
    let bytes = large();
    let mut wrong = bytes[..400_000].to_vec();
    wrong[7] ^= 1;
    for (there, ranges) in [
        (&bytes[..400_000], vec![Some("bytes=400000-")]),
        (&bytes[..], vec![]),
        // What is no beginning of this file is given up, once it is known.
        (&wrong, vec![Some("bytes=400000-"), None]),
        (&[&bytes[..], b"more"].concat(), vec![None]),
    ] {
        let home = Home::new();
        let hub = Hub::new(&[("a-Q4_K_M.gguf", &bytes)]);
        fs::create_dir_all(home.path(&format!("{REPO}/blobs"))).unwrap();
        fs::write(home.incomplete(&bytes), there).unwrap();
        home.pulling(&hub, &["pull", "hf:org/repo"]).ok();
        let asked: Vec<_> = hub.cdn.requests().iter().map(|r| r.headers.get("range").cloned()).collect();
        assert_eq!(asked.iter().map(Option::as_deref).collect::<Vec<_>>(), ranges);
        assert_eq!(fs::read(home.blob(&bytes)).unwrap(), bytes);
    }
}

#[test]
fn a_server_that_cannot_resume_begins_anew() {
    let home = Home::new();
    let bytes = large();
    let sent = bytes.clone();
    let whole: Change = Box::new(move |_| Some(Answer::new(200).body(sent.clone())));
    let hub = Hub::with(&[("a-Q4_K_M.gguf", &bytes)], unchanged(), whole);
    fs::create_dir_all(home.path(&format!("{REPO}/blobs"))).unwrap();
    fs::write(home.incomplete(&bytes), &bytes[..5]).unwrap();
    home.pulling(&hub, &["pull", "hf:org/repo"]).ok();
    assert_eq!(fs::read(home.blob(&bytes)).unwrap(), bytes);
}

#[test]
fn a_download_that_stalls_is_begun_again() {
    let home = Home::new();
    let bytes = large();
    let sent = bytes.clone();
    let stalled = move |request: &Request| Answer {
        stall: Some((200_000, Duration::from_secs(6))),
        ..part(request, &sent)
    };
    let hub = Hub::with(&[("a-Q4_K_M.gguf", &bytes)], unchanged(), first(1, stalled));
    let env = [("HF_ENDPOINT", hub.hub.url()), ("HF_HUB_DOWNLOAD_TIMEOUT", "2".into())];
    let env = env.each_ref().map(|(name, value)| (*name, value.as_str()));
    home.run_with(&["pull", "hf:org/repo"], &env).ok();
    assert_eq!(hub.cdn.requests().len(), 2);
    assert!(hub.cdn.requests()[1].headers["range"].starts_with("bytes=200000-"));
}

#[test]
fn a_connection_that_always_breaks_is_given_up_and_what_came_is_kept() {
    let home = Home::new();
    let bytes = large();
    let sent = bytes.clone();
    let calls = AtomicUsize::new(0);
    let cut: Change = Box::new(move |request| {
        let n = if calls.fetch_add(1, Ordering::SeqCst) == 0 { 1000 } else { 0 };
        Some(Answer { cut_at: Some(n), ..part(request, &sent) })
    });
    let hub = Hub::with(&[("a-Q4_K_M.gguf", &bytes)], unchanged(), cut);
    let ran = home.pulling(&hub, &["pull", "hf:org/repo"]);
    failed(&ran, &["hf:org/repo/a-Q4_K_M.gguf", "the same command goes on from there"]);
    assert_eq!(fs::read(home.incomplete(&bytes)).unwrap(), &bytes[..1000]);
    assert!(!home.blob(&bytes).exists() && !home.snapshot("a-Q4_K_M.gguf").exists());
    assert!(!Path::new(&home.path(&format!("{REPO}/refs/main"))).exists());
}

#[test]
fn two_processes_download_a_file_once() {
    const N: usize = 3;
    let home = Home::new();
    let bytes = large();
    let sent = bytes.clone();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let counted: Change = Box::new(move |request| {
        count.fetch_add((request.method == "HEAD").into(), Ordering::SeqCst);
        None
    });
    // The first bytes come when all processes know the file.
    let late: Change = Box::new(move |request| {
        for _ in 0..100 {
            if asked.load(Ordering::SeqCst) == N {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(Answer { stall: Some((0, Duration::from_millis(500))), ..part(request, &sent) })
    });
    let hub = Hub::with(&[("a-Q4_K_M.gguf", &bytes)], counted, late);
    let notes: Vec<String> = std::thread::scope(|scope| {
        let pulls =
            [(); N].map(|()| scope.spawn(|| home.pulling(&hub, &["pull", "hf:org/repo"]).ok().stderr));
        pulls.into_iter().map(|pull| pull.join().unwrap()).collect()
    });
    assert_eq!(hub.cdn.requests().len(), 1);
    assert!(notes.iter().any(|note| note.contains("waiting for another process")), "{notes:?}");
    assert_eq!(fs::read(home.snapshot("a-Q4_K_M.gguf")).unwrap(), bytes);
}

#[test]
fn without_a_network_the_cache_must_do() {
    let home = Home::new();
    let model = fs::read(golden("Q8_0")).unwrap();
    // Nothing listens there.
    failed(&home.run(&["inspect", "hf:org/repo"]), &["hf:org/repo", "127.0.0.1:9 cannot be reached"]);
    home.cached('1', "only-Q8_0.gguf", 'a', &model);
    let ran = home.run(&["inspect", "hf:org/repo"]).ok();
    assert!(ran.stderr.contains("using what is in the cache"), "{}", ran.stderr);
    failed(&home.run(&["inspect", "hf:org/repo:Q6_K"]), &["cannot be reached"]);
    failed(&home.run(&["pull", "hf:org/repo"]), &["cannot be reached"]);
}

#[test]
fn a_newer_commit_is_pulled_and_shares_what_is_the_same() {
    let home = Home::new();
    let bytes = large();
    home.cached('1', "a-Q4_K_M.gguf", 'a', b"old");
    let hub = Hub::new(&[("a-Q4_K_M.gguf", &bytes), ("b-Q8_0.gguf", &bytes)]);
    // The commit that is here is used until somebody pulls.
    assert_ne!(home.pulling(&hub, &["inspect", "hf:org/repo"]).code, 0, "it is no GGUF file");
    assert!(hub.hub.requests().is_empty());
    home.pulling(&hub, &["pull", "hf:org/repo"]).ok();
    assert_eq!(fs::read(home.snapshot("a-Q4_K_M.gguf")).unwrap(), bytes);
    home.pulling(&hub, &["pull", "hf:org/repo:q8_0"]).ok();
    assert_eq!(hub.cdn.requests().len(), 1, "the same bytes are downloaded once");
    assert_eq!(fs::read(home.snapshot("b-Q8_0.gguf")).unwrap(), bytes);
}

#[test]
fn settings_that_cannot_be_used_are_named() {
    let home = Home::new();
    let no_pem = home.0.write("no.pem", b"no certificate");
    for (name, value, words) in [
        ("HF_ENDPOINT", "huggingface.co", "not an address of a server"),
        ("HF_ENDPOINT", "ftp://huggingface.co", "not an address of a server"),
        ("HF_TOKEN", "a\tb", "HF_TOKEN"),
        ("SSL_CERT_FILE", &no_pem, "no certificate"),
        ("SSL_CERT_FILE", "/no/such/file", "SSL_CERT_FILE /no/such/file"),
    ] {
        let message = refusal(home.run_with(&["pull", "hf:org/repo"], &[(name, value)]), &[words]);
        assert!(name != "HF_TOKEN" || !message.contains("a\tb") && !message.contains("a\\tb"), "{message}");
    }
    // The token of `hf auth login`.
    home.0.write("token", b"hf_file\n");
    let hub = Hub::new(&[("a-Q4_K_M.gguf", b"x")]);
    home.run_with(&["pull", "hf:org/repo"], &[("HF_ENDPOINT", &hub.hub.url())]).ok();
    assert!(hub.hub.requests().iter().all(|r| r.headers["authorization"] == "Bearer hf_file"));
}
