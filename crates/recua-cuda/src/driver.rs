//! The driver's functions, loaded when a device is first asked for. A missing library or function is an error, never a panic, and a
//! result is a number, because a newer driver has codes that no enumeration of ours can have.

use cudarc::driver::sys::{
    CUcontext, CUdevice_attribute, CUdeviceptr, CUevent, CUfunction, CUfunction_attribute, CUgraph,
    CUgraphExec, CUlaunchConfig, CUmemPool_attribute, CUmemPoolProps, CUmemoryPool, CUmodule, CUstream,
    CUstreamCaptureMode,
};
use libloading::Library;
use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::sync::OnceLock;

/// The version of CUDA that a driver must have at least: that of `cuFuncGetParamInfo`, and one later than that of programmatic edges in
/// graphs. In thousands, tens for the minor one.
const VERSION_MIN: i32 = 12_040;

/// The oldest driver with that version.
const DRIVER_MIN: &str = "550";

/// Success, and the codes that are looked at.
pub(crate) const SUCCESS: u32 = 0;
pub(crate) const OUT_OF_MEMORY: u32 = 2;
pub(crate) const NO_DEVICE: u32 = 100;
pub(crate) const NOT_FOUND: u32 = 500;
pub(crate) const NOT_READY: u32 = 600;

/// A handle of the driver's.
#[derive(Clone, Copy)]
pub(crate) struct Handle<T>(pub(crate) T);

// SAFETY: the driver's handles are not bound to a thread: its functions may be called from any, with the context made current there.
unsafe impl<T> Send for Handle<T> {}
// SAFETY: the driver locks what its handles name.
unsafe impl<T> Sync for Handle<T> {}

/// Declares the table of functions. All return a result.
macro_rules! functions {
    ($(fn $name:ident($($ty:ty),*);)*) => {
        /// The functions, by the names of their symbols.
        #[allow(non_snake_case, reason = "the driver's own names")]
        pub(crate) struct Driver {
            /// Thousands, and tens of the minor version: 13000 is 13.0.
            pub(crate) version: i32,
            $(pub(crate) $name: unsafe extern "C" fn($($ty),*) -> u32,)*
        }

        impl Driver {
            fn load(library: &Library, version: i32) -> Result<Driver, String> {
                // SAFETY: the types are those of the driver's own header (cudarc's declarations), whose functions never change: one
                // that does gets another symbol.
                unsafe {
                    Ok(Driver { version, $($name: *symbol(library, stringify!($name))?,)* })
                }
            }
        }
    };
}

functions! {
    fn cuGetErrorName(u32, *mut *const c_char);
    fn cuGetErrorString(u32, *mut *const c_char);
    fn cuDeviceGetCount(*mut c_int);
    fn cuDeviceGetName(*mut c_char, c_int, c_int);
    fn cuDeviceGetAttribute(*mut c_int, CUdevice_attribute, c_int);
    fn cuDeviceTotalMem_v2(*mut usize, c_int);
    fn cuDevicePrimaryCtxRetain(*mut CUcontext, c_int);
    fn cuDevicePrimaryCtxRelease_v2(c_int);
    fn cuCtxSetCurrent(CUcontext);
    fn cuStreamCreate(*mut CUstream, c_uint);
    fn cuStreamDestroy_v2(CUstream);
    fn cuStreamSynchronize(CUstream);
    fn cuStreamBeginCapture_v2(CUstream, CUstreamCaptureMode);
    fn cuStreamEndCapture(CUstream, *mut CUgraph);
    fn cuGraphInstantiateWithFlags(*mut CUgraphExec, CUgraph, c_ulonglong);
    fn cuGraphUpload(CUgraphExec, CUstream);
    fn cuGraphLaunch(CUgraphExec, CUstream);
    fn cuGraphDestroy(CUgraph);
    fn cuGraphExecDestroy(CUgraphExec);
    fn cuMemPoolCreate(*mut CUmemoryPool, *const CUmemPoolProps);
    fn cuMemPoolDestroy(CUmemoryPool);
    fn cuMemPoolSetAttribute(CUmemoryPool, CUmemPool_attribute, *mut c_void);
    fn cuMemPoolGetAttribute(CUmemoryPool, CUmemPool_attribute, *mut c_void);
    fn cuMemPoolTrimTo(CUmemoryPool, usize);
    fn cuMemAllocFromPoolAsync(*mut CUdeviceptr, usize, CUmemoryPool, CUstream);
    fn cuMemFreeAsync(CUdeviceptr, CUstream);
    fn cuMemGetInfo_v2(*mut usize, *mut usize);
    fn cuMemsetD8Async(CUdeviceptr, u8, usize, CUstream);
    fn cuMemcpyAsync(CUdeviceptr, CUdeviceptr, usize, CUstream);
    fn cuMemHostAlloc(*mut *mut c_void, usize, c_uint);
    fn cuMemFreeHost(*mut c_void);
    fn cuEventCreate(*mut CUevent, c_uint);
    fn cuEventDestroy_v2(CUevent);
    fn cuEventRecord(CUevent, CUstream);
    fn cuEventQuery(CUevent);
    fn cuEventSynchronize(CUevent);
    fn cuEventElapsedTime(*mut f32, CUevent, CUevent);
    fn cuModuleLoadData(*mut CUmodule, *const c_void);
    fn cuModuleUnload(CUmodule);
    fn cuModuleGetFunction(*mut CUfunction, CUmodule, *const c_char);
    fn cuModuleGetFunctionCount(*mut c_uint, CUmodule);
    fn cuModuleEnumerateFunctions(*mut CUfunction, c_uint, CUmodule);
    fn cuFuncLoad(CUfunction);
    fn cuFuncGetParamInfo(CUfunction, usize, *mut usize, *mut usize);
    fn cuFuncGetAttribute(*mut c_int, CUfunction_attribute, CUfunction);
    fn cuFuncSetAttribute(CUfunction, CUfunction_attribute, c_int);
    fn cuLaunchKernelEx(*const CUlaunchConfig, CUfunction, *mut *mut c_void, *mut *mut c_void);
}

