//! [`Context`]: the driver's context of one card, its one stream and its pool of memory; and [`Faults`], how the driver's codes become
//! our errors. Everything else that has a handle of the driver's holds the context.

use crate::driver::{Driver, Handle, OUT_OF_MEMORY, SUCCESS};
use cudarc::driver::sys::{
    CUcontext, CUdeviceptr, CUmemAllocationHandleType, CUmemAllocationType, CUmemLocationType,
    CUmemPool_attribute, CUmemPoolProps, CUmemoryPool, CUstream,
};
use recua_compute::{Error, Result};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A stream that does not wait for the default one.
const NON_BLOCKING: u32 = 1;

/// A panic elsewhere leaves nothing behind these locks that could be half done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The context of a card. All work goes to one stream: the order of the calls is the order of effects.
pub(crate) struct Context {
    pub(crate) driver: &'static Driver,
    pub(crate) faults: Faults,
    device: i32,
    raw: Handle<CUcontext>,
    stream: Handle<CUstream>,
    pool: Handle<CUmemoryPool>,
}

impl Context {
    /// Takes the card's primary context; `name` is the card's.
    pub(crate) fn new(driver: &'static Driver, device: i32, name: &str) -> Result<Context> {
        let faults = Faults::new(name);
        let check = |what: &str, code: u32| faults.result(what, code, || driver.text(code));
        let (mut raw, mut stream, mut pool) =
            (std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: `raw` is written.
        let code = unsafe { (driver.cuDevicePrimaryCtxRetain)(&raw mut raw, device) };
        if code == OUT_OF_MEMORY {
            let what = "the driver's context; other programs have the memory".into();
            return Err(Error::OutOfMemory { device: name.into(), what, requested_bytes: 0 });
        }
        check("opening the card", code)?;
        let mut context = Context {
            driver,
            device,
            raw: Handle(raw),
            stream: Handle(stream),
            pool: Handle(pool),
            faults: Faults::new(name),
        };
        // SAFETY: zeros are a valid value of each field, and mean no sharing with other processes and no limit.
        let mut properties: CUmemPoolProps = unsafe { std::mem::zeroed() };
        properties.allocType = CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
        properties.handleTypes = CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_NONE;
        properties.location.type_ = CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE;
        properties.location.id = device;
        // SAFETY: `stream` is written.
        context.call("making a stream", |driver| unsafe {
            (driver.cuStreamCreate)(&raw mut stream, NON_BLOCKING)
        })?;
        context.stream = Handle(stream);
        // SAFETY: `pool` is written, `properties` is read.
        context.call("making a pool of memory", |driver| unsafe {
            (driver.cuMemPoolCreate)(&raw mut pool, &raw const properties)
        })?;
        context.pool = Handle(pool);
        // Memory that is freed stays in the pool: giving it back to the system at every wait would cost more than the wait.
        let mut keep = u64::MAX;
        let attribute = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        // SAFETY: the attribute is a u64, which is read.
        context.call("setting the pool up", |driver| unsafe {
            (driver.cuMemPoolSetAttribute)(pool, attribute, (&raw mut keep).cast())
        })?;
        Ok(context)
    }

    /// Makes the context current on this thread and calls the driver; `what` is being done, for the error. Fails at once if the device
    /// is lost.
    pub(crate) fn call(&self, what: &str, f: impl FnOnce(&Driver) -> u32) -> Result<()> {
        self.faults.check()?;
        let code = self.code(f);
        self.faults.result(what, code, || self.driver.text(code))
    }

    /// The code of a call, made with the context current on this thread.
    pub(crate) fn code(&self, f: impl FnOnce(&Driver) -> u32) -> u32 {
        // SAFETY: the context lives as long as this.
        match unsafe { (self.driver.cuCtxSetCurrent)(self.raw.0) } {
            SUCCESS => f(self.driver),
            code => code,
        }
    }

    /// The stream.
    pub(crate) fn stream(&self) -> CUstream {
        self.stream.0
    }

    /// Waits for all work.
    pub(crate) fn synchronize(&self) -> Result<()> {
        // SAFETY: the stream lives as long as this.
        self.call("waiting", |driver| unsafe { (driver.cuStreamSynchronize)(self.stream.0) })
    }

    /// Waits for all work even if the device is thought to be lost: whoever frees what work may use cannot go by that. Of one that is lost
    /// nothing is under way any more, and the driver says so at once.
    pub(crate) fn drain(&self) {
        // SAFETY: as above.
        let _code = self.code(|driver| unsafe { (driver.cuStreamSynchronize)(self.stream.0) });
    }

    /// Memory of at least one byte, in the order of the stream; `None` if there is none.
    pub(crate) fn alloc(&self, n_bytes: usize) -> Result<Option<CUdeviceptr>> {
        self.faults.check()?;
        let mut pointer = 0;
        let mut alloc = || {
            // SAFETY: `pointer` is written; pool and stream live as long as this.
            self.code(|driver| unsafe {
                (driver.cuMemAllocFromPoolAsync)(&raw mut pointer, n_bytes, self.pool.0, self.stream.0)
            })
        };
        let mut code = alloc();
        if code == OUT_OF_MEMORY {
            // What was freed may not be free before the work that used it is done, and lies in pieces until it is given back.
            self.synchronize()?;
            // SAFETY: the pool lives as long as this.
            self.call("emptying the pool", |driver| unsafe { (driver.cuMemPoolTrimTo)(self.pool.0, 0) })?;
            code = alloc();
        }
        match code {
            OUT_OF_MEMORY => Ok(None),
            code => self.faults.result("allocating", code, || self.driver.text(code)).map(|()| Some(pointer)),
        }
    }

    /// Frees memory once the work submitted so far is done.
    pub(crate) fn free(&self, pointer: CUdeviceptr) {
        // SAFETY: the pointer is of `alloc`, and its owner is gone. Of a device that is lost nothing can be freed.
        let _code = self.code(|driver| unsafe { (driver.cuMemFreeAsync)(pointer, self.stream.0) });
    }

    /// Bytes that could still be allocated, in all.
    pub(crate) fn free_bytes(&self) -> Result<u64> {
        let (mut free, mut total) = (0usize, 0usize);
        // SAFETY: both are written.
        self.call("asking for free memory", |driver| unsafe {
            (driver.cuMemGetInfo_v2)(&raw mut free, &raw mut total)
        })?;
        let of_pool = |attribute| {
            let mut n_bytes = 0u64;
            // SAFETY: both attributes asked for are a u64, which is written.
            self.call("asking for free memory", |driver| unsafe {
                (driver.cuMemPoolGetAttribute)(self.pool.0, attribute, (&raw mut n_bytes).cast())
            })
            .map(|()| n_bytes)
        };
        let reserved = of_pool(CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?;
        let used = of_pool(CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?;
        Ok(free as u64 + reserved.saturating_sub(used))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        let _code = self.code(|driver| {
            // SAFETY: nothing else has these handles: whoever has one of another kind holds the context. Errors have nowhere to go.
            unsafe {
                if !self.stream.0.is_null() {
                    (driver.cuStreamSynchronize)(self.stream.0);
                }
                if !self.pool.0.is_null() {
                    (driver.cuMemPoolDestroy)(self.pool.0);
                }
                if !self.stream.0.is_null() {
                    (driver.cuStreamDestroy_v2)(self.stream.0);
                }
                (driver.cuDevicePrimaryCtxRelease_v2)(self.device)
            }
        });
    }
}

/// Codes after which the context is of no more use: all later calls fail, too.
const STICKY: &[u32] = &[
    4,   // deinitialized
    46,  // device unavailable
    214, // ECC uncorrectable
    220, // NVLink uncorrectable
    226, // contained
    700, // illegal address
    702, // launch timeout
    709, // context is destroyed
    710, // assert
    714, // hardware stack error
    715, // illegal instruction
    716, // misaligned address
    717, // invalid address space
    718, // invalid pc
    719, // launch failed
    721, // tensor memory leak
    802, // system not ready
    999, // unknown
];

/// What the driver's codes mean for a device, and whether it is lost.
pub(crate) struct Faults {
    device: String,
    /// What it was first.
    lost: Mutex<Option<String>>,
}

impl Faults {
    pub(crate) fn new(device: &str) -> Faults {
        Faults { device: device.into(), lost: Mutex::default() }
    }

    /// Fails if the device is lost.
    pub(crate) fn check(&self) -> Result<()> {
        match &*lock(&self.lost) {
            Some(message) => Err(self.error(message.clone())),
            None => Ok(()),
        }
    }

    /// The result of a call; `what` was being done, `text` says what a code means.
    pub(crate) fn result(&self, what: &str, code: u32, text: impl FnOnce() -> String) -> Result<()> {
        if code == SUCCESS {
            return Ok(());
        }
        let message = text();
        if STICKY.contains(&code) {
            let first =
                lock(&self.lost).get_or_insert_with(|| format!("{message}, found while {what}")).clone();
            return Err(self.error(first));
        }
        if code == OUT_OF_MEMORY {
            let (device, what) = (self.device.clone(), format!("{what} ({message})"));
            return Err(Error::OutOfMemory { device, what, requested_bytes: 0 });
        }
        Err(Error::KernelRun { name: what.into(), message })
    }

    fn error(&self, message: String) -> Error {
        Error::DeviceLost { device: self.device.clone(), message }
    }
}

#[cfg(test)]
mod tests;
