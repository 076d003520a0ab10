//! [`LlamaModel`]: a model on a device, with its cache. Start at [`LlamaModel::step`], which every other forward call becomes.
//!
//! A sequence's logits do not depend, to the last bit, on who shares the batch, on its slot, or on how an input is cut into
//! passes. All device memory is allocated when the model is loaded; a step allocates none.

mod llama;
mod memory;
mod programs;
mod rope;
mod workspace;

pub use memory::MemoryReport;
pub(crate) use memory::bytes_text;

use crate::batch::{Batch, Logits};
use crate::config::{LlamaConfig, ModelParams};
use crate::error::{Error, Result};
use crate::kv_cache::{KvCache, KvShape, Run};
use crate::tensor::Tensor;
use crate::weights::{self, Weights};
use llama::{Heads, Pass, Shape};
use programs::Programs;
use recua_compute::{Buffer, Device, Input, Plan, Submission, TOP_K_MAX, cpu};
use recua_gguf::Gguf;
use std::collections::VecDeque;
use std::fmt;
use std::path::Path;
use std::time::Duration;
use workspace::{Head, Workspace};

/// A Llama-family model and the key-value cache of `batch_size` sequences.
pub struct LlamaModel {
    device: Device,
    params: ModelParams,
    config: LlamaConfig,
    weights: Weights,
    // f32 [max_seq_len, n_rot / 2, 2]
    rope_table: Buffer,
    kv_cache: KvCache,
    workspace: Workspace,
    head: Head,
    // Taken by the device for its own use when it compiled the largest pass.
    device_bytes: u64,
    programs: Programs,
    // Of all passes so far, where the device tells.
    device_time: Option<Duration>,
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
        config.clone().resolve(&ModelParams::from_gguf(&gguf)?)?;
        LlamaModel::load(&gguf, cpu::open(cpu::Options::default())?, config)
    }

    /// The general one: any opened file, any device, any configuration. Brings the weights to the device and allocates all the
    /// memory the model will ever use there.
    ///
    /// # Errors
    /// If the file is not a model we know, the configuration does not suit it, the device has no kernel for a tensor's type, or
    /// there is not enough memory: the error says how much was asked for, what is free and what would fit.
    pub fn load(gguf: &Gguf, device: Device, config: LlamaConfig) -> Result<LlamaModel> {
        let params = ModelParams::from_gguf(gguf)?;
        let config = config.resolve(&params)?;
        let weights_bytes = gguf.tensors().iter().fold(0u64, |n, t| n.saturating_add(t.n_bytes() as u64));
        memory::check(&device, &params, weights_bytes, &config)?;
        let divisors = weights::rope_divisors(gguf, &params)?;
        let rope_table = rope::table(&device, &params, &divisors, config.max_seq_len)?;
        let kv_cache = KvCache::new(&device, KvShape::new(&params, &config))?;
        let workspace = Workspace::new(&device, &params, &config)?;
        // A device may have no kernels for heads or caches of this size, and bringing weights there takes long: it is asked first.
        let device_bytes = prepare_attention(&device, &params, &rope_table, &kv_cache, &workspace)?;
        let mut model = LlamaModel {
            weights: Weights::load(gguf, &device, &params)?,
            rope_table,
            kv_cache,
            workspace,
            head: Head::new(&device, &params, &config)?,
            device_bytes,
            programs: Programs::default(),
            device_time: None,
            device,
            params,
            config,
        };
        let (programs, device_bytes) = prepare(&model.device, &model.pass(), &model.config)?;
        model.programs = programs;
        model.device_bytes += device_bytes;
        Ok(model)
    }
}

/// What it is.
impl LlamaModel {
    /// The model's shape.
    pub fn params(&self) -> &ModelParams {
        &self.params
    }

    /// How it is run, with every default filled in.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// Where it is.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The key-value cache.
    pub fn kv_cache(&self) -> &KvCache {
        &self.kv_cache
    }

    /// The key-value cache, to clear or share sequences.
    pub fn kv_cache_mut(&mut self) -> &mut KvCache {
        &mut self.kv_cache
    }

