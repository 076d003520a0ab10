//! [`LoadedModel`]: the part of a model that is on a device: weights, buffers and the store of its cache. It runs passes over the given
//! rows in the given pages, and knows nothing of sequences that continue from step to step.

use super::config::LlamaConfig;
use super::llama::{self, AttentionInputs, Pass, Shape};
use super::params::ModelParams;
use super::programs::{Programs, compile, record};
use super::tensors::{self, Weights};
use super::workspace::{LogitsWorkspace, Workspace};
use super::{memory, rope};
use crate::cache::Store;
use crate::error::{Error, Result};
use crate::memory_report::MemoryReport;
use recua_compute::{Buffer, Device, Plan, WorkList};
use recua_gguf::Gguf;
use std::fmt;
use std::time::Duration;

/// A Llama-family model on a device, without sequences.
pub struct LoadedModel {
    pub(super) device: Device,
    pub(super) params: ModelParams,
    pub(super) config: LlamaConfig,
    weights: Weights,
    // f32 [max_seq_len, n_rot / 2, 2]
    rope_table: Buffer,
    pub(super) store: Store,
    pub(super) workspace: Workspace,
    // The work list of attention for the current pass.
    pub(super) work_list: WorkList,
    pub(super) logits: LogitsWorkspace,
    // Taken by the device for its own use when it compiled the largest pass.
    device_bytes: u64,
    pub(super) programs: Programs,
    // The number of leading entries of `logits.greedy` that the latest pass chooses.
    pub(super) n_chosen: usize,
    // Of all passes so far, if the device reports it.
    pub(super) device_time: Option<Duration>,
}

/// What [`LlamaModel::load_with_progress`](crate::LlamaModel::load_with_progress) is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadProgress {
    /// Preparing programs, for which a GPU's kernels are compiled.
    Compiling,
    /// Uploading weights.
    Uploading {
        /// The bytes of the file's tensors that are on the device.
        done: u64,
        /// The bytes of all of them.
        all: u64,
    },
}

/// The buffers whose size depends on the number of slots, before they replace the current ones.
pub(crate) struct Resized {
    config: LlamaConfig,
    store: Store,
    // `None` if the current one is large enough.
    logits: Option<LogitsWorkspace>,
    programs: Programs,
    // Taken by the device for its own use when it prepared these programs.
    device_bytes: u64,
}

/// Opening.
impl LoadedModel {
    /// Uploads the weights and allocates all the device memory that the model will ever use. The file must have been checked against
    /// `params`, and `config` must suit it.
    ///
    /// # Errors
    /// If the device has no kernel for a tensor's type or for the heads, or there is not enough memory.
    pub(crate) fn load(
        gguf: &Gguf,
        device: Device,
        params: ModelParams,
        config: LlamaConfig,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<LoadedModel> {
        let weights_bytes = gguf.tensors().iter().fold(0u64, |n, t| n.saturating_add(t.n_bytes() as u64));
        memory::check(&device, &params, weights_bytes, &config)?;
        let divisors = tensors::rope_divisors(gguf, &params)?;
        let rope_table = rope::table(&device, &params, &divisors, config.max_seq_len)?;
        let store = Store::new(&device, memory::store_shape(&params, &config))?;
        let tiling = memory::tiling(&device, &params, &config);
        let workspace = Workspace::new(&device, &params, &config, &tiling)?;
        // Check that the device supports these head and cache sizes before the slow upload of the weights.
        let inputs = AttentionInputs {
            params: &params,
            rope_table: &rope_table,
            store: &store,
            workspace: &workspace,
        };
        progress(LoadProgress::Compiling);
        let attention_bytes = prepare_attention(&device, &inputs)?;
        let weights = Weights::load(gguf, &device, &params, progress)?;
        let logits = LogitsWorkspace::new(&device, &params, &config)?;
        let pass = Pass {
            params: &params,
            weights: &weights,
            rope_table: &rope_table,
            store: &store,
            workspace: &workspace,
            logits: &logits,
        };
        progress(LoadProgress::Compiling);
        let (programs, device_bytes) = prepare(&device, &pass, &config)?;
        Ok(LoadedModel {
            weights,
            rope_table,
            store,
            workspace,
            work_list: WorkList::new(),
            logits,
            device_bytes: attention_bytes + device_bytes,
            programs,
            n_chosen: 0,
            device_time: None,
            device,
            params,
            config,
        })
    }
}

/// Properties.
impl LoadedModel {
    /// The model's shape.
    pub fn params(&self) -> &ModelParams {
        &self.params
    }

    /// The configuration, with every default filled in.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// The model's device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The device memory that the model takes.
    pub fn memory(&self) -> MemoryReport {
        let estimate = memory::estimate(&self.params, 0, &self.config, &self.workspace.tiling);
        MemoryReport {
            weights_bytes: self.weights.n_bytes(&self.params),
            kv_bytes: self.store.shape().kv_bytes(),
            workspace_bytes: estimate.workspace_bytes + self.device_bytes,
        }
    }

