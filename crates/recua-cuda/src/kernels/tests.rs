//! Kernels without a device: NVRTC compiles for cards that are not there.

use super::*;
use crate::lower::permutations;
use recua_compute::cases;
use std::collections::HashSet;

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

/// A file with the macros of a permutation, and the entry points that it then has.
struct Source<'a> {
    key: &'a KernelKey,
    entries: Vec<&'static str>,
}

impl<'a> Source<'a> {
    /// Those of all permutations, each once.
    fn all(keys: &'a [KernelKey]) -> Vec<Source<'a>> {
        let mut sources: Vec<Source<'_>> = Vec::new();
        for key in keys {
            let is_same =
                |source: &&mut Source<'_>| source.key.file == key.file && source.key.defines == key.defines;
            match sources.iter_mut().find(is_same) {
                Some(source) => source.entries.push(key.entry),
                None => sources.push(Source { key, entries: vec![key.entry] }),
            }
        }
        sources
    }

    /// What each card's choice has to have: the entry points, every format of products, every number of columns of each arrangement, and
    /// every value of a macro but sizes and the other files' formats.
    fn parts_of_card(&self) -> Vec<String> {
        let KernelKey { file, defines, .. } = self.key;
        let mut parts: Vec<String> = self.entries.iter().map(|entry| format!("{file} {entry}")).collect();
        let once = if *file == "matmul" { &SIZES[..] } else { &ONCE[..] };
        let each = defines.iter().filter(|(name, _)| !once.contains(name));
        parts.extend(each.map(|(name, value)| format!("{file} {name}={value}")));
        let value = |wanted: &str| defines.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value);
        if let (Some(arrange), Some(columns)) = (value("ARRANGE"), value("COLUMNS")) {
            parts.push(format!("{file} {arrange} of {columns} columns"));
        }
        parts
    }

    /// What some card's choice has to have: every value of a macro.
    fn parts_of_any(&self) -> Vec<String> {
        let KernelKey { file, entry, defines } = self.key;
        defines.iter().map(|(name, value)| format!("{file} {entry} {name}={value}")).collect()
    }
}

/// Macros that lengthen loops and arrays, and those of which one card's compiler says as much as another's.
const SIZES: [&str; 3] = ["HEAD_DIM", "QUERY_TILES", "FOURS"];
const ONCE: [&str; 4] = ["HEAD_DIM", "QUERY_TILES", "FOURS", "FORMAT_FILE"];

/// The oldest cards there are kernels for, those with instructions of their own, and the newest.
const CARDS: [(i32, i32); 3] = [(8, 0), (9, 0), (12, 0)];

/// For each card few sources that have its parts together, and for all of them those that have the others. Whichever has most that are
/// missing is next; each card begins elsewhere in the list, so that other formats meet other numbers of columns.
fn covering<'s, 'a>(sources: &'s [Source<'a>]) -> Vec<(&'s Source<'a>, (i32, i32))> {
    let mut of_any: HashSet<String> = sources.iter().flat_map(Source::parts_of_any).collect();
    let mut chosen = Vec::new();
    let n_in = |parts: Vec<String>, missing: &HashSet<String>| {
        parts.iter().filter(|part| missing.contains(*part)).count()
    };
    for (turn, cc) in CARDS.into_iter().enumerate() {
        let from = sources.len() * turn / CARDS.len();
        let turned = || sources[..from].iter().rev().chain(sources[from..].iter().rev());
        let mut of_card: HashSet<String> = sources.iter().flat_map(Source::parts_of_card).collect();
        while !of_card.is_empty() {
            let n_new = |source: &&Source<'_>| {
                (n_in(source.parts_of_card(), &of_card), n_in(source.parts_of_any(), &of_any))
            };
            let Some(best) = turned().max_by_key(n_new) else { break };
            best.parts_of_card().iter().for_each(|part| _ = of_card.remove(part));
            best.parts_of_any().iter().for_each(|part| _ = of_any.remove(part));
            chosen.push((best, cc));
        }
    }
    for cc in CARDS.into_iter().cycle() {
        let best = sources.iter().max_by_key(|source| n_in(source.parts_of_any(), &of_any));
        let Some(best) = best.filter(|_| !of_any.is_empty()) else { break };
        best.parts_of_any().iter().for_each(|part| _ = of_any.remove(part));
        chosen.push((best, cc));
    }
    chosen
}

