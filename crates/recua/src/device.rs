//! Which devices this build has. No other file may look at the features.

use crate::{Error, Result};
use recua_compute::{Device, cpu};

/// The names that [`open_device`] knows in this build. `wgpu` may be followed by a colon and a substring of an adapter's name, `cuda` by a
/// colon and the number of a card.
pub const DEVICE_NAMES: &[&str] = &[
    "auto",
    "cpu",
    #[cfg(feature = "wgpu")]
    "wgpu",
    #[cfg(feature = "cuda")]
    "cuda",
];

/// Opens a device by name: `cpu`; `cuda`, or `cuda:N` for card N; `wgpu`, or `wgpu:NAME` for an adapter whose name contains NAME; or
/// `auto` for the fastest device available, in the order cuda, wgpu, cpu. `auto` never chooses a software GPU adapter; `wgpu` accepts
/// one. For both, the environment variable `RECUA_WGPU_ADAPTER` can give a substring that the adapter's name must contain; if it is set,
/// `auto` takes this adapter or none.
///
/// # Errors
/// If the name is unknown (the error lists the known ones) or the device cannot be opened.
pub fn open_device(name: &str) -> Result<Device> {
    let (kind, argument) = match name.split_once(':') {
        Some((kind, argument)) => (kind, Some(argument)),
        None => (name, None),
    };
    match (kind, argument) {
        ("auto", None) => match auto()? {
            Some(device) => Ok(device),
            None => Ok(cpu::open(cpu::Options::default())?),
        },
        ("cpu", None) => Ok(cpu::open(cpu::Options::default())?),
        #[cfg(feature = "wgpu")]
        ("wgpu", adapter) => Ok(recua_wgpu::open(wgpu_options(adapter))?),
        #[cfg(feature = "cuda")]
        ("cuda", index) if index.is_none_or(|index| index.parse::<usize>().is_ok()) => {
            let index = index.and_then(|index| index.parse().ok()).unwrap_or(0);
            Ok(recua_cuda::open(recua_cuda::Options { index })?)
        }
        ("cuda", Some(_)) if DEVICE_NAMES.contains(&"cuda") => {
            let known = "cuda:N, where N is the number of a card, such as cuda:0".into();
            Err(Error::UnknownDevice { name: name.into(), known })
        }
        _ => Err(Error::UnknownDevice { name: name.into(), known: DEVICE_NAMES.join(", ") }),
    }
}

#[cfg(feature = "wgpu")]
fn wgpu_options(adapter: Option<&str>) -> recua_wgpu::Options {
    let adapter = adapter.map(str::to_string);
    recua_wgpu::Options { adapter, allow_software: true, ..Default::default() }
}

/// The fastest device other than the CPU, if there is one.
///
/// # Errors
/// If the adapter that `RECUA_WGPU_ADAPTER` names cannot be opened: whoever names one means it.
fn auto() -> Result<Option<Device>> {
    #[cfg(feature = "wgpu")]
    if std::env::var_os("RECUA_WGPU_ADAPTER").is_some_and(|name| !name.is_empty()) {
        return Ok(Some(recua_wgpu::open(recua_wgpu::Options::default())?));
    }
    #[cfg(feature = "cuda")]
    if let Ok(device) = recua_cuda::open(recua_cuda::Options::default()) {
        return Ok(Some(device));
    }
    #[cfg(feature = "wgpu")]
    if may_have_gpu()
        && let Ok(device) = recua_wgpu::open(recua_wgpu::Options::default())
    {
        return Ok(Some(device));
    }
    Ok(None)
}

/// Whether there may be a hardware GPU. Enumerating adapters loads the graphics drivers and their layers, which takes a while and
/// may write to stderr. On Linux, no GPU device file means no GPU.
#[cfg(feature = "wgpu")]
fn may_have_gpu() -> bool {
    let nodes = ["/dev/dri", "/dev/nvidiactl", "/dev/dxg", "/dev/kfd", "/dev/mali0", "/dev/kgsl-3d0"];
    !cfg!(target_os = "linux") || nodes.iter().any(|node| std::path::Path::new(node).exists())
}

