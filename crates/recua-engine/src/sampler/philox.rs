//! Philox4x32-10, the counter-based generator of Salmon, Moraes, Dror and Shaw ("Parallel random numbers: as easy as
//! 1, 2, 3", 2011): a few random words are a function of a key and a counter, so there is no state to keep.
//!
//! Key: the request's seed. Counter: the token's position (two words), the choice, zero.

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
// The golden ratio and the square root of 3, both minus 1, as fractions of 2^32.
const KEY_STEPS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const N_ROUNDS: usize = 10;

/// The four random words for a key and a counter.
pub fn philox4x32(key: [u32; 2], counter: [u32; 4]) -> [u32; 4] {
    let mut key = key;
    let mut words = counter;
    for _ in 0..N_ROUNDS {
        let (high_0, low_0) = multiply(MULTIPLIERS[0], words[0]);
        let (high_1, low_1) = multiply(MULTIPLIERS[1], words[2]);
        words = [high_1 ^ words[1] ^ key[0], low_1, high_0 ^ words[3] ^ key[1], low_0];
        key = [key[0].wrapping_add(KEY_STEPS[0]), key[1].wrapping_add(KEY_STEPS[1])];
    }
    words
}

/// A number in `[0, 1)`, a multiple of 2^-53, for the token at `position` of a request's `choice`.
pub fn uniform(seed: u64, choice: u32, position: u64) -> f64 {
    let [key_low, key_high] = halves(seed);
    let [position_low, position_high] = halves(position);
    let words = philox4x32([key_low, key_high], [position_low, position_high, choice, 0]);
    let bits = (u64::from(words[0]) << 32 | u64::from(words[1])) >> 11;
    bits as f64 / (1u64 << 53) as f64
}

/// The high and the low word of a product.
fn multiply(a: u32, b: u32) -> (u32, u32) {
    let [low, high] = halves(u64::from(a) * u64::from(b));
    (high, low)
}

/// The low and the high word of a number.
fn halves(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}
