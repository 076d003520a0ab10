//! Checks ARCHITECTURE.md's table of files to touch for each kind of change, by examples of earlier additions: a file that names an example
//! must be listed, and a listed file must exist and name an example.

use std::collections::BTreeMap;
use std::path::Path;

/// Something that was added once.
struct Example {
    /// The replacement for `NAME` in a listed path.
    file: &'static str,
    /// The words for it in code, by crate: for paths below `crates` that begin like this.
    words: &'static [(&'static str, &'static [&'static str])],
}

/// By the first column of the table. Ops and formats that much else depends on, such as `matmul` and `Q8_0`, would list their users too.
const EXAMPLES: &[(&str, &[Example])] = &[
    (
        "a quantization format",
        &[
            Example { file: "q5_k", words: &[("", &["Q5_K", "q5_k", "Q5K"])] },
            Example { file: "q3_k", words: &[("", &["Q3_K", "q3_k", "Q3K"])] },
            Example { file: "mxfp4", words: &[("", &["MXFP4", "mxfp4", "Mxfp4"])] },
        ],
    ),
    (
        "an op",
        &[
            Example {
                file: "top_k",
                words: &[
                    ("", &["Op::TopK"]),
                    ("recua-compute", &["TopK", "top_k"]),
                    ("recua-wgpu", &["TopK", "top_k"]),
                    ("recua-cuda", &["TopK", "top_k"]),
                ],
            },
            Example {
                file: "gather_rows",
                words: &[
                    ("", &["Op::GatherRows"]),
                    ("recua-compute", &["GatherRows", "gather_rows"]),
                    ("recua-wgpu", &["GatherRows", "gather_rows"]),
                    ("recua-cuda", &["GatherRows", "gather_rows"]),
                ],
            },
            Example {
                file: "copy_pages",
                words: &[
                    ("", &["Op::CopyPages"]),
                    ("recua-compute", &["CopyPages", "copy_pages"]),
                    ("recua-wgpu", &["CopyPages", "copy_pages", "CopyPagesArgs"]),
                    ("recua-cuda", &["CopyPages", "copy_pages"]),
                ],
            },
        ],
    ),
    // The architecture with norms of the heads.
    (
        "an architecture",
        &[Example { file: "", words: &[("recua-engine", &["Qwen3", "has_head_norm", "head_norm"])] }],
    ),
    ("a pre-tokenizer", &[Example { file: "", words: &[("", &["smollm", "deepseek-v3"])] }]),
    ("a chat template for files without one", &[Example { file: "", words: &[("", &["CHATML", "ZEPHYR"])] }]),
    ("a filter of templates", &[Example { file: "", words: &[("", &["dictsort", "groupby"])] }]),
    ("a tag of templates", &[Example { file: "", words: &[("recua-template", &["With", "endwith"])] }]),
    ("a kind of model name", &[Example { file: "", words: &[("recua-cli", &["OLLAMA", "ollama"])] }]),
    ("a sampling parameter", &[Example { file: "", words: &[("", &["min_p"])] }]),
    (
        "a device",
        &[
            Example { file: "", words: &[("recua/", &["wgpu", "recua_wgpu"])] },
            Example { file: "", words: &[("recua/", &["cuda", "recua_cuda"])] },
        ],
    ),
    (
        "a command",
        &[Example { file: "tokenize", words: &[("recua-cli", &["TokenizeArgs", "Command::Tokenize"])] }],
    ),
    ("a figure of `bench`", &[Example { file: "", words: &[("", &["gpu_utilisation"])] }]),
];

#[test]
fn the_lists_of_files_to_touch_are_complete_and_true() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = std::fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let (_, table) = text.split_once("## To add something\n").expect("the section is there");
    let lists: BTreeMap<&str, Vec<&str>> = table.lines().filter_map(row).collect();
    let mut files = Vec::new();
    collect(&root.join("crates"), "crates", &mut files);
    collect(&root.join("bench"), "bench", &mut files);
    let mut problems = Vec::new();
    for what in lists.keys().filter(|what| EXAMPLES.iter().all(|(row, _)| row != *what)) {
        problems.push(format!("{what}: no example in this test"));
    }
    for (what, examples) in EXAMPLES {
        let Some(list) = lists.get(what) else {
            problems.push(format!("{what}: not in the table"));
            continue;
        };
        for example in *examples {
            let list: Vec<String> = list.iter().map(|path| path.replace("NAME", example.file)).collect();
            let is_listed = |path: &str| list.iter().any(|listed| is_at_or_below(path, listed));
            for (path, code) in files.iter().filter(|(path, _)| !is_test(path) && !is_listed(path)) {
                let words = example.words_in(path, code);
                if !words.is_empty() {
                    problems.push(format!("{what}: {path} names {words:?} and is not listed"));
                }
            }
            for path in list.iter().filter(|path| !root.join(path).exists()) {
                problems.push(format!("{what}: {path} is listed and not there"));
            }
        }
        // A file with the name of an example has been handled above.
        for path in list.iter().filter(|path| !path.contains("NAME")) {
            let is_named = |example: &Example| {
                let mut there = files.iter().filter(|(file, _)| is_at_or_below(file, path));
                there.any(|(file, code)| !example.words_in(file, code).is_empty())
            };
            if !examples.iter().any(is_named) {
                problems.push(format!("{what}: {path} is listed and names no example"));
            }
        }
    }
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

/// The first column of a row of the table and the paths in its second.
fn row(line: &str) -> Option<(&str, Vec<&str>)> {
    let (what, touch) = line.strip_prefix("| ")?.split_once(" | ")?;
    let paths = touch.split('`').skip(1).step_by(2).filter(|word| word.contains('/')).collect();
    (!what.starts_with("to add") && !what.starts_with("---")).then_some((what, paths))
}

impl Example {
    /// The words by which a file refers to it.
    fn words_in(&self, path: &str, code: &str) -> Vec<&'static str> {
        let name = path.strip_prefix("crates/").unwrap_or(path);
        let crates = self.words.iter().filter(|(prefix, _)| name.starts_with(prefix));
        crates.flat_map(|(_, words)| *words).copied().filter(|word| has_word(code, word)).collect()
    }
}

fn has_word(code: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let (before, after) = (code[..at].chars().next_back(), code[at + word.len()..].chars().next());
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

/// Whether a path is a listed file, or in a listed folder.
fn is_at_or_below(path: &str, listed: &str) -> bool {
    path.strip_prefix(listed).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/") || path.contains("/examples/")
}

/// The sources and documents in a folder, without comments and without the tests at their ends.
fn collect(folder: &Path, path: &str, files: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let (entry, kind) = entry.map(|entry| (entry.path(), entry.file_type().unwrap())).unwrap();
        let path = format!("{path}/{}", entry.file_name().unwrap().to_str().unwrap());
        if kind.is_dir() {
            collect(&entry, &path, files);
        } else if [".rs", ".wgsl", ".cu", ".cuh", "README.md"].iter().any(|end| path.ends_with(end)) {
            let text = std::fs::read_to_string(&entry).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            let lines = code.lines().map(|line| line.split("//").next().unwrap_or_default());
            files.push((path, lines.collect::<Vec<_>>().join("\n")));
        }
    }
}
