//! One answer, printed as it is generated: `cargo run --release -p recua --example 01-answer -- [MODEL.gguf] [QUESTION]`.

use std::io::Write;

use recua::chat::Message;
use recua::gguf::Gguf;
use recua::{DEMO_MODEL, LlamaConfig, Report, TextModel, open_device};

fn main() -> Result<(), Report> {
    let mut args = std::env::args().skip(1);
    let mut model = match args.next() {
        Some(path) => TextModel::open(path)?,
        None => TextModel::load(&Gguf::from_bytes(DEMO_MODEL)?, open_device("cpu")?, LlamaConfig::default())?,
    };
    let question = args.next().unwrap_or_else(|| "What is the sum of 214 and 37?".into());
    model.answer(&[Message::new("user", question)], |text| {
        print!("{text}");
        // What cannot be shown now is shown with the next piece.
        let _ = std::io::stdout().flush();
    })?;
    println!();
    Ok(())
}