    /// The device memory it takes.
    pub fn memory(&self) -> MemoryReport {
        let estimate = MemoryReport::estimate(&self.params, 0, &self.config);
        MemoryReport {
            weights_bytes: self.weights.n_bytes(&self.params),
            kv_bytes: self.kv_cache.bytes(),
            workspace_bytes: estimate.workspace_bytes + self.device_bytes,
        }
    }

    /// Bytes of weights that one pass streams, whatever its number of rows. The embedding counts only if it is the output too.
    pub fn weight_bytes_per_step(&self) -> u64 {
        self.weights.step_bytes()
    }

    /// The plan of a pass of `n_rows` rows, `n_logits_rows` of which end in logits: to print, to time its ops, to find a bad kernel.
    ///
    /// # Errors
    /// If a pass has not so many rows.
    pub fn plan(&mut self, n_rows: usize, n_logits_rows: usize) -> Result<Plan> {
        let (rows_max, logits_rows_max) = (self.config.step_tokens_max, self.config.logits_rows());
        if n_rows > rows_max || n_logits_rows > logits_rows_max {
            return Err(Error::PassOverCapacity { n_rows, n_logits_rows, rows_max, logits_rows_max });
        }
        record(&self.device, &self.pass(), Shape { n_rows, n_logits_rows, likeliest: false, top: false })
    }

    /// How long the device has worked for this model's steps so far, by its own clock; `None` where it does not tell.
    pub fn device_time(&self) -> Option<Duration> {
        self.device_time
    }

