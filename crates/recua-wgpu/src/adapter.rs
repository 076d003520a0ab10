//! Which adapter becomes the device, and why: a discrete GPU before an integrated one, a software adapter only if it is allowed.

use recua_compute::{Error, Result};

/// The environment variable that names the adapter: a part of its name, in upper or lower case.
pub const ADAPTER_VARIABLE: &str = "RECUA_WGPU_ADAPTER";

/// The environment variable that disables cooperative matrices if it is `off`: for drivers that get them wrong, and to measure their
/// benefit.
pub const MATRICES_VARIABLE: &str = "RECUA_WGPU_MATRICES";

/// How to open the device.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A part of the adapter's name, in upper or lower case. If `None`, the variable [`ADAPTER_VARIABLE`] decides.
    pub adapter: Option<String>,
    /// Whether an adapter that computes on the CPU is allowed, named or not.
    pub allow_software: bool,
    /// Disables cooperative matrices even if the adapter has them, as the variable [`MATRICES_VARIABLE`] does.
    pub portable: bool,
}

/// One adapter of this machine, for reports.
#[derive(Clone, Debug)]
pub struct AdapterReport {
    /// The name that the driver reports.
    pub name: String,
    /// `vulkan`, `metal` or `dx12`.
    pub backend: String,
    /// `discrete`, `integrated`, `virtual`, `software` or `other`.
    pub kind: &'static str,
    /// The driver and its version.
    pub driver: String,
    /// Whether [`crate::open`] with the same options takes it.
    pub is_chosen: bool,
    /// Why it is chosen or not.
    pub reason: String,
    /// The features that kernels can use, and the limits.
    pub detail: String,
}

/// Every adapter, best first, judged with these options.
pub fn adapters(options: &Options) -> Vec<AdapterReport> {
    let candidates = candidates(&instance(), options);
    let wanted = wanted(options);
    let chosen = choose(&candidates, options, wanted.as_ref());
    let report = |(i, candidate): (usize, &Candidate)| AdapterReport {
        name: candidate.info.name.clone(),
        backend: candidate.info.backend.to_string(),
        kind: kind(&candidate.info),
        driver: format!("{} {}", candidate.info.driver, candidate.info.driver_info).trim().to_string(),
        is_chosen: chosen == Some(i),
        reason: match (candidate.problem(options, wanted.as_ref()), chosen) {
            (Some(problem), _) => problem,
            (None, Some(c)) if c == i => match &wanted {
                Some(wanted) => format!("its name contains \"{}\"{}", wanted.name, wanted.by()),
                None if is_software(&candidate.info) => {
                    "a software adapter, and there is no better one".into()
                }
                None => format!("the best one: {}", kind(&candidate.info)),
            },
            (None, _) => "another one is preferred".into(),
        },
        detail: candidate.detail(),
    };
    candidates.iter().enumerate().map(report).collect()
}

/// The adapter's device and queue, and the features that were requested.
pub(crate) struct Opened {
    pub(crate) info: wgpu::AdapterInfo,
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pub(crate) detail: String,
}

/// Opens the adapter that the options choose.
pub(crate) fn open(options: &Options) -> Result<Opened> {
    let candidates = candidates(&instance(), options);
    let wanted = wanted(options);
    let Some(chosen) = choose(&candidates, options, wanted.as_ref()) else {
        let problem = why_none(&candidates, options, wanted.as_ref());
        return Err(Error::DeviceNotFound { device: "wgpu".into(), problem });
    };
    let candidate = &candidates[chosen];
    let features = candidate.features();
    let experimental_features = if features.contains(COOPERATIVE_MATRIX) {
        // SAFETY: wgpu's own checks of cooperative matrices may have holes, so a wrong kernel could do more than fail. Only the kernels of
        // products and of attention use them. Each of these keeps its indexes in range, and tests check them like every other kernel.
        unsafe { wgpu::ExperimentalFeatures::enabled() }
    } else {
        wgpu::ExperimentalFeatures::disabled()
    };
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("recua"),
        required_features: features,
        required_limits: candidate.limits.clone(),
        experimental_features,
        // Small allocations share blocks of this size; a larger one gets memory of its own.
        memory_hints: wgpu::MemoryHints::Manual { suballocated_device_memory_block_size: 8 << 20..64 << 20 },
        trace: wgpu::Trace::Off,
    };
    let (device, queue) =
        pollster::block_on(candidate.adapter.request_device(&descriptor)).map_err(|e| Error::DeviceLost {
            device: candidate.info.name.clone(),
            message: format!("it cannot be opened: {e}"),
        })?;
    Ok(Opened { info: candidate.info.clone(), device, queue, detail: candidate.detail() })
}

fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    descriptor.flags = wgpu::InstanceFlags::empty();
    // Refuse an allocation that would exceed the driver's budget; drivers would rather page or abort.
    descriptor.memory_budget_thresholds.for_resource_creation = Some(98);
    wgpu::Instance::new(descriptor)
}

/// What the adapter's name must contain, and who requires it.
struct Wanted {
    name: String,
    is_from_variable: bool,
}

impl Wanted {
    fn fits(&self, info: &wgpu::AdapterInfo) -> bool {
        info.name.to_lowercase().contains(&self.name.to_lowercase())
    }

    fn by(&self) -> String {
        if self.is_from_variable { format!(" ({ADAPTER_VARIABLE})") } else { String::new() }
    }
}

fn wanted(options: &Options) -> Option<Wanted> {
    let (name, is_from_variable) = match &options.adapter {
        Some(name) => (name.clone(), false),
        None => (std::env::var(ADAPTER_VARIABLE).ok()?, true),
    };
    if name.is_empty() { None } else { Some(Wanted { name, is_from_variable }) }
}

/// Why no candidate is chosen.
fn why_none(candidates: &[Candidate], options: &Options, wanted: Option<&Wanted>) -> String {
    if candidates.is_empty() {
        return "there is no GPU adapter; one needs a driver for Vulkan, Metal or DX12".into();
    }
    if let Some(wanted) = wanted
        && !candidates.iter().any(|candidate| wanted.fits(&candidate.info))
    {
        let names: Vec<String> = candidates.iter().map(|c| format!("\"{}\"", c.info.name)).collect();
        let (name, by, names) = (&wanted.name, wanted.by(), names.join(", "));
        return format!("no adapter's name contains \"{name}\"{by}; there is {names}");
    }
    let problem =
        |c: &Candidate| format!("\"{}\": {}", c.info.name, c.problem(options, wanted).unwrap_or_default());
    let problems: Vec<String> = candidates.iter().map(problem).collect();
    format!("no adapter is suitable; {}", problems.join("; "))
}

struct Candidate {
    adapter: wgpu::Adapter,
    info: wgpu::AdapterInfo,
    available: wgpu::Features,
    limits: wgpu::Limits,
    may_use_matrices: bool,
}

/// What kernels need on every adapter: they receive sizes and offsets as immediates.
const NEEDED: wgpu::Features = wgpu::Features::IMMEDIATES;

/// The bytes of immediates that every kernel may use: every Vulkan driver has these.
pub(crate) const IMMEDIATE_BYTES: u32 = 128;

/// Bindings that every kernel may use. Only attention over a cache that one binding cannot hold needs more, and checks that they are
/// available.
const BINDINGS: u32 = 12;

/// Features that kernels use if the adapter has them.
const USED: wgpu::Features = wgpu::Features::SUBGROUP
    .union(wgpu::Features::SUBGROUP_BARRIER)
    .union(wgpu::Features::SHADER_F16)
    .union(wgpu::Features::TIMESTAMP_QUERY);

/// The feature for which the kernels with `tensor` or `coop` in their names are written.
pub(crate) const COOPERATIVE_MATRIX: wgpu::Features = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;

/// Its name in a device's detail.
pub(crate) const TENSOR: &str = "cooperative matrices";

impl Candidate {
    fn features(&self) -> wgpu::Features {
        let mut features = self.available & (NEEDED | USED);
        features.set(COOPERATIVE_MATRIX, self.has_cooperative_matrices());
        features
    }

