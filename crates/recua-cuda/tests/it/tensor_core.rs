//! A model of the sums of Hopper's tensor cores, bit for bit, and products of the card held against it. Without a card the tests of the
//! model's own properties run.
//!
//! A step adds 16 products of f16 to an f32. Every term is cut toward zero to a multiple of 2^(e - 25), where e is the largest exponent
//! among those of the terms that are not zero; then all are added exactly, and the sum is cut toward zero to an f32. A product's exponent
//! is the sum of its factors', even if the product is 2 and more times that power of two; subnormal numbers have exponent -14.

use crate::device;
use recua_compute::{Arrange, DType, Device, Matmul, RawMatrix, Record, Weight};
use recua_gguf::GgmlType;

/// Columns of a step, of a tile of weights, and slices of the sum over K (`kernels/matmul.cu`).
const STEP: usize = 16;
const TILE: usize = 256;
const SLICES: usize = 8;

/// Bits below the largest exponent.
const BITS: i32 = 25;

/// Sign, an integer and a power of two that make the number, and its exponent.
#[derive(Clone, Copy)]
struct Term {
    is_negative: bool,
    integer: i64,
    power: i32,
    exponent: i32,
}

impl Term {
    fn of_f16(bits: u16) -> Term {
        let (field, fraction) = (i32::from(bits >> 10 & 31), i64::from(bits & 1023));
        assert!(field < 31, "infinities and NaN are not modelled");
        let exponent = field.max(1) - 15;
        let integer = fraction + if field == 0 { 0 } else { 1024 };
        Term { is_negative: bits >> 15 == 1, integer, power: exponent - 10, exponent }
    }

    fn of_f32(x: f32) -> Term {
        let bits = x.to_bits();
        let (field, fraction) = ((bits >> 23 & 255) as i32, i64::from(bits & 0x7f_ffff));
        assert!(field < 255, "infinities and NaN are not modelled");
        let exponent = field.max(1) - 127;
        let integer = fraction + if field == 0 { 0 } else { 1 << 23 };
        Term { is_negative: bits >> 31 == 1, integer, power: exponent - 23, exponent }
    }

    fn times(self, other: Term) -> Term {
        Term {
            is_negative: self.is_negative != other.is_negative,
            integer: self.integer * other.integer,
            power: self.power + other.power,
            exponent: self.exponent + other.exponent,
        }
    }

    /// In units of 2^power, cut toward zero.
    fn cut(self, power: i32) -> i64 {
        let by = self.power - power;
        let size = if by >= 0 { self.integer << by } else { self.integer >> (-by).min(63) };
        if self.is_negative { -size } else { size }
    }
}

/// `sum` and 16 products.
fn step(sum: f32, a: &[u16; STEP], b: &[u16; STEP]) -> f32 {
    let products = a.iter().zip(b).map(|(a, b)| Term::of_f16(*a).times(Term::of_f16(*b)));
    let terms: Vec<Term> = products.chain([Term::of_f32(sum)]).filter(|term| term.integer != 0).collect();
    let Some(largest) = terms.iter().map(|term| term.exponent).max() else { return 0.0 };
    let unit = largest - BITS;
    let total: i64 = terms.iter().map(|term| term.cut(unit)).sum();
    let size = total.unsigned_abs();
    let dropped = (u64::BITS - size.leading_zeros()).saturating_sub(f32::MANTISSA_DIGITS);
    let kept = (size >> dropped << dropped) as f64;
    // 24 bits far from f32's limits: exact.
    let sum = (kept * 2f64.powi(unit)) as f32;
    if total < 0 { -sum } else { sum }
}

/// Which column a place of a step has: step `i` of a tile has four neighbours of each quarter of the tile (`kernels/tile.cuh`).
fn column(step: usize, place: usize) -> usize {
    place / 4 * (TILE / 4) + step * 4 + place % 4
}

