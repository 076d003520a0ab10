//! A conversation with a history: `cargo run --release -p recua --example 03-chat -- [MODEL.gguf]`. Questions are the lines of standard
//! input.

use std::io::BufRead;

use recua::chat::Message;
use recua::gguf::Gguf;
use recua::{DEMO_MODEL, LlamaConfig, Report, TextModel, open_device};

fn main() -> Result<(), Report> {
    let mut model = match std::env::args().nth(1) {
        Some(path) => TextModel::open(path)?,
        None => TextModel::load(&Gguf::from_bytes(DEMO_MODEL)?, open_device("cpu")?, LlamaConfig::default())?,
    };
    let mut history = Vec::new();
    for line in std::io::stdin().lock().lines() {
        history.push(Message::new("user", line?));
        let answer = model.answer(&history, |text| print!("{text}"))?;
        println!();
        history.push(Message::new("assistant", answer));
    }
    Ok(())
}
