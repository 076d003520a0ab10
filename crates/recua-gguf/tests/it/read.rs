//! The content of a well-formed file, and one malformed file per rule: each is refused with an error that names
//! the thing at fault.

use recua_gguf::{ArrayType, GgmlType, Gguf, Value};

use crate::raw::{Raw, key, key_array, key_string, key_strings, line, string};

#[test]
fn a_valid_file_reads_back() {
    for version in [2, 3] {
        let file = Gguf::from_vec(Raw { version, ..Raw::valid() }.bytes()).unwrap();
        assert_eq!(file.version(), version);
        let m = file.metadata();
        assert_eq!(m.require_str("general.architecture").unwrap(), "llama");
        assert_eq!(
            (m.u32("a.u8").unwrap(), m.u32("a.u16").unwrap(), m.u32("a.u32").unwrap()),
            (Some(7), Some(7), Some(7))
        );
        assert_eq!(
            (m.i32("a.i8").unwrap(), m.i32("a.i16").unwrap(), m.i32("a.i32").unwrap()),
            (Some(-1), Some(-7), Some(-7))
        );
        assert_eq!((m.u64("a.u64").unwrap(), m.u64("absent").unwrap()), (Some(1 << 40), None));
        assert_eq!((m.f32("a.f32").unwrap(), m.f32("a.f64").unwrap()), (Some(0.5), Some(0.25)));
        assert_eq!(m.bool("a.bool").unwrap(), Some(true));
        assert_eq!(m.get("a.i64"), Some(&Value::I64(-1)));
        assert_eq!(m.u32s("a.u32s").unwrap().unwrap(), [1, 2, 3]);
        assert_eq!(m.i32s("a.u32s").unwrap().unwrap(), [1, 2, 3]);
        assert_eq!(m.f32s("a.f32s").unwrap().unwrap(), [1.0, 2.0]);
        assert_eq!(m.bools("a.bools").unwrap().unwrap(), [false, true]);
        assert_eq!(m.f32s("a.none").unwrap().unwrap(), []);
        let tokens = m.strings("a.tokens").unwrap().unwrap();
        assert_eq!(
            (tokens.len(), tokens.get(39), tokens.get(40), tokens.get(41)),
            (42, Some(&b"token39"[..]), Some(&b"\xff\xfe"[..]), Some(&b""[..]))
        );
        assert_eq!(tokens.iter().count(), 42);
        assert_eq!(m.iter().next().unwrap(), ("general.architecture", &Value::from("llama")));
        assert_eq!(m.len(), 17);
        let Some(Value::Array(array)) = m.get("a.u32s") else { panic!() };
        assert_eq!(
            (array.item_type(), array.len(), array.get(2), array.get(3)),
            (ArrayType::U32, 3, Some(Value::U32(3)), None)
        );

        let names: Vec<_> = file.tensors().iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names, ["norm.weight", "blk.0.attn_q.weight", "blk.0.ffn.weight"]);
        let t = file.tensor("blk.0.ffn.weight").unwrap();
        assert_eq!((t.ty, t.dims(), t.cols(), t.rows()), (GgmlType::F16, &[3, 2, 2][..], 3, 4));
        assert_eq!((t.n_elements(), t.row_bytes(), t.n_bytes(), file.data(t).len()), (12, 6, 24, 24));
        assert_eq!(file.tensor("absent"), None);
    }
}

#[test]
fn typed_getters_name_key_and_types() {
    let file = Gguf::from_vec(Raw::valid().bytes()).unwrap();
    let m = file.metadata();
    let check = |error: recua_gguf::Error, parts: &[&str]| {
        let text = error.to_string();
        assert!(parts.iter().all(|p| text.contains(p)), "{text:?} lacks one of {parts:?}");
    };
    check(m.u32("a.i64").unwrap_err(), &["a.i64", "-1", "i64", "integer from 0"]);
    check(m.u32("a.u64").unwrap_err(), &["a.u64", "2^32"]);
    check(m.u32("a.f32").unwrap_err(), &["a.f32", "of type f32", "integer"]);
    check(m.f32("a.u32").unwrap_err(), &["a.u32", "of type u32", "expected f32"]);
    check(m.bool("a.u8").unwrap_err(), &["a.u8", "expected bool"]);
    check(m.str("a.tokens").unwrap_err(), &["a.tokens", "array of string", "expected string"]);
    check(m.strings("a.u32s").unwrap_err(), &["a.u32s", "array of u32", "expected array of string"]);
    check(m.i32s("a.f32s").unwrap_err(), &["a.f32s", "item 0", "f32", "expected i32"]);
    check(m.u32s("a.tokens").unwrap_err(), &["a.tokens", "string", "u32"]);
    check(m.f32s("a.u8").unwrap_err(), &["a.u8", "of type u8", "array of f32"]);
    check(m.require_u32("absent").unwrap_err(), &["absent", "missing"]);
    check(m.require_f32("absent").unwrap_err(), &["absent", "missing"]);
    check(m.require_str("absent").unwrap_err(), &["absent", "missing"]);
}