/// What a kernel sums up for a row of weights and a row of x, whatever the other rows: K in 8 slices of whole tiles, each a chain of steps.
fn product(weights: &[u16], x: &[u16]) -> f32 {
    let n_tiles = weights.len().div_ceil(TILE);
    let slice = |i: usize| {
        let mut sum = 0.0;
        for tile in i * n_tiles / SLICES..(i + 1) * n_tiles / SLICES {
            for s in 0..TILE / STEP {
                let of = |values: &[u16]| {
                    let value = |place| values.get(tile * TILE + column(s, place)).copied().unwrap_or(0);
                    std::array::from_fn(value)
                };
                sum = step(sum, &of(weights), &of(x));
            }
        }
        sum
    };
    (1..SLICES).fold(slice(0), |sum, i| sum + slice(i))
}

/// Numbers that are the same everywhere (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// An f16 of an exponent in the range, with any fraction and sign.
    fn f16(&mut self, exponents: std::ops::RangeInclusive<i32>) -> u16 {
        let n = (exponents.end() - exponents.start() + 1) as u64;
        let field = (exponents.start() + 15 + self.below(n) as i32) as u16;
        field << 10 | self.fraction_and_sign()
    }

    fn fraction_and_sign(&mut self) -> u16 {
        self.next() as u16 & 0x83ff
    }
}

/// Data that shows where an order or a rounding is another.
#[derive(Clone, Copy, Debug)]
enum Data {
    /// Near each other in size.
    Even,
    /// All exponents of f16, in both signs.
    Wide,
    Subnormal,
    SubnormalWeights,
    /// Near the largest, in both signs.
    Large,
    /// Near the largest, all of one sign: cutting toward zero adds up.
    OneSign,
    /// A product and its opposite, beside each other.
    Cancelling,
    /// Four of five are zero, of both signs.
    Sparse,
}

const ALL: [Data; 8] = [
    Data::Even,
    Data::Wide,
    Data::Subnormal,
    Data::SubnormalWeights,
    Data::Large,
    Data::OneSign,
    Data::Cancelling,
    Data::Sparse,
];

impl Data {
    /// So many values of weights, or of x.
    fn values(self, n: usize, is_weight: bool, random: &mut Random) -> Vec<u16> {
        let mut values = Vec::with_capacity(n);
        for i in 0..n {
            let value = match self {
                Data::Even => random.f16(-1..=0),
                Data::Wide => random.f16(-14..=14),
                Data::SubnormalWeights if !is_weight => random.f16(-3..=3),
                Data::Subnormal | Data::SubnormalWeights => random.fraction_and_sign(),
                Data::Large => random.f16(14..=14),
                Data::OneSign => random.f16(13..=14) & 0x7fff,
                Data::Cancelling if i % 2 == 1 && i % 64 != 63 => {
                    values[i - 1] ^ if is_weight { 0x8000 } else { 0 }
                }
                Data::Cancelling => random.f16(-10..=10),
                Data::Sparse if random.below(5) > 0 => random.next() as u16 & 0x8000,
                Data::Sparse => random.f16(-14..=14),
            };
            values.push(value);
        }
        values
    }
}

/// A step's operands of every kind of data, with what was summed up before.
fn for_steps(mut check: impl FnMut(Data, f32, [u16; STEP], [u16; STEP])) {
    let mut random = Random(1);
    for data in ALL {
        for _ in 0..500 {
            let mut sixteen =
                |is_weight| <[u16; STEP]>::try_from(data.values(STEP, is_weight, &mut random)).unwrap();
            let (first, second, a, b) = (sixteen(true), sixteen(false), sixteen(true), sixteen(false));
            check(data, 0.0, a, b);
            check(data, step(0.0, &first, &second), a, b);
        }
    }
}

fn to_f64(bits: u16) -> f64 {
    let term = Term::of_f16(bits);
    term.cut(-24) as f64 * 2f64.powi(-24)
}

const ONE: u16 = 15 << 10;