    fn pass(&self) -> Pass<'_> {
        Pass {
            params: &self.params,
            weights: &self.weights,
            rope_table: &self.rope_table,
            kv_cache: &self.kv_cache,
            workspace: &self.workspace,
            head: &self.head,
        }
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
        let capacity = self.kv_cache.batch_size();
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
            let max_seq_len = self.kv_cache.max_seq_len();
            if start.checked_add(tokens.len()).is_none_or(|end| end > max_seq_len) {
                return Err(Error::KvOverflow { slot, start, n_tokens: tokens.len(), max_seq_len });
            }
            rows.push_sequence(slot, start, tokens, Logits::All);
        }
        let mut logits = self.step(&rows)?;
        let vocab = self.params.vocab;
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

    /// Runs any mix of rows, and returns the logits of `batch.logits_rows`, in their order: `[n, vocab]`. A sequence is continued
    /// where its first row says; what its slot held from there on is dropped.
    ///
    /// # Errors
    /// If the batch is empty or contradicts itself, a token, slot or position is out of range, or pages run out: nothing has
    /// changed then. If the device fails, the sequences of the batch end where their first rows would have been.
    pub fn step(&mut self, batch: &Batch) -> Result<Vec<f32>> {
        let mut outputs = Outputs::default();
        self.step_mixed(batch, 0, 0, &mut outputs)?;
        Ok(outputs.logits)
    }

    /// As [`step`](Self::step), but brings back the likeliest token of each row alone: the one with the largest logit, the lowest of
    /// equals, and `None` if no logit is above minus infinity. The logits stay on the device.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn step_likeliest(&mut self, batch: &Batch) -> Result<Vec<Option<u32>>> {
        let mut outputs = Outputs::default();
        self.step_mixed(batch, batch.logits_rows.len(), 0, &mut outputs)?;
        Ok(outputs
            .likeliest
            .into_iter()
            .map(|token| Some(token).filter(|token| *token != u32::MAX))
            .collect())
    }

    /// As [`step`](Self::step), but brings back the likeliest token of the first `n_likeliest` of `batch.logits_rows`, the likeliest few
    /// of the next `n_top`, and the logits of the others.
    ///
    /// # Errors
    /// As [`step`](Self::step), or if there are not so many rows.
    pub fn step_mixed(
        &mut self,
        batch: &Batch,
        n_likeliest: usize,
        n_top: usize,
        outputs: &mut Outputs,
    ) -> Result<()> {
        // Checked first, so that a malformed batch asks for no memory.
        let runs = self.check_step(batch)?;
        let n_rows = batch.logits_rows.len();
        let Some(n_logits_rows) = n_rows.checked_sub(n_likeliest.saturating_add(n_top)) else {
            let problem =
                format!("{n_likeliest} and {n_top} rows' likeliest are asked for, of {n_rows} rows");
            return Err(Error::MalformedBatch { problem });
        };
        let n_logits = n_logits_rows.saturating_mul(self.params.vocab);
        let Outputs { likeliest, top, logits } = outputs;
        let no_memory =
            |_| Error::HostMemory { what: "the logits of a step", bytes: n_logits.saturating_mul(4) };
        logits.try_reserve_exact(n_logits.saturating_sub(logits.len())).map_err(no_memory)?;
        logits.resize(n_logits, 0.0);
        likeliest.resize(n_likeliest, 0);
        top.resize(n_top * TOP_WORDS, 0);
        self.run_step(batch, &runs, Out { likeliest, top, logits })
    }

    fn check_step(&self, batch: &Batch) -> Result<Vec<Run>> {
        let runs = self.check_batch(batch)?;
        self.kv_cache.check_runs(&runs)?;
        Ok(runs)
    }

    fn run_step(&mut self, batch: &Batch, runs: &[Run], out: Out<'_>) -> Result<()> {
        match self.run_batch(batch, runs, out) {
            Ok(()) => self.kv_cache.commit(runs),
            Err(e) => {
                self.kv_cache.roll_back(runs)?;
                return Err(e);
            }
        }
        Ok(())
    }

    /// What the batch does to each slot, or why it makes no sense.
    fn check_batch(&self, batch: &Batch) -> Result<Vec<Run>> {
        let Batch { tokens, positions, slots, logits_rows } = batch;
        let malformed = |problem| Err(Error::MalformedBatch { problem });
        let n_rows = tokens.len();
        if positions.len() != n_rows || slots.len() != n_rows {
            let (p, s) = (positions.len(), slots.len());
            return malformed(format!("{n_rows} tokens, {p} positions and {s} slots"));
        }
        if n_rows == 0 {
            return Err(Error::EmptyBatch);
        }
        if let Some(pair) = logits_rows.windows(2).find(|pair| pair[0] >= pair[1]) {
            return malformed(format!("logits of row {} are asked for after row {}", pair[1], pair[0]));
        }
        if let Some(row) = logits_rows.last().filter(|row| **row as usize >= n_rows) {
            return malformed(format!("logits of row {row} are asked for, there are {n_rows} rows"));
        }
        let (batch_size, vocab) = (self.kv_cache.batch_size(), self.params.vocab);
        let mut runs: Vec<Run> = Vec::new();
        let mut run_of_slot = vec![usize::MAX; batch_size];
        for row in 0..n_rows {
            let (token, slot, position) = (tokens[row], slots[row] as usize, positions[row] as usize);
            let Some(run) = run_of_slot.get_mut(slot) else {
                return Err(Error::SlotOutOfRange { slot, batch_size });
            };
            if token as usize >= vocab {
                return Err(Error::TokenOutOfRange { token, vocab, slot, position });
            }
            match runs.get_mut(*run) {
                None => {
                    *run = runs.len();
                    runs.push(Run { slot, start: position, end: position + 1 });
                }
                Some(run) if run.end == position => run.end += 1,
                Some(run) => {
                    let last = run.end - 1;
                    return malformed(format!(
                        "row {row} has position {position} of slot {slot}, after {last}"
                    ));
                }
            }
        }
        Ok(runs)
    }

    /// The passes of a batch that has been checked. Some are under way before the first is waited for.
    fn run_batch(&mut self, batch: &Batch, runs: &[Run], out: Out<'_>) -> Result<()> {
        if let Some(copies) = self.kv_cache.reserve(&self.device, runs)? {
            self.device.run(&copies)?.wait()?;
        }
        self.kv_cache.write_table(&self.device)?;
        let (rows_max, logits_max) = (self.config.step_tokens_max, self.config.logits_rows());
        let mut wanted = &batch.logits_rows[..];
        let mut out = out;
        let mut launched = VecDeque::new();
        for first in (0..batch.n_rows()).step_by(rows_max) {
            let end = batch.n_rows().min(first + rows_max);
            let rows = [&batch.tokens, &batch.positions, &batch.slots].map(|all| &all[first..end]);
            let mut input = rows.concat();
            let here;
            (here, wanted) = wanted.split_at(wanted.partition_point(|row| (*row as usize) < end));
            let mut n_rows = end - first;
            let mut lots = here.chunks(logits_max);
            loop {
                let lot = match lots.next() {
                    Some(lot) => lot,
                    None if n_rows > 0 => &[],
                    None => break,
                };
                input.extend(lot.iter().map(|row| row - first as u32));
                let lot_out;
                (lot_out, out) = out.split_at(lot.len(), self.params.vocab);
                launched.push_back(self.run_pass(n_rows, &input, lot_out)?);
                if launched.len() > LAUNCHED_MAX
                    && let Some(pass) = launched.pop_front()
                {
                    self.collect(pass)?;
                }
                // The rows are through; what is left of their logits takes the head alone.
                n_rows = 0;
                input.clear();
            }
        }
        launched.into_iter().try_for_each(|pass| self.collect(pass))
    }

    /// Waits for a pass and takes what is wanted of it.
    fn collect(&mut self, pass: Launched<'_>) -> Result<()> {
        let Launched { submission, out: Out { likeliest, top, logits } } = pass;
        submission.wait()?;
        let mut next = 0..;
        for words in [likeliest, top].into_iter().filter(|words| !words.is_empty()) {
            submission.take(next.next().unwrap_or_default(), words)?;
        }
        if !logits.is_empty() {
            submission.take(next.next().unwrap_or_default(), logits)?;
        }
        if let Some(time) = submission.gpu_time() {
            *self.device_time.get_or_insert_default() += time;
        }
        Ok(())
    }

    /// Launches one pass of `n_rows` rows. `input` is as [`workspace::Input`] says.
    fn run_pass<'a>(&mut self, n_rows: usize, input: &[u32], out: Out<'a>) -> Result<Launched<'a>> {
        let shape = Shape {
            n_rows,
            n_logits_rows: input.len() - 3 * n_rows,
            likeliest: !out.likeliest.is_empty(),
            top: !out.top.is_empty(),
        };
        let (n_likeliest, n_top) = (out.likeliest.len(), out.top.len() / TOP_WORDS);
        let mut outputs = Vec::with_capacity(3);
        if shape.likeliest {
            outputs.push(self.head.likeliest.view(0, &[n_likeliest])?);
        }
        if shape.top {
            outputs.push(self.head.top.view(n_likeliest * TOP_WORDS, &[out.top.len()])?);
        }
        if !out.logits.is_empty() {
            let first = (n_likeliest + n_top) * self.params.vocab;
            outputs.push(self.head.logits.view(first, &[out.logits.len()])?);
        }
        let LlamaModel { device, params, weights, rope_table, kv_cache, workspace, head, .. } = self;
        let pass = Pass { params, weights, rope_table, kv_cache, workspace, head };
        let program = self.programs.get(shape, || Ok(device.compile(&record(device, &pass, shape)?)?))?;
        let submission = program.launch(&[Input::new(&workspace.input, input)?], &outputs)?;
        Ok(Launched { submission, out })
    }

    /// Makes room for another number of sequences. Weights stay, and so do live sequences, to the bit.
    ///
    /// The new cache is allocated beside the old one, which is then freed.
    ///
    /// # Errors
    /// If `batch_size` is 0 or would cut off slots that hold tokens (the error names them), or there is no memory for both caches.
    /// Nothing has changed then.
    pub fn set_batch_size(&mut self, batch_size: usize) -> Result<()> {
        let config = LlamaConfig { batch_size, ..self.config.clone() }.resolve(&self.params)?;
        if batch_size == self.config.batch_size {
            return Ok(());
        }
        self.kv_cache.check_resize(batch_size)?;
        memory::check_resize(&self.device, &self.params, &self.config, &config)?;
        let (kv_cache, copies) = self.kv_cache.resized(&self.device, batch_size)?;
        let head = if config.logits_rows() == self.config.logits_rows() {
            None
        } else {
            Some(Head::new(&self.device, &self.params, &config)?)
        };
        let pass = Pass { kv_cache: &kv_cache, head: head.as_ref().unwrap_or(&self.head), ..self.pass() };
        let (programs, device_bytes) = prepare(&self.device, &pass, &config)?;
        self.device.run(&copies)?.wait()?;
        self.device_bytes += device_bytes;
        // The old ones hold the old buffers.
        self.programs = programs;
        self.kv_cache = kv_cache;
        if let Some(head) = head {
            self.head = head;
        }
        self.config = config;
        Ok(())
    }
}

