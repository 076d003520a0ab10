//! WGSL has no includes, conditions or repetition. This adds `#import NAME`, `#define NAME`, `#ifdef NAME`, `#else`, `#endif`, and `#for
//! NAME in WORDS`, `#end`, each on a line of its own, and nothing more. A file is imported only once. `#import FOLDER/*` imports the file
//! of the folder whose name is defined. The lines of a `#for` are repeated for each of the words, which replaces `$NAME` in them; the words
//! may be the name of a `#define NAME WORDS`.

/// Expands `file` with `defines` set. `source` finds a file's text by its name without the ending.
pub(crate) fn preprocess<'s>(
    file: &str,
    defines: &[&str],
    source: &dyn Fn(&str) -> Option<&'s str>,
) -> Result<String, String> {
    let mut state = State {
        defines: defines.iter().map(|name| (name.to_string(), String::new())).collect(),
        imported: Vec::new(),
        out: String::new(),
    };
    state.file(file, source)?;
    Ok(state.out)
}

struct State {
    /// Defined names, and the words that they stand for in a `#for`.
    defines: Vec<(String, String)>,
    imported: Vec<String>,
    out: String,
}

/// The directive on a line, and its argument.
fn directive(line: &str) -> Option<(&str, &str)> {
    let directive = line.trim_start().strip_prefix('#')?;
    let (name, argument) = directive.split_once(' ').unwrap_or((directive, ""));
    Some((name.trim(), argument.trim()))
}

impl State {
    fn file<'s>(&mut self, file: &str, source: &dyn Fn(&str) -> Option<&'s str>) -> Result<(), String> {
        if self.imported.iter().any(|name| name == file) {
            return Ok(());
        }
        self.imported.push(file.to_string());
        let text = source(file).ok_or_else(|| format!("there is no file {file}.wgsl"))?;
        let lines: Vec<(usize, String)> = (1..).zip(text.lines().map(str::to_string)).collect();
        self.lines(file, &lines, source)
    }

    /// Expands lines of a file, each with its line number.
    fn lines<'s>(
        &mut self,
        file: &str,
        lines: &[(usize, String)],
        source: &dyn Fn(&str) -> Option<&'s str>,
    ) -> Result<(), String> {
        // One entry per open `#ifdef`: whether its lines count.
        let mut open: Vec<bool> = Vec::new();
        let mut at = 0;
        while let Some((number, line)) = lines.get(at) {
            at += 1;
            let problem = |what: &str| format!("{file}.wgsl:{number}: {what}");
            let counts = open.iter().all(|&counts| counts);
            let Some((name, argument)) = directive(line) else {
                if counts {
                    self.out.push_str(line);
                    self.out.push('\n');
                }
                continue;
            };
            match (name, argument.is_empty()) {
                ("ifdef", false) => open.push(self.defines.iter().any(|(name, _)| name == argument)),
                ("else", true) => match open.last_mut() {
                    Some(counts) => *counts = !*counts,
                    None => return Err(problem("#else without #ifdef")),
                },
                ("endif", true) => {
                    open.pop().ok_or_else(|| problem("#endif without #ifdef"))?;
                }
                ("for", false) => {
                    let end = end_of(&lines[at..]).ok_or_else(|| problem("#for without #end"))?;
                    let body = &lines[at..at + end];
                    at += end + 1;
                    if counts {
                        let (name, words) =
                            argument.split_once(" in ").ok_or_else(|| problem("#for without in"))?;
                        let named = self.defines.iter().find(|(define, _)| define == words.trim());
                        let words = named.map_or(words, |(_, words)| words).to_string();
                        for word in words.split_whitespace() {
                            let replace = |(i, line): &(usize, String)| {
                                (*i, line.replace(&format!("${}", name.trim()), word))
                            };
                            self.lines(file, &body.iter().map(replace).collect::<Vec<_>>(), source)?;
                        }
                    }
                }
                ("end", true) => return Err(problem("#end without #for")),
                ("define", false) if counts => {
                    let (name, words) = argument.split_once(' ').unwrap_or((argument, ""));
                    self.defines.push((name.to_string(), words.to_string()));
                }
                ("import", false) if counts => {
                    let file = self
                        .file_named(argument)
                        .ok_or_else(|| problem("no file of this folder is defined"))?;
                    self.file(&file, source)?;
                }
                ("define" | "import", false) => {}
                _ => {
                    return Err(problem(&format!(
                        "#{} is not understood",
                        line.trim_start()[1..].trim_end()
                    )));
                }
            }
        }
        if open.is_empty() { Ok(()) } else { Err(format!("{file}.wgsl: #ifdef without #endif")) }
    }

    /// The file that an `#import` refers to.
    fn file_named(&self, argument: &str) -> Option<String> {
        match argument.strip_suffix('*') {
            Some(folder) => {
                self.defines.iter().map(|(name, _)| name).find(|name| name.starts_with(folder)).cloned()
            }
            None => Some(argument.to_string()),
        }
    }
}

/// The index of the `#end` for a `#for` that began before these lines.
fn end_of(lines: &[(usize, String)]) -> Option<usize> {
    let mut depth = 1;
    lines.iter().position(|(_, line)| {
        match directive(line) {
            Some(("for", _)) => depth += 1,
            Some(("end", _)) => depth -= 1,
            _ => {}
        }
        depth == 0
    })
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
            "for" => Some("#for I in 0 1\n#for J in a b\n$I$J\n#end\n#ifdef F$I\nf$I\n#endif\n#end\nz"),
            "named" => Some("#define ROWS 4 5\n#for R in ROWS\nrow_$R\n#end\n#for R in COLUMNS\n$R\n#end"),
            "endless" => Some("#for I in 0\n#for J in 1\n#end"),
            "end" => Some("#end"),
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
            "one.wgsl:1: no file of this folder is defined"
        );
    }

    #[test]
    fn lines_are_repeated_for_each_word() {
        assert_eq!(preprocess("for", &["F1"], &files), Ok("0a\n0b\n1a\n1b\nf1\nz\n".into()));
        assert_eq!(preprocess("named", &[], &files), Ok("row_4\nrow_5\nCOLUMNS\n".into()));
    }

    #[test]
    fn errors_name_the_place() {
        let error = |file| preprocess(file, &[], &files).unwrap_err();
        assert_eq!(error("bad"), "bad.wgsl: #ifdef without #endif");
        assert_eq!(error("else"), "else.wgsl:1: #else without #ifdef");
        assert_eq!(error("what"), "what.wgsl:2: #include <b> is not understood");
        assert_eq!(error("endless"), "endless.wgsl:1: #for without #end");
        assert_eq!(error("end"), "end.wgsl:1: #end without #for");
        assert_eq!(error("lost"), "there is no file nowhere.wgsl");
    }
}
