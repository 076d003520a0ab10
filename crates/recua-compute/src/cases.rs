//! The test cases of the ops, which every device crate runs. [`check_all`] compares a device with a reference in f64 that uses weights from
//! `recua_gguf::decode` and no device. [`check_same_bits`] checks that a row's bits do not depend on the rows beside it. Data is seeded, so
//! failures are reproducible.
//!
//! A device's test is `check_all(&device).assert()`.

mod attention;
pub mod data;
mod index_errors;
mod pool;
mod products;
mod program;
pub mod random_plans;
mod rows;
mod same_bits;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::plan::Plan;
use recua_gguf::GgmlType;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// How far a device may be from the reference. Each case gives the unit of its errors, which scales with the values, so that a limit means
/// the same for large and small ones.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// What it is a bound for.
    pub name: &'static str,
    /// The limit of the root mean square over a case.
    pub rms: f64,
    /// The limit of each element.
    pub max: f64,
}

impl Tolerance {
    /// Indexes and copied bytes: nothing is rounded.
    pub const EXACT: Tolerance = Tolerance { name: "exact", rms: 0.0, max: 0.0 };

    /// Products with f32 activations and sums: rounding 2⁻²⁴ at each of K additions of random sign, about √K · 2⁻²⁵ in units of
    /// the result's own size, for K up to a few thousand; six times that for one element.
    pub const F32_PRODUCT: Tolerance = Tolerance { name: "f32 products", rms: 4e-6, max: 2.4e-5 };

    /// F16 and BF16 weights with at least f16 activations: each rounded to 11 bits, at most 2⁻¹¹ and about 2⁻¹² on average.
    pub const F16_PRODUCT: Tolerance = Tolerance { name: "f16 products", rms: 3e-4, max: 2e-3 };

    /// Quantized weights with at least 8-bit activations, a scale per at most 256: a step is 1/127 of the largest value, the error
    /// of a value 1/√12 of a step, which is 0.0039 of the root mean square of evenly spread values. Types with a minimum have
    /// weights of one sign, so the errors of a row's outputs move together and do not average out: three times 0.0039 is allowed for
    /// a case, six times for one element.
    pub const Q8_PRODUCT: Tolerance = Tolerance { name: "8-bit activations", rms: 1.2e-2, max: 2.5e-2 };

    /// A decoded weight: the scale times the code, and perhaps a minimum, fused or not, in units of the row's largest value.
    pub const DECODED: Tolerance = Tolerance { name: "decoded weights", rms: 1e-6, max: 1e-6 };

    /// Norms and rotations in f32: a few roundings, and a square root that a device may approximate.
    pub const F32_ROWS: Tolerance = Tolerance { name: "f32 rows", rms: 2e-6, max: 1e-5 };

    /// Attention over an f32 cache, in units of the largest value of V: `exp` and sums in f32.
    pub const F32_CACHE: Tolerance = Tolerance { name: "f32 cache", rms: 3e-6, max: 3e-5 };

    /// Attention over an f16 cache: the reference rounds the same values, but a value near a tie may be rounded the other way, and devices may
    /// round q and the softmax's weights to f16 too.
    pub const F16_CACHE: Tolerance = Tolerance { name: "f16 cache", rms: 5e-4, max: 3e-3 };

    const fn times(self, factor: f64) -> Tolerance {
        Tolerance { name: self.name, rms: self.rms * factor, max: self.max * factor }
    }
}

/// The result of a run of cases.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The number of cases that ran.
    pub n_cases: usize,
    /// One line each: op, shape, format, error found and tolerance.
    pub failures: Vec<String>,
    /// Types whose weights the device refused.
    pub unsupported: BTreeSet<GgmlType>,
    /// The largest errors found, and the tolerance, by op and name of the tolerance.
    worst: BTreeMap<(&'static str, &'static str), (f64, f64, Tolerance)>,
}

impl Report {
    /// Panics with the list of failures, if there are any.
    pub fn assert(&self) {
        assert!(self.failures.is_empty(), "{self}");
    }

    /// Runs one case of `op`. `check` returns what it measured.
    fn case(
        &mut self,
        op: &'static str,
        shape: impl fmt::Display,
        check: impl FnOnce() -> Result<Vec<Measured>>,
    ) {
        self.n_cases += 1;
        match check() {
            Ok(list) => list.into_iter().for_each(|measured| self.measured(op, &shape, measured)),
            Err(Error::UnsupportedType { ty, .. }) => {
                self.unsupported.insert(ty);
            }
            Err(error) => self.failures.push(format!("{op} {shape}: {error}")),
        }
    }