/// 2^exponent as f16, of those that have it.
fn power(exponent: i32) -> u16 {
    if exponent < -14 { 1 << (exponent + 24) } else { ((exponent + 15) as u16) << 10 }
}

/// These products and zeros.
fn step_of(sum: f32, products: &[(u16, u16)]) -> f32 {
    let of = |i: usize| products.get(i).copied().unwrap_or((0, power(15)));
    step(sum, &std::array::from_fn(|i| of(i).0), &std::array::from_fn(|i| of(i).1))
}

#[test]
fn a_step_keeps_25_bits_of_each_term_and_24_of_the_sum() {
    let tiny = f32::EPSILON;
    // Two terms of half a unit of the result are one; fifteen of an eighth are nothing, because each is cut off by itself.
    assert_eq!(step_of(1.0, &[(power(-12), power(-12)); 2]), 1.0 + tiny);
    assert_eq!(step_of(1.0, &[(power(-13), power(-13)); 15]), 1.0);
    // Toward zero, whatever the sign: one half of a unit, and three.
    assert_eq!(step_of(1.0, &[(power(-12), power(-12))]), 1.0);
    assert_eq!(step_of(1.0, &[(power(-12), power(-12)); 3]), 1.0 + tiny);
    assert_eq!(step_of(-1.0, &[(power(-12) | 0x8000, power(-12)); 3]), -1.0 - tiny);
    // A term below 1 of the other sign counts to 2^-25.
    assert_eq!(step_of(1.0, &[(power(-12) | 0x8000, power(-13))]), 1.0 - tiny / 2.0);
}

#[test]
fn a_products_exponent_is_that_of_its_factors() {
    // 1.5 * 1.5 has exponent 0, although it is 2.25. So 2^-25 is not cut off, and eight of them are a unit of the result.
    let half_more = ONE | 512;
    let small = (power(-12), power(-13));
    let mut products = vec![(half_more, half_more)];
    products.extend([small; 8]);
    assert_eq!(step_of(0.0, &products), 2.25 + 2f32.powi(-22));
    products.pop();
    assert_eq!(step_of(0.0, &products), 2.25);
    // A subnormal factor counts as 2^-14, however small it is: beside 2^-24 * 2^15 the unit is 2^(1 - 25), not 2^(-9 - 25).
    let products = [(power(-24), power(15)), (power(-13), power(-12))];
    assert_eq!(step_of(0.0, &products), 2f32.powi(-9));
    let products = [(power(-9), power(0)), (power(-13), power(-12))];
    assert_eq!(step_of(0.0, &products), 2f32.powi(-9) + 2f32.powi(-25));
    // Zeros have none: those of `step_of` stand beside 2^15.
    assert_eq!(step_of(0.0, &[(power(-24), power(-24))]), 2f32.powi(-48));
}

#[test]
fn sums_without_a_rest_are_exact() {
    let mut random = Random(2);
    for _ in 0..1000 {
        let mut integers = || std::array::from_fn(|_| random.below(31) as i32 - 15);
        let (a, b): ([i32; STEP], [i32; STEP]) = (integers(), integers());
        let f16 = |x: i32| {
            let exponent = x.unsigned_abs().checked_ilog2().map_or(0, |e| e as i32);
            let size =
                if x == 0 { 0 } else { power(exponent) + ((x.abs() << (10 - exponent)) as u16 & 1023) };
            size | if x < 0 { 0x8000 } else { 0 }
        };
        let exact: i32 = 1000 + a.iter().zip(&b).map(|(a, b)| a * b).sum::<i32>();
        assert_eq!(step(1000.0, &a.map(f16), &b.map(f16)), exact as f32);
    }
}

#[test]
fn a_steps_columns_may_come_in_any_order() {
    let mut random = Random(3);
    for_steps(|data, sum, a, b| {
        let mut order: [usize; STEP] = std::array::from_fn(|i| i);
        (1..STEP).for_each(|i| order.swap(i, random.below(i as u64 + 1) as usize));
        let found = step(sum, &order.map(|i| a[i]), &order.map(|i| b[i]));
        assert_eq!(found.to_bits(), step(sum, &a, &b).to_bits(), "{data:?}");
    });
}

