//! [`LlamaModel`]: a model on a device, with its cache. Start at [`LlamaModel::step`]: every other forward call leads to it.
//!
//! It consists of the [`LoadedModel`], which is on the device, and the [`Sequences`], which say which pages belong to which sequence. An
//! [`Engine`](crate::Engine) takes it apart and gives the sequences to its scheduler, so they have one owner at any time.
//!
//! A sequence's logits do not depend, to the last bit, on who shares the batch, on its slot, or on how an input is cut into passes. All
//! device memory is allocated when the model is loaded; a step allocates none.

mod config;
mod greedy;
mod llama;
mod loaded;
mod memory;
mod outputs;
mod params;
mod pass;
mod programs;
mod rope;
mod tensors;
mod workspace;

pub use config::{KvType, LlamaConfig, MAX_SEQ_LEN_DEFAULT};
pub use greedy::GreedyStep;
pub use loaded::{LoadProgress, LoadedModel};
pub use outputs::Outputs;
pub(crate) use outputs::WantedRows;
pub use params::{Architecture, ModelParams, Rope, RopeScaling};
pub(crate) use pass::Launched;

use crate::batch::{Batch, Logits};
use crate::cache::{CacheRoom, Changes, Sequences};
use crate::error::{Error, Result};
use crate::memory_report::MemoryReport;
use crate::tensor::Tensor;
use recua_compute::{Device, PAGE_TOKENS, Plan, cpu};
use recua_gguf::Gguf;
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// A Llama-family model and the key-value cache of `batch_size` sequences.
pub struct LlamaModel {
    loaded: LoadedModel,
    sequences: Sequences,
    // The updates that the device needs before the next step; empty between steps.
    changes: Changes,
}

/// Opening.
impl LlamaModel {
    /// Loads a file on the CPU, with the default configuration.
    ///
    /// # Errors
    /// If the file cannot be read, is not a supported model, or there is not enough memory.
    pub fn from_gguf(path: impl AsRef<Path>) -> Result<LlamaModel> {
        LlamaModel::from_gguf_with_config(path, LlamaConfig::default())
    }

    /// Loads a file on any device, with the default configuration.
    ///
    /// # Errors
    /// As [`from_gguf`](Self::from_gguf), or if the device has no kernel for a tensor's type.
    pub fn from_gguf_with_backend(path: impl AsRef<Path>, device: Device) -> Result<LlamaModel> {
        LlamaModel::load(&Gguf::open(path)?, device, LlamaConfig::default())
    }

    /// Loads a file on the CPU.
    ///
    /// # Errors
    /// As [`from_gguf`](Self::from_gguf), or if the configuration does not suit the model.
    pub fn from_gguf_with_config(path: impl AsRef<Path>, config: LlamaConfig) -> Result<LlamaModel> {
        let gguf = Gguf::open(path)?;
        // Checked before threads are started for a file that cannot be used.
        config.clone().resolve(&LlamaModel::check(&gguf)?)?;
        LlamaModel::load(&gguf, cpu::open(cpu::Options::default())?, config)
    }

    /// The general form: any opened file, device and configuration. Uploads the weights and allocates all the device memory that the model
    /// will ever use.
    ///
    /// # Errors
    /// If the file is not a supported model, the configuration does not suit it, the device has no kernel for a tensor's type, or there is
    /// not enough memory: the error says how much is needed, what is free and what would fit.
    pub fn load(gguf: &Gguf, device: Device, config: LlamaConfig) -> Result<LlamaModel> {
        LlamaModel::load_with_progress(gguf, device, config, &mut |_| {})
    }

    /// As [`load`](Self::load). `progress` is told before each part of the work, which may take seconds.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_with_progress(
        gguf: &Gguf,
        device: Device,
        config: LlamaConfig,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<LlamaModel> {
        let params = LlamaModel::check(gguf)?;
        let config = config.resolve(&params)?;
        let loaded = LoadedModel::load(gguf, device, params, config, progress)?;
        let sequences = Sequences::new(room(&loaded))?;
        Ok(LlamaModel::from_parts(loaded, sequences))
    }

    /// Checks that a file is a supported model: that its metadata is consistent and its tensors agree with the metadata. Needs no device.
    ///
    /// # Errors
    /// As [`ModelParams::from_gguf`], or if a tensor is missing, has the wrong shape or type, or is unknown. The error names it.
    pub fn check(gguf: &Gguf) -> Result<ModelParams> {
        let params = ModelParams::from_gguf(gguf)?;
        tensors::check(gguf, &params)?;
        Ok(params)
    }

    /// Splits the model into its two parts, for another owner.
    pub(crate) fn into_parts(self) -> (LoadedModel, Sequences) {
        (self.loaded, self.sequences)
    }

