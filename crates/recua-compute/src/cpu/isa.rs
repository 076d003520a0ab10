//! Which instruction set the kernels use: detected once and held as a value.
//!
//! Every kernel gives the same bits whichever set runs it: integer sums are exact, and float sums have one order, with fused
//! multiply-adds, on all of them. So the choice affects only speed.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

/// An instruction set that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain Rust: the definition. Every processor has it.
    Scalar,
    /// AVX2, FMA and F16C.
    Avx2,
    /// The same, with the byte products of AVX-VNNI for formats of 32 values.
    AvxVnni,
    /// AVX-512 F, BW, VL, DQ and VNNI.
    Avx512,
    /// The same, with AMX's 8-bit tile products for many rows.
    Amx,
}

impl Isa {
    /// All, slowest first.
    pub const ALL: [Isa; 5] = [Isa::Scalar, Isa::Avx2, Isa::AvxVnni, Isa::Avx512, Isa::Amx];

    /// Whether this processor can run it.
    pub fn is_available(self) -> bool {
        static AVAILABLE: OnceLock<[bool; Isa::ALL.len()]> = OnceLock::new();
        AVAILABLE.get_or_init(|| Isa::ALL.map(Isa::ask))[self as usize]
    }

    fn ask(self) -> bool {
        match self {
            Isa::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => Isa::Avx2.ask() && is_x86_feature_detected!("avxvnni"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                Isa::Avx2.ask()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => Isa::Avx512.ask() && super::amx::is_permitted(),
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::AvxVnni | Isa::Avx512 | Isa::Amx => false,
        }
    }

    /// The proof that calls to code compiled for this set require. A set that the processor lacks gives [`Proof::Scalar`]: plain Rust, which
    /// has the same bits.
    pub(crate) fn proof(self) -> Proof {
        #[cfg(target_arch = "x86_64")]
        if self.is_available() {
            return match self {
                Isa::Scalar => Proof::Scalar,
                Isa::Avx2 => Proof::Avx2(HasAvx2(())),
                Isa::AvxVnni => Proof::AvxVnni(HasAvx2(()), HasAvxVnni(())),
                Isa::Avx512 => Proof::Avx512(HasAvx512(())),
                Isa::Amx => Proof::Amx(HasAvx512(()), HasAmx(())),
            };
        }
        Proof::Scalar
    }

    /// The fastest one that this processor can run.
    pub fn best() -> Isa {
        Isa::ALL.into_iter().rev().find(|isa| isa.is_available()).unwrap_or(Isa::Scalar)
    }

    /// The name that `RECUA_CPU_ISA` takes.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::AvxVnni => "avxvnni",
            Isa::Avx512 => "avx512",
            Isa::Amx => "amx",
        }
    }
}

/// An [`Isa`], with values that prove what the processor has.
#[derive(Clone, Copy)]
pub(crate) enum Proof {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2(HasAvx2),
    #[cfg(target_arch = "x86_64")]
    AvxVnni(HasAvx2, HasAvxVnni),
    #[cfg(target_arch = "x86_64")]
    Avx512(HasAvx512),
    #[cfg(target_arch = "x86_64")]
    Amx(HasAvx512, HasAmx),
}

// Only `Isa::proof` makes these zero-sized values, so a function that takes one may use the instructions.

/// Proof of AVX2, FMA and F16C.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct HasAvx2(());

/// Proof of AVX-VNNI.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct HasAvxVnni(());

/// Proof of AVX-512 F, BW, VL, DQ and VNNI.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct HasAvx512(());

/// Proof of AMX's 8-bit tiles, and that the system lets this process use them.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct HasAmx(());

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Isa {
    type Err = String;

    fn from_str(name: &str) -> Result<Isa, String> {
        let known = || Isa::ALL.map(Isa::name).join(", ");
        Isa::ALL
            .into_iter()
            .find(|isa| isa.name() == name)
            .ok_or_else(|| format!("unknown instruction set '{name}', known are {}", known()))
    }
}

/// Compiles one body for every instruction set and selects by value.
///
/// `multiversion! { fn name(isa, arg: Type, …) -> Ret = body }` makes `fn name(isa: Isa, arg: Type, …) -> Ret` out of an
/// `#[inline(always)]` function `body`, which is compiled once plainly and once inside a function of each wider set, where the
/// compiler vectorizes its loops. The source is one, so the bits are the same; nothing in it may reassociate sums.
macro_rules! multiversion {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($isa:ident $(, $arg:ident : $ty:ty)* $(,)?) $(-> $ret:ty)? = $body:path) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments, reason = "kernels take what the op holds")]
        $vis fn $name($isa: $crate::cpu::isa::Isa $(, $arg: $ty)*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma,f16c")]
                #[allow(clippy::too_many_arguments, reason = "as above")]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    $body($($arg),*)
                }
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
                #[allow(clippy::too_many_arguments, reason = "as above")]
                fn avx512($($arg: $ty),*) $(-> $ret)? {
                    $body($($arg),*)
                }
                match $isa.proof() {
                    $crate::cpu::isa::Proof::Scalar => {}
                    $crate::cpu::isa::Proof::Avx2(_) | $crate::cpu::isa::Proof::AvxVnni(..) => {
                        // SAFETY: the processor has the set, as the proof says.
                        return unsafe { avx2($($arg),*) };
                    }
                    $crate::cpu::isa::Proof::Avx512(_) | $crate::cpu::isa::Proof::Amx(..) => {
                        // SAFETY: as above.
                        return unsafe { avx512($($arg),*) };
                    }
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _ = $isa;
            $body($($arg),*)
        }
    };
}
pub(crate) use multiversion;
