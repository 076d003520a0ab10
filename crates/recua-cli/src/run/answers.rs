//! Prints interleaved answers in order: the first unfinished one streams, the later ones wait.

use std::io::{self, IsTerminal, Write};

use recua::{Event, FinishReason, Usage};
use serde::Serialize;

use crate::args::AnswerFormat;
use crate::failure::Result;
use crate::output::{note, printable, write_json};
use crate::screen::Screen;

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
    // The way of the current answer's text to stdout.
    screen: Screen,
    pub(super) n_failed: usize,
}

struct Answer {
    prompt: String,
    // Of an answer that has not ended.
    so_far: Usage,
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
    /// Answers to prompts of so many tokens each.
    pub(super) fn new(prompts: impl Iterator<Item = (String, usize)>, format: AnswerFormat) -> Self {
        let answer = |(prompt, prompt_tokens)| {
            let so_far = Usage { prompt_tokens, generated_tokens: 0 };
            Answer { prompt, so_far, text: String::new(), end: None }
        };
        let answers: Vec<_> = prompts.map(answer).collect();
        let is_seen = io::stdout().is_terminal() && io::stderr().is_terminal();
        Self {
            format,
            current: 0,
            begun: false,
            ends_line: false,
            shows_prompts: answers.len() > 1 && format == AnswerFormat::Text && is_seen,
            screen: Screen::of_stdout(),
            n_failed: 0,
            answers,
        }
    }

    /// Applies an event to answer `i`.
    pub(super) fn take(&mut self, i: usize, event: Event) {
        let Some(answer) = self.answers.get_mut(i) else { return };
        answer.text.push_str(super::text_of(&event));
        answer.end = match event {
            Event::Token { .. } => {
                answer.so_far.generated_tokens += 1;
                return;
            }
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

    /// Ends the answers that are under way or have not begun.
    pub(super) fn cancel(&mut self) {
        for answer in self.answers.iter_mut().filter(|answer| answer.end.is_none()) {
            answer.end = Some(End { reason: "cancelled", usage: answer.so_far, error: None });
        }
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
                        self.screen = Screen::of_stdout();
                    }
                    let text = std::mem::take(&mut answer.text);
                    let text = self.screen.pass(&text);
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

    fn answers(prompts: &[&str], format: AnswerFormat) -> Answers {
        Answers::new(prompts.iter().map(|prompt| ((*prompt).to_owned(), 3)), format)
    }

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
        let mut answers = answers(&["p", "q", "r"], AnswerFormat::Text);
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
        let mut answers = answers(&["p", "q\n"], AnswerFormat::Json);
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

    #[test]
    fn what_is_cancelled_is_still_told() {
        let mut answers = answers(&["p", "q", "r"], AnswerFormat::Json);
        answers.take(0, token("a"));
        answers.take(1, finished("b"));
        answers.cancel();
        let text = written(&mut answers);
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let reasons: Vec<_> = lines.iter().map(|line| line["finish_reason"].as_str().unwrap()).collect();
        assert_eq!(reasons, ["cancelled", "stop", "cancelled"]);
        let figures =
            |i: usize| (&lines[i]["text"], &lines[i]["prompt_tokens"], &lines[i]["generated_tokens"]);
        assert_eq!(figures(0), (&"a".into(), &3.into(), &1.into()));
        assert_eq!(figures(2), (&"".into(), &3.into(), &0.into()));
    }
}
