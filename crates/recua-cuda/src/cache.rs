//! Compiled kernels on disk: a file each, in the user's folder for such things. Whatever is wrong with the folder or a file, the kernel is
//! compiled instead.

use std::path::{Path, PathBuf};

/// The environment variable that names the folder; empty, nothing is kept.
pub const CACHE_VARIABLE: &str = "RECUA_CACHE_DIR";

/// What a file begins with. Another form of file gets another one.
const MAGIC: &[u8; 8] = b"recuacu1";

/// What a cubin was made from, and for: all that its bytes depend on but the version of the compiler.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint(u128);

impl Fingerprint {
    /// Of texts, in order.
    pub(crate) fn of<'a>(texts: impl IntoIterator<Item = &'a str>) -> Fingerprint {
        let mut hash = Hash::default();
        for text in texts {
            // The lengths keep ("ab", "c") and ("a", "bc") apart.
            hash.add(&(text.len() as u64).to_le_bytes());
            hash.add(text.as_bytes());
        }
        Fingerprint(hash.0)
    }
}

/// FNV-1a of 128 bits: nobody is deceived with files of one's own, so it need only tell them apart.
struct Hash(u128);

impl Default for Hash {
    fn default() -> Hash {
        Hash(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }
}

impl Hash {
    fn add(&mut self, bytes: &[u8]) {
        const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
        for byte in bytes {
            self.0 = (self.0 ^ u128::from(*byte)).wrapping_mul(PRIME);
        }
    }

    fn of(bytes: &[u8]) -> u128 {
        let mut hash = Hash::default();
        hash.add(bytes);
        hash.0
    }
}

/// The folder.
pub(crate) struct Cache {
    folder: Option<PathBuf>,
}

impl Cache {
    /// The user's.
    pub(crate) fn of_user() -> Cache {
        let variable = |name: &str| std::env::var_os(name);
        let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let folder = match variable(CACHE_VARIABLE) {
            Some(folder) if folder.is_empty() => None,
            Some(folder) => Some(folder.into()),
            None if cfg!(windows) => absolute("LOCALAPPDATA").map(|folder| folder.join("recua")),
            None => absolute("XDG_CACHE_HOME")
                .or_else(|| Some(absolute("HOME")?.join(".cache")))
                .map(|folder| folder.join("recua")),
        };
        Cache { folder: folder.map(|folder| folder.join("cuda")) }
    }

    /// One in another folder.
    #[cfg(test)]
    pub(crate) fn at(folder: &Path) -> Cache {
        Cache { folder: Some(folder.into()) }
    }

    /// The cubin that the compiler of this version made; of any version, the newest first, if there is none to ask.
    pub(crate) fn get(&self, of: Fingerprint, compiler: Option<(i32, i32)>) -> Option<Vec<u8>> {
        let folder = self.folder.as_ref()?;
        if let Some(version) = compiler {
            return read(&folder.join(name(of, version)), of);
        }
        let prefix = format!("{:032x}-", of.0);
        let entries = std::fs::read_dir(folder).ok()?.flatten();
        let version = |file: &std::ffi::OsStr| {
            let rest = file.to_str()?.strip_prefix(&prefix)?.strip_suffix(".cubin")?;
            let (major, minor) = rest.split_once('.')?;
            Some((major.parse::<i32>().ok()?, minor.parse::<i32>().ok()?))
        };
        let mut versions: Vec<_> = entries.filter_map(|entry| version(&entry.file_name())).collect();
        versions.sort_unstable();
        versions.into_iter().rev().find_map(|version| read(&folder.join(name(of, version)), of))
    }

