//! [`Function`]: a kernel loaded onto the device.

use crate::context::Context;
use crate::driver::{Driver, Handle, NOT_FOUND};
use cudarc::driver::sys::{
    CUfunction, CUfunction_attribute as Attribute, CUlaunchAttribute, CUlaunchAttributeID, CUlaunchConfig,
    CUmodule, CUstream,
};
use recua_compute::Result;
use std::ffi::{CString, c_void};
use std::sync::Arc;

/// A kernel on the device.
pub(crate) struct Function {
    context: Arc<Context>,
    module: Handle<CUmodule>,
    raw: Handle<CUfunction>,
    /// Where each parameter lies in the block of all parameters, and its bytes.
    pub(crate) params: Vec<Param>,
    /// Threads that a block may have.
    pub(crate) block_max: u32,
    /// Shared memory that a launch may ask for beside what the kernel declares.
    pub(crate) shared_bytes_max: usize,
}

/// A parameter of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Param {
    pub(crate) offset: usize,
    pub(crate) n_bytes: usize,
}

/// The grid and the block of a launch.
#[derive(Clone, Copy)]
pub(crate) struct Dims {
    pub(crate) grid: [u32; 3],
    pub(crate) block: u32,
    pub(crate) shared_bytes: u32,
    /// Whether it may begin before what comes before it in the stream is done.
    pub(crate) is_dependent: bool,
}

impl Function {
    /// Loads the function `entry` of a cubin, or the only one if none has that name. `shared_bytes_max` is the card's.
    pub(crate) fn load(
        context: &Arc<Context>,
        cubin: &[u8],
        entry: &str,
        shared_bytes_max: usize,
    ) -> Result<Function> {
        let mut module = std::ptr::null_mut();
        let what = format!("loading {entry}");
        // SAFETY: a cubin says itself how long it is, and comes whole from the compiler, or from a file with its checksum.
        context.call(&what, |driver| unsafe {
            (driver.cuModuleLoadData)(&raw mut module, cubin.as_ptr().cast())
        })?;
        let mut function = Function {
            context: context.clone(),
            module: Handle(module),
            raw: Handle(std::ptr::null_mut()),
            params: Vec::new(),
            block_max: 0,
            shared_bytes_max: 0,
        };
        function.raw = Handle(find(context, module, entry)?);
        let raw = function.raw.0;
        // Now, because the driver's lazy loading may not come in a capture.
        // SAFETY: the function is of a module that is loaded.
        context.call(&what, |driver| unsafe { (driver.cuFuncLoad)(raw) })?;
        function.params = params(context, raw)?;
        function.block_max =
            attribute(context, raw, Attribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK)? as u32;
        let declared = attribute(context, raw, Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)? as usize;
        function.shared_bytes_max = shared_bytes_max.saturating_sub(declared);
        let dynamic = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        let n_bytes = function.shared_bytes_max as i32;
        // SAFETY: as above.
        context.call(&what, |driver| unsafe { (driver.cuFuncSetAttribute)(raw, dynamic, n_bytes) })?;
        Ok(function)
    }

    /// The bytes of all parameters.
    pub(crate) fn params_bytes(&self) -> usize {
        self.params.iter().map(|param| param.offset + param.n_bytes).max().unwrap_or(0)
    }

    /// Launches it on a stream of its context; `name` is for the error.
    ///
    /// # Safety
    /// What the parameters point to is as large as the kernel takes it to be, lives until the launch is done (memory of this device is
    /// freed in the order of its stream), and no one else uses what it writes.
    pub(crate) unsafe fn launch(
        &self,
        stream: CUstream,
        dims: &Dims,
        params: &[u8],
        name: &str,
    ) -> Result<()> {
        let param = |param: &Param| params[param.offset..][..param.n_bytes].as_ptr().cast_mut().cast();
        let mut pointers: Vec<*mut c_void> = self.params.iter().map(param).collect();
        // SAFETY: zeros are a valid value of each field.
        let mut attribute: CUlaunchAttribute = unsafe { std::mem::zeroed() };
        attribute.id = CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
        attribute.value.programmaticStreamSerializationAllowed = 1;
        let [x, y, z] = dims.grid;
        let config = CUlaunchConfig {
            gridDimX: x,
            gridDimY: y,
            gridDimZ: z,
            blockDimX: dims.block,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: dims.shared_bytes,
            hStream: stream,
            attrs: &raw mut attribute,
            numAttrs: dims.is_dependent.into(),
        };
        let launch = |driver: &Driver| {
            // SAFETY: one pointer for each parameter the kernel has, to as many bytes as it has, which are copied in the call; `config`
            // has as many attributes as it says. The rest is the caller's.
            unsafe {
                (driver.cuLaunchKernelEx)(
                    &raw const config,
                    self.raw.0,
                    pointers.as_mut_ptr(),
                    std::ptr::null_mut(),
                )
            }
        };
        self.context.call(name, launch)
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        // A launch under way may be of this code.
        self.context.drain();
        // SAFETY: nobody has the module's functions any more.
        let _code = self.context.code(|driver| unsafe { (driver.cuModuleUnload)(self.module.0) });
    }
}

fn find(context: &Context, module: CUmodule, entry: &str) -> Result<CUfunction> {
    let mut found = std::ptr::null_mut();
    if let Ok(name) = CString::new(entry) {
        // SAFETY: `found` is written, the name ends with a zero.
        let code = context
            .code(|driver| unsafe { (driver.cuModuleGetFunction)(&raw mut found, module, name.as_ptr()) });
        if code != NOT_FOUND {
            let text = || context.driver.text(code);
            return context.faults.result(&format!("loading {entry}"), code, text).map(|()| found);
        }
    }
    let mut n = 0;
    // SAFETY: `n` is written.
    context.call("counting kernels", |driver| unsafe {
        (driver.cuModuleGetFunctionCount)(&raw mut n, module)
    })?;
    if n != 1 {
        let message = match n {
            0 => "there is no __global__ function".to_string(),
            n => format!("no one of {n} __global__ functions is named '{entry}' and extern \"C\""),
        };
        return Err(recua_compute::Error::KernelRun { name: entry.into(), message });
    }
    // SAFETY: there is room for the one function.
    context.call("finding a kernel", |driver| unsafe {
        (driver.cuModuleEnumerateFunctions)(&raw mut found, 1, module)
    })?;
    Ok(found)
}

fn params(context: &Context, function: CUfunction) -> Result<Vec<Param>> {
    const INVALID_VALUE: u32 = 1;
    let mut params = Vec::new();
    loop {
        let (mut offset, mut n_bytes) = (0, 0);
        // SAFETY: both are written.
        let code = context.code(|driver| unsafe {
            (driver.cuFuncGetParamInfo)(function, params.len(), &raw mut offset, &raw mut n_bytes)
        });
        // What the driver says of an index behind the last parameter.
        if code == INVALID_VALUE {
            return Ok(params);
        }
        context.faults.result("asking for parameters", code, || context.driver.text(code))?;
        params.push(Param { offset, n_bytes });
    }
}

fn attribute(context: &Context, function: CUfunction, attribute: Attribute) -> Result<i32> {
    let mut value = 0;
    // SAFETY: `value` is written.
    context.call("asking for limits", |driver| unsafe {
        (driver.cuFuncGetAttribute)(&raw mut value, attribute, function)
    })?;
    Ok(value)
}