    /// Rebuilds a model from the result of [`into_parts`](Self::into_parts).
    pub(crate) fn from_parts(loaded: LoadedModel, sequences: Sequences) -> LlamaModel {
        LlamaModel { loaded, sequences, changes: Changes::default() }
    }
}

/// Properties.
impl LlamaModel {
    /// The model's shape.
    pub fn params(&self) -> &ModelParams {
        self.loaded.params()
    }

    /// The configuration, with every default filled in.
    pub fn config(&self) -> &LlamaConfig {
        self.loaded.config()
    }

    /// The model's device.
    pub fn device(&self) -> &Device {
        self.loaded.device()
    }

    /// The sequences in the key-value cache.
    pub fn kv_cache(&self) -> &Sequences {
        &self.sequences
    }

    /// The sequences in the key-value cache, to clear, share or fork them.
    pub fn kv_cache_mut(&mut self) -> &mut Sequences {
        &mut self.sequences
    }

    /// The device memory that the model takes.
    pub fn memory(&self) -> MemoryReport {
        self.loaded.memory()
    }

    /// See [`LoadedModel::weight_bytes_per_step`].
    pub fn weight_bytes_per_step(&self) -> u64 {
        self.loaded.weight_bytes_per_step()
    }

    /// See [`LoadedModel::plan`].
    ///
    /// # Errors
    /// If a pass cannot have this many rows.
    pub fn plan(&self, n_rows: usize, n_logits_rows: usize) -> Result<Plan> {
        self.loaded.plan(n_rows, n_logits_rows)
    }

    /// See [`LoadedModel::device_time`].
    pub fn device_time(&self) -> Option<Duration> {
        self.loaded.device_time()
    }
}

/// Running.
impl LlamaModel {
    /// The logits `[n_tokens, vocab]` of a new sequence in slot 0, which is cleared first.
    ///
    /// # Errors
    /// If there are no tokens, a token is outside the vocabulary, or there are more than `max_seq_len` tokens. Nothing has changed then.
    pub fn forward(&mut self, tokens: &[u32]) -> Result<Tensor> {
        self.forward_with_position(tokens, 0)
    }

    /// Like [`forward`](Self::forward), but continues the sequence in slot 0 at `start_position`; its tokens from there on are dropped.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), or if the sequence does not reach `start_position`.
    pub fn forward_with_position(&mut self, tokens: &[u32], start_position: usize) -> Result<Tensor> {
        let mut tensors = self.forward_batch_with_position(&[tokens], start_position)?;
        tensors.pop().ok_or(Error::EmptyBatch)
    }

    /// The logits of several new sequences, `[n_tokens, vocab]` each. Sequence `i` is in slot `i`, which is cleared first. Their lengths
    /// may differ.
    ///
    /// # Errors
    /// If the batch or a sequence is empty, there are more sequences than slots, a token is outside the vocabulary, or a sequence
    /// is longer than `max_seq_len`. Nothing has changed then.
    pub fn forward_batch(&mut self, batch: &[&[u32]]) -> Result<Vec<Tensor>> {
        self.forward_batch_with_position(batch, 0)
    }

    /// Like [`forward_batch`](Self::forward_batch), but continues every sequence at `start_position`.
    ///
    /// # Errors
    /// As [`forward_batch`](Self::forward_batch), or if a sequence does not reach `start_position`.
    pub fn forward_batch_with_position(
        &mut self,
        batch: &[&[u32]],
        start_position: usize,
    ) -> Result<Vec<Tensor>> {
        self.forward_batch_with_positions(batch, &vec![start_position; batch.len()])
    }

    /// Like [`forward_batch`](Self::forward_batch), but continues sequence `i` at `starts[i]`. Its tokens from there on are dropped; a
    /// start beyond its end is an error.
    ///
    /// # Errors
    /// As [`forward_batch`](Self::forward_batch), or if a sequence does not reach its start.
    pub fn forward_batch_with_positions(
        &mut self,
        batch: &[&[u32]],
        starts: &[usize],
    ) -> Result<Vec<Tensor>> {
        let capacity = self.sequences.batch_size();
        if batch.is_empty() {
            return Err(Error::EmptyBatch);
        }
        if batch.len() > capacity {
            return Err(Error::BatchOverCapacity { n_sequences: batch.len(), capacity });
        }
        if batch.len() != starts.len() {
            return Err(Error::StartsMismatch { n_sequences: batch.len(), n_starts: starts.len() });
        }
        if let Some(sequence) = batch.iter().position(|tokens| tokens.is_empty()) {
            return Err(Error::EmptySequence { sequence });
        }
        let mut rows = Batch::new();
        for (slot, (tokens, &start)) in batch.iter().zip(starts).enumerate() {
            // Checked here with the caller's own figures, before they are converted to u32.
            let max_seq_len = self.sequences.max_seq_len();
            if start.checked_add(tokens.len()).is_none_or(|end| end > max_seq_len) {
                return Err(Error::KvOverflow { slot, start, n_tokens: tokens.len(), max_seq_len });
            }
            rows.push_sequence(slot, start, tokens, Logits::All);
        }
        let mut logits = self.step(&rows)?;
        let vocab = self.params().vocab;
        if let [tokens] = batch {
            return Ok(vec![Tensor::new(tokens.len(), vocab, logits)]);
        }
        let mut tensors = Vec::with_capacity(batch.len());
        for tokens in batch.iter().rev() {
            let data = logits.split_off(logits.len() - tokens.len() * vocab);
            tensors.push(Tensor::new(tokens.len(), vocab, data));
        }
        tensors.reverse();
        Ok(tensors)
    }

