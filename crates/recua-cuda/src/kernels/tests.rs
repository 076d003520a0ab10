use super::*;

#[test]
fn options_are_those_of_the_card() {
    let defines = || [("ROWS", "16")].into_iter();
    let expected = ["--gpu-architecture=sm_86", "--std=c++17", "--define-macro=ROWS=16"];
    assert_eq!(options((8, 6), defines()), expected);
    assert_eq!(options((9, 0), defines())[0], "--gpu-architecture=sm_90a");
    assert_eq!(options((12, 0), defines())[0], "--gpu-architecture=sm_120a");
}

#[test]
fn a_key_is_printed_with_what_specialises_it() {
    let key = KernelKey::new("copy").entry("copy_wide").define("ROWS", 16).define("TYPE", "q4_k");
    assert_eq!(key.to_string(), "copy_wide ROWS=16 TYPE=q4_k");
}
