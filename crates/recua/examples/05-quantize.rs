//! The same model in another type: `cargo run --release -p recua --example 05-quantize -- [IN.gguf OUT.gguf TYPE]`. Without arguments, the
//! demo model becomes Q4_0 in the folder for temporary files, and is removed again.

use std::path::PathBuf;

use recua::Report;
use recua::gguf::{FileType, Gguf, quantize};

fn main() -> Result<(), Report> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (input, output, file_type) = match &args[..] {
        [input, output, file_type] => (Gguf::open(input)?, PathBuf::from(output), file_type.parse()?),
        _ => {
            let output = std::env::temp_dir().join(format!("recua-example-{}.gguf", std::process::id()));
            (Gguf::from_bytes(recua::DEMO_MODEL)?, output, "Q4_0".parse::<FileType>()?)
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let report = quantize(&input, &output, file_type, threads, &mut |done, all, name| {
        if done == all {
            println!("{all} tensors");
        } else if done % 16 == 0 {
            println!("{done} of {all}: {name}");
        }
    })?;
    println!("{} bytes became {}", report.bytes_in, report.bytes_out);
    if args.is_empty() {
        std::fs::remove_file(&output)?;
    }
    Ok(())
}
