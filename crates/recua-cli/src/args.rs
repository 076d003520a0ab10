//! The command line as typed, with only its syntax checked. Each command's own file turns it into what the command
//! needs.

mod bench;
mod values;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use recua::KvType;

pub(crate) use bench::{BenchArgs, BenchMemoryArgs, BenchOpsArgs, BenchWhat};
pub(crate) use values::{AnswerLimit, GpuLayers, Kept, Seed, TokenList};
use values::{
    answer_limit, gpu_layers, kept, kv_type, positive, seed, token_list, two_or_more, variable, with_suffix,
};

const ABOUT: &str = "Runs Llama-family GGUF models for many sequences in one pass";

const AFTER_HELP: &str = "\
MODEL is the path of a GGUF file, `demo` for the small model inside this program, hf:org/repo[:quant] for one of the
Hugging Face Hub (downloaded once), or ollama:name[:tag] for one of Ollama's; -m MODEL is the same.
Exit codes: 0 success, 2 a mistake in the command or its input, 1 any other failure, 130 ended by Ctrl-C.
Results go to standard output, everything else to standard error.";

#[derive(Debug, Parser)]
#[command(name = "recua", version, about = ABOUT, after_help = AFTER_HELP, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(RunArgs),
    Chat(ChatArgs),
    Bench(BenchArgs),
    VerifyBatch(VerifyArgs),
    Logits(LogitsArgs),
    Tokenize(TokenizeArgs),
    Render(RenderArgs),
    Inspect(InspectArgs),
    Quantize(QuantizeArgs),
    Synth(SynthArgs),
    Pull(PullArgs),
    List(ListArgs),
    Rm(RmArgs),
    Doctor(DoctorArgs),
    /// Print a completion script for a shell
    Completions {
        shell: clap_complete::Shell,
    },
    Man(ManArgs),
    /// Measure the memory of one batch size; `bench --targets` runs it in a fresh process for each
    #[command(hide = true)]
    BenchMemory(BenchMemoryArgs),
}

/// Which device runs the model.
#[derive(Args, Clone, Debug)]
pub(crate) struct DeviceArgs {
    /// auto, cpu, cuda, cuda:N for card N, wgpu, or wgpu:NAME for a GPU adapter whose name contains NAME
    ///
    /// auto takes an NVIDIA card through CUDA if there is one, else another hardware GPU through wgpu, otherwise the CPU.
    /// cuda needs NVIDIA's driver and its run-time compiler NVRTC. wgpu also accepts a software adapter. For auto and
    /// wgpu, the environment variable RECUA_WGPU_ADAPTER=NAME chooses the adapter, and RECUA_WGPU_MATRICES=off disables
    /// cooperative matrices. `recua doctor` lists the cards and the adapters, and says what is chosen and what is missing.
    #[arg(long, default_value = "auto", value_name = "NAME", help_heading = "Device")]
    pub(crate) device: String,
    /// Threads of the CPU device [default: one per core]
    #[arg(short, long, value_name = "N", value_parser = positive, help_heading = "Device")]
    pub(crate) threads: Option<usize>,
    /// Accepted as -ngl N for those who know it from llama.cpp; 0 is the same as --device cpu
    ///
    /// recua does not divide a model: all layers run on one device, which --device chooses.
    #[arg(long, alias = "gpu-layers", value_name = "N", value_parser = gpu_layers, allow_hyphen_values = true, help_heading = "Device")]
    pub(crate) n_gpu_layers: Option<GpuLayers>,
}

impl DeviceArgs {
    /// The device's name for `open_device`.
    pub(crate) fn name(&self) -> &str {
        if self.n_gpu_layers == Some(GpuLayers::None) && self.device == "auto" { "cpu" } else { &self.device }
    }
}

/// How large the KV cache and the workspace are.
#[derive(Args, Clone, Debug)]
pub(crate) struct SizeArgs {
    /// Longest sequence in tokens, such as 4096 or 4k [default: what the command needs]
    #[arg(short, long, value_name = "N", value_parser = with_suffix, help_heading = "Memory")]
    pub(crate) ctx_size: Option<usize>,
}

/// How the KV cache keeps keys and values.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct KvArgs {
    /// Type of the KV cache; f32 takes twice the memory of f16, and keeps what is beyond its range of ±65504
    #[arg(long, value_name = "TYPE", value_parser = kv_type(), default_value_t = KvType::F16, help_heading = "Memory")]
    pub(crate) kv_type: KvType,
}

