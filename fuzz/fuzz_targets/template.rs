//! Parses arbitrary text as a chat template and renders what was accepted: no panic, no stack overflow, and no more time or
//! memory than the budget allows. Run with
//! `cargo +nightly fuzz run template -- -max_len=16384 -rss_limit_mb=512 -timeout=10`; the files of `testdata/templates`
//! make a good corpus.
#![no_main]

use std::time::SystemTime;

use libfuzzer_sys::fuzz_target;
use recua_template::{Input, Template};

fuzz_target!(|bytes: &[u8]| {
    let Ok(source) = std::str::from_utf8(bytes) else { return };
    let Ok(template) = Template::parse(source) else { return };
    assert!(template.literals().all(|literal| literal.len() <= source.len() * 2));
    let message =
        |role, content| Input::Map(vec![("role", Input::Str(role)), ("content", Input::Str(content))]);
    let messages =
        vec![message("system", "Be <brief>."), message("user", " Hé!\n"), message("assistant", "")];
    let variables = [
        ("messages", Input::List(messages)),
        ("add_generation_prompt", Input::Bool(true)),
        ("bos_token", Input::Str("<s>")),
        ("eos_token", Input::Str("</s>")),
        ("tools", Input::None),
    ];
    let now = SystemTime::UNIX_EPOCH;
    // The same input gives the same output, or the same error.
    assert_eq!(template.render(&variables, now), template.render(&variables, now));
});