/// The GPU adapters of this machine, for reports, with the choice that [`open_device`] makes for `device`, or for `wgpu` if
/// `device` is of another kind. Empty in a build without GPU support.
pub fn adapters(device: &str) -> Vec<Adapter> {
    #[cfg(feature = "wgpu")]
    {
        let options = wgpu_options(device.strip_prefix("wgpu:"));
        let line = |report: recua_wgpu::AdapterReport| Adapter {
            name: report.name,
            detail: format!("{}; {}", report.detail, report.driver),
            reason: report.reason,
            is_chosen: report.is_chosen,
        };
        recua_wgpu::adapters(&options).into_iter().map(line).collect()
    }
    #[cfg(not(feature = "wgpu"))]
    {
        let _ = device;
        Vec::new()
    }
}

/// What [`open_device`] has for `cuda`, for reports.
pub fn cuda_report() -> CudaReport {
    #[cfg(feature = "cuda")]
    {
        let card = |report: recua_cuda::DeviceReport| {
            let (major, minor) = report.compute_capability;
            let (name, index, driver) = (report.name, report.index, report.driver);
            let detail = format!(
                "compute capability {major}.{minor}, {} MiB, driver with CUDA {driver}",
                report.memory_bytes >> 20
            );
            Card { index, name, detail, problem: report.problem }
        };
        let cards = recua_cuda::devices().map(|list| list.into_iter().map(card).collect());
        let problem = |e: recua_compute::Error| match e {
            recua_compute::Error::DeviceNotFound { problem, .. } => problem,
            e => e.to_string(),
        };
        let cards = cards.map_err(problem);
        // The compiler is of no use without a card.
        let compiler = cards.is_ok().then(|| recua_cuda::compiler().map_err(problem));
        CudaReport { cards, compiler }
    }
    #[cfg(not(feature = "cuda"))]
    CudaReport { cards: Err("not in this build".into()), compiler: None }
}

/// The NVIDIA cards of this machine, and what is needed to use them.
#[derive(Clone, Debug)]
pub struct CudaReport {
    /// The cards that the driver shows; or why there are none: no driver, an old one, no card.
    pub cards: Result<Vec<Card>, String>,
    /// The run-time compiler, or why there is none; not looked for without a card.
    pub compiler: Option<Result<String, String>>,
}

/// One NVIDIA card.
#[derive(Clone, Debug)]
pub struct Card {
    /// `cuda:N` opens it.
    pub index: usize,
    /// The name that the driver gives.
    pub name: String,
    /// Compute capability, memory and driver.
    pub detail: String,
    /// Why it cannot be opened, if it cannot.
    pub problem: Option<String>,
}

/// One GPU adapter of this machine.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// The name that the driver reports.
    pub name: String,
    /// Its kind, limits and driver.
    pub detail: String,
    /// Why `wgpu` chooses it or does not.
    pub reason: String,
    /// Whether `wgpu` chooses it.
    pub is_chosen: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_opened_by_name() {
        assert!(open_device("cpu").is_ok_and(|d| d.info().kind == "cpu"));
        assert!(open_device("auto").is_ok());
        let numbered = "cuda:N, where N is the number of a card, such as cuda:0";
        for name in ["abacus", "cpu:0", "auto:x", "cuda:x", "cuda:-1", "cuda:"] {
            let error = open_device(name).map(drop).map_err(|e| e.to_string());
            let all = DEVICE_NAMES.join(", ");
            let known = if all.contains("cuda") && name.starts_with("cuda") { numbered } else { &all };
            assert_eq!(error, Err(format!("device \"{name}\" is not known; this build has {known}")));
        }
    }

    #[test]
    fn a_machine_without_a_card_says_why() {
        match cuda_report() {
            CudaReport { cards: Ok(cards), compiler } => assert!(!cards.is_empty() && compiler.is_some()),
            CudaReport { cards: Err(problem), compiler } => {
                assert!(!problem.is_empty() && compiler.is_none())
            }
        }
    }

    #[test]
    fn one_adapter_is_chosen_at_most() {
        assert!(adapters("wgpu").iter().filter(|adapter| adapter.is_chosen).count() <= 1);
    }
}
