//! The built program from outside: exit codes, what goes to which stream, and the formats of its output.
//!
//! One file a subject. A test of a new command goes into a file of its own.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod bad_input;
mod bench;
mod documents;
mod files;
mod flags;
mod gpu;
#[cfg(all(unix, feature = "hub"))]
mod hub;
mod logits;
mod render;
mod run;
#[cfg(unix)]
mod store;
mod terminal;
mod tokenize;
mod verify;

use std::io::Write;
use std::process::{Command, Stdio};

/// The result of running the program.
struct Ran {
    code: i32,
    stdout: Vec<u8>,
    stderr: String,
}

impl Ran {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("the output is UTF-8")
    }

    /// The output as JSON.
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(self.text()).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// Fails unless the program succeeded.
    fn ok(self) -> Ran {
        assert_eq!(self.code, 0, "{}", self.stderr);
        self
    }
}

/// The program; `RECUA_PROGRAM` names it where the tests run far from where it was built.
fn program() -> String {
    std::env::var("RECUA_PROGRAM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_recua").into())
}

/// Runs the program with an empty standard input.
fn recua(args: &[&str]) -> Ran {
    recua_with(args, b"")
}

/// Runs the program with this standard input.
fn recua_with(args: &[&str], stdin: &[u8]) -> Ran {
    ran(args, stdin, &[])
}

/// Runs the program with these environment variables.
fn recua_with_env(args: &[&str], env: &[(&str, &str)]) -> Ran {
    ran(args, b"", env)
}

fn ran(args: &[&str], stdin: &[u8], env: &[(&str, &str)]) -> Ran {
    let mut child = Command::new(program())
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // If it is unset, a layer of Mesa writes a line to stderr while GPUs are enumerated.
        .env("XDG_RUNTIME_DIR", std::env::temp_dir())
        .envs(env.iter().copied())
        .spawn()
        .expect("the program starts");
    // The program may end without reading its input.
    let _ = child.stdin.take().expect("a pipe").write_all(stdin);
    let output = child.wait_with_output().expect("the program ends");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Ran { code: output.status.code().expect("an exit code, not a signal"), stdout: output.stdout, stderr }
}

/// Fails unless the program refuses with exit code 2, one sentence that contains `words`, and nothing on stdout.
fn refused(args: &[&str], words: &[&str]) -> String {
    refusal(recua(args), words)
}

fn refusal(ran: Ran, words: &[&str]) -> String {
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(ran.stdout.is_empty(), "{:?}", String::from_utf8_lossy(&ran.stdout));
    let message = ran.stderr.strip_prefix("error: ").unwrap_or_else(|| panic!("{:?}", ran.stderr));
    assert_eq!(message.matches('\n').count(), 1, "{message:?}");
    assert!(message.ends_with('\n') && !message.contains("panicked"), "{message:?}");
    for word in words {
        assert!(message.contains(word), "{word:?} is not in {message:?}");
    }
    message.to_owned()
}

/// A file of the repository's test data, whose folder `RECUA_TESTDATA` names where the tests run far from the sources.
fn testdata(name: &str) -> String {
    let beside_sources = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata");
    let folder = std::env::var("RECUA_TESTDATA").unwrap_or_else(|_| beside_sources.into());
    format!("{folder}/{name}")
}

/// The golden model of this type.
fn golden(ty: &str) -> String {
    testdata(&format!("golden/tiny-{ty}.gguf"))
}

/// A folder for one test's files.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().expect("a temporary folder"))
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("a UTF-8 path").to_owned()
    }

    fn write(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.path(name);
        std::fs::write(&path, bytes).expect("a file is written");
        path
    }
}
