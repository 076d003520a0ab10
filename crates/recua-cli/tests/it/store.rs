//! Models by name that are already on the disk: the Hugging Face cache, Ollama's store, `list` and `rm`.

use std::fs;
use std::path::Path;

use crate::{Folder, Ran, golden, recua_with_env, refusal};

/// A home folder without models.
pub(crate) struct Home(pub(crate) Folder);

impl Home {
    pub(crate) fn new() -> Home {
        Home(Folder::new())
    }

    /// Runs the program for somebody who lives here.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, &[])
    }

    pub(crate) fn run_with(&self, args: &[&str], env: &[(&str, &str)]) -> Ran {
        let (cache, token, ollama) = (self.0.path("hub"), self.0.path("token"), self.0.path("ollama"));
        let mut all = vec![
            ("HF_HUB_CACHE", cache.as_str()),
            ("HF_TOKEN_PATH", &token),
            ("HF_TOKEN", ""),
            ("HUGGING_FACE_HUB_TOKEN", ""),
            // Nothing listens there.
            ("HF_ENDPOINT", "http://127.0.0.1:9"),
            ("HF_HUB_OFFLINE", ""),
            ("TRANSFORMERS_OFFLINE", ""),
            ("OLLAMA_MODELS", &ollama),
            ("SSL_CERT_FILE", ""),
            ("NO_PROXY", "*"),
            ("no_proxy", "*"),
        ];
        all.extend(env);
        recua_with_env(args, &all)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.path(name)
    }

    /// A file in the cache as huggingface_hub puts it there.
    pub(crate) fn cached(&self, commit: char, file: &str, etag: char, bytes: &[u8]) {
        let repo = self.path("hub/models--org--repo");
        let (commit, etag) = (commit.to_string().repeat(40), etag.to_string().repeat(64));
        let link = format!("{repo}/snapshots/{commit}/{file}");
        for folder in [format!("{repo}/blobs"), format!("{repo}/refs"), parent(&link)] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(format!("{repo}/refs/main"), &commit).unwrap();
        fs::write(format!("{repo}/blobs/{etag}"), bytes).unwrap();
        let up = "../".repeat(2 + file.matches('/').count());
        std::os::unix::fs::symlink(format!("{up}blobs/{etag}"), link).unwrap();
    }

    fn exists(&self, name: &str) -> bool {
        Path::new(&self.path(name)).symlink_metadata().is_ok()
    }

    /// A model in Ollama's store; `layers` are its media types.
    fn stored_by_ollama(&self, manifest: &str, layers: &[&str], bytes: &[u8]) {
        let digest = |c: char| format!("sha256:{}", c.to_string().repeat(64));
        let layer =
            |ty: &&str| serde_json::json!({ "mediaType": ty, "digest": digest('a'), "size": bytes.len() });
        let json = serde_json::json!({
            "config": { "digest": digest('c') },
            "layers": layers.iter().map(layer).collect::<Vec<_>>(),
        });
        let path = self.path(&format!("ollama/manifests/{manifest}"));
        for folder in [parent(&path), self.path("ollama/blobs")] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(path, json.to_string()).unwrap();
        fs::write(self.path(&format!("ollama/blobs/sha256-{}", "a".repeat(64))), bytes).unwrap();
        let config = self.path(&format!("ollama/blobs/sha256-{}", "c".repeat(64)));
        fs::write(config, r#"{"file_type":"Q8_0"}"#).unwrap();
    }
}

fn parent(path: &str) -> String {
    path.rsplit_once('/').unwrap().0.to_owned()
}

const MODEL_LAYER: &str = "application/vnd.ollama.image.model";

#[test]
fn a_model_in_the_cache_is_used_by_its_name() {
    let home = Home::new();
    home.cached('1', "tiny-Q4_K_M.gguf", 'a', &fs::read(golden("Q4_K_M")).unwrap());
    home.cached('1', "sub/tiny-Q8_0.gguf", 'b', &fs::read(golden("Q8_0")).unwrap());
    let commit = "1".repeat(40);
    for (name, ty) in [
        ("hf:org/repo", "Q4_K"),
        ("hf:org/repo:q4_k_m", "Q4_K"),
        ("hf:org/repo:Q8_0", "Q8_0"),
        ("hf:org/repo/sub/tiny-Q8_0.gguf", "Q8_0"),
        ("hf:org/repo@main:Q8_0", "Q8_0"),
        (&format!("hf:org/repo@{commit}:Q8_0"), "Q8_0"),
    ] {
        let json = home.run(&["inspect", name, "--json"]).ok().json();
        assert!(
            json["types"].as_array().unwrap().iter().any(|t| t["type"] == ty),
            "{name}: {}",
            json["types"]
        );
    }
    let tokens = home.run(&["tokenize", "hf:org/repo", "a"]).ok();
    assert_eq!(tokens.text(), home.run(&["tokenize", &golden("Q4_K_M"), "a"]).ok().text());
}