/// Not the product of everything, which takes minutes, but permutations that have all that is in one: for each card every file and entry
/// point, every format of products, and every number of columns in each arrangement; over the cards together every head size, length of
/// rows, and format of the other files. A card compiles more when its tests launch them; what only a card can say (whether the registers
/// suffice for the threads) is tested there, too.
#[test]
fn every_kernel_compiles_for_every_card() {
    let Some(nvrtc) = compiler() else { return };
    println!("NVRTC {:?} in {}", nvrtc.version, nvrtc.path);
    let keys = permutations();
    for (file, _) in sources::KERNELS {
        assert!(keys.iter().any(|key| key.file == *file), "no permutation is of {file}.cu");
    }
    let sources = Source::all(&keys);
    let work = covering(&sources);
    println!("{} of {} permutations for {} cards", work.len(), sources.len(), CARDS.len());
    let next = AtomicUsize::new(0);
    let problems = Mutex::new(Vec::new());
    let run = || {
        while let Some((Source { key, entries }, cc)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
            let compiled = Compile::ours(key, *cc).and_then(|compile| compile.compiled(nvrtc, *cc));
            match compiled {
                // The name of an entry point is in its symbols, as it is.
                Ok(Compiled { cubin, log }) => {
                    for entry in entries.iter().filter(|entry| !contains(&cubin, entry)) {
                        lock(&problems).push(format!("{key} for {cc:?}: no extern \"C\" {entry}"));
                    }
                    // The assembler says so if products wait for each other, which is right, but slow.
                    for line in log.lines().filter(|line| line.starts_with("ptxas")) {
                        lock(&problems).push(format!("{key} for {cc:?}: {line}"));
                    }
                }
                Err(problem) => lock(&problems).push(format!("{key} for {cc:?}: {problem}")),
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(run))));
    let problems = problems.into_inner().unwrap();
    assert!(problems.is_empty(), "{} of {}:\n{}", problems.len(), work.len(), problems.join("\n"));
}

#[test]
fn what_is_compiled_has_every_format_and_columns_in_each_arrangement() {
    let keys = permutations();
    let sources = Source::all(&keys);
    let chosen = covering(&sources);
    let is_chosen = |cc: Option<(i32, i32)>, file: &str, words: &[String]| {
        let mut chosen =
            chosen.iter().filter(|(source, of)| source.key.file == file && cc.is_none_or(|cc| cc == *of));
        chosen.any(|(source, _)| {
            let name = format!("{} ", source.key);
            words.iter().all(|word| name.contains(&format!(" {word} ")))
        })
    };
    for format in crate::weight::FORMATS {
        let words = [format!("FORMAT_FILE=\"{}.cuh\"", format.file)];
        for cc in CARDS {
            assert!(is_chosen(Some(cc), "matmul", &words), "{words:?} for {cc:?}");
        }
        for file in ["layout", "embed"] {
            assert!(is_chosen(None, file, &words), "{words:?} in {file}");
        }
    }
    let products = keys.iter().filter(|key| key.file == "matmul");
    let arranged = products.map(|key| {
        let words = key.defines.iter().filter(|(name, _)| ["ARRANGE", "COLUMNS"].contains(name));
        words.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()
    });
    let arranged: HashSet<Vec<String>> = arranged.collect();
    assert!(arranged.len() > 10 && arranged.iter().all(|words| words.len() == 2), "{arranged:?}");
    for (words, cc) in arranged.iter().flat_map(|words| CARDS.map(|cc| (words, cc))) {
        assert!(is_chosen(Some(cc), "matmul", words), "{words:?} for {cc:?}");
    }
    for head_dim in [16, 64, 80, 96, 128, 256] {
        assert!(is_chosen(None, "attention", &[format!("HEAD_DIM={head_dim}")]), "heads of {head_dim}");
    }
    // Few enough for every run of the tests.
    assert!(chosen.len() * 2 < sources.len(), "{} of {}", chosen.len(), sources.len());
}

fn contains(cubin: &[u8], name: &str) -> bool {
    let symbol = [b"\0", name.as_bytes(), b"\0"].concat();
    cubin.windows(symbol.len()).any(|window| window == symbol)
}

#[test]
fn a_source_that_is_wrong_is_quoted() {
    let Some(nvrtc) = compiler() else { return };
    let problem =
        compile("__global__ void f() { int x = nothing; }", (8, 0)).compiled(nvrtc, (8, 0)).unwrap_err();
    assert!(problem.contains("mine.cu(1)") && problem.contains("nothing"), "{problem}");
    let problem = compile("\0", (8, 0)).compiled(nvrtc, (8, 0)).unwrap_err();
    assert!(problem.contains("zero byte"), "{problem}");
}

#[test]
fn a_source_includes_what_it_is_given_and_nothing_else() {
    let Some(nvrtc) = compiler() else { return };
    let text = "#include \"half.cuh\"\nextern \"C\" __global__ void f(float* x) { *x = HALF; }";
    compile(text, (9, 0)).compiled(nvrtc, (9, 0)).unwrap();
    let problem = compile("#include <stdint.h>\n", (9, 0)).compiled(nvrtc, (9, 0)).unwrap_err();
    assert!(problem.contains("stdint.h"), "{problem}");
}

#[test]
fn a_card_that_the_compiler_does_not_know_is_named() {
    let Some(nvrtc) = compiler() else { return };
    let problem = compile("", (99, 0)).compiled(nvrtc, (99, 0)).unwrap_err();
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
