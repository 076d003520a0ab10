//! [`Nvrtc`]: NVIDIA's compiler as a library, found and loaded when the first kernel is compiled.

use crate::driver::symbol;
use libloading::Library;
use std::ffi::{CStr, CString, OsString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The environment variable that names the folder of the library, and of its builtins: no other place is looked at then.
pub const NVRTC_VARIABLE: &str = "RECUA_NVRTC_DIR";

/// The newest major version that is looked for, and the oldest.
const MAJORS: std::ops::RangeInclusive<i32> = 12..=13;

/// A program that is being compiled.
type Program = *mut c_void;

/// Its functions.
pub(crate) struct Nvrtc {
    /// Major and minor.
    pub(crate) version: (i32, i32),
    /// Where it was found.
    pub(crate) path: String,
    /// Compute capabilities that it compiles for, times ten.
    pub(crate) archs: Vec<i32>,
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> c_int,
    destroy: unsafe extern "C" fn(*mut Program) -> c_int,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int,
    cubin_size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    cubin: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    log_size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    log: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    error: unsafe extern "C" fn(c_int) -> *const c_char,
}

/// The library, loaded once; or why it cannot be. A driver with CUDA `driver_major` loads only what a compiler not newer than that made.
pub(crate) fn nvrtc(driver_major: i32) -> Result<&'static Nvrtc, String> {
    static NVRTC: OnceLock<Result<Nvrtc, String>> = OnceLock::new();
    NVRTC.get_or_init(|| find(driver_major)).as_ref().map_err(String::clone)
}

fn find(driver_major: i32) -> Result<Nvrtc, String> {
    let majors: Vec<i32> = MAJORS.rev().filter(|major| *major <= driver_major).collect();
    let mut problems = Vec::new();
    for folder in folders() {
        for name in majors.iter().map(|major| library_name(*major)) {
            let path = folder.as_ref().map_or_else(|| PathBuf::from(&name), |folder| folder.join(&name));
            if folder.is_some() && !path.exists() {
                continue;
            }
            match Nvrtc::load(folder.as_deref(), &path) {
                Ok(nvrtc) => return Ok(nvrtc),
                // A name without a folder is the system's to look for: that it is not there is the usual case.
                Err(problem) if folder.is_some() => problems.push(format!("{}: {problem}", path.display())),
                Err(_) => {}
            }
        }
    }
    let names: Vec<String> = majors.iter().map(|major| library_name(*major)).collect();
    let (names, package) = (names.join(" or "), if driver_major >= 13 { "" } else { "-cu12" });
    let mut text = match named_folder() {
        Some(folder) => format!(
            "{NVRTC_VARIABLE} is {}, where NVIDIA's run-time compiler ({names}) cannot be had",
            folder.display()
        ),
        None => format!(
            "NVIDIA's run-time compiler is not installed: {names} is looked for by the system, beside the program, in CUDA's own folders, in \
             a Python environment, and in the folder that {NVRTC_VARIABLE} names; `pip install nvidia-cuda-nvrtc{package}` or the package \
             of your system has it"
        ),
    };
    for problem in problems {
        text += "; ";
        text += &problem;
    }
    Err(text)
}

/// The name that the library of a major version has.
fn library_name(major: i32) -> String {
    if cfg!(windows) { format!("nvrtc64_{major}0_0.dll") } else { format!("libnvrtc.so.{major}") }
}

/// The folder that the user names.
fn named_folder() -> Option<PathBuf> {
    std::env::var_os(NVRTC_VARIABLE).filter(|folder| !folder.is_empty()).map(PathBuf::from)
}

/// Where it may be, the first first; `None` is where the system looks.
fn folders() -> Vec<Option<PathBuf>> {
    if let Some(folder) = named_folder() {
        return vec![Some(folder)];
    }
    let variable =
        |name: &str| std::env::var_os(name).filter(|value: &OsString| !value.is_empty()).map(PathBuf::from);
    let mut folders = vec![None];
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_path_buf()));
    folders.extend(beside.map(Some));
    let toolkits = ["CUDA_PATH", "CUDA_HOME"].into_iter().filter_map(variable);
    for toolkit in toolkits.chain(["/usr/local/cuda".into(), "/opt/cuda".into()]) {
        folders.extend(["lib64", "bin"].map(|folder| Some(toolkit.join(folder))));
    }
    for environment in ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(variable) {
        folders.push(Some(environment.join("lib")));
        folders.extend(python_folders(&environment).into_iter().map(Some));
    }
    folders
}

/// The folders of NVIDIA's packages in a Python environment.
fn python_folders(environment: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(environment.join("lib")).into_iter().flatten().flatten();
    let pythons = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("python"));
    let packages = ["nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib"];
    pythons
        .flat_map(|python| packages.map(|package| python.path().join("site-packages").join(package)))
        .collect()
}

