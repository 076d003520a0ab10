//! Every kernel of this crate, in every permutation, through naga's writers for the languages that the test machine cannot run.

use super::*;
use crate::device::Wgpu;
use crate::launch::{Kernel, Launches};
use crate::lower::lower;
use crate::lower::matmul::tests::opened_with;
use crate::shared::Shared;
use crate::tuning::Tuning;
use naga::Module;
use naga::back::{hlsl, msl, spv};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use recua_compute::{
    Arrange, Backend, Buffer, Compiled, Device, DeviceId, DeviceInfo, Encode, Input, KernelSource, KvPool,
    KvShape, Pending, Plan, RawMatrix, Storage, Submission, Tiling, Weight, cases,
};
use std::any::Any;
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

/// A device that records which kernels its programs would run, and runs none: results are garbage. Encoders work.
struct Noting {
    inner: &'static Device,
    shared: Arc<Shared>,
    noted: Arc<Mutex<HashSet<KernelKey>>>,
}

impl Noting {
    /// The real device.
    fn wgpu(&self) -> Wgpu {
        Wgpu { shared: self.shared.clone() }
    }
}

impl Backend for Noting {
    fn id(&self) -> DeviceId {
        self.inner.id()
    }
    fn info(&self) -> &DeviceInfo {
        self.inner.info()
    }
    fn allocated_bytes(&self) -> u64 {
        self.inner.allocated_bytes()
    }
    fn n_cut(&self) -> Result<u64> {
        self.inner.n_cut()
    }
    fn alloc(&self, n_bytes: usize) -> Result<Arc<dyn Storage>> {
        self.wgpu().alloc(n_bytes)
    }
    fn write(&self, dst: &Buffer, bytes: &[u8]) -> Result<()> {
        self.inner.write(dst, bytes)
    }
    fn read(&self, src: &Buffer, out: &mut [u8]) -> Result<()> {
        self.inner.read(src, out)
    }
    fn upload_weight(&self, parts: &[RawMatrix<'_>], arrange: Arrange) -> Result<Weight> {
        self.inner.upload_weight(parts, arrange)
    }
    fn alloc_kv(&self, shape: &KvShape) -> Result<KvPool> {
        self.inner.alloc_kv(shape)
    }
    fn tiling(&self, shape: &KvShape, n_heads: usize) -> Tiling {
        self.inner.tiling(shape, n_heads)
    }
    fn compile_kernel(
        &self,
        _: &str,
        _: &KernelSource,
        _: &[(String, f64)],
    ) -> Result<Arc<dyn Any + Send + Sync>> {
        unimplemented!()
    }
    fn encoder(&self) -> Result<Box<dyn Encode>> {
        self.wgpu().encoder()
    }
    fn submit(&self, commands: Vec<Box<dyn Any + Send>>) -> Result<Submission> {
        self.wgpu().submit(commands)
    }
    fn compile(&self, plan: &Plan) -> Result<Arc<dyn Compiled>> {
        let launches = lower(&self.shared, plan.ops())?;
        self.noted.lock().unwrap().extend(noted(&launches));
        Ok(Arc::new(Nothing(launches)))
    }
    fn measure_read_bandwidth(&self) -> Result<f64> {
        unimplemented!()
    }
}

/// A program that runs nothing and is done at once.
struct Nothing(Launches);

impl fmt::Display for Nothing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Compiled for Nothing {
    fn launch(&self, _: &[Input<'_>], _: &[Buffer]) -> Result<Submission> {
        Ok(Submission::new(Nothing(Launches::default())))
    }
}

impl Pending for Nothing {
    fn wait(&self) -> Result<()> {
        Ok(())
    }
    fn is_done(&self) -> bool {
        true
    }
    fn gpu_time(&self) -> Option<Duration> {
        None
    }
    fn take(&self, _: usize, out: &mut [u8]) -> Result<()> {
        out.fill(0);
        Ok(())
    }
}

/// The kernels that the launches use.
pub(crate) fn noted(launches: &Launches) -> HashSet<KernelKey> {
    let key = |kernel: &Kernel| match kernel {
        Kernel::Ours(key) => Some(sorted(key)),
        Kernel::Theirs(..) => None,
    };
    launches.list.iter().filter_map(|launch| key(&launch.kernel)).collect()
}

/// The key with its defines sorted, for comparison.
fn sorted(kernel: &KernelKey) -> KernelKey {
    let mut kernel = kernel.clone();
    kernel.defines.sort_unstable();
    kernel.constants.sort_unstable();
    // Only the driver's compiler uses this.
    kernel.unchecked = false;
    kernel
}

/// A language that naga writes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Language {
    SpirV,
    Msl,
    Hlsl,
}

pub(crate) const ALL_LANGUAGES: &[Language] = &[Language::SpirV, Language::Msl, Language::Hlsl];

/// What kernels may use; cooperative matrices only if `has_matrices`.
fn capabilities(has_matrices: bool) -> Capabilities {
    let mut capabilities =
        Capabilities::IMMEDIATES | Capabilities::SHADER_FLOAT16_IN_FLOAT32 | Capabilities::SHADER_FLOAT16;
    if has_matrices {
        capabilities |=
            Capabilities::SUBGROUP | Capabilities::SUBGROUP_BARRIER | Capabilities::COOPERATIVE_MATRIX;
    }
    capabilities
}

/// Parses, validates and writes kernels, unchanged and with inputs that share an output's allocation. Kernels of one source differ only in
/// constants and entry points: the source is parsed and validated once, and kernels that are equal in those too are written once.
pub(crate) fn translate<'a>(
    keys: impl IntoIterator<Item = &'a KernelKey>,
    languages: &[Language],
    has_matrices: bool,
) {
    let mut by_source: BTreeMap<String, Vec<&KernelKey>> = BTreeMap::new();
    for key in keys {
        let source = key.source().unwrap_or_else(|e| panic!("{key:?}: {e}"));
        by_source.entry(source).or_default().push(key);
    }
    let sources: Vec<_> = by_source.into_iter().collect();
    let some = |first: usize| {
        for (source, keys) in sources.iter().skip(first).step_by(2) {
            translate_source(source, keys, languages, has_matrices);
        }
    };
    // This is the longest test of the crate.
    std::thread::scope(|scope| {
        [0, 1].map(|first| scope.spawn(move || some(first))).map(|half| half.join().unwrap())
    });
}

