//! Which devices this build has. No other file may look at the features.

use crate::{Error, Result};
use recua_compute::{Device, cpu};

/// The names that [`open_device`] knows in this build. `wgpu` may be followed by a colon and a substring of an adapter's name.
pub const DEVICE_NAMES: &[&str] = &[
    "auto",
    "cpu",
    #[cfg(feature = "wgpu")]
    "wgpu",
];

/// Opens a device by name: `cpu`; `wgpu`, or `wgpu:NAME` for an adapter whose name contains NAME; or `auto` for the fastest
/// device available. `auto` never chooses a software GPU adapter; `wgpu` accepts one. For both, the environment variable
/// `RECUA_WGPU_ADAPTER` can give a substring that the adapter's name must contain.
///
/// # Errors
/// If the name is unknown (the error lists the known ones) or the device cannot be opened.
pub fn open_device(name: &str) -> Result<Device> {
    let (kind, argument) = match name.split_once(':') {
        Some((kind, argument)) => (kind, Some(argument)),
        None => (name, None),
    };
    match (kind, argument) {
        ("auto", None) => match auto() {
            Some(device) => Ok(device),
            None => Ok(cpu::open(cpu::Options::default())?),
        },
        ("cpu", None) => Ok(cpu::open(cpu::Options::default())?),
        #[cfg(feature = "wgpu")]
        ("wgpu", adapter) => Ok(recua_wgpu::open(wgpu_options(adapter))?),
        _ => Err(Error::UnknownDevice { name: name.into(), known: DEVICE_NAMES.join(", ") }),
    }
}

#[cfg(feature = "wgpu")]
fn wgpu_options(adapter: Option<&str>) -> recua_wgpu::Options {
    let adapter = adapter.map(str::to_string);
    recua_wgpu::Options { adapter, allow_software: true, ..Default::default() }
}

/// The fastest device other than the CPU, if there is one.
fn auto() -> Option<Device> {
    #[cfg(feature = "wgpu")]
    if may_have_gpu()
        && let Ok(device) = recua_wgpu::open(recua_wgpu::Options::default())
    {
        return Some(device);
    }
    None
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
        for name in ["abacus", "cpu:0", "auto:x"] {
            let error = open_device(name).map(drop).map_err(|e| e.to_string());
            let known = DEVICE_NAMES.join(", ");
            assert_eq!(error, Err(format!("device \"{name}\" is not known; this build has {known}")));
        }
    }

    #[test]
    fn one_adapter_is_chosen_at_most() {
        assert!(adapters("wgpu").iter().filter(|adapter| adapter.is_chosen).count() <= 1);
    }
}
