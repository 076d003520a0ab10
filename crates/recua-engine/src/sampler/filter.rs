//! The candidates for the next token: who is left after each filter, and the draw among them.
//!
//! Sums are taken in a fixed order and `exp` is our own, so the same logits give the same token on every platform.

use std::cmp::Ordering;

/// How many of the likeliest candidates top-p sorts at first; it seldom needs more.
const NUCLEUS_FIRST: usize = 256;
/// How many candidates top-k gathers at least before it throws away those that cannot be in.
const TOP_K_GATHERED_MIN: usize = 1024;

#[derive(Clone, Copy, Debug)]
struct Candidate {
    // Finite, never -0.0.
    logit: f32,
    id: u32,
}

/// Likelier first; among equals the lower id. A total order, so whatever is cut is cut the same way everywhere.
fn by_rank(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
}

/// A logit that can be compared and subtracted, or `None` if its token cannot be chosen.
fn clean(logit: f32) -> Option<f32> {
    if logit.is_nan() || logit == f32::NEG_INFINITY {
        return None;
    }
    // Adding zero turns -0.0 into 0.0: they are equal logits.
    Some(logit.min(f32::MAX) + 0.0)
}

/// The token of the highest logit, the lowest id among equals.
pub(super) fn likeliest(logits: &[f32]) -> Option<u32> {
    let mut best: Option<(usize, f32)> = None;
    for (id, &logit) in logits.iter().enumerate() {
        if clean(logit).is_some() && best.is_none_or(|(_, highest)| logit > highest) {
            best = Some((id, logit));
        }
    }
    best.map(|(id, _)| id as u32)
}

/// The candidates that are left, in the order in which they are summed and drawn: by rank if top-k or top-p made one,
/// else by id.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    list: Vec<Candidate>,
    // The highest logit; every filter keeps it.
    highest: f32,
    is_ranked: bool,
    weights: Vec<f64>,
}

impl Candidates {
    /// Takes the `top_k` highest logits, or all if `top_k` is 0.
    pub(super) fn read(&mut self, logits: &[f32], top_k: usize) {
        self.list.clear();
        self.is_ranked = top_k > 0;
        let cleaned = logits
            .iter()
            .enumerate()
            .filter_map(|(id, &logit)| Some(Candidate { logit: clean(logit)?, id: id as u32 }));
        if self.is_ranked {
            self.gather_highest(cleaned, top_k.min(logits.len()));
        } else {
            self.list.extend(cleaned);
        }
        self.highest = self.list.iter().map(|candidate| candidate.logit).fold(f32::MIN, f32::max);
    }

    /// One pass that compares nearly every logit with one number only: once k candidates are known, whoever is not
    /// above the lowest of them cannot be in. An equal logit cannot either: ids ascend, and the lower one goes first.
    fn gather_highest(&mut self, candidates: impl Iterator<Item = Candidate>, k: usize) {
        // Twice k, so that what throwing away costs is in proportion to what was gathered.
        let n_gathered_max = (2 * k).max(TOP_K_GATHERED_MIN);
        let mut floor = None;
        for candidate in candidates {
            if floor.is_some_and(|floor| candidate.logit <= floor) {
                continue;
            }
            self.list.push(candidate);
            if self.list.len() == n_gathered_max {
                let (_, lowest, _) = self.list.select_nth_unstable_by(k - 1, by_rank);
                floor = Some(lowest.logit);
                self.list.truncate(k);
            }
        }
        self.list.sort_unstable_by(by_rank);
        self.list.truncate(k);
    }