fn translate_source(source: &str, keys: &[&KernelKey], languages: &[Language], has_matrices: bool) {
    write(keys, source, languages, has_matrices);
    let widened = (0..32)
        .filter(|binding| source.contains(&format!("@binding({binding}) var<storage, read>")))
        .fold(0, |mask, binding| mask | 1u32 << binding);
    let mut source = source.to_string();
    widen(&mut source, Access { n_bindings: 32, writes: widened, widened }).unwrap();
    write(keys, &source, languages, has_matrices);
}

/// Writes the kernels of one source.
fn write(keys: &[&KernelKey], source: &str, languages: &[Language], has_matrices: bool) {
    let module = naga::front::wgsl::parse_str(source);
    let module = module.unwrap_or_else(|e| panic!("{:?}: {}", keys[0], e.emit_to_string(source)));
    let info = Validator::new(ValidationFlags::all(), capabilities(has_matrices)).validate(&module);
    let info = info.unwrap_or_else(|e| panic!("{:?}: {}", keys[0], e.emit_to_string(source)));
    let mut written = HashSet::new();
    for key in keys {
        let mut constants = key.constants.clone();
        constants.sort_unstable();
        if written.insert((key.entry, constants)) {
            write_one(key, source, &module, &info, languages);
        }
    }
}