    /// Keeps a cubin, if that is possible.
    pub(crate) fn put(&self, of: Fingerprint, compiler: (i32, i32), cubin: &[u8]) {
        let Some(folder) = &self.folder else { return };
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&of.0.to_le_bytes());
        bytes.extend_from_slice(&Hash::of(cubin).to_le_bytes());
        bytes.extend_from_slice(cubin);
        let path = folder.join(name(of, compiler));
        // Another process may write the same file, or read it, so it appears whole.
        let part = folder.join(format!("{}.{}", name(of, compiler), std::process::id()));
        let written = std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&part, &bytes))
            .and_then(|()| std::fs::rename(&part, &path));
        if written.is_err() {
            let _ = std::fs::remove_file(&part);
        }
    }

    /// Forgets a cubin, which the driver does not take.
    pub(crate) fn remove(&self, of: Fingerprint, compiler: (i32, i32)) {
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_file(folder.join(name(of, compiler)));
        }
    }
}

fn name(of: Fingerprint, (major, minor): (i32, i32)) -> String {
    format!("{:032x}-{major}.{minor}.cubin", of.0)
}

/// The cubin of a file; `None` unless it is whole and what it should be.
fn read(path: &Path, of: Fingerprint) -> Option<Vec<u8>> {
    let bytes = std::fs::read(path).ok()?;
    let rest = bytes.strip_prefix(MAGIC)?.strip_prefix(&of.0.to_le_bytes())?;
    let (sum, cubin) = rest.split_first_chunk::<16>()?;
    (u128::from_le_bytes(*sum) == Hash::of(cubin)).then(|| cubin.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("recua-cuda-{name}-{}", std::process::id()))
    }

    #[test]
    fn a_cubin_comes_back_for_the_same_texts_and_compiler() {
        let folder = folder("same");
        let cache = Cache::at(&folder);
        let of = Fingerprint::of(["source", "option"]);
        assert!(cache.get(of, Some((13, 0))).is_none());
        cache.put(of, (13, 0), b"cubin");
        cache.put(of, (12, 8), b"older");
        assert_eq!(cache.get(of, Some((13, 0))).as_deref(), Some(&b"cubin"[..]));
        assert_eq!(cache.get(of, Some((12, 8))).as_deref(), Some(&b"older"[..]));
        assert!(cache.get(of, Some((12, 9))).is_none());
        assert_eq!(cache.get(of, None).as_deref(), Some(&b"cubin"[..]), "without a compiler the newest");
        assert!(cache.get(Fingerprint::of(["sourc", "eoption"]), None).is_none());
        cache.remove(of, (13, 0));
        assert_eq!(cache.get(of, None).as_deref(), Some(&b"older"[..]));
        let files = std::fs::read_dir(&folder).unwrap().count();
        assert_eq!(files, 1, "nothing half-written is left");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_broken_file_is_no_cubin() {
        let folder = folder("broken");
        let cache = Cache::at(&folder);
        let of = Fingerprint::of(["x"]);
        cache.put(of, (13, 0), b"0123456789");
        let path = folder.join(name(of, (13, 0)));
        let whole = std::fs::read(&path).unwrap();
        for broken in [whole[..whole.len() - 1].to_vec(), Vec::new(), whole[..9].to_vec(), {
            let mut bytes = whole.clone();
            bytes[45] ^= 1;
            bytes
        }] {
            std::fs::write(&path, &broken).unwrap();
            assert!(cache.get(of, Some((13, 0))).is_none(), "{} bytes", broken.len());
        }
        // And one of other texts under its name.
        cache.put(Fingerprint::of(["y"]), (13, 0), b"other");
        std::fs::rename(folder.join(name(Fingerprint::of(["y"]), (13, 0))), &path).unwrap();
        assert!(cache.get(of, Some((13, 0))).is_none());
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_no_error() {
        let file = folder("file");
        std::fs::write(&file, b"not a folder").unwrap();
        let cache = Cache::at(&file.join("inside"));
        cache.put(Fingerprint::of(["x"]), (13, 0), b"cubin");
        assert!(cache.get(Fingerprint::of(["x"]), None).is_none());
        std::fs::remove_file(&file).unwrap();
    }
}
