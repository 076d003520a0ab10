//! The candidates for the next token: those left after each filter, and the draw among them.
//!
//! Sums have a fixed order and `exp` is computed here, so the same logits give the same token on every platform.

use std::cmp::Ordering;

/// Top-p's buckets: how many per unit of logit, and in all. The last one holds every candidate so far below the
/// highest that its weight is negligible.
const BUCKETS_PER_LOGIT: f32 = 64.0;
const N_BUCKETS: usize = 2048;
/// Top-k gathers at least this many candidates before it discards those that cannot be in, and it compares this many
/// logits at once.
const TOP_K_GATHERED_MIN: usize = 256;
const COMPARED_AT_ONCE: usize = 16;

#[derive(Clone, Copy, Debug)]
struct Candidate {
    // Finite, never -0.0.
    logit: f32,
    id: u32,
}

/// The more probable first; ties go to the lower id. It is a total order, so a cut is the same on every platform.
fn by_rank(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
}

/// The logit in a form that can be compared and subtracted, or `None` if its token cannot be chosen.
fn clean(logit: f32) -> Option<f32> {
    if logit.is_nan() || logit == f32::NEG_INFINITY {
        return None;
    }
    // Adding zero turns -0.0 into 0.0, because the two are equal logits.
    Some(logit.min(f32::MAX) + 0.0)
}

/// The token with the highest logit; ties go to the lowest id.
pub(super) fn argmax(logits: &[f32]) -> Option<u32> {
    let mut best: Option<(usize, f32)> = None;
    for (id, &logit) in logits.iter().enumerate() {
        if clean(logit).is_some() && best.is_none_or(|(_, highest)| logit > highest) {
            best = Some((id, logit));
        }
    }
    best.map(|(id, _)| id as u32)
}

/// The candidates that are left, in the order in which they are summed and drawn: by rank if there is a top-k,
/// otherwise by id. A weight is a candidate's probability divided by the highest one.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    list: Vec<Candidate>,
    // The highest logit; every filter keeps it.
    highest: f32,
    // One per candidate, computed when needed.
    weights: Vec<f32>,
    buckets: Vec<f64>,
}

impl Candidates {
    /// Takes the `top_k` highest logits, or all if `top_k` is 0.
    pub(super) fn read(&mut self, logits: &[f32], top_k: usize) {
        self.list.clear();
        if top_k == 0 {
            let candidate = |(id, &logit)| Some(Candidate { logit: clean(logit)?, id: id as u32 });
            self.list.extend(logits.iter().enumerate().filter_map(candidate));
        } else {
            self.gather_highest(logits, top_k.min(logits.len()));
        }
        self.highest = self.list.iter().map(|candidate| candidate.logit).fold(f32::MIN, f32::max);
    }

    /// Takes the first `top_k` candidates of a list that is already ranked: pairs of the logit's bits and the token,
    /// which is `u32::MAX` after the last one.
    pub(super) fn read_top(&mut self, top: &[[u32; 2]], top_k: usize) {
        self.list.clear();
        let there = top.iter().take(top_k).filter(|[_, id]| *id != u32::MAX);
        self.list.extend(there.map(|&[bits, id]| Candidate { logit: f32::from_bits(bits), id }));
        self.highest = self.list.first().map_or(f32::MIN, |candidate| candidate.logit);
    }

    /// One pass that compares nearly every logit with a single number, several at once: when k candidates are known,
    /// a logit that is not above the lowest of them cannot be in. An equal one cannot either, because ids ascend and
    /// ties go to the lower id.
    fn gather_highest(&mut self, logits: &[f32], k: usize) {
        // Twice k, so that the cost of discarding stays proportional to the number gathered.
        let n_gathered_max = (2 * k).max(TOP_K_GATHERED_MIN);
        let mut floor = f32::NEG_INFINITY;
        for (i, several) in logits.chunks(COMPARED_AT_ONCE).enumerate() {
            // A NaN compares as not above.
            if !several.iter().fold(false, |is_any, &logit| is_any | (logit > floor)) {
                continue;
            }
            for (j, &logit) in several.iter().enumerate() {
                let Some(logit) = clean(logit).filter(|&logit| logit > floor) else { continue };
                self.list.push(Candidate { logit, id: (i * COMPARED_AT_ONCE + j) as u32 });
                if self.list.len() == n_gathered_max {
                    let (_, lowest, _) = self.list.select_nth_unstable_by(k - 1, by_rank);
                    floor = lowest.logit;
                    self.list.truncate(k);
                }
            }
        }
        self.list.sort_unstable_by(by_rank);
        self.list.truncate(k);
    }