/// How tokens are sampled.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArgs {
    /// Temperature; 0 is greedy: always the most probable token [default: the file's, or 0.8; demo: 0]
    #[arg(long, alias = "temperature", value_name = "T", allow_negative_numbers = true)]
    pub(crate) temp: Option<f32>,
    /// Keep the K most probable tokens; 0 keeps all [default: the file's, or 40]
    #[arg(long, value_name = "K")]
    pub(crate) top_k: Option<u32>,
    /// Keep the most probable tokens whose probabilities add up to P; 1 keeps all [default: the file's, or 0.95]
    #[arg(long, value_name = "P")]
    pub(crate) top_p: Option<f32>,
    /// Drop tokens less probable than P times the most probable one; 0 drops none [default: the file's, or 0.05]
    #[arg(long, value_name = "P")]
    pub(crate) min_p: Option<f32>,
    /// Penalize recent tokens: divide a positive logit by R, multiply a negative one; 1 changes nothing [default: the
    /// file's, or 1]
    #[arg(long, value_name = "R")]
    pub(crate) repeat_penalty: Option<f32>,
    /// Lower a token's logit by F for each time it was generated
    #[arg(long, value_name = "F", default_value_t = 0.0, allow_negative_numbers = true)]
    pub(crate) frequency_penalty: f32,
    /// Lower a token's logit by F if it was generated at all
    #[arg(long, value_name = "F", default_value_t = 0.0, allow_negative_numbers = true)]
    pub(crate) presence_penalty: f32,
    /// Seed of the random numbers; the same seed gives the same text, whatever shares the batch; -1 is random [default:
    /// random]
    #[arg(short, long, value_name = "N", value_parser = seed, allow_negative_numbers = true)]
    pub(crate) seed: Option<Seed>,
    /// End an answer before this text; may be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) stop: Vec<String>,
    /// Longest answer in tokens; -1 is as many as the context holds [default: 512 for run, -1 for chat]
    #[arg(
        short = 'n',
        long,
        aliases = ["n-predict", "predict"],
        value_name = "N",
        value_parser = answer_limit,
        allow_negative_numbers = true
    )]
    pub(crate) max_tokens: Option<AnswerLimit>,
}

impl SamplingArgs {
    /// The seed, unless it is random.
    pub(crate) fn fixed_seed(&self) -> Option<u64> {
        match self.seed {
            Some(Seed::Fixed(seed)) => Some(seed),
            Some(Seed::Random) | None => None,
        }
    }
}

/// How answers are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AnswerFormat {
    /// The answers, separated by empty lines
    Text,
    /// One JSON object a line
    Json,
}

/// How figures are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TableFormat {
    /// Aligned columns
    Table,
    /// One JSON object
    Json,
    /// A markdown table
    Md,
}

/// Generate answers to one or several prompts in one batch
///
/// Prompts are arguments, values of -p, and files. Text that is piped in is appended to each of them, behind a blank line: `cat
/// letter.txt | recua run MODEL "Summarize this letter."` Without a prompt, every line of standard input is one; `-f -` makes all
/// of it one prompt. At a terminal, `recua run MODEL` without a prompt is `recua chat MODEL`, and `recua run demo` uses prompts of
/// its own.
///
/// Answers are printed in the order of the prompts; each is printed as it is generated, once those before it are complete. Speed
/// figures go to standard error. Ctrl-C ends the answers under way.
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// GGUF file, or demo
    pub(crate) model: String,
    /// Prompts, all in one batch
    #[arg(value_name = "PROMPT", allow_hyphen_values = false)]
    pub(crate) prompts: Vec<String>,
    /// A prompt, which may begin with a hyphen; may be given several times
    #[arg(short = 'p', long = "prompt", value_name = "PROMPT", allow_hyphen_values = true)]
    pub(crate) more_prompts: Vec<String>,
    /// A file that is one prompt as a whole, - for standard input; may be given several times
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Use prompts as they are, without the model's chat template
    #[arg(long)]
    pub(crate) raw: bool,
    /// A system message for every prompt (also -sys); needs a chat template
    #[arg(long, visible_alias = "system-prompt", value_name = "TEXT", conflicts_with = "raw")]
    pub(crate) system: Option<String>,
    /// Show each prompt on standard error, as text and as token ids
    #[arg(long)]
    pub(crate) verbose_prompt: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t = AnswerFormat::Text)]
    pub(crate) format: AnswerFormat,
    /// Sequences that run at the same time [default: the number of prompts, at most 64]
    #[arg(long, value_name = "N", value_parser = positive, help_heading = "Memory")]
    pub(crate) batch_size: Option<usize>,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) size: SizeArgs,
    #[command(flatten)]
    pub(crate) kv: KvArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// Chat with a model
