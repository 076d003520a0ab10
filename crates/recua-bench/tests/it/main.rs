//! The built program from outside.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod architecture;
mod encoding;
mod wgpu;

use std::process::Command;

/// The result of running the program.
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}", self.stdout))
    }

    /// Fails unless the program succeeded.
    fn ok(self) -> Ran {
        assert_eq!(self.code, 0, "{}", self.stderr);
        self
    }
}

fn ran(args: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_recua-bench")).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Fails unless the program refuses with exit code 2, a message that contains `words`, and nothing on stdout.
fn refused(args: &[&str], words: &[&str]) {
    let ran = ran(args);
    assert_eq!((ran.code, ran.stdout.len()), (2, 0), "{args:?}: {}", ran.stderr);
    for word in words {
        assert!(ran.stderr.contains(word), "{word:?} is not in {}", ran.stderr);
    }
}