#[test]
fn what_is_not_in_the_cache_is_an_error_that_lists_what_is() {
    let home = Home::new();
    let offline = [("HF_HUB_OFFLINE", "1")];
    let refused = |name: &str, words: &[&str]| refusal(home.run_with(&["inspect", name], &offline), words);
    refused("hf:org/repo", &["hf:org/repo: there is no GGUF model of it in the cache", "HF_HUB_OFFLINE"]);
    home.cached('1', "a-Q6_K.gguf", 'a', b"x");
    home.cached('1', "b-Q8_0.gguf", 'b', b"x");
    home.cached('1', "c-Q8_0.gguf", 'c', b"x");
    home.cached('1', "mmproj-Q4_K_M.gguf", 'd', b"x");
    refused("hf:org/repo", &["no Q4_K_M", "Q6_K, b-Q8_0.gguf, c-Q8_0.gguf"]);
    refused("hf:org/repo:Q8_0", &["fits 2 models", "b-Q8_0.gguf, c-Q8_0.gguf"]);
    refused("hf:org/repo:Q5_K_M", &["is not in the cache, which has Q6_K"]);
    refused("hf:org/repo@v2", &["hf:org/repo@v2", "no GGUF model"]);
    // A part of a split model is no model.
    home.cached('1', "d-Q3_K_M-00001-of-00002.gguf", 'e', b"x");
    refused("hf:org/repo:Q3_K_M", &["parts of it are missing in the cache"]);
    refused("hf:org", &["hf:org:", "hf:org/repo:Q4_K_M"]);
    refused("hf:org/repo/../../x.gguf", &["not the name of a GGUF file"]);
}

#[test]
fn every_command_takes_names() {
    let home = Home::new();
    let out = home.path("out");
    let offline = [("HF_HUB_OFFLINE", "1")];
    for name in ["hf:somebody/something:Q4_K_M", "ollama:something"] {
        for args in [
            &["run", name, "x"][..],
            &["chat", name],
            &["bench", name],
            &["bench", "ops", name],
            &["verify-batch", name],
            &["logits", name, "--tokens", "1", "--out", &out],
            &["tokenize", name, "x"],
            &["inspect", name],
            &["quantize", name, &out, "Q8_0"],
        ] {
            refusal(home.run_with(args, &offline), &[name, "there "]);
        }
    }
}

#[test]
fn a_commit_that_is_none_is_not_followed() {
    let home = Home::new();
    home.cached('1', "a-Q4_K_M.gguf", 'a', &fs::read(golden("Q8_0")).unwrap());
    let offline = [("HF_HUB_OFFLINE", "1")];
    for text in ["../../../x", "", &"1".repeat(41), &format!("{}\n", "1".repeat(40))] {
        fs::write(home.path("hub/models--org--repo/refs/main"), text).unwrap();
        refusal(home.run_with(&["inspect", "hf:org/repo"], &offline), &["no GGUF model"]);
    }
}

#[test]
fn a_file_of_that_very_name_comes_first() {
    let folder = Folder::new();
    fs::create_dir(folder.path("hf:org")).unwrap();
    fs::copy(golden("Q8_0"), folder.path("hf:org/repo")).unwrap();
    let ran = std::process::Command::new(crate::program())
        .args(["inspect", "hf:org/repo"])
        .current_dir(folder.path(""))
        .output()
        .unwrap();
    assert!(ran.status.success());
}