    /// Bytes of weights that one pass reads, whatever its number of rows. The embedding counts only if it is also the output matrix.
    pub fn weight_bytes_per_step(&self) -> u64 {
        self.weights.step_bytes()
    }

    /// The plan of a pass of `n_rows` rows, `n_logits_rows` of which end in logits: to print it, to time its ops, or to find a bad kernel.
    ///
    /// # Errors
    /// If a pass cannot have this many rows.
    pub fn plan(&self, n_rows: usize, n_logits_rows: usize) -> Result<Plan> {
        self.check_pass(n_rows, n_logits_rows)?;
        record(&self.device, &self.pass(), Shape { n_rows, n_logits_rows, greedy: false, top: false })
    }

    /// Checks that one pass can have this many rows.
    pub(crate) fn check_pass(&self, n_rows: usize, n_logits_rows: usize) -> Result<()> {
        let (rows_max, logits_rows_max) = (self.config.step_tokens_max, self.config.logits_rows());
        if n_rows > rows_max || n_logits_rows > logits_rows_max {
            return Err(Error::PassOverCapacity { n_rows, n_logits_rows, rows_max, logits_rows_max });
        }
        Ok(())
    }

    /// How long the device has worked for this model's steps so far, by its own clock; `None` if it does not report this.
    pub fn device_time(&self) -> Option<Duration> {
        self.device_time
    }

    pub(super) fn pass(&self) -> Pass<'_> {
        Pass {
            params: &self.params,
            weights: &self.weights,
            rope_table: &self.rope_table,
            store: &self.store,
            workspace: &self.workspace,
            logits: &self.logits,
        }
    }
}

/// Changing the number of slots.
impl LoadedModel {
    /// Allocates the buffers for another configuration, which differs only in `batch_size`, beside the current ones.
    ///
    /// # Errors
    /// If there is no memory for both. Nothing has changed then.
    pub(crate) fn allocate(&self, config: LlamaConfig) -> Result<Resized> {
        memory::check_resize(&self.device, &self.params, &self.config, &config)?;
        let store = Store::new(&self.device, memory::store_shape(&self.params, &config))?;
        let logits = if config.logits_rows() == self.config.logits_rows() {
            None
        } else {
            Some(LogitsWorkspace::new(&self.device, &self.params, &config)?)
        };
        let pass = Pass { store: &store, logits: logits.as_ref().unwrap_or(&self.logits), ..self.pass() };
        let (programs, device_bytes) = prepare(&self.device, &pass, &config)?;
        Ok(Resized { config, store, logits, programs, device_bytes })
    }

    /// Copies the pages of `moves` and frees the old buffers.
    ///
    /// # Errors
    /// If the device fails. Nothing has changed then.
    pub(crate) fn resize(&mut self, resized: Resized, moves: &[(u32, u32)]) -> Result<()> {
        let Resized { config, store, logits, programs, device_bytes } = resized;
        self.store.copy_to(&self.device, &store, moves)?;
        (self.store, self.config, self.programs) = (store, config, programs);
        self.device_bytes += device_bytes;
        self.n_chosen = 0;
        if let Some(logits) = logits {
            self.logits = logits;
        }
        Ok(())
    }
}

impl fmt::Debug for LoadedModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let p = &self.params;
        write!(f, "LlamaModel({}, {} layers of {}, {:?})", p.architecture, p.n_layers, p.n_embd, self.device)
    }
}

/// Lets the device allocate what a row's attention needs besides its buffers, and returns the bytes that this took. Needs no weights.
fn prepare_attention(device: &Device, inputs: &AttentionInputs<'_>) -> Result<u64> {
    let before = device.allocated_bytes();
    let mut plan = device.plan();
    for cache in inputs.store.layers().iter().take(1) {
        llama::attend(&mut plan, inputs, cache, &inputs.workspace.input(1, 0)?, None)?;
    }
    device.compile(&plan)?;
    Ok(device.allocated_bytes().saturating_sub(before))
}

/// Compiles the largest and the smallest pass, and the plan that copies pages. Returns the bytes that the device allocated for them besides
/// their buffers.
fn prepare(device: &Device, pass: &Pass<'_>, config: &LlamaConfig) -> Result<(Programs, u64)> {
    let before = device.allocated_bytes();
    let mut programs = Programs::new(device.compile(&pass.store.copies(device)?)?);
    let largest = (config.step_tokens_max, config.logits_rows());
    for ((n_rows, n_logits_rows), top) in [(largest, true), ((1, 1), true), ((1, 1), false)] {
        let shape = Shape { n_rows, n_logits_rows, greedy: true, top };
        programs.insert(shape, compile(device, pass, shape)?);
    }
    Ok((programs, device.allocated_bytes().saturating_sub(before)))
}
