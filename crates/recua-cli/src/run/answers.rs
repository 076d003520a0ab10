//! Prints interleaved answers in order: the first unfinished one streams, the later ones wait.

use std::io::{self, IsTerminal, Write};

use recua::{Event, FinishReason, Usage};
use serde::Serialize;

use crate::args::AnswerFormat;
use crate::failure::Result;
use crate::output::{note, printable, write_json};

/// All answers of a run.
pub(super) struct Answers {
    answers: Vec<Answer>,
    format: AnswerFormat,
    // The first answer that is not completely written.
    current: usize,
    // Whether the current answer's beginning has been written, and whether its last character was a line feed.
    begun: bool,
    ends_line: bool,
    // Whether each prompt is shown before its answer: on stderr, and only if both streams are terminals.
    shows_prompts: bool,
    pub(super) n_failed: usize,
}

struct Answer {
    prompt: String,
    // In text format, only the text that has not been written yet.
    text: String,
    end: Option<End>,
}

struct End {
    reason: &'static str,
    usage: Usage,
    error: Option<String>,
}

/// A line of `--format json`.
#[derive(Serialize)]
struct Line<'a> {
    index: usize,
    prompt: &'a str,
    text: &'a str,
    finish_reason: &'static str,
    prompt_tokens: usize,
    generated_tokens: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

impl Answers {
    pub(super) fn new(prompts: Vec<String>, format: AnswerFormat) -> Self {
        let is_seen = io::stdout().is_terminal() && io::stderr().is_terminal();
        let shows_prompts = prompts.len() > 1 && format == AnswerFormat::Text && is_seen;
        let answers =
            prompts.into_iter().map(|prompt| Answer { prompt, text: String::new(), end: None }).collect();
        Self { answers, format, current: 0, begun: false, ends_line: false, shows_prompts, n_failed: 0 }
    }

    /// Applies an event to answer `i`.
    pub(super) fn take(&mut self, i: usize, event: Event) {
        let Some(answer) = self.answers.get_mut(i) else { return };
        answer.text.push_str(super::text_of(&event));
        answer.end = match event {
            Event::Token { .. } => return,
            Event::Finished { reason: FinishReason::Stop, usage, .. } => {
                Some(End { reason: "stop", usage, error: None })
            }
            Event::Finished { reason: FinishReason::Length, usage, .. } => {
                Some(End { reason: "length", usage, error: None })
            }
            Event::Failed { error, .. } => {
                self.n_failed += 1;
                note!("error: prompt {}: {}", i + 1, printable(&error.to_string()));
                Some(End { reason: "error", usage: Usage::default(), error: Some(error.to_string()) })
            }
        };
    }

    /// Writes all text whose turn has come.
    pub(super) fn write(&mut self, out: &mut impl Write) -> Result {
        while let Some(answer) = self.answers.get_mut(self.current) {
            match self.format {
                AnswerFormat::Json => {
                    let Some(end) = &answer.end else { break };
                    let line = Line {
                        index: self.current,
                        prompt: &answer.prompt,
                        text: &answer.text,
                        finish_reason: end.reason,
                        prompt_tokens: end.usage.prompt_tokens,
                        generated_tokens: end.usage.generated_tokens,
                        error: end.error.as_deref(),
                    };
                    write_json(out, &line)?;
                }
                AnswerFormat::Text => {
                    if !self.begun {
                        if self.current > 0 {
                            writeln!(out)?;
                        }
                        if self.shows_prompts {
                            out.flush()?;
                            note!("> {}", printable(&answer.prompt));
                        }
                        (self.begun, self.ends_line) = (true, false);
                    }
                    let text = std::mem::take(&mut answer.text);
                    out.write_all(text.as_bytes())?;
                    if !text.is_empty() {
                        self.ends_line = text.ends_with('\n');
                    }
                    if answer.end.is_none() {
                        break;
                    }
                    if !self.ends_line {
                        writeln!(out)?;
                    }
                }
            }
            self.current += 1;
            self.begun = false;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use recua::RequestId;

    fn token(text: &str) -> Event {
        Event::Token { id: RequestId(0), token: 0, text: text.into() }
    }

    fn finished(text: &str) -> Event {
        let usage = Usage { prompt_tokens: 3, generated_tokens: 2 };
        Event::Finished { id: RequestId(0), reason: FinishReason::Stop, usage, text: text.into() }
    }

    fn written(answers: &mut Answers) -> String {
        let mut out = Vec::new();
        answers.write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_first_streams_and_the_others_wait() {
        let mut answers = Answers::new(vec!["p".into(), "q".into(), "r".into()], AnswerFormat::Text);
        answers.take(0, token("one"));
        answers.take(1, token("two\n"));
        assert_eq!(written(&mut answers), "one");
        answers.take(1, finished(""));
        answers.take(2, token("thr"));
        assert_eq!(written(&mut answers), "");
        answers.take(0, finished("!"));
        assert_eq!(written(&mut answers), "!\n\ntwo\n\nthr");
        answers.take(2, finished("ee"));
        assert_eq!(written(&mut answers), "ee\n");
    }

    #[test]
    fn json_is_one_object_a_line_in_order() {
        let mut answers = Answers::new(vec!["p".into(), "q\n".into()], AnswerFormat::Json);
        answers.take(1, finished("two"));
        assert_eq!(written(&mut answers), "");
        answers.take(0, token("o"));
        answers.take(0, finished("ne"));
        let text = written(&mut answers);
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(
            lines[0],
            serde_json::json!({ "index": 0, "prompt": "p", "text": "one", "finish_reason": "stop",
                "prompt_tokens": 3, "generated_tokens": 2 })
        );
        assert_eq!((&lines[1]["index"], &lines[1]["prompt"]), (&1.into(), &"q\n".into()));
    }
}
