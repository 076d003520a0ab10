//! [`LoadedModel`]: what of a model is on a device, weights, buffers and the store of its cache. It runs passes over the rows it is
//! given, in the pages it is told, and has never heard of a sequence that goes on from step to step.

use super::config::LlamaConfig;
use super::llama::{self, AttentionInputs, Pass, Shape};
use super::outputs::{Out, Outputs, TOP_WORDS};
use super::params::ModelParams;
use super::programs::Programs;
use super::workspace::{LogitsWorkspace, Workspace};
use super::{memory, rope};
use crate::batch::Batch;
use crate::cache::{Changes, Span, Store};
use crate::error::{Error, Result};
use crate::memory_report::MemoryReport;
use crate::weights::{self, Weights};
use recua_compute::{Buffer, Device, Input, Plan, Submission};
use recua_gguf::Gguf;
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// A Llama-family model on a device, without anybody's sequences.
pub struct LoadedModel {
    device: Device,
    params: ModelParams,
    config: LlamaConfig,
    weights: Weights,
    // f32 [max_seq_len, n_rot / 2, 2]
    rope_table: Buffer,
    store: Store,
    workspace: Workspace,
    logits: LogitsWorkspace,
    // Taken by the device for its own use when it compiled the largest pass.
    device_bytes: u64,
    programs: Programs,
    // Of all passes so far, where the device tells.
    device_time: Option<Duration>,
}

/// The buffers whose size depends on the number of slots, before they replace the present ones.
pub(crate) struct Resized {
    config: LlamaConfig,
    store: Store,
    // `None`: the present one does.
    logits: Option<LogitsWorkspace>,
    programs: Programs,
}