impl fmt::Debug for LlamaModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let p = &self.params;
        write!(f, "LlamaModel({}, {} layers of {}, {:?})", p.architecture, p.n_layers, p.n_embd, self.device)
    }
}

/// What [`LlamaModel::step_mixed`] brings back. Its memory is used again.
#[derive(Clone, Debug, Default)]
pub struct Outputs {
    /// The likeliest token of each of the first rows; `u32::MAX` if no logit is above minus infinity.
    pub likeliest: Vec<u32>,
    /// The [`TOP_K_MAX`] likeliest tokens of each of the next rows as [`recua_compute::TopK`] gives them: bits of the logit, token.
    pub top: Vec<u32>,
    /// The logits of the other rows.
    pub logits: Vec<f32>,
}

/// Words of a row's likeliest few.
const TOP_WORDS: usize = TOP_K_MAX * 2;

/// Passes under way at a time, each of which may hold its outputs on the host.
const LAUNCHED_MAX: usize = 4;

/// A pass under way, and where its outputs go.
struct Launched<'a> {
    submission: Submission,
    out: Out<'a>,
}

/// The parts of [`Outputs`] that a pass fills.
struct Out<'a> {
    likeliest: &'a mut [u32],
    top: &'a mut [u32],
    logits: &'a mut [f32],
}

