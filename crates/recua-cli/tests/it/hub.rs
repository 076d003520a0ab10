//! Downloads, from servers on this machine: those that answer as they should, those that fail, and those that lie.

mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::store::Home;
use crate::{Ran, golden, refusal};
use server::{Answer, COMMIT, Change, Hub, Request, Server, listing, part, sha256};

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
    let stall = first(1, move |request| Answer {
        stall: Some((200_000, Duration::from_secs(4))),
        ..part(request, &sent)
    });
    let hub = Hub::with(&[("a-Q4_K_M.gguf", &bytes)], unchanged(), stall);
    let start = Instant::now();
    let env = [("HF_ENDPOINT", hub.hub.url()), ("HF_HUB_DOWNLOAD_TIMEOUT", "1".into())];
    let env = env.each_ref().map(|(name, value)| (*name, value.as_str()));
    home.run_with(&["pull", "hf:org/repo"], &env).ok();
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
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
fn bytes_that_were_not_announced_are_refused() {
    let bytes = large();
    let mut other = bytes.clone();
    other[500_000] ^= 1;
    let longer = [&bytes[..], b"more"].concat();
    let huge = u64::MAX.to_string();
    for (answer, words, is_kept) in [
        (Answer::new(200).body(other), "another checksum", false),
        (Answer::new(200).body(longer.clone()), "announced 1000000 bytes, but the server has 1000004", true),
        (
            Answer { is_endless: true, ..Answer::new(200).body(longer) },
            "sends more than the 1000000 bytes",
            true,
        ),
        (
            Answer::new(200).body(bytes.clone()).header("Content-Length", &huge),
            "but the server has 18446744073709551615",
            true,
        ),
        (
            Answer::new(206).body(bytes.clone()).header("Content-Range", "bytes 5-999999/1000000"),
            "another part",
            true,
        ),
        (Answer::new(206).body(bytes.clone()), "another part", true),
    ] {
        let home = Home::new();
        let hub =
            Hub::with(&[("a-Q4_K_M.gguf", &bytes)], unchanged(), Box::new(move |_| Some(answer.clone())));
        failed(&home.pulling(&hub, &["pull", "hf:org/repo"]), &["hf:org/repo/a-Q4_K_M.gguf", words]);
        assert!(!home.blob(&bytes).exists() && !home.snapshot("a-Q4_K_M.gguf").exists());
        assert_eq!(home.incomplete(&bytes).exists(), is_kept, "{words}");
    }
}

#[test]
fn what_the_hub_says_about_a_file_is_not_trusted() {
    let sha = sha256(b"x");
    for (headers, words) in [
        (vec![("X-Linked-Size", "1")], "no checksum"),
        (vec![("X-Linked-Etag", "\"../../../../evil\""), ("X-Linked-Size", "1")], "no checksum"),
        (vec![("X-Linked-Etag", "\"abc\""), ("X-Linked-Size", "1")], "no checksum"),
        (vec![("X-Linked-Etag", &sha)], "does not say how large"),
        (vec![("X-Linked-Etag", &sha), ("X-Linked-Size", "-1")], "does not say how large"),
        // Nothing is allocated for a size, and nothing written before a byte comes.
        (vec![("X-Linked-Etag", &sha), ("X-Linked-Size", "18446744073709551615")], "but the server has 1"),
    ] {
        let home = Home::new();
        let headers: Vec<(String, String)> =
            headers.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
        let cdn = Server::new(|request| part(request, b"x"));
        let location = format!("{}/bytes", cdn.url());
        let change: Change = Box::new(move |request| {
            let answer =
                Answer { headers: headers.clone(), ..Answer::new(302) }.header("Location", &location);
            request.path.contains("/resolve/").then_some(answer)
        });
        let hub = Hub::with(&[("a-Q4_K_M.gguf", b"x")], change, unchanged());
        failed(&home.pulling(&hub, &["pull", "hf:org/repo"]), &["hf:org/repo/a-Q4_K_M.gguf", words]);
        assert!(!home.snapshot("a-Q4_K_M.gguf").exists());
    }
}