#[test]
fn the_opposite_of_all_terms_gives_the_opposite() {
    for_steps(|data, sum, a, b| {
        let (found, expected) = (step(-sum, &a.map(|x| x ^ 0x8000), &b), -step(sum, &a, &b));
        // There is one zero.
        assert!(found.to_bits() == expected.to_bits() || found == 0.0 && expected == 0.0, "{data:?}");
    });
}

#[test]
fn a_step_is_as_near_as_what_is_cut_off() {
    for_steps(|data, sum, a, b| {
        let products = a.iter().zip(&b).map(|(a, b)| to_f64(*a) * to_f64(*b));
        let terms: Vec<f64> = products.chain([f64::from(sum)]).collect();
        // Those of f16 fit f64 with room for 17 of them; the rest of 2^-53 is far below what is cut off.
        let exact: f64 = terms.iter().sum();
        let factors = a.iter().zip(&b).filter(|(a, b)| to_f64(**a) != 0.0 && to_f64(**b) != 0.0);
        let exponents = factors.map(|(a, b)| Term::of_f16(*a).exponent + Term::of_f16(*b).exponent);
        let before = (sum != 0.0).then(|| Term::of_f32(sum).exponent);
        let Some(largest) = exponents.chain(before).max() else { return };
        let found = f64::from(step(sum, &a, &b));
        let limit = 17.0 * 2f64.powi(largest - BITS) + exact.abs() * 2f64.powi(-23);
        assert!((found - exact).abs() <= limit, "{data:?}: {found:e} for {exact:e}");
        if matches!(data, Data::OneSign) {
            assert!(found <= exact, "{found:e} for {exact:e} is not cut toward zero");
        }
    });
}

#[test]
fn every_column_is_in_one_step() {
    let mut columns: Vec<usize> =
        (0..TILE / STEP).flat_map(|s| (0..STEP).map(move |i| column(s, i))).collect();
    columns.sort_unstable();
    assert!(columns.into_iter().eq(0..TILE));
    // Neighbours of a step may be exchanged. Those of two steps may not: over some pairs of them, a bit shows it.
    let mut random = Random(4);
    let mut values = |is_weight| Data::Large.values(17 * TILE, is_weight, &mut random);
    let (a, b) = (values(true), values(false));
    let swapped = |distance: usize| {
        let exchange = |values: &[u16]| -> Vec<u16> {
            (0..values.len())
                .map(|i| values[if (i / distance).is_multiple_of(2) { i + distance } else { i - distance }])
                .collect()
        };
        product(&exchange(&a), &exchange(&b)).to_bits()
    };
    let expected = product(&a, &b).to_bits();
    assert_eq!([1, 2, 64, 128].map(swapped), [expected; 4]);
    assert!([4, 8, 16, 32].map(swapped).iter().all(|found| *found != expected));
}

/// Rows of weights and x, and what the model makes of them.
struct Case {
    data: Data,
    k: usize,
    /// `[WEIGHTS][k]`
    weights: Vec<u16>,
    /// `[ROWS][k]`: f16 values times a power of two of the row
    x: Vec<f32>,
    /// `[ROWS][WEIGHTS]`
    expected: Vec<u32>,
}

/// Different rows of weights, and of x at most.
const WEIGHTS: usize = 12;
const ROWS: usize = 200;

/// Powers of two of rows of x whose largest element is then below 2^-4, as it was, or above 2^15: what the device scales, and what it takes
/// as it is.
const ROW_SCALES: [i32; 5] = [-28, -21, 0, 7, 14];

