//! From a file to a model on a device. The file is checked completely before the device is opened.

use recua::compute::cpu;
use recua::gguf::Gguf;
use recua::tokenizer::Tokenizer;
use recua::{Device, Error, LlamaConfig, LlamaModel, LoadProgress, ModelParams};

use crate::args::DeviceArgs;
use crate::failure::{Failure, Result};
use crate::output::{count, note};
use crate::progress::Progress;
use crate::source;

const LOADING: &str = "loading";

/// A file that recua can run.
pub(crate) struct ModelFile {
    /// The name under which the user gave it.
    pub(crate) name: String,
    pub(crate) gguf: Gguf,
    pub(crate) params: ModelParams,
}

impl ModelFile {
    /// Opens MODEL and checks that recua can run it.
    pub(crate) fn open(model: &str) -> Result<Self> {
        let gguf = source::open(model)?;
        let params = check(&gguf, model)?;
        Ok(Self { name: model.to_owned(), gguf, params })
    }

    pub(crate) fn tokenizer(&self) -> Result<Tokenizer> {
        crate::tokenize::tokenizer(&self.gguf, &self.name)
    }

    /// The context to open: `asked` if given, which must not exceed the model's own; otherwise `needed`, at most the
    /// model's own.
    pub(crate) fn context(&self, asked: Option<usize>, needed: usize) -> Result<usize> {
        let own = self.params.context_length;
        match asked {
            Some(n) if n > own => Err(Failure::user(format!(
                "{}: --ctx-size {n} exceeds the model's context of {own}",
                self.name
            ))),
            Some(n) => Ok(n),
            None => Ok(needed.min(own)),
        }
    }

    /// Loads the model onto a device.
    pub(crate) fn load(&self, device: Device, config: LlamaConfig) -> Result<LlamaModel> {
        let mut shown = Progress::waiting(LOADING);
        let mut progress = |progress: LoadProgress| match progress {
            LoadProgress::Uploading { done, all } => shown.bytes(done, all, LOADING),
            _ => shown.wait("preparing the kernels"),
        };
        let loaded = LlamaModel::load_with_progress(&self.gguf, device, config, &mut progress);
        drop(shown);
        loaded.map_err(|e| failure(e, &self.name))
    }
}

/// Fails if recua could not run the file.
pub(crate) fn check(gguf: &Gguf, model: &str) -> Result<ModelParams> {
    LlamaModel::check(gguf).map_err(|e| failure(e, model))
}

/// Opens the device that the arguments name.
pub(crate) fn open_device(args: &DeviceArgs) -> Result<Device> {
    let name = args.name();
    let kind = name.split(':').next().unwrap_or_default();
    if !recua::DEVICE_NAMES.contains(&kind) && ["wgpu", "cuda"].contains(&kind) {
        let known = recua::DEVICE_NAMES.join(", ");
        return Err(Failure::user(format!("device \"{name}\" is not in this build yet; it has {known}")));
    }
    let open = || recua::open_device(name).map_err(|e| failure(e, ""));
    let device = match (args.threads, name) {
        (Some(threads), "cpu") => open_cpu(threads)?,
        // `--threads` alone does not choose the CPU.
        (Some(threads), "auto") => match open()? {
            device if device.info().runs_in_submit => open_cpu(threads)?,
            device => device,
        },
        _ => open()?,
    };
    if args.n_gpu_layers.is_some() {
        let kind = &device.info().kind;
        note!(
            "note: -ngl has little to choose here: all layers run on one device, which is {kind}; --device names another"
        );
    }
    Ok(device)
}

fn open_cpu(threads: usize) -> Result<Device> {
    let threads = Some(threads_within_cores(threads));
    cpu::open(cpu::Options { threads, ..cpu::Options::default() }).map_err(|e| match e {
        recua::compute::Error::Threads { .. } => Failure::other(e),
        e => Failure::user(e),
    })
}

/// The number of threads for work that no device does.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// A number of threads as asked for, at most one per core: more only wait for each other.
pub(crate) fn threads_within_cores(asked: usize) -> usize {
    let cores = cores();
    if asked > cores {
        note!("note: --threads {asked} is more than the {}; using {cores}", count(cores, "core"));
    }
    asked.min(cores)
}

/// Describes the device in one line, for people and for JSON.
pub(crate) fn device_line(device: &Device) -> String {
    let info = device.info();
    format!("{}: {}, {}", info.kind, info.name, info.detail)
}

/// Says that keys or values were cut to the range of f16, if any were; returns whether it did.
pub(crate) fn note_kv_cut(device: &Device) -> Result<bool> {
    let n = device.n_cut().map_err(Failure::other)?;
    if n > 0 {
        note!(
            "warning: {n} elements of keys and values were beyond the range of f16 and were cut to ±65504; \
             --kv-type f32 keeps them"
        );
    }
    Ok(n > 0)
}

/// Sorts an error of the engine by whose fault it is, and names the file if the error does not.
pub(crate) fn failure(e: Error, model: &str) -> Failure {
    let is_absent = matches!(e, Error::Compute(recua::compute::Error::DeviceNotFound { .. }));
    let is_ours = match &e {
        Error::Compute(_)
        | Error::OutOfMemory { .. }
        | Error::Allocation { .. }
        | Error::HostMemory { .. } => true,
        Error::Gguf(e) => e.is_io(),
        _ => false,
    };
    let message = match &e {
        // These already begin with a path.
        Error::Gguf(e) if e.path().is_some() => e.to_string(),
        e if model.is_empty() => e.to_string(),
        e => format!("{model}: {e}"),
    };
    let message = match &e {
        Error::Config { .. } | Error::OutOfMemory { .. } | Error::Allocation { .. } => with_flags(&message),
        _ => message,
    };
    if is_ours && !is_absent { Failure::Other(message) } else { Failure::User(message) }
}

/// Names of the library's configuration, and what a user types for them.
const FLAGS: [(&str, &str); 3] =
    [("max_seq_len", "--ctx-size"), ("batch_size", "batch size"), ("kv_type", "--kv-type")];

fn with_flags(message: &str) -> String {
    FLAGS.iter().fold(message.to_owned(), |message, (name, flag)| message.replace(name, flag))
}