    /// Keeps the most probable candidates until their share of the probability reaches `top_p`, including the one
    /// that reaches it.
    ///
    /// Sorting a whole vocabulary would cost more than everything else here. So the weights are summed in buckets of
    /// neighbouring logits, and only the bucket in which the sum reaches `top_p` is sorted.
    pub(super) fn keep_top_p(&mut self, top_p: f32) {
        if top_p >= 1.0 {
            return;
        }
        let highest = self.highest;
        let bucket_of = |candidate: &Candidate| {
            // `as` saturates, so a huge difference becomes the largest integer.
            (((highest - candidate.logit) * BUCKETS_PER_LOGIT) as usize).min(N_BUCKETS - 1)
        };
        self.weigh(1.0);
        self.buckets.clear();
        self.buckets.resize(N_BUCKETS, 0.0);
        for (candidate, &weight) in self.list.iter().zip(&self.weights) {
            self.buckets[bucket_of(candidate)] += f64::from(weight);
        }

        let wanted = f64::from(top_p) * self.buckets.iter().sum::<f64>();
        let mut mass = 0.0;
        // Buckets [0, last) are kept whole.
        let mut last = 0;
        while last < N_BUCKETS - 1 && mass + self.buckets[last] < wanted {
            mass += self.buckets[last];
            last += 1;
        }
        let mut ranked: Vec<Candidate> =
            self.list.iter().filter(|candidate| bucket_of(candidate) == last).copied().collect();
        ranked.sort_unstable_by(by_rank);
        let lowest = ranked.iter().find(|candidate| {
            mass += f64::from(weight(candidate.logit - highest));
            mass >= wanted
        });
        // Rounding may leave the total sum just short of it; then no candidate of the bucket is cut.
        let Some(lowest) = lowest.or(ranked.last()).copied() else { return };
        self.list.retain(|candidate| by_rank(candidate, &lowest).is_le());
    }

    /// Keeps the candidates whose probability is at least `min_p` times the highest.
    pub(super) fn keep_min_p(&mut self, min_p: f32) {
        if min_p > 0.0 {
            let highest = self.highest;
            self.list.retain(|candidate| weight(candidate.logit - highest) >= min_p);
        }
    }

    /// The candidate at which the cumulative probability at this temperature passes `point`, in `[0, 1)`.
    pub(super) fn draw(&mut self, temperature: f32, point: f64) -> Option<u32> {
        self.weigh(temperature);
        let target = point * self.weights.iter().map(|&weight| f64::from(weight)).sum::<f64>();
        let mut mass = 0.0;
        let drawn = self.list.iter().zip(&self.weights).find(|&(_, &weight)| {
            mass += f64::from(weight);
            // The most probable candidate weighs 1, so the sum ends above every target.
            mass > target
        });
        drawn.map(|(candidate, _)| candidate.id)
    }

    fn weigh(&mut self, temperature: f32) {
        let highest = self.highest;
        self.weights.clear();
        self.weights
            .extend(self.list.iter().map(|candidate| weight((candidate.logit - highest) / temperature)));
    }
}

/// e^x for x <= 0. It uses only operations that IEEE 754 defines to the last bit (a platform's `exp` is not) and that
/// a compiler can vectorize. The error is a few units in the last place. Below -87 the result is 0, because such a
/// weight adds nothing to a sum that contains 1.
fn weight(x: f32) -> f32 {
    // ln 2 as a sum of two: the first has so few bits that its product with k is exact.
    const LN2_HIGH: f32 = 355.0 / 512.0;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // 1/7!, 1/6!, ... 1/0!: the Taylor series, whose remainder is below 2^-27 for |r| <= ln 2 / 2.
    const SERIES: [f32; 8] = [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    // A number this large has no fraction bits: adding it rounds, and the last bits of the sum are the rounded
    // integer.
    const ROUNDER: f32 = 12_582_912.0;
    // e^x = 2^k e^r
    let rounded = x.max(-87.0) * std::f32::consts::LOG2_E + ROUNDER;
    let k = rounded - ROUNDER;
    let r = (x - k * LN2_HIGH) - k * LN2_LOW;
    let series = SERIES.iter().fold(0.0, |sum, coefficient| sum * r + coefficient);
    let power = f32::from_bits(rounded.to_bits().wrapping_add(127) << 23);
    if x < -87.0 { 0.0 } else { series * power }
}

#[cfg(test)]
mod tests {
    use super::weight;

    #[test]
    fn weights_are_powers_of_e() {
        assert_eq!(weight(0.0), 1.0);
        for x in [-87.01, -1e30, f32::MIN, f32::NEG_INFINITY] {
            assert_eq!(weight(x), 0.0, "{x}");
        }
        for i in 0..=87_000 {
            let x = i as f32 / -1000.0;
            let exact = f64::from(x).exp();
            assert!((f64::from(weight(x)) / exact - 1.0).abs() < 3e-7, "{x}: {} {exact}", weight(x));
        }
    }
}
