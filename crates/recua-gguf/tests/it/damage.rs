//! Thousands of damaged files: none may crash the reader or make it take more memory than the file's size
//! justifies.

use recua_gguf::{Gguf, decode};

use crate::counting::peak_bytes;
use crate::raw::{Raw, key, key_array, line};
use crate::testdata;

/// The most memory that opening a file of `n` bytes may hold at any time.
fn allowed_bytes(n: usize) -> usize {
    4 * n + 64 * 1024
}

/// Opens the bytes and, if they are accepted, reads everything. Returns whether they were accepted.
fn check(bytes: Vec<u8>, what: &str) -> bool {
    let n = bytes.len();
    let (opened, peak) = peak_bytes(|| Gguf::from_vec(bytes));
    assert!(peak <= allowed_bytes(n), "{what}: opening a file of {n} bytes took {peak}");
    let Ok(file) = opened else { return false };
    let _ = file.metadata().require_u32("a.u32");
    for (key, value) in file.metadata().iter() {
        let _ = (file.metadata().u32s(key), file.metadata().f32s(key), value.to_string());
        if let Ok(Some(strings)) = file.metadata().strings(key) {
            assert_eq!(strings.iter().count(), strings.len());
            assert_eq!(strings.get(strings.len()), None);
        }
    }
    for tensor in file.tensors() {
        assert_eq!(file.data(tensor).len(), tensor.n_bytes());
        assert_eq!(tensor.rows() * tensor.row_bytes(), tensor.n_bytes());
        if tensor.ty.is_decodable() {
            let mut row = vec![0; tensor.row_bytes()];
            file.data(tensor).read(0, &mut row).unwrap();
            decode(tensor.ty, &row, &mut vec![0.0; tensor.cols()]).unwrap();
        }
    }
    true
}

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// Makes one to three changes of the kinds that break readers: flipped bytes, cuts, moved pieces, and numbers
/// at or next to a limit, written over counts, lengths and offsets.
fn damage(rng: &mut Rng, bytes: &mut Vec<u8>, header_bytes: usize) {
    for _ in 0..1 + rng.below(3) {
        if bytes.len() < 32 {
            return;
        }
        let near = header_bytes.min(bytes.len() - 8);
        let at = rng.below(near);
        let n = bytes.len() as u64;
        match rng.below(8) {
            0 => bytes[at] ^= 1 << rng.below(8),
            1 => bytes[at] = rng.next() as u8,
            2 => {
                let end = rng.below(bytes.len());
                bytes.truncate(end);
            }
            3 => drop(bytes.drain(at..(at + 1 + rng.below(40)).min(n as usize))),
            4 => {
                let piece = bytes[at..(at + 1 + rng.below(40)).min(n as usize)].to_vec();
                let to = rng.below(near);
                bytes.splice(to..to, piece);
            }
            kind => {
                // Counts, lengths and offsets look like small non-zero numbers followed by zeros.
                let is_number = |i: usize| bytes[i] != 0 && bytes[i + 4..i + 8] == [0; 4];
                let at = (at..near).find(|i| is_number(*i)).unwrap_or(at);
                let limits = [
                    0,
                    1,
                    2,
                    4,
                    5,
                    31,
                    255,
                    1 << 16,
                    1 << 31,
                    1 << 32,
                    1 << 62,
                    1 << 63,
                    u64::MAX,
                    n,
                    n / 8,
                    n - at as u64,
                ];
                let value = limits[rng.below(limits.len())].wrapping_add(rng.below(3) as u64).wrapping_sub(1);
                let width = if kind == 5 { 4 } else { 8 };
                bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
            }
        }
    }
}

#[test]
fn damaged_small_files() {
    let whole = Raw::valid().bytes();
    let mut rng = Rng(0x5eed);
    let mut accepted = 0;
    const N: usize = 30_000;
    for i in 0..N {
        let mut bytes = whole.clone();
        damage(&mut rng, &mut bytes, whole.len() - 300);
        accepted += check(bytes, &format!("mutation {i}")) as usize;
    }
    // Most damage is fatal, but not all: both outcomes must have occurred.
    assert!((N / 100..N / 2).contains(&accepted), "{accepted} of {N} accepted");
}

#[test]
fn every_truncation() {
    let whole = Raw::valid().bytes();
    for n in 0..whole.len() {
        assert!(!check(whole[..n].to_vec(), &format!("the first {n} bytes")));
    }
    assert!(check(whole, "the whole file"));
}

#[test]
fn damaged_golden_model() {
    let whole = std::fs::read(testdata("golden/tiny-Q4_0.gguf")).unwrap();
    let mut rng = Rng(0xdead);
    for i in 0..400 {
        let mut bytes = whole.clone();
        damage(&mut rng, &mut bytes, 20_000);
        check(bytes, &format!("mutation {i}"));
    }
}

#[test]
fn memory_of_the_densest_files() {
    // As many keys and tensors as fit: these files cost the most memory per byte.
    let name = |i: u32| char::from_u32(0x4e00 + i).unwrap().to_string();
    let keys = |value: fn(&str) -> Vec<u8>| (0..20_000).map(|i| value(&name(i))).collect();
    let none = Raw { keys: vec![], lines: vec![], data: vec![], ..Raw::valid() };
    let dense = [
        ("bytes", Raw { keys: keys(|k| key(k, 0, &[1])), ..none.clone() }),
        ("strings", Raw { keys: keys(|k| key(k, 8, &[0; 8])), ..none.clone() }),
        ("arrays", Raw { keys: keys(|k| key_array(k, 0, 0, &[])), ..none.clone() }),
        (
            "tensors",
            Raw {
                keys: vec![key("general.alignment", 4, &1u32.to_le_bytes())],
                lines: (0..20_000).map(|i| line(&name(i), &[1], 24, i as u64)).collect(),
                data: vec![0; 20_000],
                alignment: 1,
                ..none.clone()
            },
        ),
    ];
    for (what, raw) in dense {
        let bytes = raw.bytes();
        let n = bytes.len();
        let (file, peak) = peak_bytes(|| Gguf::from_vec(bytes));
        file.unwrap();
        assert!(peak <= 4 * n, "{what}: {peak} bytes for a file of {n}");
    }
}
