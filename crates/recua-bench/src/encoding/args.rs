//! The arguments of `recua-bench encoding`.

use clap::{Args, ValueEnum};
use recua::gguf::{GgmlType, Shape};

/// Whether ops need each other's results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dependency {
    /// Every product has an input and an output of its own
    Independent,
    /// The output of a product is the input of the next; needs n = k
    Chained,
}

impl Dependency {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Independent => "independent",
            Self::Chained => "chained",
        }
    }
}

/// Find out whether encoding on several threads pays
///
/// Encodes the same list of ops on one thread, on one thread in parts, and on the main thread and encoder workers at the same time, in
/// turn, and compares the medians: speed-ups with their 95 % intervals, and a verdict for each pair (wins: over 5 % faster; roughly equal:
/// -2 % to +5 %; loses; not decided: fewer than 30 trials, or the interval contains several verdicts). Results are compared bit for bit;
/// exit code 1 if they differ.
#[derive(Args, Debug)]
pub(crate) struct EncodingArgs {
    /// Quantized products in the list; 0 leaves this list out
    #[arg(long, value_name = "N", default_value_t = 60)]
    pub(crate) ops: usize,
    /// Type of the products' weights
    #[arg(long = "type", value_name = "TYPE", default_value = "Q6_K")]
    pub(crate) ggml_type: GgmlType,
    /// Rows of each input; also the sequences of a real step
    #[arg(short, long, value_name = "N", value_parser = positive, default_value_t = 1)]
    pub(crate) m: usize,
    /// Rows of each weight
    #[arg(short, long, value_name = "N", value_parser = positive, default_value_t = 2816)]
    pub(crate) n: usize,
    /// Columns of each weight
    #[arg(short, long, value_name = "N", value_parser = positive, default_value_t = 2816)]
    pub(crate) k: usize,
    /// Whether products need each other's results, separated by commas
    #[arg(
        long,
        value_enum,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "independent,chained"
    )]
    pub(crate) dependency: Vec<Dependency>,
    /// Also the ops of a decode step of this shape (tiny, 1b, 3b, 8b), with random weights; may be given several times
    #[arg(long, value_name = "SHAPE")]
    pub(crate) real_step: Vec<Shape>,
    /// Encoder workers beside the main thread, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = positive, default_value = "1,2")]
    pub(crate) workers: Vec<usize>,
    /// Trials of each variant; fewer than 30 decide nothing
    #[arg(long, value_name = "N", value_parser = positive, default_value_t = 30)]
    pub(crate) trials: usize,
    /// One JSON object instead of tables
    #[arg(long)]
    pub(crate) json: bool,
    /// auto, cpu, wgpu, or wgpu:NAME for a GPU adapter whose name contains NAME
    #[arg(long, default_value = "auto", value_name = "NAME")]
    pub(crate) device: String,
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".into()),
        Ok(n) => Ok(n),
        Err(_) => Err("is not a number".into()),
    }
}