///
/// /help lists the commands. A text of several lines stands between two """, or its lines end with a backslash. Ctrl-C ends an
/// answer, Ctrl-D the conversation. When the context is full, the oldest turns are left out. What is typed at a terminal is kept
/// for the next time in the file that the environment variable RECUA_HISTORY names; if it is empty, nothing is kept [default:
/// recua/history in the user's state folder].
#[derive(Args, Debug)]
pub(crate) struct ChatArgs {
    /// GGUF file, or demo
    pub(crate) model: String,
    /// The system message (also -sys)
    #[arg(long, visible_alias = "system-prompt", value_name = "TEXT")]
    pub(crate) system: Option<String>,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    /// Longest conversation in tokens, such as 4096 or 4k [default: the model's context, at most 4096]
    #[arg(short, long, value_name = "N", value_parser = with_suffix, help_heading = "Memory")]
    pub(crate) ctx_size: Option<usize>,
    /// When the context is full, keep the first turns that fit in N tokens, and the system message in any case; -1 leaves
    /// nothing out, so that the conversation ends there
    #[arg(
        long,
        value_name = "N",
        value_parser = kept,
        allow_negative_numbers = true,
        default_value = "0",
        help_heading = "Memory"
    )]
    pub(crate) keep: Kept,
    #[command(flatten)]
    pub(crate) kv: KvArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// Prove on this machine that a sequence's logits do not depend on what shares its batch
///
/// Runs the same sequences alone and then in batches of several sizes, in other orders, with other companions, cut
/// into pieces, after a clear and after resizing the batch, and compares every logit bit by bit. Exit code 1 if one
/// differs.
#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// GGUF file, or demo
    pub(crate) model: String,
    /// Longest sequence compared, in tokens, at least 2 [default: 80, or the model's context if that is shorter]
    #[arg(long, value_name = "N", value_parser = two_or_more)]
    pub(crate) len: Option<usize>,
    #[command(flatten)]
    pub(crate) kv: KvArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// Write the raw logits of every position of the given token sequences
///
/// The sequences run in one batch, in the order given; no BOS is added. The file holds little-endian f32: for each
/// position one logit per vocabulary entry, one sequence after another.
#[derive(Args, Debug)]
pub(crate) struct LogitsArgs {
    /// GGUF file, or demo
    pub(crate) model: String,
    /// Token ids separated by commas; give it once for each sequence
    #[arg(long, required = true, value_name = "IDS", value_parser = token_list)]
    pub(crate) tokens: Vec<TokenList>,
    /// File to write; it is written in place, so it may be a pipe or a device
    #[arg(short, long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) size: SizeArgs,
    #[command(flatten)]
    pub(crate) kv: KvArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// Print a text's token ids, separated by spaces
///
/// The text is an argument, a file or standard input, and is taken byte for byte. Works with any architecture, and
/// with files that have a vocabulary but no tensors.
#[derive(Args, Debug)]
pub(crate) struct TokenizeArgs {
    /// GGUF file, or demo
    pub(crate) model: String,
    /// The text [default: standard input]
    #[arg(allow_hyphen_values = true, conflicts_with = "file")]
    pub(crate) text: Option<String>,
    /// Read the text from a file
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Prepend the BOS token
    #[arg(long)]
    pub(crate) bos: bool,
    /// Treat control tokens such as <s> in the text as tokens, not as text
    #[arg(long)]
    pub(crate) special: bool,
}

/// Print the prompt that the model's chat template makes of a conversation
///
/// The conversation is JSON: an array of messages as the chat APIs have them, or an object with `messages` and perhaps
/// `tools`, `documents` and `chat_template_kwargs`. The prompt is printed as it is, with nothing after it.
#[derive(Args, Debug)]
pub(crate) struct RenderArgs {
    /// GGUF file, or demo
    pub(crate) model: String,
    /// File with the conversation [default: standard input]
    pub(crate) conversation: Option<PathBuf>,
    /// File with the tools, a JSON array
    #[arg(long, value_name = "FILE")]
    pub(crate) tools: Option<PathBuf>,
    /// Another template: one that the file has under this name, or a file with the text of one
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) template: Option<String>,
    /// A variable of the template, such as enable_thinking=false; what is not JSON is a string
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = variable)]
    pub(crate) variables: Vec<(String, serde_json::Value)>,
    /// Do not begin the assistant's turn
    #[arg(long)]
    pub(crate) no_generation_prompt: bool,
    /// Leave the last message open, so that the model continues it
    #[arg(long, conflicts_with = "no_generation_prompt")]
    pub(crate) continue_last: bool,
    /// Turn arguments of tool calls that are JSON text into objects, which most templates expect
    #[arg(long)]
    pub(crate) parse_arguments: bool,
    /// Print the token ids instead, separated by spaces
    #[arg(long)]
    pub(crate) tokens: bool,
}