impl Nvrtc {
    fn load(folder: Option<&Path>, path: &Path) -> Result<Nvrtc, String> {
        // Some builds do not find their builtins in their own folder, and then no kernel compiles: so those are loaded first.
        for builtins in folder.map(builtins).unwrap_or_default() {
            // SAFETY: a library of data and functions without a start of its own. If it cannot be loaded, a compile says so.
            if let Ok(library) = unsafe { Library::new(builtins) } {
                std::mem::forget(library);
            }
        }
        // SAFETY: what runs when it is loaded is NVIDIA's.
        let library = unsafe { Library::new(path) }.map_err(|e| e.to_string())?;
        // Never unloaded: its functions are kept.
        let library: &'static Library = Box::leak(Box::new(library));
        // SAFETY: the types are those of NVRTC's header, whose functions never change.
        unsafe {
            let version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int =
                *symbol(library, "nvrtcVersion")?;
            let n_archs: unsafe extern "C" fn(*mut c_int) -> c_int =
                *symbol(library, "nvrtcGetNumSupportedArchs")?;
            let archs: unsafe extern "C" fn(*mut c_int) -> c_int =
                *symbol(library, "nvrtcGetSupportedArchs")?;
            let (mut major, mut minor, mut n) = (0, 0, 0);
            if version(&raw mut major, &raw mut minor) != 0 || n_archs(&raw mut n) != 0 {
                return Err("it does not tell its version".into());
            }
            let mut list = vec![0; n.max(0) as usize];
            if archs(list.as_mut_ptr()) != 0 {
                return Err("it does not tell what it compiles for".into());
            }
            Ok(Nvrtc {
                version: (major, minor),
                path: path.display().to_string(),
                archs: list,
                create: *symbol(library, "nvrtcCreateProgram")?,
                destroy: *symbol(library, "nvrtcDestroyProgram")?,
                compile: *symbol(library, "nvrtcCompileProgram")?,
                cubin_size: *symbol(library, "nvrtcGetCUBINSize")?,
                cubin: *symbol(library, "nvrtcGetCUBIN")?,
                log_size: *symbol(library, "nvrtcGetProgramLogSize")?,
                log: *symbol(library, "nvrtcGetProgramLog")?,
                error: *symbol(library, "nvrtcGetErrorString")?,
            })
        }
    }

    /// Compiles a text to a cubin; `headers` are what it may include, names and texts. If that fails, what the compiler says is in the error.
    pub(crate) fn compile(
        &self,
        name: &str,
        source: &str,
        headers: &[(&str, &str)],
        options: &[String],
    ) -> Result<Compiled, String> {
        let c_string = |text: &str| CString::new(text).map_err(|_| format!("{name} has a zero byte"));
        let c_strings = |texts: Vec<&str>| texts.into_iter().map(c_string).collect::<Result<Vec<_>, _>>();
        let pointers = |texts: &[CString]| texts.iter().map(|text| text.as_ptr()).collect::<Vec<_>>();
        let (source, title) = (c_string(source)?, c_string(name)?);
        let header_names = c_strings(headers.iter().map(|(name, _)| *name).collect())?;
        let header_texts = c_strings(headers.iter().map(|(_, text)| *text).collect())?;
        let options = c_strings(options.iter().map(String::as_str).collect())?;
        let mut program = Compiling { nvrtc: self, raw: std::ptr::null_mut() };
        let (names, texts) = (pointers(&header_names), pointers(&header_texts));
        // SAFETY: all strings end with a zero and outlive the program; there are as many names and texts as it is told.
        let code = unsafe {
            (self.create)(
                &raw mut program.raw,
                source.as_ptr(),
                title.as_ptr(),
                headers.len() as c_int,
                texts.as_ptr(),
                names.as_ptr(),
            )
        };
        self.check(code)?;
        let options = pointers(&options);
        // SAFETY: as above.
        let code = unsafe { (self.compile)(program.raw, options.len() as c_int, options.as_ptr()) };
        let log = program.bytes(self.log_size, self.log)?;
        let log = String::from_utf8_lossy(&log);
        let log = log.trim_end_matches(['\0', '\n']);
        if code != 0 {
            let error = self.check(code).err().unwrap_or_default();
            return Err(if log.is_empty() { error } else { format!("{error}\n{log}") });
        }
        Ok(Compiled { cubin: program.bytes(self.cubin_size, self.cubin)?, log: log.to_owned() })
    }

    fn check(&self, code: c_int) -> Result<(), String> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: the text is the library's own, ends with a zero and lives for ever.
        let text = unsafe { CStr::from_ptr((self.error)(code)) };
        Err(text.to_string_lossy().into_owned())
    }
}

/// What a text became.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) cubin: Vec<u8>,
    /// What the compiler and its assembler had to say.
    #[cfg_attr(not(test), expect(dead_code, reason = "the tests look for what slows kernels down"))]
    pub(crate) log: String,
}

/// A program, destroyed when it is dropped.
struct Compiling<'a> {
    nvrtc: &'a Nvrtc,
    raw: Program,
}

impl Compiling<'_> {
    fn bytes(
        &self,
        size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
        get: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    ) -> Result<Vec<u8>, String> {
        let mut n = 0;
        // SAFETY: the program is not destroyed; `n` is written.
        self.nvrtc.check(unsafe { size(self.raw, &raw mut n) })?;
        let mut bytes = vec![0u8; n];
        // SAFETY: as many bytes are written as it said.
        self.nvrtc.check(unsafe { get(self.raw, bytes.as_mut_ptr().cast()) })?;
        Ok(bytes)
    }
}

impl Drop for Compiling<'_> {
    fn drop(&mut self) {
        if !self.raw.is_null() {
            // SAFETY: it was created and is not used again.
            unsafe { (self.nvrtc.destroy)(&raw mut self.raw) };
        }
    }
}

/// The libraries of builtins in a folder.
fn builtins(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let is_it = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.contains("nvrtc-builtins") && !name.contains(".alt.") && !name.ends_with(".a")
    };
    entries.map(|entry| entry.path()).filter(is_it).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_compiler_is_named_and_where_to_get_it() {
        if let Err(problem) = nvrtc(13) {
            let name = library_name(13);
            assert!(
                problem.contains(&name) && problem.contains("pip install nvidia-cuda-nvrtc"),
                "{problem}"
            );
        }
    }
}
