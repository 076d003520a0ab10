//! Which devices this build has. The only file that looks at the features.

use crate::{Error, Result};
use recua_compute::{Device, cpu};

/// The names that [`open_device`] knows in this build. `wgpu` may be followed by a colon and a part of an adapter's name.
pub const DEVICE_NAMES: &[&str] = &[
    "auto",
    "cpu",
    #[cfg(feature = "wgpu")]
    "wgpu",
];

/// Opens a device by name: `cpu`; `wgpu`, or `wgpu:NAME` for an adapter whose name contains NAME; or `auto` for the fastest one there
/// is. `auto` never picks a software GPU, `wgpu` accepts one. For both of them the environment variable `RECUA_WGPU_ADAPTER` can say what
/// an adapter's name must contain.
///
/// # Errors
/// If the name is not known (the error lists those that are) or the device cannot be opened.
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

/// The fastest device beside the CPU.
fn auto() -> Option<Device> {
    #[cfg(feature = "wgpu")]
    if may_have_gpu()
        && let Ok(device) = recua_wgpu::open(recua_wgpu::Options::default())
    {
        return Some(device);
    }
    None
}

/// Whether there can be a real GPU. Looking for one loads the graphics drivers and their layers, which takes a while and may write to
/// stderr; a Linux without any GPU's device file has none.
#[cfg(feature = "wgpu")]
fn may_have_gpu() -> bool {
    let nodes = ["/dev/dri", "/dev/nvidiactl", "/dev/dxg", "/dev/kfd", "/dev/mali0", "/dev/kgsl-3d0"];
    !cfg!(target_os = "linux") || nodes.iter().any(|node| std::path::Path::new(node).exists())
}

/// The GPU adapters of this machine, for reports, judged as [`open_device`] judges them for `device`; as for `wgpu`, if that is another
/// kind of device. Empty in a build without GPUs.
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
    /// The name that the driver gives.
    pub name: String,
    /// Its kind, limits and driver.
    pub detail: String,
    /// Why `wgpu` takes it or does not.
    pub reason: String,
    /// Whether `wgpu` takes it.
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
