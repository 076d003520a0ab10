//! Hand-written CUDA C++ kernels: each argument of a dispatch is a parameter of the kernel. [`recua_compute::KernelSource::CudaC`] has the
//! rules.

use crate::function::{Function, Param};
use crate::kernels::{Compile, Problem, compile_error, options};
use crate::launch::{Kernel, Launch, Recorder};
use crate::memory::pointer;
use crate::shared::Shared;
use recua_compute::{Error, KernelArg, KernelSource, Result};
use std::sync::Arc;

/// The constant that says how many threads a block has, and how many it has without it.
const BLOCK_SIZE: &str = "BLOCK_SIZE";
const BLOCK_DEFAULT: u32 = 256;

/// A kernel that compiled.
pub(crate) struct UserKernel {
    name: String,
    function: Arc<Function>,
    block: u32,
}

impl UserKernel {
    /// Compiles the source; what is wrong with it is in the error.
    pub(crate) fn compile(
        shared: &Shared,
        name: &str,
        source: &KernelSource,
        constants: &[(String, f64)],
    ) -> Result<UserKernel> {
        let gpu = &shared.gpu;
        let failed = |message: String| compile_error(gpu, name, message);
        let source = match source {
            KernelSource::CudaC(source) => source,
            KernelSource::Wgsl(_) => {
                return Err(failed("the source is WGSL; this device runs CUDA C++".into()));
            }
            KernelSource::Rust(_) => {
                return Err(failed("the source is a Rust function; this device runs CUDA C++".into()));
            }
        };
        let block = block(constants).map_err(failed)?;
        let defines = defines(constants);
        let defines = defines.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let compile = Compile { name, source, headers: &[], options: options(gpu.cc, defines) };
        let function =
            compile.function(gpu, &shared.kernels.disk, name).map_err(|problem| match problem {
                // That there is no such function is the source's fault, too.
                Problem::Device(Error::KernelRun { message, .. }) => failed(message),
                problem => problem.error(gpu, name),
            })?;
        if block > function.block_max {
            let problem = format!(
                "{BLOCK_SIZE} is {block}; with the registers it takes {} threads are possible",
                function.block_max
            );
            return Err(failed(problem));
        }
        Ok(UserKernel { name: name.into(), function: Arc::new(function), block })
    }

    /// Records a dispatch.
    pub(crate) fn dispatch(
        &self,
        recorder: &mut Recorder<'_>,
        groups: [u32; 3],
        args: &[KernelArg<'_>],
    ) -> Result<()> {
        let wrong = |problem: String| Error::Argument {
            op: "dispatch",
            problem: format!("kernel '{}': {problem}", self.name),
        };
        let mut values = Vec::with_capacity(args.len());
        for arg in args {
            values.push(match arg {
                KernelArg::Bytes(bytes) => bytes.to_vec(),
                KernelArg::Read(buffer) | KernelArg::Write(buffer) => pointer(buffer)?.to_ne_bytes().to_vec(),
            });
        }
        let params = params(&self.function.params, &values).map_err(wrong)?;
        recorder.begin("dispatch");
        if groups.contains(&0) {
            return Ok(());
        }
        recorder.push(Launch {
            op: "dispatch",
            kernel: Kernel::Theirs(self.name.clone(), self.function.clone()),
            grid: groups,
            block: self.block,
            shared_bytes: 0,
            is_dependent: false,
            params,
        })
    }
}

/// Threads of a block.
fn block(constants: &[(String, f64)]) -> std::result::Result<u32, String> {
    match constants.iter().rfind(|(name, _)| name == BLOCK_SIZE) {
        None => Ok(BLOCK_DEFAULT),
        Some((_, n)) if n.fract() == 0.0 && (1.0..=1024.0).contains(n) => Ok(*n as u32),
        Some((_, n)) => Err(format!("{BLOCK_SIZE} is {n}, a whole number from 1 to 1024 is needed")),
    }
}

/// The macros of constants: a whole number as such, any other as a `double`.
fn defines(constants: &[(String, f64)]) -> Vec<(String, String)> {
    let value = |x: f64| {
        if x.fract() == 0.0 && x.abs() < 2f64.powi(53) {
            format!("({})", x as i64)
        } else {
            format!("({x:e})")
        }
    };
    let given = constants.iter().map(|(name, x)| (name.clone(), value(*x)));
    let has_block = constants.iter().any(|(name, _)| name == BLOCK_SIZE);
    let block = (!has_block).then(|| (BLOCK_SIZE.into(), format!("({BLOCK_DEFAULT})")));
    given.chain(block).collect()
}

/// The block of parameters, of which there must be one for each value, as large.
fn params(declared: &[Param], values: &[Vec<u8>]) -> std::result::Result<Vec<u8>, String> {
    if declared.len() != values.len() {
        return Err(format!("{} arguments for {} parameters", values.len(), declared.len()));
    }
    let mut block = vec![0; declared.iter().map(|param| param.offset + param.n_bytes).max().unwrap_or(0)];
    for (i, (param, value)) in declared.iter().zip(values).enumerate() {
        if param.n_bytes != value.len() {
            return Err(format!(
                "argument {i} has {} bytes (a buffer is a pointer of 8), the kernel's parameter {}",
                value.len(),
                param.n_bytes
            ));
        }
        block[param.offset..][..param.n_bytes].copy_from_slice(value);
    }
    Ok(block)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_become_macros() {
        let constants = [("N".to_string(), 3.0), ("HALF".into(), -0.5), ("LARGE".into(), 1e300)];
        let expected = [("N", "(3)"), ("HALF", "(-5e-1)"), ("LARGE", "(1e300)"), ("BLOCK_SIZE", "(256)")];
        assert_eq!(defines(&constants), expected.map(|(name, value)| (name.to_string(), value.to_string())));
        let constants = [("BLOCK_SIZE".to_string(), 64.0)];
        assert_eq!(defines(&constants), [("BLOCK_SIZE".to_string(), "(64)".to_string())]);
        assert_eq!(block(&constants), Ok(64));
        assert_eq!(block(&[]), Ok(256));
        for wrong in [0.0, 1025.0, 0.5, f64::NAN] {
            assert!(block(&[("BLOCK_SIZE".into(), wrong)]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn arguments_lie_where_the_kernel_has_its_parameters() {
        let declared = [
            Param { offset: 0, n_bytes: 8 },
            Param { offset: 8, n_bytes: 4 },
            Param { offset: 16, n_bytes: 8 },
        ];
        let values = [vec![1; 8], vec![2; 4], vec![3; 8]];
        let block = params(&declared, &values).unwrap();
        assert_eq!(block, [vec![1; 8], vec![2; 4], vec![0; 4], vec![3; 8]].concat());
        assert!(params(&declared, &values[..2]).is_err_and(|e| e == "2 arguments for 3 parameters"));
        let long = [vec![1; 8], vec![2; 8], vec![3; 8]];
        assert!(params(&declared, &long).is_err_and(|e| e.contains("argument 1 has 8 bytes")));
    }
}
