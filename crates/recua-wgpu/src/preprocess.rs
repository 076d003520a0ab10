//! WGSL has no includes and no conditions: `#import NAME`, `#define NAME`, `#ifdef NAME`, `#else`, `#endif`, each on a line of its
//! own, and nothing more. A file is imported once. `#import FOLDER/*` imports the file of the folder whose name is defined.

/// Expands `file` with `defines` set. `source` finds a file's text by its name without the ending.
pub(crate) fn preprocess<'s>(
    file: &str,
    defines: &[&str],
    source: &dyn Fn(&str) -> Option<&'s str>,
) -> Result<String, String> {
    let mut state = State {
        defines: defines.iter().map(|name| name.to_string()).collect(),
        imported: Vec::new(),
        out: String::new(),
    };
    state.file(file, source)?;
    Ok(state.out)
}

struct State {
    defines: Vec<String>,
    imported: Vec<String>,
    out: String,
}

impl State {
    fn file<'s>(&mut self, file: &str, source: &dyn Fn(&str) -> Option<&'s str>) -> Result<(), String> {
        if self.imported.iter().any(|name| name == file) {
            return Ok(());
        }
        self.imported.push(file.to_string());
        let text = source(file).ok_or_else(|| format!("there is no file {file}.wgsl"))?;
        // One entry an open `#ifdef`: whether its lines count.
        let mut open: Vec<bool> = Vec::new();
        for (i, line) in text.lines().enumerate() {
            let problem = |what: &str| format!("{file}.wgsl:{}: {what}", i + 1);
            let counts = open.iter().all(|&counts| counts);
            let Some(directive) = line.trim_start().strip_prefix('#') else {
                if counts {
                    self.out.push_str(line);
                    self.out.push('\n');
                }
                continue;
            };
            let (name, argument) = directive.split_once(' ').unwrap_or((directive, ""));
            let argument = argument.trim();
            match (name.trim(), argument.is_empty()) {
                ("ifdef", false) => open.push(self.defines.iter().any(|name| name == argument)),
                ("else", true) => match open.last_mut() {
                    Some(counts) => *counts = !*counts,
                    None => return Err(problem("#else without #ifdef")),
                },
                ("endif", true) => {
                    open.pop().ok_or_else(|| problem("#endif without #ifdef"))?;
                }
                ("define", false) if counts => self.defines.push(argument.to_string()),
                ("import", false) if counts => {
                    let file = self
                        .file_named(argument)
                        .ok_or_else(|| problem("nothing of that folder is defined"))?;
                    self.file(&file, source)?;
                }
                ("define" | "import", false) => {}
                _ => return Err(problem(&format!("#{directive} is not understood"))),
            }
        }
        if open.is_empty() { Ok(()) } else { Err(format!("{file}.wgsl: #ifdef without #endif")) }
    }

    /// The file that an `#import` means.
    fn file_named(&self, argument: &str) -> Option<String> {
        match argument.strip_suffix('*') {
            Some(folder) => self.defines.iter().find(|name| name.starts_with(folder)).cloned(),
            None => Some(argument.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(name: &str) -> Option<&'static str> {
        match name {
            "a" => Some("#import b\nx\n#ifdef F\nf\n#ifdef G\nfg\n#endif\n#else\nnot f\n#endif\n#import b\n"),
            "b" => Some("#ifdef F\n#define G\n#endif\nb"),
            "bad" => Some("#ifdef F\n"),
            "else" => Some("#else"),
            "what" => Some("ok\n#include <b>"),
            "lost" => Some("#import nowhere"),
            "one" => Some("#import of/*"),
            "of/a" => Some("a"),
            _ => None,
        }
    }

    #[test]
    fn conditions_and_imports() {
        assert_eq!(preprocess("a", &[], &files), Ok("b\nx\nnot f\n".into()));
        assert_eq!(preprocess("a", &["F"], &files), Ok("b\nx\nf\nfg\n".into()));
    }

    #[test]
    fn a_file_of_a_folder_is_chosen_by_a_define() {
        assert_eq!(preprocess("one", &["F", "of/a"], &files), Ok("a\n".into()));
        assert_eq!(
            preprocess("one", &["F"], &files).unwrap_err(),
            "one.wgsl:1: nothing of that folder is defined"
        );
    }

    #[test]
    fn errors_name_the_place() {
        let error = |file| preprocess(file, &[], &files).unwrap_err();
        assert_eq!(error("bad"), "bad.wgsl: #ifdef without #endif");
        assert_eq!(error("else"), "else.wgsl:1: #else without #ifdef");
        assert_eq!(error("what"), "what.wgsl:2: #include <b> is not understood");
        assert_eq!(error("lost"), "there is no file nowhere.wgsl");
    }
}