/// A function of a library.
///
/// # Safety
/// `F` is the type of the function that has this name there.
pub(crate) unsafe fn symbol<'a, F>(
    library: &'a Library,
    name: &str,
) -> Result<libloading::Symbol<'a, F>, String> {
    // SAFETY: the caller's.
    unsafe { library.get(name.as_bytes()) }.map_err(|e| format!("it has no {name}: {e}"))
}

/// The driver, loaded and initialised once; or why it cannot be used.
pub(crate) fn driver() -> Result<&'static Driver, String> {
    static DRIVER: OnceLock<Result<Driver, String>> = OnceLock::new();
    DRIVER.get_or_init(load).as_ref().map_err(String::clone)
}

fn load() -> Result<Driver, String> {
    let names = if cfg!(windows) { &["nvcuda.dll"][..] } else { &["libcuda.so.1", "libcuda.so"] };
    // SAFETY: what runs when it is loaded is NVIDIA's.
    let found = names.iter().find_map(|name| unsafe { Library::new(*name) }.ok());
    let library =
        found.ok_or_else(|| format!("there is no NVIDIA driver ({} cannot be loaded)", names[0]))?;
    // Never unloaded: the driver keeps threads of its own.
    let library: &'static Library = Box::leak(Box::new(library));
    let failed = |what: &str, problem: String| format!("the NVIDIA driver does not start: {what} {problem}");
    let mut version = 0;
    // SAFETY: both are as in the driver's header since its first version.
    let (result, init) = unsafe {
        let get_version = symbol::<unsafe extern "C" fn(*mut c_int) -> u32>(library, "cuDriverGetVersion")?;
        let init = symbol::<unsafe extern "C" fn(c_uint) -> u32>(library, "cuInit")?;
        (get_version(&raw mut version), init)
    };
    if result != SUCCESS {
        return Err(failed("cuDriverGetVersion", format!("returns {result}")));
    }
    if version < VERSION_MIN {
        return Err(too_old(version));
    }
    let driver = Driver::load(library, version).map_err(|problem| failed("it is damaged:", problem))?;
    // SAFETY: takes no pointer.
    match unsafe { init(0) } {
        SUCCESS => Ok(driver),
        NO_DEVICE => Err("the NVIDIA driver finds no GPU".into()),
        code => Err(failed("cuInit", format!("says: {}", driver.text(code)))),
    }
}

fn too_old(version: i32) -> String {
    let (found, needed) = (version_text(version), version_text(VERSION_MIN));
    format!(
        "the NVIDIA driver is too old: it has CUDA {found}, {needed} is needed (driver {DRIVER_MIN} or newer)"
    )
}

/// A version as people write it.
pub(crate) fn version_text(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

impl Driver {
    /// What the driver says of a code.
    pub(crate) fn text(&self, code: u32) -> String {
        let said = |f: unsafe extern "C" fn(u32, *mut *const c_char) -> u32| {
            let mut text = std::ptr::null();
            // SAFETY: `text` is written; the text is the driver's own and lives for ever.
            unsafe {
                let result = f(code, &raw mut text);
                (result == SUCCESS && !text.is_null())
                    .then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
            }
        };
        match (said(self.cuGetErrorString), said(self.cuGetErrorName)) {
            (Some(text), Some(name)) => format!("{text} ({name})"),
            _ => format!("code {code}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_driver_is_told_what_is_needed() {
        let expected = "the NVIDIA driver is too old: it has CUDA 11.8, 12.4 is needed (driver 550 or newer)";
        assert_eq!(too_old(11_080), expected);
    }

    /// A missing driver is an error and not a panic.
    #[test]
    fn the_driver_is_there_or_says_why_not() {
        if let Err(problem) = driver() {
            assert!(problem.contains("NVIDIA driver"), "{problem}");
        }
    }
}
