//! Kernels without a device: NVRTC compiles for cards that are not there.

use super::*;
use crate::lower::permutations;
use recua_compute::cases;

/// The compiler, or none: a test without it says so and passes, unless `RECUA_REQUIRE_DEVICES` lists `nvrtc`.
fn compiler() -> Option<&'static Nvrtc> {
    cases::opened_or_skipped("nvrtc", nvrtc(i32::MAX))
}

fn compile<'a>(source: &'a str, cc: (i32, i32)) -> Compile<'a> {
    Compile {
        name: "mine",
        source,
        headers: &[("half.cuh", "#define HALF 0.5f\n")],
        options: options(cc, [].into_iter()),
    }
}

/// Every kernel, in every permutation, for the oldest cards, for those with instructions of their own, and for the newest. What only a
/// card can say (whether the registers suffice for the threads) is tested there.
#[test]
fn every_kernel_compiles_for_every_card() {
    let Some(nvrtc) = compiler() else { return };
    println!("NVRTC {:?} in {}", nvrtc.version, nvrtc.path);
    let keys = permutations();
    for (file, _) in sources::KERNELS {
        assert!(keys.iter().any(|key| key.file == *file), "no permutation is of {file}.cu");
    }
    let work: Vec<(&KernelKey, (i32, i32))> =
        keys.iter().flat_map(|key| [(8, 0), (9, 0), (12, 0)].map(|cc| (key, cc))).collect();
    let next = AtomicUsize::new(0);
    let problems = Mutex::new(Vec::new());
    let run = || {
        while let Some((key, cc)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
            let compiled = Compile::ours(key, *cc).and_then(|compile| compile.cubin(nvrtc, *cc));
            match compiled {
                // The name of the entry point is in its symbols, as it is.
                Ok(cubin) if contains(&cubin, key.entry) => {}
                Ok(_) => lock(&problems).push(format!("{key} for {cc:?}: no extern \"C\" {}", key.entry)),
                Err(problem) => lock(&problems).push(format!("{key} for {cc:?}: {problem}")),
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(run))));
    let problems = problems.into_inner().unwrap();
    assert!(problems.is_empty(), "{} of {}:\n{}", problems.len(), work.len(), problems.join("\n"));
}

fn contains(cubin: &[u8], name: &str) -> bool {
    let symbol = [b"\0", name.as_bytes(), b"\0"].concat();
    cubin.windows(symbol.len()).any(|window| window == symbol)
}

#[test]
fn a_source_that_is_wrong_is_quoted() {
    let Some(nvrtc) = compiler() else { return };
    let problem =
        compile("__global__ void f() { int x = nothing; }", (8, 0)).cubin(nvrtc, (8, 0)).unwrap_err();
    assert!(problem.contains("mine.cu(1)") && problem.contains("nothing"), "{problem}");
    let problem = compile("\0", (8, 0)).cubin(nvrtc, (8, 0)).unwrap_err();
    assert!(problem.contains("zero byte"), "{problem}");
}

#[test]
fn a_source_includes_what_it_is_given_and_nothing_else() {
    let Some(nvrtc) = compiler() else { return };
    let text = "#include \"half.cuh\"\nextern \"C\" __global__ void f(float* x) { *x = HALF; }";
    compile(text, (9, 0)).cubin(nvrtc, (9, 0)).unwrap();
    let problem = compile("#include <stdint.h>\n", (9, 0)).cubin(nvrtc, (9, 0)).unwrap_err();
    assert!(problem.contains("stdint.h"), "{problem}");
}

#[test]
fn a_card_that_the_compiler_does_not_know_is_named() {
    let Some(nvrtc) = compiler() else { return };
    let problem = compile("", (99, 0)).cubin(nvrtc, (99, 0)).unwrap_err();
    assert!(problem.contains("compute capability 99.0") && problem.contains("NVRTC"), "{problem}");
}

#[test]
fn a_cubin_depends_on_source_headers_and_options() {
    let one = || compile("x", (9, 0));
    let of = one().fingerprint();
    assert!(of == one().fingerprint());
    assert!(of != compile("y", (9, 0)).fingerprint());
    assert!(of != compile("x", (8, 0)).fingerprint());
    assert!(of != Compile { headers: &[("half.cuh", "#define HALF 0.25f\n")], ..one() }.fingerprint());
    let options = options((9, 0), [("ROWS", "16")].into_iter());
    assert!(of != Compile { options, ..one() }.fingerprint());
}

#[test]
fn options_are_those_of_the_card() {
    let defines = || [("ROWS", "16")].into_iter();
    let expected = ["--gpu-architecture=sm_86", "--std=c++17", "--fmad=false", "--define-macro=ROWS=16"];
    assert_eq!(options((8, 6), defines()), expected);
    assert_eq!(options((9, 0), defines())[0], "--gpu-architecture=sm_90a");
    assert_eq!(options((12, 0), defines())[0], "--gpu-architecture=sm_120a");
}

#[test]
fn a_key_is_printed_with_what_specialises_it() {
    let key = KernelKey::new("copy").entry("copy_wide").define("ROWS", 16).define("TYPE", "q4_k");
    assert_eq!(key.to_string(), "copy_wide ROWS=16 TYPE=q4_k");
}
