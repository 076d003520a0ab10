//! The targets of the batch-processing plan, judged only by what was measured.

use serde::Serialize;

use super::cell::Row;
use super::fit;
use super::memory::Measured;

/// Batch 4 must have at least three times the throughput of batch 1: its step may take at most 4/3 of the time.
const STEP_RATIO_MAX: f64 = 4.0 / 3.0;
/// A step of four sequences cannot take clearly less time than a step of one. If it seems to, something else kept the
/// machine busy while the one was measured, and the figures prove nothing.
const STEP_RATIO_MIN: f64 = 0.9;
/// The least R² for memory to count as linear in the batch size.
const R_SQUARED_MIN: f64 = 0.999;
/// The utilisation that a GPU must exceed from batch 4 on.
const UTILISATION_MIN: f64 = 0.8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Verdict {
    #[serde(rename = "pass")]
    Pass,
    #[serde(rename = "fail")]
    Fail,
    #[serde(rename = "not measured")]
    NotMeasured,
}

impl Verdict {
    fn of(holds: bool) -> Self {
        if holds { Self::Pass } else { Self::Fail }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::NotMeasured => "not measured",
        }
    }
}

/// One target and its verdict.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Target {
    pub(super) name: &'static str,
    pub(super) wanted: &'static str,
    pub(super) verdict: Verdict,
    /// The figures, in words.
    pub(super) measured: String,
}

pub(super) fn judge(rows: &[Row], memory: &[Measured]) -> Vec<Target> {
    vec![throughput(rows), linear_memory(memory), utilisation(rows)]
}

/// Judged at every prompt length; all must hold.
fn throughput(rows: &[Row]) -> Target {
    let step_ms = |batch, prompt_len| {
        rows.iter().find(|r| r.batch == batch && r.prompt_len == prompt_len).map(|r| r.step_ms)
    };
    let mut ratios: Vec<(usize, f64)> = Vec::new();
    for prompt_len in rows.iter().filter(|r| r.batch == 4).map(|r| r.prompt_len) {
        if let (Some(one), Some(four)) = (step_ms(1, prompt_len), step_ms(4, prompt_len)) {
            ratios.push((prompt_len, four / one));
        }
    }
    let figures: Vec<_> = ratios
        .iter()
        .map(|(n, ratio)| format!("prompt {n}: step x{ratio:.2}, throughput x{:.2}", 4.0 / ratio))
        .collect();
    let (verdict, measured) = match ratio_verdict(&ratios) {
        _ if ratios.is_empty() => (Verdict::NotMeasured, "batch sizes 1 and 4 are needed".to_owned()),
        Verdict::NotMeasured => {
            (Verdict::NotMeasured, format!("{}; the machine was busy, measure again", figures.join("; ")))
        }
        verdict => (verdict, figures.join("; ")),
    };
    Target { name: "throughput at batch 4", wanted: "step_ms(4) <= 4/3 step_ms(1)", verdict, measured }
}

fn ratio_verdict(ratios: &[(usize, f64)]) -> Verdict {
    if ratios.iter().any(|(_, ratio)| *ratio > STEP_RATIO_MAX) {
        Verdict::Fail
    } else if ratios.iter().any(|(_, ratio)| *ratio < STEP_RATIO_MIN) {
        Verdict::NotMeasured
    } else {
        Verdict::Pass
    }
}

fn linear_memory(memory: &[Measured]) -> Target {
    let points: Vec<_> = memory.iter().map(|m| (m.batch as f64, m.memory_bytes as f64)).collect();
    let (verdict, measured) = match fit::line(&points) {
        None => (Verdict::NotMeasured, "three batch sizes are needed".to_owned()),
        Some(line) => {
            let mib = f64::from(1 << 20);
            let text = format!(
                "{:.1} MiB + {:.2} MiB a sequence, R² = {:.6}",
                line.intercept / mib,
                line.slope / mib,
                line.r_squared
            );
            (Verdict::of(line.r_squared >= R_SQUARED_MIN), text)
        }
    };
    Target {
        name: "memory linear in the batch",
        wanted: "R² >= 0.999 of a fit, one process a batch size",
        verdict,
        measured,
    }
}

fn utilisation(rows: &[Row]) -> Target {
    let known: Vec<(usize, f64)> =
        rows.iter().filter(|r| r.batch >= 4).filter_map(|r| Some((r.batch, r.gpu_utilisation?))).collect();
    let fraction = rows.iter().filter(|r| r.batch >= 4).map(|r| r.peak_fraction).fold(f64::NAN, f64::max);
    let (verdict, measured) = if known.is_empty() {
        let beside =
            if fraction.is_nan() { String::new() } else { format!("; best peak_fraction {fraction:.2}") };
        (Verdict::NotMeasured, format!("this device does not report its utilisation{beside}"))
    } else {
        let least = known.iter().map(|k| k.1).fold(f64::INFINITY, f64::min);
        let text = format!("least {:.0} %; best peak_fraction {fraction:.2}", least * 100.0);
        (Verdict::of(least > UTILISATION_MIN), text)
    };
    Target { name: "GPU utilisation", wanted: "> 80 % at batch 4 and up", verdict, measured }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(batch: usize, step_ms: f64, gpu_utilisation: Option<f64>) -> Row {
        Row {
            batch,
            prompt_len: 16,
            gen_len: 8,
            prefill_tps: 0.0,
            decode_tps: 0.0,
            step_ms,
            mean_step_ms: step_ms,
            peak_fraction: 0.5,
            gpu_utilisation,
            host_us: None,
            memory_bytes: 0,
            logits_hash: String::new(),
        }
    }

    fn verdicts(rows: &[Row], memory: &[(usize, u64)]) -> [Verdict; 3] {
        let memory: Vec<_> = memory
            .iter()
            .map(|(batch, memory_bytes)| Measured { batch: *batch, memory_bytes: *memory_bytes })
            .collect();
        let targets = judge(rows, &memory);
        [0, 1, 2].map(|i: usize| targets[i].verdict)
    }

    #[test]
    fn all_three_can_pass_fail_and_be_unmeasured() {
        use Verdict::{Fail, NotMeasured, Pass};
        let good = verdicts(&[row(1, 3.0, None), row(4, 4.0, Some(0.9))], &[(1, 11), (2, 12), (4, 14)]);
        assert_eq!(good, [Pass, Pass, Pass]);
        let bad = verdicts(&[row(1, 3.0, None), row(4, 4.1, Some(0.8))], &[(1, 1), (2, 4), (4, 16)]);
        assert_eq!(bad, [Fail, Fail, Fail]);
        let disturbed = verdicts(&[row(1, 9.0, None), row(4, 4.0, None)], &[]);
        assert_eq!(disturbed, [NotMeasured; 3]);
        let unknown = verdicts(&[row(2, 3.0, None)], &[(1, 1), (2, 4)]);
        assert_eq!(unknown, [NotMeasured; 3]);
    }
}
