//! The integration tests of recua-template, one binary.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod hostile;
mod jinja;
mod language;
mod python;

use std::time::SystemTime;

use recua_template::{Error, Input, Limits, Template};

pub(crate) const LLAMA_3_1: &str = include_str!("../../../../testdata/templates/llama-3.1.jinja");
pub(crate) const QWEN_3: &str = include_str!("../../../../testdata/templates/qwen-3.jinja");

/// When all this takes place.
pub(crate) const NOW: SystemTime = SystemTime::UNIX_EPOCH;

/// Renders a template with four messages and what else a chat has.
pub(crate) fn render(template: &str) -> Result<String, Error> {
    Template::parse(template)?.render(&variables(), NOW)
}

/// The same within other limits.
pub(crate) fn render_within(limits: Limits, template: &str) -> Result<String, Error> {
    Template::parse(template)?.render_within(limits, &variables(), NOW)
}

fn variables() -> [(&'static str, Input<'static>); 5] {
    let talk = [("system", "Be brief."), ("user", " Hi! "), ("assistant", "Hello."), ("user", "1 < 2?")];
    let message =
        |(role, content)| Input::Map(vec![("role", Input::Str(role)), ("content", Input::Str(content))]);
    [
        ("messages", Input::List(talk.into_iter().map(message).collect())),
        ("add_generation_prompt", Input::Bool(true)),
        ("bos_token", Input::Str("<s>")),
        ("eos_token", Input::Str("</s>")),
        ("tools", Input::None),
    ]
}
