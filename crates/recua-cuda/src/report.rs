//! [`Card`]: what the driver tells of a card before it is opened. [`devices`] is that for reports.

use crate::driver::{Driver, SUCCESS, driver, version_text};
use crate::nvrtc::nvrtc;
use cudarc::driver::sys::CUdevice_attribute as Attribute;
use recua_compute::{Error, Result};
use std::ffi::CStr;

/// The lowest compute capability there are kernels for.
const CC_MIN: (i32, i32) = (8, 0);

/// One card of this machine, for reports.
#[derive(Clone, Debug)]
pub struct DeviceReport {
    /// What [`crate::Options::index`] names it by.
    pub index: usize,
    /// The name that the driver gives.
    pub name: String,
    /// Major and minor compute capability.
    pub compute_capability: (i32, i32),
    /// Memory of the card.
    pub memory_bytes: u64,
    /// The version of CUDA that the driver has, such as `13.0`.
    pub driver: String,
    /// Why it cannot be opened, if it cannot.
    pub problem: Option<String>,
}

/// The cards that the driver shows.
///
/// # Errors
/// If there is no driver, it is too old, or it finds no card; the error says which.
pub fn devices() -> Result<Vec<DeviceReport>> {
    let not_found = |problem: String| Error::DeviceNotFound { device: "cuda".into(), problem };
    let driver = driver().map_err(not_found)?;
    let n = Card::count(driver).map_err(not_found)?;
    let report = |index| {
        let card = Card::new(driver, index).map_err(not_found)?;
        Ok(DeviceReport {
            index,
            problem: card.problem(),
            name: card.name,
            compute_capability: card.cc,
            memory_bytes: card.memory_bytes,
            driver: version_text(driver.version),
        })
    };
    (0..n).map(report).collect()
}

/// The compiler of the kernels, in a line: NVRTC's version and where it was found.
///
/// # Errors
/// If there is none; the error says where it was looked for and where it comes from.
pub fn compiler() -> Result<String> {
    let major = driver().map_or(i32::MAX, |driver| driver.version / 1000);
    match nvrtc(major) {
        Ok(nvrtc) => {
            let (major, minor) = nvrtc.version;
            Ok(format!("NVRTC {major}.{minor} in {}", nvrtc.path))
        }
        Err(problem) => Err(Error::DeviceNotFound { device: "cuda".into(), problem }),
    }
}

/// What the driver tells.
pub(crate) struct Card {
    pub(crate) name: String,
    pub(crate) cc: (i32, i32),
    pub(crate) memory_bytes: u64,
    pub(crate) n_sms: u32,
    pub(crate) shared_bytes_max: usize,
    pub(crate) shared_bytes_sm: usize,
    pub(crate) l2_bytes: usize,
    has_pools: bool,
}

impl Card {
    /// How many there are.
    pub(crate) fn count(driver: &Driver) -> Result<usize, String> {
        let mut n = 0;
        // SAFETY: `n` is written.
        match unsafe { (driver.cuDeviceGetCount)(&raw mut n) } {
            SUCCESS if n > 0 => Ok(n as usize),
            SUCCESS => Err("the NVIDIA driver shows no GPU".into()),
            code => Err(driver.text(code)),
        }
    }

    /// The card of this index, which there is.
    pub(crate) fn new(driver: &Driver, index: usize) -> Result<Card, String> {
        let device = index as i32;
        let check = |code: u32| if code == SUCCESS { Ok(()) } else { Err(driver.text(code)) };
        let attribute = |attribute: Attribute| {
            let mut value = 0;
            // SAFETY: `value` is written.
            check(unsafe { (driver.cuDeviceGetAttribute)(&raw mut value, attribute, device) }).map(|()| value)
        };
        let (mut name, mut memory_bytes) = ([0; 256], 0usize);
        // SAFETY: at most so many bytes of `name` are written, the last of them zero.
        check(unsafe { (driver.cuDeviceGetName)(name.as_mut_ptr(), name.len() as i32, device) })?;
        // SAFETY: `memory_bytes` is written.
        check(unsafe { (driver.cuDeviceTotalMem_v2)(&raw mut memory_bytes, device) })?;
        // SAFETY: it ends with a zero.
        let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
        Ok(Card {
            name,
            cc: (
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            ),
            memory_bytes: memory_bytes as u64,
            n_sms: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as u32,
            shared_bytes_max: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?
                as usize,
            shared_bytes_sm: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR)?
                as usize,
            l2_bytes: attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)? as usize,
            has_pools: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED)? != 0,
        })
    }

    /// Why it cannot be opened, if it cannot.
    pub(crate) fn problem(&self) -> Option<String> {
        problem(self.cc, self.has_pools)
    }
}

fn problem(cc: (i32, i32), has_pools: bool) -> Option<String> {
    if cc < CC_MIN {
        let ((major, minor), (needed, rest)) = (cc, CC_MIN);
        return Some(format!("has compute capability {major}.{minor}, {needed}.{rest} is needed"));
    }
    (!has_pools).then(|| "has no pools of memory, as virtual cards of some kinds have not".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_card_is_told_what_is_needed() {
        assert_eq!(problem((8, 0), true), None);
        assert_eq!(problem((12, 1), true), None);
        let expected = "has compute capability 7.5, 8.0 is needed";
        assert_eq!(problem((7, 5), true), Some(expected.into()));
        assert!(problem((8, 6), false).is_some());
    }

    #[test]
    fn a_machine_without_a_card_says_so() {
        match devices() {
            Ok(list) => assert!(!list.is_empty()),
            Err(e) => assert!(matches!(e, Error::DeviceNotFound { .. }), "{e:?}"),
        }
    }
}
