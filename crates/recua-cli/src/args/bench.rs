//! The arguments of `bench` and of what is below it.

use clap::{Args, Subcommand};

use super::values::positive;
use super::{DeviceArgs, KvArgs, SizeArgs, TableFormat};

/// Measure speed and memory over batch sizes and prompt lengths
///
/// Each cell runs fixed pseudo-random tokens: a prompt of the given length in every sequence, then N steps of one
/// token a sequence. step_ms is the median of those steps. peak_fraction is the rate at which a step reads weights
/// and cache, divided by the device's read bandwidth, which is measured at the start. logits_hash is a hash of the
/// first sequence's last logits; it does not depend on the batch size.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub(crate) what: Option<BenchWhat>,
    /// GGUF files, or demo; several make one table
    #[arg(required = true)]
    pub(crate) models: Vec<String>,
    /// Batch sizes, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = positive, default_value = "1,2,4,8,16")]
    pub(crate) batch: Vec<usize>,
    /// Prompt lengths, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = positive, default_value = "1,16,128,512")]
    pub(crate) prompt_len: Vec<usize>,
    /// Timed steps, each of one token a sequence
    #[arg(long = "gen", value_name = "N", value_parser = positive, default_value_t = 32)]
    pub(crate) gen_len: usize,
    /// Output format
    #[arg(long, value_enum, default_value_t = TableFormat::Table)]
    pub(crate) format: TableFormat,
    /// Check the targets: throughput at batch 4, memory linear in the batch, GPU utilisation; exit code 1 if one
    /// fails
    #[arg(long)]
    pub(crate) targets: bool,
    #[command(flatten)]
    pub(crate) size: SizeArgs,
    #[command(flatten)]
    pub(crate) kv: KvArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchWhat {
    Ops(BenchOpsArgs),
}

/// Time each op of a step and compare it with the device's read bandwidth
#[derive(Args, Debug)]
pub(crate) struct BenchOpsArgs {
    /// GGUF file, or demo
    pub(crate) model: String,
    /// Rows of a step (one sequence each), separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = positive, default_value = "1,8")]
    pub(crate) rows: Vec<usize>,
    /// Position of each sequence's new token
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub(crate) depth: usize,
    /// Output format
    #[arg(long, value_enum, default_value_t = TableFormat::Table)]
    pub(crate) format: TableFormat,
    #[command(flatten)]
    pub(crate) kv: KvArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

#[derive(Args, Debug)]
pub(crate) struct BenchMemoryArgs {
    pub(crate) model: String,
    #[arg(long)]
    pub(crate) batch: usize,
    #[arg(long)]
    pub(crate) ctx: usize,
    #[command(flatten)]
    pub(crate) kv: KvArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}
