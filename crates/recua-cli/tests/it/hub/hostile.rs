//! Servers that lie, refuse, or lead elsewhere.

use std::fs;
use std::path::Path;

use super::server::{Answer, COMMIT, Change, Hub, Server, listing, part, sha256};
use super::{failed, first, large, unchanged};
use crate::refusal;
use crate::store::Home;

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
    let up = format!("{}evil", "../".repeat(20));
    assert_eq!(up.len(), sha.len());
    for (headers, words) in [
        (vec![("X-Linked-Size", "1")], "no checksum"),
        (vec![("X-Linked-Etag", "\"../../../../evil\""), ("X-Linked-Size", "1")], "no checksum"),
        (vec![("X-Linked-Etag", &up), ("X-Linked-Size", "1")], "no checksum"),
        (vec![("X-Linked-Etag", "\"abcdef\""), ("X-Linked-Size", "1")], "no checksum"),
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
        // It is given up before its end, which never comes.
        let is_large = body.len() > 1 << 20;
        let answer = Answer::new(200).body(body);
        let answer = if is_large { answer.header("Content-Length", 1_u64 << 40) } else { answer };
        let hub = Hub::with(&[], Box::new(move |_| Some(answer.clone())), unchanged());
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
    let limit = "\"resolvers\";r=0;t=0";
    for (status, name, value) in
        [(429, "Retry-After", "0"), (503, "Retry-After", "0"), (429, "RateLimit", limit)]
    {
        let home = Home::new();
        let hub = first(2, move |_| Answer::new(status).header(name, value));
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