/// Show what is in a GGUF file
///
/// Works with any architecture, and with files without tensors.
#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    /// GGUF file, or demo
    pub(crate) model: String,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Also check hyperparameters, tensors and vocabulary; exit code 2 if recua cannot run the file
    #[arg(long)]
    pub(crate) strict: bool,
}

/// Write a model with its tensors in another type
///
/// The K types are mixes, with the same tensor types as llama.cpp's.
#[derive(Args, Debug)]
pub(crate) struct QuantizeArgs {
    /// GGUF file to read, or demo
    pub(crate) input: String,
    /// GGUF file to write; it appears only when it is complete
    pub(crate) output: PathBuf,
    /// Type of the output, such as Q4_K_M, Q5_K_M, Q6_K, Q8_0, Q4_0, F16
    #[arg(value_name = "TYPE")]
    pub(crate) file_type: String,
    /// Threads [default: one per core]
    #[arg(short, long, value_name = "N", value_parser = positive)]
    pub(crate) threads: Option<usize>,
}

/// Write a model with random weights in the shape of a real one, for timing
#[derive(Args, Debug)]
pub(crate) struct SynthArgs {
    /// Shape of the model: tiny, 1b, 3b or 8b
    #[arg(long)]
    pub(crate) shape: String,
    /// Type of the weights, such as Q4_K_M, Q5_K_M, Q6_K, Q8_0, Q4_0, F16
    #[arg(long, value_name = "TYPE")]
    pub(crate) quant: String,
    /// Seed of the weights
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// GGUF file to write; it appears only when it is complete
    pub(crate) out: PathBuf,
}

/// Download a model of the Hugging Face Hub, or bring it up to date
///
/// The model goes into the cache that Hugging Face's own tools use, and the path of its file is printed. Other commands
/// take the same names, and download only what is not in the cache. HF_TOKEN, or the token of `hf auth login`, gives
/// access to gated and private models; HF_HUB_CACHE and HF_HOME move the cache; HF_ENDPOINT names another Hub; with
/// HF_HUB_OFFLINE=1 nothing is downloaded. An interrupted download goes on where it stopped.
#[derive(Args, Debug)]
pub(crate) struct PullArgs {
    /// hf:org/repo, hf:org/repo:Q4_K_M, hf:org/repo/file.gguf, or hf:org/repo@revision:Q4_K_M
    ///
    /// Without a quantization or a file, the one in Q4_K_M is taken, or the only one. All parts of a split model are
    /// downloaded.
    pub(crate) model: String,
}

/// List the models in the Hugging Face cache and in Ollama's store
#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Remove models from the Hugging Face cache
///
/// A file that another revision of the repository has too stays on the disk.
#[derive(Args, Debug)]
pub(crate) struct RmArgs {
    /// Names as `recua list` shows them
    #[arg(required = true, value_name = "MODEL")]
    pub(crate) models: Vec<String>,
}

/// Show what this machine offers: devices, instruction sets, threads and measured bandwidth
#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// Print a command's manual page, or write all of them
///
/// Read one with `recua man run | man -l -`.
#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// The command, such as run or bench ops [default: the whole program]
    pub(crate) command: Vec<String>,
    /// Write a page for every command into this folder
    #[arg(long, value_name = "FOLDER", conflicts_with = "command")]
    pub(crate) out: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn bench_takes_models_or_a_subcommand() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        let Command::Bench(bench) = parse("recua bench a.gguf b.gguf --batch 1,4").unwrap().command else {
            panic!("not bench");
        };
        assert_eq!((bench.models.len(), bench.batch, bench.gen_len), (2, vec![1, 4], 32));
        let Command::Bench(bench) = parse("recua bench ops a.gguf --rows 3").unwrap().command else {
            panic!("not bench");
        };
        assert!(matches!(bench.what, Some(BenchWhat::Ops(ops)) if ops.rows == [3]));
        assert!(parse("recua bench").is_err());
    }
}