    /// Runs any mix of rows, and returns the logits of `batch.logits_rows()` in their order: f32 `[n, vocab]`. A sequence continues where
    /// its first row says; the tokens of its slot from there on are dropped.
    ///
    /// # Errors
    /// If the batch is empty or one of its sequences has a gap, if a token, slot or position is out of range, or if pages run out: nothing
    /// has changed then. If the device fails, the sequences of the batch end where their first rows would have been, or at the beginning of
    /// a page before that.
    pub fn step(&mut self, batch: &Batch) -> Result<Vec<f32>> {
        let mut outputs = Outputs::default();
        self.step_mixed(batch, 0, 0, &mut outputs)?;
        Ok(outputs.logits)
    }

    /// Like [`step`](Self::step), but returns only the token of each row's largest logit: ties go to the lowest token, and it is `None` if
    /// no logit is above minus infinity. The logits stay on the device.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn step_greedy(&mut self, batch: &Batch) -> Result<Vec<Option<u32>>> {
        let mut outputs = Outputs::default();
        self.step_mixed(batch, batch.logits_rows().len(), 0, &mut outputs)?;
        Ok(outputs.greedy.into_iter().map(greedy::found).collect())
    }

    /// Like [`step`](Self::step), but returns the token of the largest logit for the first `n_greedy` of `batch.logits_rows()`, the largest
    /// logits for the next `n_top`, and all logits for the others.
    ///
    /// # Errors
    /// As [`step`](Self::step), or if there are fewer rows.
    pub fn step_mixed(
        &mut self,
        batch: &Batch,
        n_greedy: usize,
        n_top: usize,
        outputs: &mut Outputs,
    ) -> Result<()> {
        // Checked first, so that a malformed batch allocates no memory.
        let spans = self.loaded.spans(batch, 0)?;
        self.sequences.check_spans(&spans)?;
        let wanted = WantedRows::of(batch.logits_rows().len(), n_greedy, n_top)?;
        let out = self.loaded.room(wanted, outputs)?;
        self.changes.clear();
        self.sequences.replace(&spans, &mut self.changes)?;
        let run = self.loaded.run(batch, &self.changes, out);
        if run.is_err() {
            self.sequences.roll_back(&spans, &self.changes)?;
        }
        run
    }

    /// Changes the number of sequences for which there is room. Weights and live sequences stay, to the bit.
    ///
    /// The new cache is allocated beside the old one, which is then freed.
    ///
    /// # Errors
    /// If `batch_size` is 0 or would remove slots that hold tokens (the error names them), or there is no memory for both caches. Nothing
    /// has changed then.
    pub fn set_batch_size(&mut self, batch_size: usize) -> Result<()> {
        let config = LlamaConfig { batch_size, ..self.config().clone() }.resolve(self.params())?;
        if batch_size == self.config().batch_size {
            return Ok(());
        }
        let n_pages = memory::store_shape(self.params(), &config).kv.n_pages;
        self.sequences.check_resize(batch_size, n_pages)?;
        let resized = self.loaded.allocate(config)?;
        let (sequences, moves) = self.sequences.resized(batch_size, n_pages)?;
        self.loaded.resize(resized, &moves)?;
        self.sequences = sequences;
        Ok(())
    }
}

impl fmt::Debug for LlamaModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.loaded.fmt(f)
    }
}

/// The capacity of a model's cache.
fn room(loaded: &LoadedModel) -> CacheRoom {
    let (params, config) = (loaded.params(), loaded.config());
    CacheRoom {
        n_slots: config.batch_size,
        n_pages: memory::store_shape(params, config).kv.n_pages,
        page_tokens: PAGE_TOKENS,
        max_seq_len: config.max_seq_len,
    }
}
