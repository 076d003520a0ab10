//! [`LlamaModel`]: a model on a device, with its cache. Start at [`LlamaModel::step`], which every other forward call becomes.
//!
//! It is two things: the [`LoadedModel`], which is on the device, and the [`Sequences`] that say which pages belong to whom. An
//! [`Engine`](crate::Engine) takes it apart and hands the sequences to its scheduler, so they have one owner at any time.
//!
//! A sequence's logits do not depend, to the last bit, on who shares the batch, on its slot, or on how an input is cut into
//! passes. All device memory is allocated when the model is loaded; a step allocates none.

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
pub use loaded::LoadedModel;
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
    // What the device must be told before the next step; empty between steps.
    changes: Changes,
}

/// Opening.
impl LlamaModel {
    /// The model of a file on the CPU, with the default configuration.
    ///
    /// # Errors
    /// If the file cannot be read or is not a model we know, or there is not enough memory.
    pub fn from_gguf(path: impl AsRef<Path>) -> Result<LlamaModel> {
        LlamaModel::from_gguf_with_config(path, LlamaConfig::default())
    }

    /// The model of a file on any device, with the default configuration.
    ///
    /// # Errors
    /// As [`from_gguf`](Self::from_gguf), or if the device has no kernel for a tensor's type.
    pub fn from_gguf_with_backend(path: impl AsRef<Path>, device: Device) -> Result<LlamaModel> {
        LlamaModel::load(&Gguf::open(path)?, device, LlamaConfig::default())
    }

    /// The model of a file on the CPU.
    ///
    /// # Errors
    /// As [`from_gguf`](Self::from_gguf), or if the configuration does not suit the model.
    pub fn from_gguf_with_config(path: impl AsRef<Path>, config: LlamaConfig) -> Result<LlamaModel> {
        let gguf = Gguf::open(path)?;
        // Before threads are started for a file that cannot be used.
        config.clone().resolve(&LlamaModel::check(&gguf)?)?;
        LlamaModel::load(&gguf, cpu::open(cpu::Options::default())?, config)
    }

    /// The general one: any opened file, any device, any configuration. Uploads the weights and allocates all the memory the model
    /// will ever use on the device.
    ///
    /// # Errors
    /// If the file is not a model we know, the configuration does not suit it, the device has no kernel for a tensor's type, or
    /// there is not enough memory: the error says how much was asked for, what is free and what would fit.
    pub fn load(gguf: &Gguf, device: Device, config: LlamaConfig) -> Result<LlamaModel> {
        let params = LlamaModel::check(gguf)?;
        let config = config.resolve(&params)?;
        let loaded = LoadedModel::load(gguf, device, params, config)?;
        let sequences = Sequences::new(room(&loaded))?;
        Ok(LlamaModel::from_parts(loaded, sequences))
    }

    /// Whether a file is a model there is a forward pass for: its metadata within itself and its tensors against the metadata. Needs
    /// no device.
    ///
    /// # Errors
    /// As [`ModelParams::from_gguf`], or if a tensor is missing, of another shape or type than it must be, or not known. The error
    /// names it.
    pub fn check(gguf: &Gguf) -> Result<ModelParams> {
        let params = ModelParams::from_gguf(gguf)?;
        tensors::check(gguf, &params)?;
        Ok(params)
    }

    /// The two things a model consists of, for somebody else to own.
    pub(crate) fn into_parts(self) -> (LoadedModel, Sequences) {
        (self.loaded, self.sequences)
    }

    /// A model of what [`into_parts`](Self::into_parts) gave.
    pub(crate) fn from_parts(loaded: LoadedModel, sequences: Sequences) -> LlamaModel {
        LlamaModel { loaded, sequences, changes: Changes::default() }
    }
}

/// What it is.
impl LlamaModel {
    /// The model's shape.
    pub fn params(&self) -> &ModelParams {
        self.loaded.params()
    }

    /// How it is run, with every default filled in.
    pub fn config(&self) -> &LlamaConfig {
        self.loaded.config()
    }

    /// Where it is.
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

    /// The device memory it takes.
    pub fn memory(&self) -> MemoryReport {
        self.loaded.memory()
    }

    /// As [`LoadedModel::weight_bytes_per_step`].
    pub fn weight_bytes_per_step(&self) -> u64 {
        self.loaded.weight_bytes_per_step()
    }

    /// As [`LoadedModel::plan`].
    ///
    /// # Errors
    /// If a pass has not so many rows.
    pub fn plan(&self, n_rows: usize, n_logits_rows: usize) -> Result<Plan> {
        self.loaded.plan(n_rows, n_logits_rows)
    }