    /// Whether the adapter has cooperative matrices as the kernels need them, and they are not disabled: 16x16x16 of f16 with f32 sums,
    /// subgroups of exactly 32, and enough workgroup memory. False on Metal, whose matrices are 8x8 and cannot be added.
    fn has_cooperative_matrices(&self) -> bool {
        let needed = COOPERATIVE_MATRIX
            | wgpu::Features::SHADER_F16
            | wgpu::Features::SUBGROUP
            | wgpu::Features::SUBGROUP_BARRIER;
        let is_16 = |p: &wgpu::CooperativeMatrixProperties| {
            [p.m_size, p.n_size, p.k_size] == [16; 3]
                && p.ab_type == wgpu::CooperativeScalarType::F16
                && p.cr_type == wgpu::CooperativeScalarType::F32
        };
        self.may_use_matrices
            && self.info.backend == wgpu::Backend::Vulkan
            && self.available.contains(needed)
            && (self.info.subgroup_min_size, self.info.subgroup_max_size) == (32, 32)
            && self.limits.max_compute_workgroup_storage_size >= 48 << 10
            && self.adapter.cooperative_matrix_properties().iter().any(is_16)
    }

    /// Why it is not suitable.
    fn problem(&self, options: &Options, wanted: Option<&Wanted>) -> Option<String> {
        let downlevel = self.adapter.get_downlevel_capabilities();
        if !downlevel.flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS) {
            return Some("it has no compute shaders".into());
        }
        if !self.available.contains(NEEDED) || self.limits.max_immediate_size < IMMEDIATE_BYTES {
            return Some(format!("it has no {IMMEDIATE_BYTES} bytes of immediates"));
        }
        if self.limits.max_storage_buffers_per_shader_stage < BINDINGS {
            return Some(format!("it has fewer than {BINDINGS} storage buffers"));
        }
        if let Some(wanted) = wanted
            && !wanted.fits(&self.info)
        {
            return Some(format!("its name does not contain \"{}\"{}", wanted.name, wanted.by()));
        }
        if is_software(&self.info) && !options.allow_software {
            return Some("a software adapter, which is used only if allowed".into());
        }
        None
    }

    fn detail(&self) -> String {
        let has = |feature, name| if self.available.contains(feature) { name } else { "" };
        let used = [
            has(wgpu::Features::SHADER_F16, "f16"),
            if self.has_cooperative_matrices() { TENSOR } else { "" },
            has(wgpu::Features::TIMESTAMP_QUERY, "timestamps"),
        ];
        let subgroups = match (self.info.subgroup_min_size, self.info.subgroup_max_size) {
            _ if !self.available.contains(wgpu::Features::SUBGROUP) => "no subgroups".to_string(),
            (min, max) if min == max => format!("subgroups of {max}"),
            (min, max) => format!("subgroups of {min} to {max}"),
        };
        let used: String =
            used.iter().filter(|name| !name.is_empty()).map(|name| format!(", {name}")).collect();
        let mib = |bytes: u64| bytes >> 20;
        format!(
            "{}, {}, {subgroups}{used}, buffers of {} MiB, bindings of {} MiB",
            self.info.backend,
            kind(&self.info),
            mib(self.limits.max_buffer_size),
            mib(self.limits.max_storage_buffer_binding_size)
        )
    }
}

fn candidates(instance: &wgpu::Instance, options: &Options) -> Vec<Candidate> {
    let is_off = options.portable || std::env::var(MATRICES_VARIABLE).is_ok_and(|value| value == "off");
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    let mut candidates: Vec<Candidate> = adapters
        .into_iter()
        .map(|adapter| Candidate {
            info: adapter.get_info(),
            available: adapter.features(),
            limits: adapter.limits(),
            adapter,
            may_use_matrices: !is_off,
        })
        .collect();
    // The sort is stable: adapters of equal rank keep wgpu's order of backends.
    candidates.sort_by_key(|candidate| rank(&candidate.info));
    candidates
}

fn choose(candidates: &[Candidate], options: &Options, wanted: Option<&Wanted>) -> Option<usize> {
    candidates.iter().position(|candidate| candidate.problem(options, wanted).is_none())
}

/// The order of preference; lowest is best.
fn rank(info: &wgpu::AdapterInfo) -> u8 {
    match info.device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    }
}

fn is_software(info: &wgpu::AdapterInfo) -> bool {
    info.device_type == wgpu::DeviceType::Cpu
}

fn kind(info: &wgpu::AdapterInfo) -> &'static str {
    match info.device_type {
        wgpu::DeviceType::DiscreteGpu => "discrete",
        wgpu::DeviceType::IntegratedGpu => "integrated",
        wgpu::DeviceType::VirtualGpu => "virtual",
        wgpu::DeviceType::Cpu => "software",
        wgpu::DeviceType::Other => "other",
    }
}