#[test]
fn a_listing_is_not_trusted() {
    let deep = "[".repeat(100_000);
    let large = format!("{{\"sha\":\"{COMMIT}\",\"x\":\"{}\"}}", "x".repeat(17 << 20));
    for (body, words) in [
        (listing([]).replace(COMMIT, "../../../x"), "names a commit that is none"),
        ("{}".into(), "does not answer as a Hugging Face Hub"),
        ("<html>".into(), "does not answer as a Hugging Face Hub"),
        (deep, "does not answer as a Hugging Face Hub"),
        (large, "more than 16 MiB"),
    ] {
        let home = Home::new();
        let hub = Hub::with(&[], Box::new(move |_| Some(Answer::new(200).body(body.clone()))), unchanged());
        failed(&home.pulling(&hub, &["pull", "hf:org/repo"]), &["hf:org/repo", words]);
        assert!(!Path::new(&home.path("hub")).exists());
    }
    // Files that would be written elsewhere are none.
    let home = Home::new();
    let names = [
        "../../../../evil-Q4_K_M.gguf",
        "/tmp/evil-Q4_K_M.gguf",
        "a\\..\\evil-Q4_K_M.gguf",
        "a/./evil-Q4_K_M.gguf",
    ];
    let body = listing(names);
    let hub = Hub::with(&[], Box::new(move |_| Some(Answer::new(200).body(body.clone()))), unchanged());
    refusal(home.pulling(&hub, &["pull", "hf:org/repo"]), &["no GGUF model"]);
}

#[test]
fn refusals_say_what_to_do() {
    let cases: [(u16, &str, &str, &str, &[&str]); 9] = [
        (401, "GatedRepo", "", "", &["is gated", "/org/repo, and set HF_TOKEN", "/settings/tokens"]),
        (403, "GatedRepo", "", "hf_x", &["is gated", "account of your token has no access", "/org/repo"]),
        (
            401,
            "RepoNotFound",
            "",
            "",
            &["org/repo does not exist on 127.0.0.1:", "for a private one set HF_TOKEN"],
        ),
        (401, "", "Invalid credentials", "hf_x", &["does not accept your token"]),
        (404, "RepoNotFound", "", "hf_x", &["does not exist on", "may not read it"]),
        (404, "RevisionNotFound", "", "", &["no such revision", "/org/repo"]),
        (404, "EntryNotFound", "", "", &["no such file"]),
        (403, "", "Access to this resource is \x1b[2J disabled.", "", &["refuses access", "disabled"]),
        (400, "", "bad", "", &["answers with status 400: bad"]),
    ];
    for (code, reason, message, token, words) in cases {
        for path in ["/api/", "/resolve/"] {
            let home = Home::new();
            let answer = Answer::new(code)
                .header("X-Error-Code", reason)
                .header("X-Error-Message", message.replace('\x1b', ""));
            let change: Change = Box::new(move |r| r.path.contains(path).then(|| answer.clone()));
            let hub = Hub::with(&[("a-Q4_K_M.gguf", b"x")], change, unchanged());
            let env = [("HF_ENDPOINT", hub.hub.url()), ("HF_TOKEN", token.into())];
            let env = env.each_ref().map(|(name, value)| (*name, value.as_str()));
            let ran = home.run_with(&["pull", "hf:org/repo"], &env);
            if code == 400 {
                failed(&ran, words);
            } else {
                refusal(ran, words);
            }
        }
    }
}