    /// As [`LoadedModel::device_time`].
    pub fn device_time(&self) -> Option<Duration> {
        self.loaded.device_time()
    }
}

/// Running.
impl LlamaModel {
    /// The logits `[n_tokens, vocab]` of a sequence of its own, in slot 0, which is cleared first.
    ///
    /// # Errors
    /// If there are no tokens, one is outside the vocabulary, or they are more than `max_seq_len`. Nothing has changed then.
    pub fn forward(&mut self, tokens: &[u32]) -> Result<Tensor> {
        self.forward_with_position(tokens, 0)
    }

    /// As [`forward`](Self::forward), continuing the sequence in slot 0 at `start_position`; what it held from there on is dropped.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), or if the sequence does not reach `start_position`.
    pub fn forward_with_position(&mut self, tokens: &[u32], start_position: usize) -> Result<Tensor> {
        let mut tensors = self.forward_batch_with_position(&[tokens], start_position)?;
        tensors.pop().ok_or(Error::EmptyBatch)
    }

    /// The logits of several sequences of their own, `[n_tokens, vocab]` each. Sequence `i` is in slot `i`, which is cleared first.
    /// Their lengths may differ.
    ///
    /// # Errors
    /// If the batch or a sequence is empty, there are more sequences than slots, a token is outside the vocabulary, or a sequence
    /// is longer than `max_seq_len`. Nothing has changed then.
    pub fn forward_batch(&mut self, batch: &[&[u32]]) -> Result<Vec<Tensor>> {
        self.forward_batch_with_position(batch, 0)
    }

    /// As [`forward_batch`](Self::forward_batch), every sequence continuing at `start_position`.
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

    /// As [`forward_batch`](Self::forward_batch), sequence `i` continuing at `starts[i]`. What a sequence held from there on is
    /// dropped; a start beyond its end is an error.
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
            // Said here in the caller's own figures, before they are narrowed.
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

    /// Runs any mix of rows, and returns the logits of `batch.logits_rows()`, in their order: f32 `[n, vocab]`. A sequence is continued
    /// where its first row says; what its slot held from there on is dropped.
    ///
    /// # Errors
    /// If the batch is empty or a sequence of it has a gap, a token, slot or position is out of range, or pages run out: nothing has
    /// changed then. If the device fails, the sequences of the batch end where their first rows would have been, or at the
    /// beginning of a page before that.
    pub fn step(&mut self, batch: &Batch) -> Result<Vec<f32>> {
        let mut outputs = Outputs::default();
        self.step_mixed(batch, 0, 0, &mut outputs)?;
        Ok(outputs.logits)
    }

    /// As [`step`](Self::step), but brings back the token of each row's largest logit alone: ties go to the lowest index, and it is
    /// `None` if no logit is above minus infinity. The logits stay on the device.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn step_greedy(&mut self, batch: &Batch) -> Result<Vec<Option<u32>>> {
        let mut outputs = Outputs::default();
        self.step_mixed(batch, batch.logits_rows().len(), 0, &mut outputs)?;
        Ok(outputs.greedy.into_iter().map(greedy::found).collect())
    }

    /// As [`step`](Self::step), but brings back the token of the largest logit of the first `n_greedy` of `batch.logits_rows()`, the
    /// largest logits of the next `n_top`, and all logits of the others.
    ///
    /// # Errors
    /// As [`step`](Self::step), or if there are not so many rows.
    pub fn step_mixed(
        &mut self,
        batch: &Batch,
        n_greedy: usize,
        n_top: usize,
        outputs: &mut Outputs,
    ) -> Result<()> {
        // Checked first, so that a malformed batch asks for no memory.
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

    /// Makes room for another number of sequences. Weights stay, and so do live sequences, to the bit.
    ///
    /// The new cache is allocated beside the old one, which is then freed.
    ///
    /// # Errors
    /// If `batch_size` is 0 or would cut off slots that hold tokens (the error names them), or there is no memory for both caches.
    /// Nothing has changed then.
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

/// The room in the cache of a model.
fn room(loaded: &LoadedModel) -> CacheRoom {
    let (params, config) = (loaded.params(), loaded.config());
    CacheRoom {
        n_slots: config.batch_size,
        n_pages: memory::store_shape(params, config).kv.n_pages,
        page_tokens: PAGE_TOKENS,
        max_seq_len: config.max_seq_len,
    }
}