    /// Keeps the likeliest candidates until their share of the probability reaches `top_p`, including the one with
    /// which it does.
    pub(super) fn keep_top_p(&mut self, top_p: f32) {
        if top_p >= 1.0 {
            return;
        }
        let total: f64 = self.list.iter().map(|candidate| self.weight(candidate)).sum();
        let wanted = f64::from(top_p) * total;
        let mut mass = 0.0;
        let mut n_kept = 0;
        let mut n_ranked = if self.is_ranked { self.list.len() } else { 0 };
        // [0, n_kept) is in the nucleus, [n_kept, n_ranked) is in order, [n_ranked, len) is not and ranks behind.
        while n_kept < self.list.len() && (n_kept == 0 || mass < wanted) {
            if n_kept == n_ranked {
                n_ranked = self.rank(n_ranked, NUCLEUS_FIRST.max(n_ranked * 8));
            }
            mass += self.weight(&self.list[n_kept]);
            n_kept += 1;
        }
        self.list.truncate(n_kept);
        self.is_ranked = true;
    }

    /// Puts the likeliest of `[start, len)` in order until at least `[start, end)` is, and returns where that ends.
    fn rank(&mut self, start: usize, end: usize) -> usize {
        let end = end.min(self.list.len());
        let rest = &mut self.list[start..];
        let n = end - start;
        if n < rest.len() {
            rest.select_nth_unstable_by(n, by_rank);
        }
        rest[..n].sort_unstable_by(by_rank);
        end
    }

    /// Keeps the candidates at least `min_p` times as likely as the likeliest.
    pub(super) fn keep_min_p(&mut self, min_p: f32) {
        if min_p <= 0.0 {
            return;
        }
        let highest = self.highest;
        self.list
            .retain(|candidate| exp(f64::from(candidate.logit) - f64::from(highest)) >= f64::from(min_p));
    }

    /// The candidate at `point` of the way, in `[0, 1)`, through the probabilities at a temperature.
    pub(super) fn draw(&mut self, temperature: f32, point: f64) -> Option<u32> {
        let highest = f64::from(self.highest);
        let temperature = f64::from(temperature);
        self.weights.clear();
        self.weights.extend(
            self.list.iter().map(|candidate| exp((f64::from(candidate.logit) - highest) / temperature)),
        );
        let target = point * self.weights.iter().sum::<f64>();
        let mut mass = 0.0;
        for (candidate, weight) in self.list.iter().zip(&self.weights) {
            mass += weight;
            // The likeliest weighs 1, so the sum ends above every target.
            if mass > target {
                return Some(candidate.id);
            }
        }
        None
    }

    /// A candidate's probability as a multiple of the likeliest's.
    fn weight(&self, candidate: &Candidate) -> f64 {
        exp(f64::from(candidate.logit) - f64::from(self.highest))
    }
}

/// e^x for x <= 0, by operations that IEEE 754 defines to the last bit; the `exp` of the platform's library is not.
/// The error is a few units in the last place.
fn exp(x: f64) -> f64 {
    // ln 2 in two parts: the first has so few bits that its product with k is exact.
    const LN2_HIGH: f64 = 6.931_471_803_691_238e-1;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    // 1/13!, 1/12!, ... 1/0!: the Taylor series, whose rest is below 2^-57 for |r| <= ln 2 / 2.
    const SERIES: [f64; 14] = [
        1.0 / 6_227_020_800.0,
        1.0 / 479_001_600.0,
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ];
    // Below this a weight adds nothing to a sum that holds 1, and 2^k would leave the normal numbers.
    if x < -700.0 {
        return 0.0;
    }
    // e^x = 2^k e^r
    let k = (x * std::f64::consts::LOG2_E - 0.5) as i64;
    let r = (x - k as f64 * LN2_HIGH) - k as f64 * LN2_LOW;
    let series = SERIES.iter().fold(0.0, |sum, coefficient| sum * r + coefficient);
    series * f64::from_bits(((k + 1023) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::exp;

    #[test]
    fn exp_is_exp() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-1000.0), 0.0);
        assert_eq!(exp(f64::from(f32::MIN) * 2.0), 0.0);
        for i in 0..70_000 {
            let x = -f64::from(i) / 100.0;
            assert!((exp(x) / x.exp() - 1.0).abs() < 4.0 * f64::EPSILON, "exp({x})");
        }
    }
}