#[test]
fn a_server_that_asks_for_patience_is_asked_again() {
    for status in [429, 503] {
        let home = Home::new();
        let hub = first(2, move |_| Answer::new(status).header("Retry-After", 0));
        let hub = Hub::with(&[("a-Q4_K_M.gguf", b"x")], hub, unchanged());
        home.pulling(&hub, &["pull", "hf:org/repo"]).ok();
        // Three for the list of files, and two for the file.
        assert_eq!(hub.hub.requests().len(), 5);
    }
    let home = Home::new();
    // But not for long, and not for ever.
    let hub = Hub::with(&[], Box::new(|_| Some(Answer::new(429).header("Retry-After", 3000))), unchanged());
    failed(&home.pulling(&hub, &["pull", "hf:org/repo"]), &["too many requests", "try again in 3000 s"]);
    assert_eq!(hub.hub.requests().len(), 1);
    let hub = Hub::with(&[], Box::new(|_| Some(Answer::new(500).header("Retry-After", 0))), unchanged());
    failed(&home.pulling(&hub, &["pull", "hf:org/repo"]), &["answers with status 500"]);
    assert_eq!(hub.hub.requests().len(), 5);
}

#[test]
fn redirects_are_followed_as_far_as_they_may_be() {
    // A repository that was renamed.
    let home = Home::new();
    let bytes = b"renamed";
    let files: [(&str, &[u8]); 1] = [("a-Q4_K_M.gguf", bytes)];
    let old: Change = Box::new(|request| {
        let path = request
            .path
            .strip_prefix("/api/models/old/name/")
            .map(|rest| format!("/api/models/org/repo/{rest}"));
        let path = path.or_else(|| Some(format!("/org/repo/{}", request.path.strip_prefix("/old/name/")?)));
        Some(Answer::new(307).header("Location", path?))
    });
    let hub = Hub::with(&files, old, unchanged());
    home.pulling(&hub, &["pull", "hf:old/name"]).ok();
    let renamed = home.path(&format!("hub/models--old--name/snapshots/{COMMIT}/a-Q4_K_M.gguf"));
    assert_eq!(fs::read(renamed).unwrap(), bytes);
    assert!(hub.hub.requests().iter().all(|r| r.headers.contains_key("authorization")));

    // From server to server, the token stays at home.
    let other =
        Server::new(|request| Answer::new(200).body(listing([])).header("Seen", request.path.clone()));
    let location = format!("{}/elsewhere", other.url());
    let hub =
        Hub::with(&[], Box::new(move |_| Some(Answer::new(302).header("Location", &location))), unchanged());
    refusal(home.pulling(&hub, &["pull", "hf:org/repo"]), &["no GGUF model"]);
    assert!(other.requests().len() == 1 && !other.requests()[0].headers.contains_key("authorization"));

    for (location, words, n) in
        [("/again", "more than 10 times", 11), ("file:///etc/passwd", "to nowhere", 1), ("", "to nowhere", 1)]
    {
        let answer = Answer::new(302);
        let answer = if location.is_empty() { answer } else { answer.header("Location", location) };
        let hub = Hub::with(&[], Box::new(move |_| Some(answer.clone())), unchanged());
        failed(&home.pulling(&hub, &["pull", "hf:org/repo"]), &["redirects", words]);
        assert_eq!(hub.hub.requests().len(), n, "{location}");
    }
}

#[test]
fn two_processes_download_a_file_once() {
    let home = Home::new();
    let bytes = large();
    let sent = bytes.clone();
    let slow: Change =
        Box::new(move |r| Some(Answer { stall: Some((1000, Duration::from_millis(800))), ..part(r, &sent) }));
    let hub = Hub::with(&[("a-Q4_K_M.gguf", &bytes)], unchanged(), slow);
    let notes: Vec<String> = std::thread::scope(|scope| {
        let pulls =
            [(); 3].map(|()| scope.spawn(|| home.pulling(&hub, &["pull", "hf:org/repo"]).ok().stderr));
        pulls.into_iter().map(|pull| pull.join().unwrap()).collect()
    });
    assert_eq!(hub.cdn.requests().len(), 1);
    assert_eq!(
        notes.iter().filter(|note| note.contains("waiting for another process")).count(),
        2,
        "{notes:?}"
    );
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
