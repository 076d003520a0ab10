//! What may be concluded from times: medians, 95 % confidence intervals, and the verdict.

use serde::Serialize;

use recua::gguf::Random;

/// Fewer trials than this decide nothing.
pub(super) const TRIALS_MIN: usize = 30;

/// The chance that an interval misses the true value.
const MISS: f64 = 0.05;
const RESAMPLES: usize = 2000;

/// The median of at least one value.
fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

/// A median with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Estimate {
    pub(super) median: f64,
    /// `[low, high]`; null if there are too few values.
    pub(super) interval: Option<[f64; 2]>,
}

impl Estimate {
    /// For at least one value.
    pub(super) fn of(mut values: Vec<f64>) -> Self {
        let median = median(&mut values);
        let interval = median_ranks(values.len()).map(|[low, high]| [values[low], values[high]]);
        Self { median, interval }
    }
}

/// The two of `n` sorted values that enclose the true median, whatever the values' distribution: the number of values below it is binomial.
/// `None` if not even the smallest and the largest enclose it.
fn median_ranks(n: usize) -> Option<[usize; 2]> {
    // The chance that exactly `i` values lie below, by its logarithm: 2^-n underflows.
    let mut log_chance = -(n as f64) * std::f64::consts::LN_2;
    let mut at_most = 0.0;
    let mut low = None;
    for i in 0..n / 2 {
        at_most += log_chance.exp();
        if 2.0 * at_most > MISS {
            break;
        }
        low = Some(i);
        log_chance += ((n - i) as f64 / (i + 1) as f64).ln();
    }
    low.map(|low| [low, n - 1 - low])
}

/// The speed of `new` relative to `old`: the ratio of their medians. The two have one value per trial. The interval comes from resampling
/// trials, so a disturbance of a whole trial cancels out.
pub(super) fn speedup(old: &[f64], new: &[f64]) -> Estimate {
    let ratio = |trials: &mut dyn Iterator<Item = usize>| {
        let (mut of_old, mut of_new): (Vec<_>, Vec<_>) = trials.map(|i| (old[i], new[i])).unzip();
        median(&mut of_old) / median(&mut of_new)
    };
    let n = old.len();
    // The same resamples on every run.
    let mut random = Random::new(n as u64);
    let mut ratios: Vec<f64> = (0..RESAMPLES).map(|_| ratio(&mut (0..n).map(|_| random.below(n)))).collect();
    ratios.sort_unstable_by(f64::total_cmp);
    let low = (RESAMPLES as f64 * MISS / 2.0) as usize;
    let interval = median_ranks(n).map(|_| [ratios[low], ratios[RESAMPLES - 1 - low]]);
    Estimate { median: ratio(&mut (0..n)), interval }
}

/// Whether one way of encoding beats another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Verdict {
    Wins,
    RoughlyEqual,
    Loses,
    NotDecided,
}

impl Verdict {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Wins => "wins",
            Self::RoughlyEqual => "roughly equal",
            Self::Loses => "loses",
            Self::NotDecided => "not decided",
        }
    }

    /// Judges a speed-up. The whole interval must agree.
    pub(super) fn of(speedup: &Estimate, n_trials: usize) -> Self {
        let class = |ratio: f64| match ratio {
            r if r > 1.05 => Self::Wins,
            r if r >= 0.98 => Self::RoughlyEqual,
            _ => Self::Loses,
        };
        let here = class(speedup.median);
        match speedup.interval {
            Some(ends) if n_trials >= TRIALS_MIN && ends.iter().all(|end| class(*end) == here) => here,
            _ => Self::NotDecided,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_of_the_tables() {
        // As in any table of confidence intervals for the median, where they are counted from 1.
        let cases =
            [(6, [1, 6]), (9, [2, 8]), (20, [6, 15]), (30, [10, 21]), (50, [18, 33]), (100, [40, 61])];
        for (n, ranks) in cases {
            assert_eq!(median_ranks(n), Some(ranks.map(|r| r - 1)), "{n}");
        }
        assert!((0..6).all(|n| median_ranks(n).is_none()));
        // About n / 2 ± sqrt(n), where 2^-n underflows to 0.
        let [low, high] = median_ranks(10_000).unwrap();
        assert!((4895..4905).contains(&low) && low + high == 9_999);
    }

    #[test]
    fn estimates() {
        let values = (1..=30).rev().map(f64::from).collect();
        assert_eq!(Estimate::of(values), Estimate { median: 15.5, interval: Some([10.0, 21.0]) });
        assert_eq!(Estimate::of(vec![3.0, 1.0]), Estimate { median: 2.0, interval: None });
    }

    #[test]
    fn intervals_hold_the_truth_as_often_as_they_say() {
        let mut random = Random::new(7);
        let (mut of_median, mut of_speedup) = (0, 0);
        for _ in 0..200 {
            let mut draw =
                |n| -> Vec<f64> { (0..n).map(|_| 1.0 + random.below(1000) as f64 / 1000.0).collect() };
            let (old, new) = (draw(30), draw(30));
            let inside = |e: Estimate, truth: f64| e.interval.is_some_and(|[a, b]| (a..=b).contains(&truth));
            of_speedup += u32::from(inside(speedup(&old, &new), 1.0));
            of_median += u32::from(inside(Estimate::of(old), 1.4995));
        }
        assert!((180..=200).contains(&of_median), "{of_median}");
        assert!((180..=200).contains(&of_speedup), "{of_speedup}");
    }

    #[test]
    fn what_disturbs_a_whole_trial_cancels_out() {
        let old: Vec<f64> = (0..40).map(|i| f64::from(100 + i * i)).collect();
        let new: Vec<f64> = old.iter().map(|v| v / 1.25).collect();
        let Estimate { median, interval } = speedup(&old, &new);
        let [low, high] = interval.unwrap();
        assert!((median - 1.25).abs() < 1e-9 && (low - 1.25).abs() < 1e-9 && (high - 1.25).abs() < 1e-9);
        assert_eq!(speedup(&old[..5], &new[..5]).interval, None);
    }

    #[test]
    fn verdicts() {
        let judge = |median, interval, n| Verdict::of(&Estimate { median, interval }, n);
        assert_eq!(judge(1.2, Some([1.06, 1.3]), 30), Verdict::Wins);
        assert_eq!(judge(1.05, Some([0.98, 1.05]), 30), Verdict::RoughlyEqual);
        assert_eq!(judge(0.9, Some([0.8, 0.979]), 30), Verdict::Loses);
        assert_eq!(judge(1.2, Some([1.04, 1.3]), 30), Verdict::NotDecided);
        assert_eq!(judge(1.0, Some([0.97, 1.01]), 30), Verdict::NotDecided);
        assert_eq!(judge(1.2, Some([1.1, 1.3]), 29), Verdict::NotDecided);
        assert_eq!(judge(1.2, None, 30), Verdict::NotDecided);
        assert_eq!(judge(f64::NAN, Some([f64::NAN; 2]), 30), Verdict::Loses);
    }
}
