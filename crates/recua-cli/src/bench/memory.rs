//! Measures the memory of a batch size in a fresh process, so that nothing left over from another size is counted.

use std::io::Write;
use std::process::{Command, Stdio};

use recua::{Batch, LlamaConfig, Logits};

use crate::args::{BenchMemoryArgs, DeviceArgs, KvArgs};
use crate::failure::{Failure, OrFail, Result};
use crate::model::{self, ModelFile};
use crate::output::{self, note};

/// The memory that the device had allocated for a batch size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    pub(super) batch: usize,
    pub(super) memory_bytes: u64,
}

/// Runs in the fresh process: loads the model, runs a step of all sequences, and prints the bytes that the device has
/// allocated.
pub(crate) fn run(args: BenchMemoryArgs) -> Result {
    let file = ModelFile::open(&args.model)?;
    let device = model::open_device(&args.device)?;
    let config = LlamaConfig {
        batch_size: args.batch,
        max_seq_len: args.ctx,
        kv_type: args.kv.kv_type,
        ..LlamaConfig::default()
    };
    let mut model = file.load(device, config)?;
    let mut batch = Batch::new();
    (0..args.batch).for_each(|slot| batch.push_sequence(slot, 0, &[0], Logits::Last));
    model.step(&batch).map_err(|e| model::failure(e, &args.model))?;
    let mut out = output::stdout();
    writeln!(out, "{}", model.device().allocated_bytes())?;
    out.flush()?;
    Ok(())
}

/// Measures each batch size in a process of its own.
pub(super) fn in_fresh_processes(
    model: &str,
    batches: &[usize],
    context: usize,
    kv: KvArgs,
    device: &DeviceArgs,
) -> Result<Vec<Measured>> {
    let program = std::env::current_exe().or_other()?;
    let mut all = Vec::new();
    for batch in batches {
        let mut command = Command::new(&program);
        command.args(["bench-memory", "--batch", &batch.to_string(), "--ctx", &context.to_string()]);
        command.args(["--kv-type", kv.kv_type.dtype().name(), "--device", device.name()]);
        if let Some(threads) = device.threads {
            command.args(["--threads", &threads.to_string()]);
        }
        command.args(["--", model]).stdin(Stdio::null()).stderr(Stdio::inherit());
        let output = command.output().or_other()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let memory_bytes = text.trim().parse().map_err(|_| {
            Failure::other(format!(
                "the process that measures the memory of batch {batch} ended with {}",
                output.status
            ))
        })?;
        note!("batch {batch}: {} in a fresh process", output::bytes(memory_bytes));
        all.push(Measured { batch: *batch, memory_bytes });
    }
    Ok(all)
}
