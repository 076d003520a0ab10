//! The logits of every position, and the most probable next token: `cargo run --release -p recua --example 04-logits -- [MODEL.gguf]`.

use recua::gguf::Gguf;
use recua::tokenizer::Tokenizer;
use recua::{DEMO_MODEL, LlamaConfig, LlamaModel, Report, open_device};

fn main() -> Result<(), Report> {
    let gguf = match std::env::args().nth(1) {
        Some(path) => Gguf::open(path)?,
        None => Gguf::from_bytes(DEMO_MODEL)?,
    };
    let tokenizer = Tokenizer::from_metadata(gguf.metadata())?;
    let mut model = LlamaModel::load(&gguf, open_device("cpu")?, LlamaConfig::default())?;
    let tokens = tokenizer.encode("What is the sum of 5 and 18?", tokenizer.adds_bos(), false)?;
    let logits = model.forward(&tokens)?;
    println!("{} tokens, logits of shape {:?}", tokens.len(), logits.shape());
    let best = logits.last_row().iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    if let Some((token, logit)) = best {
        println!("next: token {token}, logit {logit:.3}");
    }
    Ok(())
}