fn write_one(key: &KernelKey, source: &str, module: &Module, info: &ModuleInfo, languages: &[Language]) {
    let constants = key.constants.iter().map(|&(name, value)| (name.to_string(), f64::from(value))).collect();
    let entry = Some((naga::ShaderStage::Compute, key.entry));
    let (module, info) = naga::back::pipeline_constants::process_overrides(module, info, entry, &constants)
        .unwrap_or_else(|e| panic!("{key:?}: {e}"));
    assert_eq!(module.entry_points.len(), 1, "{key:?}");
    for language in languages {
        match language {
            Language::SpirV => {
                let options = spv::Options { lang_version: (1, 3), ..Default::default() };
                spv::write_vec(&module, &info, &options, None).unwrap_or_else(|e| panic!("{key:?}: {e}"));
            }
            Language::Msl => {
                let lang_version = if source.contains("@coherent") { (3, 2) } else { (2, 4) };
                let options = msl::Options { lang_version, ..Default::default() };
                let text = msl::write_string(&module, &info, &options, &msl::PipelineOptions::default());
                let (text, _) = text.unwrap_or_else(|e| panic!("{key:?}: {e}"));
                assert!(text.contains("kernel void"), "{text}");
            }
            Language::Hlsl => {
                let immediates_target = Some(hlsl::BindTarget { space: 7, ..Default::default() });
                let shader_model = hlsl::ShaderModel::V6_2;
                let options = hlsl::Options { shader_model, immediates_target, ..Default::default() };
                let pipeline = hlsl::PipelineOptions::default();
                let mut text = String::new();
                hlsl::Writer::new(&mut text, &options, &pipeline)
                    .write(&module, &info, None)
                    .unwrap_or_else(|e| panic!("{key:?}: {e}"));
                assert!(text.contains("numthreads"), "{text}");
            }
        }
    }
}

