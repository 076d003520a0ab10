//! The documents name only files that exist, and the README lists every command.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The words that look like a path of this repository.
fn paths(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || "/._-".contains(c)))
        .map(|word| word.trim_end_matches('.'))
        .filter(|word| {
            ["crates/", "testdata/", "tools/", "bench/", ".ci/"].iter().any(|p| word.starts_with(p))
        })
        .filter(|word| !word.starts_with("bench/record/"))
        // Where something is to be added: a test of recua-bench puts examples in its place.
        .filter(|word| !word.contains("NAME"))
}

#[test]
fn paths_in_documents_exist() {
    let names = [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "bench/README.md",
        "crates/recua-compute/docs/mlx-native.md",
    ];
    for name in names {
        let text = read(name);
        let missing: Vec<_> = paths(&text).filter(|path| !root().join(path).exists()).collect();
        assert!(missing.is_empty(), "{name} names {missing:?}");
    }
    assert!(paths(&read("ARCHITECTURE.md")).count() > 20);
}

/// The README lists every subcommand.
#[test]
fn the_readme_lists_every_command() {
    let help = crate::recua(&["--help"]).ok();
    let commands = help.text().lines().skip_while(|line| *line != "Commands:").skip(1);
    let mut n = 0;
    for line in commands.take_while(|line| !line.is_empty()) {
        // A wrapped description has no command in front.
        let Some(name) = line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')) else { continue };
        let name = name.split(' ').next().unwrap_or_default();
        if name != "help" {
            assert!(read("README.md").contains(&format!("`{name}")), "README.md lacks `{name}`");
            n += 1;
        }
    }
    assert_eq!(n, 16);
}
