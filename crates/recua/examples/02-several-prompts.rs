//! Several prompts in one batch, each with parameters of its own: `cargo run --release -p recua --example 02-several-prompts`.

use recua::chat::Message;
use recua::gguf::Gguf;
use recua::{DEMO_MODEL, LlamaConfig, Report, Request, SamplingParams, TextModel, open_device};

const QUESTIONS: [&str; 4] = [
    "What is the sum of 214 and 37?",
    "Spell the word \"llama\".",
    "Please reverse the word \"turkey\".",
    "Sort from smallest to largest: 41, 7, 88, 19",
];

fn main() -> Result<(), Report> {
    let config = LlamaConfig { batch_size: QUESTIONS.len(), max_seq_len: 256, ..LlamaConfig::default() };
    let mut model = TextModel::load(&Gguf::from_bytes(DEMO_MODEL)?, open_device("cpu")?, config)?;
    let mut requests = Vec::new();
    for (seed, question) in (0..).zip(QUESTIONS) {
        let params = SamplingParams { temperature: 0.1, seed, ..SamplingParams::default() };
        let request = model.request(&[Message::new("user", question)])?;
        requests.push(Request { params, max_tokens: 64, ..request });
    }
    // The pieces of all answers come in turn; here only the whole answers are of interest.
    let answers = model.run(requests, |_, _| {})?;
    for (question, answer) in QUESTIONS.iter().zip(answers) {
        println!("{question}\n    {}", answer.trim());
    }
    Ok(())
}