    fn measured(&mut self, op: &'static str, shape: &impl fmt::Display, measured: Measured) {
        let Measured { what, rms, max, tolerance } = measured;
        // Written so that a NaN fails.
        let holds = rms <= tolerance.rms && max <= tolerance.max;
        if !holds {
            self.failures.push(format!(
                "{op} {shape}: {what} is off by {rms:.2e} (rms), {max:.2e} (max); the tolerance '{}' is {:.2e}, {:.2e}",
                tolerance.name, tolerance.rms, tolerance.max
            ));
        }
        let worst = self.worst.entry((op, tolerance.name)).or_insert((0.0, 0.0, tolerance));
        *worst = (worst.0.max(rms), worst.1.max(max), tolerance);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} cases, {} failures", self.n_cases, self.failures.len())?;
        for ((op, name), (rms, max, tolerance)) in &self.worst {
            let Tolerance { rms: rms_limit, max: max_limit, .. } = tolerance;
            writeln!(
                f,
                "  {op:<11} {name:<18} rms {rms:.1e} of {rms_limit:.1e}, max {max:.1e} of {max_limit:.1e}"
            )?;
        }
        if !self.unsupported.is_empty() {
            writeln!(f, "  refused: {:?}", self.unsupported)?;
        }
        const SHOWN: usize = 40;
        for failure in self.failures.iter().take(SHOWN) {
            writeln!(f, "  FAILED {failure}")?;
        }
        if self.failures.len() > SHOWN {
            writeln!(f, "  and {} more", self.failures.len() - SHOWN)?;
        }
        Ok(())
    }
}

/// Every op against the reference, in all shapes and formats, the buffer pool, and programs.
pub fn check_all(device: &Device) -> Report {
    let mut report = Report::default();
    products::check(device, &mut report);
    products::any_size::check(device, &mut report);
    rows::check(device, &mut report);
    attention::check(device, &mut report);
    index_errors::check(device, &mut report);
    pool::check(device, &mut report);
    program::check(device, &mut report);
    report
}

/// Those cases of [`check_all`] that are about products with rows of any size.
pub fn check_any_size(device: &Device) -> Report {
    let mut report = Report::default();
    products::any_size::check(device, &mut report);
    report
}

/// Those cases of [`check_all`] and [`check_same_bits`] that are about attention.
pub fn check_attention(device: &Device) -> Report {
    let mut report = Report::default();
    attention::check(device, &mut report);
    same_bits::check_attention(device, &mut report);
    report
}

/// Checks that a row's result has the same bits alone, in any batch and in any order, for every type; and the same for attention, with any
/// cut, pages and companions.
pub fn check_same_bits(device: &Device) -> Report {
    let mut report = Report::default();
    same_bits::check(device, &mut report);
    report
}

/// The device that a test is to run on, if it could be opened. If not, the test says so and passes without it, unless the environment
/// variable `RECUA_REQUIRE_DEVICES` (kinds such as `cpu`, separated by commas; `cpu` if it is unset) contains `kind`.
///
/// # Panics
/// If it is required and could not be opened.
pub fn opened_or_skipped<T, E: fmt::Display>(kind: &str, opened: std::result::Result<T, E>) -> Option<T> {
    let error = match opened {
        Ok(opened) => return Some(opened),
        Err(error) => error,
    };
    let required = std::env::var("RECUA_REQUIRE_DEVICES").unwrap_or_else(|_| "cpu".into());
    assert!(required.split(',').all(|name| name.trim() != kind), "{kind} is required: {error}");
    println!("skipped without {kind}: {error}");
    None
}

/// The results of a fixed set of passes over every op and type, as bits, for comparing devices that must agree.
///
/// # Errors
/// If the device fails.
pub fn bits(device: &Device) -> Result<Vec<(String, Vec<u32>)>> {
    let mut all = same_bits::product_bits(device)?;
    all.extend(attention::bits(device)?);
    Ok(all)
}

/// An error found in one output of a case.
struct Measured {
    what: &'static str,
    rms: f64,
    max: f64,
    tolerance: Tolerance,
}

impl Measured {
    /// The errors of `found`, each in units of `unit(i)`.
    fn new(
        what: &'static str,
        found: &[f32],
        expected: &[f64],
        unit: impl Fn(usize) -> f64,
        tolerance: Tolerance,
    ) -> Measured {
        let (mut squares, mut max) = (0.0, 0.0f64);
        for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
            let error = (f64::from(*found) - expected).abs() / unit(i).max(f64::MIN_POSITIVE);
            // `f64::max` would lose a NaN.
            let error = if error.is_nan() { f64::INFINITY } else { error };
            squares += error * error;
            max = max.max(error);
        }
        if found.len() != expected.len() {
            max = f64::INFINITY;
        }
        Measured { what, rms: (squares / expected.len().max(1) as f64).sqrt(), max, tolerance }
    }

    /// The number of elements that differ, which must be 0.
    fn exact<T: PartialEq>(what: &'static str, found: &[T], expected: &[T]) -> Measured {
        let differing = found.iter().zip(expected).filter(|(a, b)| a != b).count();
        let differing = (differing + found.len().abs_diff(expected.len())) as f64;
        Measured { what, rms: differing, max: differing, tolerance: Tolerance::EXACT }
    }
}

/// Records and runs a plan.
fn run(device: &Device, record: impl FnOnce(&mut Plan) -> Result<()>) -> Result<()> {
    let mut plan = device.plan();
    record(&mut plan)?;
    device.run(&plan)?.wait()
}