#[test]
fn embedded_bytes_of_any_alignment() {
    let bytes = Raw::valid().bytes();
    for shift in 0..3 {
        let moved: &'static [u8] = [vec![0; shift], bytes.clone()].concat().leak();
        let file = Gguf::from_bytes(&moved[shift..]).unwrap();
        assert_eq!(file.data(&file.tensors()[1]).to_vec().unwrap(), [0x11; 288]);
    }
}

#[test]
fn a_file_without_tensors_needs_no_data() {
    let file = Gguf::from_vec(Raw { lines: vec![], data: vec![], ..Raw::valid() }.bytes()).unwrap();
    assert!(file.tensors().is_empty());
    let file =
        Gguf::from_vec(Raw { lines: vec![], data: vec![], keys: vec![], ..Raw::valid() }.bytes()).unwrap();
    assert!(file.metadata().is_empty());
}

#[test]
fn malformed_files_are_refused_by_name() {
    let valid = Raw::valid();
    let with_key = |k: Vec<u8>| {
        let mut raw = valid.clone();
        raw.keys.push(k);
        raw.bytes()
    };
    let with_line = |l: Vec<u8>| {
        let mut raw = valid.clone();
        raw.lines[1] = l;
        raw.bytes()
    };
    let whole = valid.bytes();
    let align = |n: u32| with_key(key("general.alignment", 4, &n.to_le_bytes()));
    // A const, so that the lists below may borrow it.
    const Q: &str = "blk.0.attn_q.weight";
    #[rustfmt::skip]
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("empty", vec![], &["ends inside the magic number"]),
        ("magic", Raw { magic: *b"GGML", ..valid.clone() }.bytes(), &["byte 0", "not a GGUF file"]),
        ("zip", b"PK\x03\x04zip".to_vec(), &["zip", "convert"]),
        ("version 1", Raw { version: 1, ..valid.clone() }.bytes(), &["version 1", "convert"]),
        ("version 4", Raw { version: 4, ..valid.clone() }.bytes(), &["version 4", "2 and 3"]),
        ("version 0", Raw { version: 0, ..valid.clone() }.bytes(), &["version 0"]),
        ("big-endian", Raw { version: 3u32.swap_bytes(), ..valid.clone() }.bytes(), &["big-endian"]),
        ("tensor count", Raw { n_tensors: Some(u64::MAX), ..valid.clone() }.bytes(), &["tensor count", "at most"]),
        ("key count", Raw { n_keys: Some(1 << 60), ..valid.clone() }.bytes(), &["metadata count", "at most"]),
        ("one key too many", Raw { n_keys: Some(18), ..valid.clone() }.bytes(), &["tensor"]),
        ("one tensor too many", Raw { n_tensors: Some(4), ..valid.clone() }.bytes(), &["tensor"]),
        ("key length", with_key([&u64::MAX.to_le_bytes()[..], b"k"].concat()), &["length of the name of metadata key 17"]),
        ("key empty", with_key(key("", 0, &[0])), &["metadata key 17", "0 bytes"]),
        ("key long", with_key(key(&"k".repeat(70_000), 0, &[0])), &["metadata key 17", "70000"]),
        ("key not UTF-8", with_key([&string(b"\xff")[..], &[0; 5]].concat()), &["metadata key 17", "UTF-8"]),
        ("key twice", with_key(key("a.u8", 0, &[0])), &["\"a.u8\"", "twice"]),
        ("value type", with_key(key("odd", 13, &[0])), &["\"odd\"", "value type 13"]),
        ("item type", with_key(key_array("odd", 99, 0, &[])), &["\"odd\"", "value type 99"]),
        ("boolean", with_key(key("odd", 7, &[2])), &["\"odd\"", "boolean 2"]),
        ("booleans", with_key(key_array("odd", 7, 2, &[0, 9])), &["\"odd\"", "item 1", "boolean 9"]),
        ("string length", with_key(key("odd", 8, &(1u64 << 40).to_le_bytes())), &["\"odd\"", "length of the string"]),
        ("string not UTF-8", with_key(key("odd", 8, &string(b"\xc0"))), &["\"odd\"", "UTF-8"]),
        ("array length", with_key(key_array("odd", 4, u64::MAX / 4 + 1, &[])), &["\"odd\"", "array's length"]),
        ("string array length", with_key(key_array("odd", 8, 1 << 50, &[])), &["\"odd\"", "array's length"]),
        ("item length", with_key(key_array("odd", 8, 1, &u64::MAX.to_le_bytes())), &["\"odd\"", "item 0"]),
        ("nested array", with_key(key_array("odd", 9, 1, &[0; 12])), &["\"odd\"", "array of arrays"]),
        ("alignment 0", align(0), &["general.alignment", "power of two"]),
        ("alignment 24", align(24), &["general.alignment", "24"]),
        ("alignment 2 MiB", align(2 << 20), &["general.alignment", "1048576"]),
        ("alignment string", with_key(key_string("general.alignment", "32")), &["general.alignment", "string"]),
        ("tensor name length", with_line((1u64 << 33).to_le_bytes().to_vec()), &["name of tensor 1"]),
        ("tensor name not UTF-8", with_line([&string(b"\xff")[..], &[0; 24]].concat()), &["name of tensor 1", "UTF-8"]),
        ("no dimensions", with_line(line(Q, &[], 0, 32)), &[Q, "0 dimensions"]),
        ("five dimensions", with_line(line(Q, &[1; 5], 0, 32)), &[Q, "5 dimensions"]),
        ("dimension 0", with_line(line(Q, &[256, 0], 0, 32)), &[Q, "dimension 1 is 0"]),
        ("elements overflow", with_line(line(Q, &[1 << 32, 1 << 32], 0, 32)), &[Q, "overflow"]),
        ("negative dimension", with_line(line(Q, &[1 << 63], 0, 32)), &[Q, "overflow"]),
        ("bytes overflow", with_line(line(Q, &[1 << 62], 28, 32)), &[Q, "overflow"]),
        ("partial block", with_line(line(Q, &[250, 2], 12, 32)), &[Q, "250", "Q4_K", "256"]),
        ("unknown type", with_line(line(Q, &[256], 1234, 32)), &[Q, "type 1234", "Q4_K"]),
        ("withdrawn type", with_line(line(Q, &[256], 31, 32)), &[Q, "type 31", "Q4_0_4_4", "withdrawn"]),
        ("offset unaligned", with_line(line(Q, &[256, 2], 12, 40)), &[Q, "40", "alignment 32"]),
        ("offset past the end", with_line(line(Q, &[256, 2], 12, 1 << 40)), &[Q, "do not fit"]),
        ("offset overflows", with_line(line(Q, &[256, 2], 12, u64::MAX - 31)), &[Q, "do not fit"]),
        ("data past the end", with_line(line(Q, &[256, 64], 12, 32)), &[Q, "do not fit"]),
        ("overlap", with_line(line(Q, &[256, 2], 12, 0)), &[Q, "overlaps", "norm.weight"]),
        ("tensor twice", with_line(line("norm.weight", &[256, 2], 12, 32)), &["norm.weight", "twice"]),
        ("cut in the data", whole[..whole.len() - 1].to_vec(), &["blk.0.ffn.weight", "do not fit"]),
        ("split part", with_key(key("split.count", 2, &[2, 0])), &["split"]),
    ];
    for (name, bytes, parts) in cases {
        let text = match Gguf::from_vec(bytes) {
            Ok(_) => panic!("{name}: accepted"),
            Err(e) => e.to_string(),
        };
        for part in parts {
            assert!(text.contains(part), "{name}: {text:?} does not mention {part:?}");
        }
        assert!(text.len() < 600, "{name}: {} bytes of message", text.len());
    }
    assert!(Gguf::from_vec(with_key(key_strings("fine", &[b"x"]))).is_ok());
}

#[test]
fn a_missing_or_odd_path_is_named() {
    let missing = Gguf::open("no/such/model.gguf").unwrap_err();
    assert!(missing.is_io() && missing.to_string().contains("no/such/model.gguf"), "{missing}");
    let folder = Gguf::open(env!("CARGO_MANIFEST_DIR")).unwrap_err();
    assert!(!folder.is_io() && folder.to_string().contains("is a folder"), "{folder}");
}
