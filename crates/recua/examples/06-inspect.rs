//! What is in a file, without loading it: `cargo run --release -p recua --example 06-inspect -- [MODEL.gguf]`.

use recua::gguf::Gguf;
use recua::{DEMO_MODEL, LlamaModel, Report};

fn main() -> Result<(), Report> {
    let gguf = match std::env::args().nth(1) {
        Some(path) => Gguf::open(path)?,
        None => Gguf::from_bytes(DEMO_MODEL)?,
    };
    let name = gguf.metadata().str("general.name")?.unwrap_or("without a name");
    println!("{name:?}: {} tensors", gguf.tensors().len());
    for tensor in gguf.tensors().iter().take(5) {
        // The innermost dimension comes first, as in the file.
        println!("    {:?} {} {:?}", tensor.name, tensor.ty, tensor.dims());
    }
    match LlamaModel::check(&gguf) {
        Ok(params) => println!("recua can run it, with a context of {} tokens", params.context_length),
        Err(e) => println!("recua cannot run it: {e}"),
    }
    Ok(())
}