impl Case {
    fn new(data: Data, k: usize) -> Case {
        let mut random = Random(k as u64);
        let mut weights: Vec<u16> = (0..WEIGHTS).flat_map(|_| data.values(k, true, &mut random)).collect();
        let (mut x, mut expected) = (Vec::new(), Vec::new());
        // A row of x that is small or large is brought to [2^14, 2^15) by its largest value: one that is there already, in any column, keeps
        // all as they are. Where that would hide the others, it counts for nothing.
        let is_hidden = !matches!(data, Data::Wide | Data::Large | Data::OneSign | Data::Sparse);
        let at = k / 3;
        if is_hidden {
            weights.chunks_exact_mut(k).for_each(|row| row[at] = 0);
        }
        for row in 0..ROWS {
            let mut values = data.values(k, false, &mut random);
            values[at] = random.f16(14..=14) & 0x7fff;
            let scale = 2f32.powi(ROW_SCALES[row % ROW_SCALES.len()]);
            x.extend(values.iter().map(|value| to_f64(*value) as f32 * scale));
            let products = weights.chunks_exact(k).map(|weights| product(weights, &values) * scale);
            expected.extend(products.map(f32::to_bits));
        }
        Case { data, k, weights, x, expected }
    }

    /// Compares the products of first rows of x with `n` rows of weights; tells which differ.
    fn check(&self, device: &Device, n: usize) -> Vec<String> {
        let bytes: Vec<u8> = (0..n)
            .flat_map(|row| &self.weights[row % WEIGHTS * self.k..][..self.k])
            .flat_map(|value| value.to_le_bytes())
            .collect();
        let matrix = RawMatrix::new(GgmlType::F16, n, self.k, &bytes);
        let weight = device.upload_weight(&[matrix], Arrange::Stacked).unwrap();
        [1, 3, 16, 64, ROWS].iter().filter_map(|n_rows| self.problem(device, &weight, *n_rows)).collect()
    }

    fn problem(&self, device: &Device, weight: &Weight, n_rows: usize) -> Option<String> {
        let n = weight.n();
        let x = device.upload(&self.x[..n_rows * self.k], DType::F32, &[n_rows, self.k]).unwrap();
        let out = device.alloc(DType::F32, &[n_rows, n]).unwrap();
        let mut plan = device.plan();
        plan.matmul(Matmul::new(&x, weight, &out)).unwrap();
        device.run(&plan).unwrap().wait().unwrap();
        let found = device.read_vec::<f32>(&out).unwrap();
        let expected = |i: usize| f32::from_bits(self.expected[i / n * WEIGHTS + i % n % WEIGHTS]);
        let differ: Vec<usize> =
            (0..found.len()).filter(|i| found[*i].to_bits() != expected(*i).to_bits()).collect();
        let &first = differ.first()?;
        let (found_one, expected_one) = (found[first], expected(first));
        Some(format!(
            "{:?}, {n_rows} rows, [{n}, {}]: {} of {} differ; row {}, output {}: {found_one:e} ({:08x}), not {expected_one:e} ({:08x})",
            self.data,
            self.k,
            differ.len(),
            found.len(),
            first / n,
            first % n,
            found_one.to_bits(),
            expected_one.to_bits()
        ))
    }
}

/// Values that f16 has, so that all of a product's rounding is in its sums: few rows and many, narrow matrices and one that is wide enough
/// for a warp to have whole rows, in tiles that 8 does not divide, some of them not full.
#[test]
fn products_have_the_bits_of_the_model() {
    let Some(device) = device() else { return };
    let (major, minor) = recua_cuda::devices().unwrap()[0].compute_capability;
    if (major, minor) != (9, 0) {
        return println!("skipped: the model is of compute capability 9.0, this card has {major}.{minor}");
    }
    let mut problems = Vec::new();
    for data in ALL {
        for (n, k) in [(40, 600), (37, 2048), (40, 17 * TILE), (9000, 2300)] {
            problems.extend(Case::new(data, k).check(device, n));
        }
    }
    assert!(problems.is_empty(), "{} products:\n{}", problems.len(), problems.join("\n"));
}