/// Every subset of `defines`.
fn permutations(kernel: &KernelKey, defines: &[&'static str]) -> Vec<KernelKey> {
    (0..1usize << defines.len())
        .map(|set| {
            let chosen = defines.iter().enumerate().filter(|(i, _)| set >> i & 1 == 1);
            chosen.fold(kernel.clone(), |key, (_, name)| key.define(name))
        })
        .collect()
}

/// Every kernel except those of the products, in every permutation.
fn other_kernels() -> Vec<KernelKey> {
    let new = KernelKey::new;
    let mut kernels = vec![new("bandwidth"), new("copy_pages"), new("gather_rows")];
    kernels.extend(["argmax", "argmax_part", "argmax_merge"].map(|entry| new("argmax").entry(entry)));
    kernels.extend(permutations(&new("rms_norm"), &["IN_PLACE", "WIDE"]));
    kernels.extend(permutations(&new("rms_norm").define("WIDE").define("ACTIVATIONS"), &["IN_PLACE"]));
    kernels.extend(permutations(&new("copy"), &["ALIGNED"]));
    kernels.extend(permutations(&new("top_k"), &["MERGE"]));
    let tensor = new("rope_store").define("TENSOR").define("CACHE_F16").define("WIDE");
    for head_dim in [16, 32, 64, 80, 128] {
        let tensor = new("attention_tensor").constant("HEAD_DIM", head_dim).define("EMULATED");
        kernels.extend(permutations(&tensor, &["TWO_TILES"]));
        kernels.push(tensor.entry("attention_tensor_merge"));
    }
    for head_max in [64, 128, 256, 512, 1024] {
        let tensor = tensor.clone().constant("HEAD_MAX", head_max);
        kernels.extend(permutations(&tensor, &["HEAD_NORM", "HALVES"]));
        let rope_store = new("rope_store").constant("HEAD_MAX", head_max);
        kernels.extend(permutations(&rope_store, &["CACHE_F16", "HEAD_NORM", "HALVES", "WIDE"]));
        let attention = new("attention").constant("HEAD_MAX", head_max);
        kernels.extend(permutations(&attention, &["CACHE_F16", "SPREAD", "WIDE"]));
        for teams in ["TEAMS_2", "TEAMS_4"] {
            let with_teams = attention.clone().define(teams);
            kernels.extend(permutations(&with_teams, &["CACHE_F16", "SPREAD", "WIDE"]));
        }
        let merge = attention.entry("attention_merge");
        kernels.extend(permutations(&merge, &["CACHE_F16", "SPREAD", "WIDE"]));
        let prefill = new("attention_prefill").constant("HEAD_MAX", head_max);
        kernels.extend(permutations(&prefill, &["CACHE_F16", "SPREAD", "WIDE", "TWO_QUADS"]));
    }
    kernels
}

#[test]
fn every_kernel_can_be_written_in_every_language() {
    let kernels = other_kernels();
    assert_sources_are_used(&kernels, kernels::SOURCES);
    translate(&kernels, ALL_LANGUAGES, false);
    // Only SPIR-V has 16x16 matrices.
    let mut real: Vec<KernelKey> =
        kernels.into_iter().filter(|kernel| kernel.defines.contains(&"EMULATED")).collect();
    real.iter_mut().for_each(|kernel| kernel.defines.retain(|define| *define != "EMULATED"));
    translate(&real, &[Language::SpirV], true);
}

/// Fails if a file with entry points has no kernel in the list, or no kernel sets a define that a file tests: then some permutations are
/// never written.
pub(crate) fn assert_sources_are_used(kernels: &[KernelKey], sources: &[(&str, &str)]) {
    let directives = |name: &str| -> HashSet<&str> {
        let lines = sources.iter().flat_map(|(_, text)| text.lines());
        lines
            .filter_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix(' '))
            .map(str::trim)
            .collect()
    };
    let mut missing = directives("#ifdef");
    missing.retain(|name| !directives("#define").contains(name));
    kernels.iter().flat_map(|kernel| &kernel.defines).for_each(|name| {
        missing.remove(name);
    });
    assert!(missing.is_empty(), "no kernel that is written has {missing:?}");
    for (file, _) in sources.iter().filter(|(_, text)| text.contains("@compute")) {
        assert!(kernels.iter().any(|kernel| kernel.file == *file), "no kernel that is written is of {file}");
    }
}

/// Fails if [`other_kernels`] lacks one of these.
pub(crate) fn assert_listed(found: impl IntoIterator<Item = KernelKey>) {
    let listed: HashSet<KernelKey> = other_kernels().iter().map(sorted).collect();
    let missing: Vec<KernelKey> = found.into_iter().filter(|kernel| !listed.contains(kernel)).collect();
    assert!(missing.is_empty(), "not listed: {missing:#?}");
}

/// The shared op cases use no kernel that is missing from this list; the products have a list of their own.
#[test]
fn ops_lead_to_no_kernel_that_is_not_listed() {
    for emulated in [true, false] {
        let Some((device, shared)) = opened_with(Tuning { emulated, ..Tuning::default() }) else { return };
        let found = Arc::new(Mutex::default());
        let noting = Device::new(Noting { inner: device, shared: shared.clone(), noted: found.clone() });
        cases::check_all(&noting);
        cases::check_same_bits(&noting);
        let mut found: HashSet<KernelKey> = std::mem::take(&mut *found.lock().unwrap());
        found.retain(|kernel| kernels::SOURCES.iter().any(|(file, _)| *file == kernel.file));
        assert!(found.len() > 20, "{}", found.len());
        assert_listed(found);
    }
}

#[test]
fn an_input_is_widened_only_where_it_is_declared() {
    let mut source = "@binding(1) var<storage, read> x: u32;".to_string();
    let access = |widened| Access { n_bindings: 3, writes: widened, widened };
    assert!(widen(&mut source, access(2)).is_ok());
    assert_eq!(source, "@binding(1) var<storage, read_write> x: u32;");
    assert!(widen(&mut source, access(4)).is_err());
}