#[test]
fn list_shows_names_that_work() {
    let home = Home::new();
    assert!(home.run(&["list"]).ok().stderr.contains("no models"));
    assert_eq!(home.run(&["list", "--json"]).ok().json()["models"], serde_json::json!([]));
    let bytes = fs::read(golden("Q8_0")).unwrap();
    home.cached('2', "old-Q4_K_M.gguf", 'a', &bytes);
    home.cached('1', "a-Q4_K_M.gguf", 'a', &bytes);
    home.cached('1', "b-Q8_0.gguf", 'b', &bytes);
    home.cached('1', "c-Q8_0.gguf", 'b', &bytes);
    home.cached('1', "d-Q6_K-00001-of-00002.gguf", 'c', b"xx");
    home.cached('1', "mmproj-F16.gguf", 'd', b"x");
    home.stored_by_ollama("registry.ollama.ai/library/tiny/1b", &[MODEL_LAYER], &bytes);
    let json = home.run(&["list", "--json"]).ok().json();
    let models = json["models"].as_array().unwrap();
    let names: Vec<&str> = models.iter().map(|m| m["name"].as_str().unwrap()).collect();
    let old = format!("hf:org/repo@{}:Q4_K_M", "2".repeat(40));
    let expected = ["Q4_K_M", "b-Q8_0.gguf", "c-Q8_0.gguf", "Q6_K"];
    let [q4, b, c, q6] =
        expected.map(|e| format!("hf:org/repo{}{e}", if e.contains('.') { '/' } else { ':' }));
    assert_eq!(names, [&q4, &b, &c, &q6, &old, "ollama:tiny:1b"]);
    for model in models.iter().filter(|model| model["complete"] == true) {
        home.run(&["inspect", model["name"].as_str().unwrap()]).ok();
        assert_eq!(model["bytes"], bytes.len());
        assert!(model["modified"].as_u64().unwrap() > 1_700_000_000);
    }
    assert_eq!((models[3]["complete"].as_bool(), &models[3]["bytes"]), (Some(false), &2.into()));
    assert_eq!(models[5]["quant"], "Q8_0");
    let table = home.run(&["list"]).ok();
    assert!(table.text().lines().next().unwrap().starts_with("name"), "{}", table.text());
    assert!(table.text().contains("just now (incomplete)") && table.text().contains("ollama:tiny:1b"));
}

#[test]
fn rm_removes_what_nothing_else_uses() {
    let home = Home::new();
    home.cached('2', "a-Q4_K_M.gguf", 'a', b"shared");
    home.cached('1', "a-Q4_K_M.gguf", 'a', b"shared");
    home.cached('1', "sub/b-Q8_0-00001-of-00002.gguf", 'b', b"first");
    home.cached('1', "sub/b-Q8_0-00002-of-00002.gguf", 'c', b"second");
    let repo = "hub/models--org--repo";
    let blob = |c: char| format!("{repo}/blobs/{}", c.to_string().repeat(64));
    let (one, two) =
        (format!("{repo}/snapshots/{}", "1".repeat(40)), format!("{repo}/snapshots/{}", "2".repeat(40)));

    let ran = home.run(&["rm", "hf:org/repo:q8_0"]).ok();
    assert!(ran.stdout.is_empty() && ran.stderr.contains("11 B freed"), "{}", ran.stderr);
    assert!(!home.exists(&blob('b')) && !home.exists(&blob('c')) && !home.exists(&format!("{one}/sub")));

    assert!(home.run(&["rm", "hf:org/repo"]).ok().stderr.contains("0 B freed"));
    assert!(!home.exists(&one) && home.exists(&blob('a')) && home.exists(&two));
    assert!(!home.exists(&format!("{repo}/refs/main")), "it names a commit of which nothing is left");
    refusal(home.run_with(&["rm", "hf:org/repo"], &[]), &["no GGUF model"]);

    assert!(home.run(&["rm", &format!("hf:org/repo@{}", "2".repeat(40))]).ok().stderr.contains("6 B freed"));
    assert!(!home.exists(repo));
}

#[test]
fn rm_removes_what_is_not_complete() {
    let home = Home::new();
    home.cached('1', "a-Q8_0-00001-of-00002.gguf", 'a', b"first");
    assert!(home.run(&["rm", "hf:org/repo:Q8_0"]).ok().stderr.contains("5 B freed"));
    let blobs = home.path("hub/models--org--repo/blobs");
    fs::create_dir_all(&blobs).unwrap();
    // As recua names it, and as huggingface_hub does.
    for name in [format!("{}.incomplete", "a".repeat(64)), format!("{}.12345678.incomplete", "b".repeat(64))]
    {
        fs::write(format!("{blobs}/{name}"), b"xyz").unwrap();
    }
    assert!(home.run(&["rm", "hf:org/repo:Q8_0"]).ok().stderr.contains("6 B freed"));
    assert_eq!(fs::read_dir(&blobs).unwrap().count(), 0);
    refusal(home.run(&["rm", "hf:org/repo:Q8_0"]), &["no GGUF model"]);
}