impl<'a> Out<'a> {
    /// The first `n_rows` rows, and the others.
    fn split_at(self, n_rows: usize, vocab: usize) -> (Out<'a>, Out<'a>) {
        let n_likeliest = n_rows.min(self.likeliest.len());
        let n_top = (n_rows - n_likeliest).min(self.top.len() / TOP_WORDS);
        let n_logits = n_rows - n_likeliest - n_top;
        let (likeliest, likeliest_rest) = self.likeliest.split_at_mut(n_likeliest);
        let (top, top_rest) = self.top.split_at_mut(n_top * TOP_WORDS);
        let (logits, logits_rest) = self.logits.split_at_mut(n_logits * vocab);
        (
            Out { likeliest, top, logits },
            Out { likeliest: likeliest_rest, top: top_rest, logits: logits_rest },
        )
    }
}

fn record(device: &Device, pass: &Pass<'_>, shape: Shape) -> Result<Plan> {
    let mut plan = device.plan();
    llama::record(&mut plan, pass, shape)?;
    Ok(plan)
}

/// Lets the device allocate what a row's attention needs beside its buffers, and returns how many bytes that took. Needs no weights.
fn prepare_attention(
    device: &Device,
    params: &ModelParams,
    rope_table: &Buffer,
    kv_cache: &KvCache,
    workspace: &Workspace,
) -> Result<u64> {
    let before = device.allocated_bytes();
    let heads = Heads { params, rope_table, kv_cache, workspace };
    let mut plan = device.plan();
    for cache in kv_cache.layers().iter().take(1) {
        llama::attend(&mut plan, &heads, cache, 1, None)?;
    }
    device.compile(&plan)?;
    Ok(device.allocated_bytes().saturating_sub(before))
}

/// Compiles the largest and the smallest pass, so that the device allocates now what it needs beside their buffers, and returns how
/// many bytes that took.
fn prepare(device: &Device, pass: &Pass<'_>, config: &LlamaConfig) -> Result<(Programs, u64)> {
    let before = device.allocated_bytes();
    let mut programs = Programs::default();
    for (n_rows, n_logits_rows) in [(config.step_tokens_max, config.logits_rows()), (1, 1)] {
        let shape = Shape { n_rows, n_logits_rows, likeliest: true, top: true };
        programs.get(shape, || {
            let program = device.compile(&record(device, pass, shape)?);
            program.map_err(|source| Error::Allocation { what: "the device's workspace".into(), source })
        })?;
    }
    Ok((programs, device.allocated_bytes().saturating_sub(before)))
}