/// Opening.
impl LoadedModel {
    /// Uploads the weights and allocates all the memory the model will ever use on the device. `params` is what the file was checked
    /// against, `config` suits it.
    ///
    /// # Errors
    /// If the device has no kernel for a tensor's type or for the heads, or there is not enough memory.
    pub(crate) fn load(
        gguf: &Gguf,
        device: Device,
        params: ModelParams,
        config: LlamaConfig,
    ) -> Result<LoadedModel> {
        let weights_bytes = gguf.tensors().iter().fold(0u64, |n, t| n.saturating_add(t.n_bytes() as u64));
        memory::check(&device, &params, weights_bytes, &config)?;
        let divisors = weights::rope_divisors(gguf, &params)?;
        let rope_table = rope::table(&device, &params, &divisors, config.max_seq_len)?;
        let store = Store::new(&device, memory::store_shape(&params, &config))?;
        let workspace = Workspace::new(&device, &params, &config)?;
        // Check that the device supports these head and cache sizes before the slow upload of the weights.
        let inputs = AttentionInputs {
            params: &params,
            rope_table: &rope_table,
            store: &store,
            workspace: &workspace,
        };
        let device_bytes = prepare_attention(&device, &inputs)?;
        let mut model = LoadedModel {
            weights: Weights::load(gguf, &device, &params)?,
            rope_table,
            store,
            workspace,
            logits: LogitsWorkspace::new(&device, &params, &config)?,
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
impl LoadedModel {
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

    /// The device memory it takes.
    pub fn memory(&self) -> MemoryReport {
        let estimate = memory::estimate(&self.params, 0, &self.config);
        MemoryReport {
            weights_bytes: self.weights.n_bytes(&self.params),
            kv_bytes: self.store.shape().kv_bytes(),
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
    pub fn plan(&self, n_rows: usize, n_logits_rows: usize) -> Result<Plan> {
        let (rows_max, logits_rows_max) = (self.config.step_tokens_max, self.config.logits_rows());
        if n_rows > rows_max || n_logits_rows > logits_rows_max {
            return Err(Error::PassOverCapacity { n_rows, n_logits_rows, rows_max, logits_rows_max });
        }
        record(&self.device, &self.pass(), Shape { n_rows, n_logits_rows, greedy: false, top: false })
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
            store: &self.store,
            workspace: &self.workspace,
            logits: &self.logits,
        }
    }
}

/// Running.
impl LoadedModel {
    /// What the batch does to each slot: one span a slot, in the order of their first rows.
    ///
    /// # Errors
    /// If the batch is empty, a slot or token is out of range, or a sequence has a gap.
    pub(crate) fn spans(&self, batch: &Batch) -> Result<Vec<Span>> {
        let (batch_size, vocab) = (self.config.batch_size, self.params.vocab);
        if batch.is_empty() {
            return Err(Error::EmptyBatch);
        }
        let mut spans: Vec<Span> = Vec::with_capacity(batch.runs().len());
        let mut span_of_slot = vec![usize::MAX; batch_size];
        for run in batch.runs() {
            let (slot, start, end) = (run.slot, run.start, run.start + run.n_rows);
            let Some(span) = span_of_slot.get_mut(slot) else {
                return Err(Error::SlotOutOfRange { slot, batch_size });
            };
            let tokens = &batch.tokens()[run.first_row..run.first_row + run.n_rows];
            if let Some(i) = tokens.iter().position(|token| *token as usize >= vocab) {
                let (token, position) = (tokens[i], start + i);
                return Err(Error::TokenOutOfRange { token, vocab, slot, position });
            }
            match spans.get_mut(*span) {
                None => {
                    *span = spans.len();
                    spans.push(Span { slot, start, end });
                }
                Some(span) if span.end == start => span.end = end,
                Some(span) => {
                    let (row, last) = (run.first_row, span.end - 1);
                    let problem = format!("row {row} has position {start} of slot {slot}, after {last}");
                    return Err(Error::MalformedBatch { problem });
                }
            }
        }
        Ok(spans)
    }

    /// Room for what the rows of a batch bring back: the token of the largest logit of the first `n_greedy` of
    /// `batch.logits_rows()`, the largest logits of the next `n_top`, and all logits of the others.
    ///
    /// # Errors
    /// If there are not so many rows, or the host has no memory for the outputs.
    pub(crate) fn room<'a>(
        &self,
        batch: &Batch,
        n_greedy: usize,
        n_top: usize,
        outputs: &'a mut Outputs,
    ) -> Result<Out<'a>> {
        let n_rows = batch.logits_rows().len();
        let Some(n_logits_rows) = n_rows.checked_sub(n_greedy.saturating_add(n_top)) else {
            let problem =
                format!("the largest logits of {n_greedy} and {n_top} rows are asked for, of {n_rows} rows");
            return Err(Error::MalformedBatch { problem });
        };
        let n_logits = n_logits_rows.saturating_mul(self.params.vocab);
        let Outputs { greedy, top, logits } = outputs;
        let no_memory =
            |_| Error::HostMemory { what: "the logits of a step", bytes: n_logits.saturating_mul(4) };
        logits.try_reserve_exact(n_logits.saturating_sub(logits.len())).map_err(no_memory)?;
        logits.resize(n_logits, 0.0);
        greedy.resize(n_greedy, 0);
        top.resize(n_top * TOP_WORDS, 0);
        Ok(Out { greedy, top, logits })
    }

    /// Tells the device of `changes` and runs the rows of a batch that [`spans`](Self::spans) has passed, into the
    /// [`room`](Self::room) for it.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn run(&mut self, batch: &Batch, changes: &Changes, out: Out<'_>) -> Result<()> {
        self.store.apply(&self.device, changes)?;
        self.run_passes(batch, out)
    }

    /// The passes of a batch, several of which are under way at a time.
    fn run_passes(&mut self, batch: &Batch, out: Out<'_>) -> Result<()> {
        let (rows_max, logits_max) = (self.config.step_tokens_max, self.config.logits_rows());
        let mut wanted = batch.logits_rows();
        let mut out = out;
        let mut launched = VecDeque::new();
        for first in (0..batch.n_rows()).step_by(rows_max) {
            let end = batch.n_rows().min(first + rows_max);
            let rows = [batch.tokens(), batch.positions(), batch.slots()].map(|all| &all[first..end]);
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
                launched.push_back(self.launch_pass(n_rows, &input, lot_out)?);
                if launched.len() > LAUNCHED_MAX
                    && let Some(pass) = launched.pop_front()
                {
                    self.collect_pass(pass)?;
                }
                // The rows are through; what is left of their logits takes the output matrix alone.
                n_rows = 0;
                input.clear();
            }
        }
        launched.into_iter().try_for_each(|pass| self.collect_pass(pass))
    }