#[test]
fn rm_removes_nothing_outside_the_cache() {
    let home = Home::new();
    home.cached('1', "a-Q4_K_M.gguf", 'a', b"x");
    let mine = home.0.write("mine.gguf", b"mine");
    let snapshot = home.path(&format!("hub/models--org--repo/snapshots/{}", "1".repeat(40)));
    std::os::unix::fs::symlink(&mine, format!("{snapshot}/b-Q8_0.gguf")).unwrap();
    refusal(home.run(&["rm", "hf:org/repo:Q8_0"]), &["b-Q8_0.gguf", "leads out of the cache"]);
    refusal(home.run(&["rm", &mine]), &["mine.gguf", "recua list"]);
    refusal(home.run(&["rm", "demo"]), &["demo"]);
    refusal(home.run(&["rm", "ollama:tiny"]), &["ollama rm tiny"]);
    // The whole snapshot is somewhere else.
    let elsewhere = home.path("elsewhere");
    fs::rename(&snapshot, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &snapshot).unwrap();
    fs::write(format!("{elsewhere}/c-Q6_K.gguf"), b"mine").unwrap();
    refusal(home.run(&["rm", "hf:org/repo:Q6_K"]), &["not in the cache"]);
    assert!(Path::new(&mine).exists() && Path::new(&elsewhere).join("c-Q6_K.gguf").exists());
}

#[test]
fn ollamas_models_are_found() {
    let home = Home::new();
    refusal(home.run(&["inspect", "ollama:tiny"]), &["ollama:tiny", "no models of Ollama in", "ollama"]);
    let bytes = fs::read(golden("Q8_0")).unwrap();
    let template = "application/vnd.ollama.image.template";
    home.stored_by_ollama("registry.ollama.ai/library/tiny/latest", &[template, MODEL_LAYER], &bytes);
    home.stored_by_ollama("hf.co/Org/Repo/Q8_0", &[MODEL_LAYER], &bytes);
    home.stored_by_ollama("registry.ollama.ai/someone/tiny/x", &[MODEL_LAYER], &bytes);
    for name in
        ["tiny", "tiny:latest", "someone/tiny:x", "hf.co/org/repo:q8_0", "registry.ollama.ai/library/tiny"]
    {
        home.run(&["inspect", &format!("ollama:{name}"), "--strict"]).ok();
    }
    let have = "hf.co/Org/Repo:Q8_0, someone/tiny:x, tiny:latest";
    refusal(home.run(&["inspect", "ollama:tiny:7b"]), &["ollama:tiny:7b", have, "ollama pull tiny:7b"]);
    refusal(home.run(&["inspect", "ollama:../tiny"]), &["no name of a model"]);
}

#[test]
fn ollamas_manifests_are_not_trusted() {
    let home = Home::new();
    let manifest = "registry.ollama.ai/library/tiny/latest";
    let adapter = "application/vnd.ollama.image.adapter";
    home.stored_by_ollama(manifest, &[MODEL_LAYER, adapter], b"x");
    refusal(home.run(&["inspect", "ollama:tiny"]), &["LoRA adapter"]);
    home.stored_by_ollama(manifest, &["application/vnd.ollama.image.tensor"], b"x");
    refusal(home.run(&["inspect", "ollama:tiny"]), &["not stored as one GGUF file"]);
    let path = home.path(&format!("ollama/manifests/{manifest}"));
    for (text, words) in [
        ("{", "manifest"),
        ("[]", "manifest"),
        (
            r#"{"layers":[{"mediaType":"application/vnd.ollama.image.model","digest":"sha256:../../x"}]}"#,
            "digest",
        ),
        (
            r#"{"layers":[{"mediaType":"application/vnd.ollama.image.model","digest":"sha256:MISSING"}]}"#,
            "is missing",
        ),
    ] {
        fs::write(&path, text.replace("MISSING", &"b".repeat(64))).unwrap();
        refusal(home.run(&["inspect", "ollama:tiny"]), &["ollama:tiny:latest", words]);
    }
}

#[cfg(not(feature = "hub"))]
#[test]
fn a_build_without_downloads_says_so() {
    let home = Home::new();
    for command in ["pull", "inspect"] {
        refusal(home.run(&[command, "hf:org/repo"]), &["hf:org/repo", "cannot download", "feature `hub`"]);
    }
}
