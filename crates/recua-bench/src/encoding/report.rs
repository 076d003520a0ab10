//! The findings of `bench encoding`, as JSON and as tables.

use std::fmt;

use serde::Serialize;

use super::stats::{Estimate, Verdict, speedup};
use super::trial::{Times, WARM_UP, Way};
use super::work::About;
use crate::table::Table;

#[derive(Serialize)]
pub(super) struct Report {
    pub(super) device: String,
    /// Whether the device does the work before `submit` returns: then only encoding can differ.
    pub(super) works_in_submit: bool,
    pub(super) trials: usize,
    pub(super) warm_up: usize,
    pub(super) experiments: Vec<Experiment>,
}

/// One list of ops, encoded in all ways.
#[derive(Serialize)]
pub(super) struct Experiment {
    #[serde(flatten)]
    about: About,
    /// The number of threads that encode a model's step of a new shape; null if nothing is encoded.
    encoding_threads: Option<usize>,
    /// Whether all variants computed the same bits.
    pub(super) outputs_equal: bool,
    /// The variants that did not compute what the first one did.
    pub(super) differing: Vec<String>,
    variants: Vec<Variant>,
    pairs: Vec<Pair>,
}

/// One way to encode the list; times in microseconds.
#[derive(Serialize)]
struct Variant {
    name: String,
    /// Null if the device decides.
    encoders: Option<usize>,
    workers: usize,
    /// Null for a plan, which is encoded and submitted in one call.
    encode_us: Option<Estimate>,
    submit_us: Estimate,
    wait_us: Estimate,
    total_us: Estimate,
    /// Null if the device does not report it.
    gpu_us: Option<Estimate>,
}

/// The comparison of a variant with another.
#[derive(Serialize)]
struct Pair {
    variant: String,
    against: String,
    /// For the whole: `against`'s median time divided by the variant's.
    speedup: Estimate,
    /// For encoding alone; null if one of the two has no such time.
    encode_speedup: Option<Estimate>,
    /// From the speed-up of the whole.
    verdict: Verdict,
}

impl Report {
    pub(super) fn new(device: String, works_in_submit: bool, trials: usize) -> Self {
        Self { device, works_in_submit, trials, warm_up: WARM_UP, experiments: Vec::new() }
    }
}

impl Experiment {
    pub(super) fn new(
        about: About,
        encoding_threads: Option<usize>,
        ways: &[Way],
        times: &[Vec<Times>],
        differing: &[Way],
    ) -> Self {
        let variants = ways.iter().zip(times).map(|(way, times)| Variant::new(*way, times)).collect();
        let at = |way: Way| ways.iter().position(|w| *w == way);
        let mut pairs = Vec::new();
        for (new, way) in ways.iter().enumerate() {
            let others = match *way {
                // Compared with one encoder, with the same number of encoders, and with what a model does.
                Way::Parallel(n) => vec![Way::Serial, Way::Split(n + 1), Way::Plan, Way::NewPlan],
                Way::Split(_) | Way::Plan | Way::NewPlan => vec![Way::Serial],
                Way::Serial => Vec::new(),
            };
            let others = others.into_iter().filter_map(at);
            pairs.extend(others.map(|old| Pair::new([ways[old], *way], [&times[old], &times[new]])));
        }
        Self {
            about,
            encoding_threads,
            outputs_equal: differing.is_empty(),
            differing: differing.iter().map(|way| way.name()).collect(),
            variants,
            pairs,
        }
    }
}

impl Variant {
    fn new(way: Way, times: &[Times]) -> Self {
        let of = |part: fn(&Times) -> Option<f64>| {
            let values: Option<Vec<f64>> = times.iter().map(|t| Some(part(t)? * 1e6)).collect();
            values.map(Estimate::of)
        };
        let always = |part: fn(&Times) -> f64| Estimate::of(times.iter().map(|t| part(t) * 1e6).collect());
        Self {
            name: way.name(),
            encoders: way.encoders(),
            workers: way.workers(),
            encode_us: of(|t| t.encode),
            submit_us: always(|t| t.submit),
            wait_us: always(|t| t.wait),
            total_us: always(|t| t.total),
            gpu_us: of(|t| t.gpu),
        }
    }
}

impl Pair {
    fn new(ways: [Way; 2], times: [&[Times]; 2]) -> Self {
        let [old, new] = times.map(|times| times.iter().map(|t| t.total).collect::<Vec<_>>());
        let total = speedup(&old, &new);
        let encode = times.map(|times| times.iter().map(|t| t.encode).collect::<Option<Vec<_>>>());
        let [against, variant] = ways.map(Way::name);
        Self {
            variant,
            against,
            speedup: total,
            encode_speedup: if let [Some(old), Some(new)] = encode {
                Some(speedup(&old, &new))
            } else {
                None
            },
            verdict: Verdict::of(&total, new.len()),
        }
    }
}

/// The tables: the times, and then what they mean.
impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { trials, warm_up, .. } = self;
        writeln!(out, "{}; {trials} trials after {warm_up} of warm-up, variants in turn", self.device)?;
        if self.works_in_submit {
            writeln!(
                out,
                "This device works inside submit, so only encode can differ between the variants."
            )?;
        }
        for experiment in &self.experiments {
            let About { name, description, n_ops, n_groups, weight_bytes } = &experiment.about;
            let weights = *weight_bytes as f64 / 1e6;
            writeln!(
                out,
                "\n{name}: {description}; {n_ops} ops in {n_groups} group(s); {weights:.1} MB of weights\n"
            )?;
            let head = ["variant", "encode us", "submit us", "wait us", "total us", "95 %", "GPU us"];
            let mut table = Table::new(&head);
            for v in &experiment.variants {
                table.row([
                    v.name.clone(),
                    us(v.encode_us.as_ref()),
                    us(Some(&v.submit_us)),
                    us(Some(&v.wait_us)),
                    us(Some(&v.total_us)),
                    interval(&v.total_us, 1),
                    us(v.gpu_us.as_ref()),
                ]);
            }
            write!(out, "{table}")?;
            writeln!(out)?;
            let mut table = Table::new(&["variant", "against", "encode", "95 %", "total", "95 %", "verdict"]);
            for p in &experiment.pairs {
                let encode = p.encode_speedup.as_ref();
                table.row([
                    p.variant.clone(),
                    p.against.clone(),
                    encode.map_or("-".into(), ratio),
                    encode.map_or("-".into(), |e| interval(e, 3)),
                    ratio(&p.speedup),
                    interval(&p.speedup, 3),
                    p.verdict.name().to_owned(),
                ]);
            }
            write!(out, "{table}")?;
            let equal = if experiment.outputs_equal { "equal, bit for bit" } else { "DIFFERENT" };
            writeln!(out, "\nThe outputs of all variants are {equal}.")?;
            if let Some(n) = experiment.encoding_threads {
                let s = if n == 1 { "" } else { "s" };
                writeln!(
                    out,
                    "A model encodes a step of a new shape on {n} thread{s} here, and other steps while it waits."
                )?;
            }
        }
        Ok(())
    }
}

fn us(estimate: Option<&Estimate>) -> String {
    estimate.map_or("-".into(), |e| format!("{:.1}", e.median))
}

fn ratio(estimate: &Estimate) -> String {
    format!("{:.3}x", estimate.median)
}

fn interval(estimate: &Estimate, digits: usize) -> String {
    estimate.interval.map_or("-".into(), |[low, high]| format!("{low:.digits$}..{high:.digits$}"))
}