    /// Launches one pass of `n_rows` rows. `input` is as [`workspace::Input`] says.
    ///
    /// [`workspace::Input`]: super::workspace::Input
    fn launch_pass<'a>(&mut self, n_rows: usize, input: &[u32], out: Out<'a>) -> Result<LaunchedPass<'a>> {
        let shape = Shape {
            n_rows,
            n_logits_rows: input.len() - 3 * n_rows,
            greedy: !out.greedy.is_empty(),
            top: !out.top.is_empty(),
        };
        let (n_greedy, n_top) = (out.greedy.len(), out.top.len() / TOP_WORDS);
        let LoadedModel { device, params, weights, rope_table, store, workspace, logits, programs, .. } =
            self;
        let mut outputs = Vec::with_capacity(3);
        if shape.greedy {
            outputs.push(logits.greedy.view(0, &[n_greedy])?);
        }
        if shape.top {
            outputs.push(logits.top.view(n_greedy * TOP_WORDS, &[out.top.len()])?);
        }
        if !out.logits.is_empty() {
            let first = (n_greedy + n_top) * params.vocab;
            outputs.push(logits.logits.view(first, &[out.logits.len()])?);
        }
        let pass = Pass { params, weights, rope_table, store, workspace, logits };
        let program = programs.get(shape, || Ok(device.compile(&record(device, &pass, shape)?)?))?;
        let submission = program.launch(&[Input::new(&workspace.input, input)?], &outputs)?;
        Ok(LaunchedPass { submission, out })
    }

    /// Waits for a pass and takes what is wanted of it.
    fn collect_pass(&mut self, pass: LaunchedPass<'_>) -> Result<()> {
        let LaunchedPass { submission, out: Out { greedy, top, logits } } = pass;
        submission.wait()?;
        let mut n_taken = 0;
        for words in [greedy, top].into_iter().filter(|words| !words.is_empty()) {
            submission.take(n_taken, words)?;
            n_taken += 1;
        }
        if !logits.is_empty() {
            submission.take(n_taken, logits)?;
        }
        if let Some(time) = submission.gpu_time() {
            *self.device_time.get_or_insert_default() += time;
        }
        Ok(())
    }
}

/// Passes under way at a time: each may hold its outputs on the host until they are taken.
const LAUNCHED_MAX: usize = 4;

/// A pass under way, and where its outputs go.
struct LaunchedPass<'a> {
    submission: Submission,
    out: Out<'a>,
}

/// Another number of slots.
impl LoadedModel {
    /// Allocates what another configuration needs, which differs in `batch_size` alone, beside what there is.
    ///
    /// # Errors
    /// If there is no memory for both. Nothing has changed then.
    pub(crate) fn allocate(&mut self, config: LlamaConfig) -> Result<Resized> {
        memory::check_resize(&self.device, &self.params, &self.config, &config)?;
        let store = Store::new(&self.device, memory::store_shape(&self.params, &config))?;
        let logits = if config.logits_rows() == self.config.logits_rows() {
            None
        } else {
            Some(LogitsWorkspace::new(&self.device, &self.params, &config)?)
        };
        let pass = Pass { store: &store, logits: logits.as_ref().unwrap_or(&self.logits), ..self.pass() };
        let (programs, device_bytes) = prepare(&self.device, &pass, &config)?;
        self.device_bytes += device_bytes;
        Ok(Resized { config, store, logits, programs })
    }

    /// Copies the pages of `moves` and frees what there was.
    ///
    /// # Errors
    /// If the device fails. Nothing has changed then.
    pub(crate) fn resize(&mut self, resized: Resized, moves: &[(u32, u32)]) -> Result<()> {
        let Resized { config, store, logits, programs } = resized;
        if let Some(copies) = self.store.copies(&self.device, &store, moves)? {
            self.device.run(&copies)?.wait()?;
        }
        // The old ones hold the old buffers.
        self.programs = programs;
        (self.store, self.config) = (store, config);
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

fn record(device: &Device, pass: &Pass<'_>, shape: Shape) -> Result<Plan> {
    let mut plan = device.plan();
    llama::record(&mut plan, pass, shape)?;
    Ok(plan)
}

/// Lets the device allocate what a row's attention needs beside its buffers, and returns how many bytes that took. Needs no weights.
fn prepare_attention(device: &Device, inputs: &AttentionInputs<'_>) -> Result<u64> {
    let before = device.allocated_bytes();
    let mut plan = device.plan();
    for cache in inputs.store.layers().iter().take(1) {
        llama::attend(&mut plan, inputs, cache, 1, None)?;
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
        let shape = Shape { n_rows, n_logits_rows, greedy: true, top: true };
        programs.get(shape, || {
            let program = device.compile(&record(device, pass, shape)?);
            program.map_err(|source| Error::Allocation { what: "the device's workspace".into(), source })
        })?;
    }
    Ok((programs, device.allocated_bytes().saturating_sub(before)))
}
