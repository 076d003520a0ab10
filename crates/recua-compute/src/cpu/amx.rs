//! AMX's tile registers: permission, configuration and the few instructions, as inline assembly (the compiler has no stable
//! intrinsics). The compiler itself never uses these registers, so they keep their values between the calls here.

use super::isa::HasAmx;
use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::marker::PhantomData;
use std::sync::OnceLock;

/// Whether the processor has 8-bit tiles and the system lets this process use them.
pub(crate) fn is_permitted() -> bool {
    static PERMITTED: OnceLock<bool> = OnceLock::new();
    *PERMITTED.get_or_init(|| has_tiles() && ask())
}

/// CPUID leaf 7: AMX-TILE and AMX-INT8.
fn has_tiles() -> bool {
    const TILE: u32 = 1 << 24;
    const INT8: u32 = 1 << 25;
    let leaf = __cpuid_count(7, 0);
    leaf.edx & (TILE | INT8) == TILE | INT8
}

/// Linux permits the tiles' large state on request, for the whole process.
#[cfg(target_os = "linux")]
fn ask() -> bool {
    const SYS_ARCH_PRCTL: u64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const XFEATURE_XTILEDATA: u64 = 18;
    let result: i64;
    // SAFETY: the call reads and writes no memory of this process; the kernel clobbers rcx and r11.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") SYS_ARCH_PRCTL as i64 => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn ask() -> bool {
    false
}

/// The number of rows of a tile, and of 32-bit lanes in each row.
pub(crate) const ROWS: usize = 16;

/// Bytes of a tile's row.
pub(crate) const ROW_BYTES: usize = 64;

/// The shapes of the eight tiles, as the processor reads them.
#[repr(C, align(64))]
pub(crate) struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// A configuration of the tiles, as a type.
pub(crate) trait Form {
    const CONFIG: Config;
}

/// All with 16 rows of 64 bytes.
pub(crate) struct Whole;

impl Form for Whole {
    const CONFIG: Config = Config {
        palette: 1,
        start_row: 0,
        reserved: [0; 14],
        row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
        rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
    };
}

/// For products over 32 columns: tiles 4 and 5 have 16 rows of 32 bytes, tiles 6 and 7 have 8 rows of 64; the others as above.
pub(crate) struct Halves;

impl Form for Halves {
    const CONFIG: Config = Config {
        row_bytes: [64, 64, 64, 64, 32, 32, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
        rows: [16, 16, 16, 16, 16, 16, 8, 8, 0, 0, 0, 0, 0, 0, 0, 0],
        ..Whole::CONFIG
    };
}

/// This thread's tiles in one configuration. Dropping it releases them, so that a task switch need not save them.
pub(crate) struct Tiles<F: Form> {
    /// Tiles belong to a thread.
    form: PhantomData<(F, *const ())>,
}

impl<F: Form> Tiles<F> {
    const CONFIG: &'static Config = &F::CONFIG;

    pub(crate) fn configure(_: HasAmx) -> Tiles<F> {
        // SAFETY: the processor has tiles and this process may use them, as the proof says; the configuration is 64 bytes of the
        // documented form.
        unsafe { asm!("ldtilecfg [{}]", in(reg) Self::CONFIG, options(nostack, readonly)) }
        Tiles { form: PhantomData }
    }
}

impl<F: Form> Drop for Tiles<F> {
    fn drop(&mut self) {
        // SAFETY: tiles were configured by this thread.
        unsafe { asm!("tilerelease", options(nostack, nomem)) }
    }
}

/// `tmm$tile = 0`
macro_rules! zero {
    ($tile:literal) => {
        std::arch::asm!(concat!("tilezero tmm", $tile), options(nostack, nomem))
    };
}

/// Loads a tile's rows, which lie `$stride` bytes apart.
macro_rules! load {
    ($tile:literal, $start:expr, $stride:expr) => {
        std::arch::asm!(
            concat!("tileloadd tmm", $tile, ", [{start} + {stride}]"),
            start = in(reg) $start,
            stride = in(reg) $stride,
            options(nostack, readonly)
        )
    };
}

/// Stores rows of 64 bytes one after the other.
macro_rules! store {
    ($tile:literal, $start:expr) => {
        std::arch::asm!(
            concat!("tilestored [{start} + {stride}], tmm", $tile),
            start = in(reg) $start,
            stride = in(reg) 64usize,
            options(nostack)
        )
    };
}

/// `tmm$c += tmm$a · tmm$b`, signed bytes by unsigned (`tdpbsud`) or signed (`tdpbssd`) bytes.
macro_rules! dot {
    ($name:literal, $c:literal, $a:literal, $b:literal) => {
        std::arch::asm!(concat!($name, " tmm", $c, ", tmm", $a, ", tmm", $b), options(nostack, nomem))
    };
}

pub(crate) use {dot, load, store, zero};
