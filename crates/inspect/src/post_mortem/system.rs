//! The files of the system on which a process has died: the root directory `/`, or a copy of it
//! below another directory, and the directories that hold files by build-id. A core dump names the
//! files, so every name is hostile: nothing but regular files is opened, and nothing outside the
//! copy.

use std::fmt::Write as _;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{self, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::descriptors;

/// The directory in which distributions install separate debugging information.
const DEBUG: &str = "/usr/lib/debug";
/// Longest build-id that is looked up, in bytes; linkers make 8 to 20.
const MAX_BUILD_ID: usize = 64;

/// Files that are looked up by their path or their build-id.
pub struct System {
    root: OwnedFd,
    /// The root directory is this process's own.
    is_own: bool,
    debug: Vec<OwnedFd>,
}

impl System {
    /// Takes a directory that stands for the root directory, or this process's own, and more
    /// directories with `.build-id/`.
    ///
    /// # Errors
    /// The directory that cannot be opened, and the error.
    pub fn new<'a>(sysroot: Option<&'a Path>, debug: &[&'a Path]) -> Result<Self, (&'a Path, Errno)> {
        let open = |path: &'a Path| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            fs::open(path, flags, Mode::empty()).map_err(|errno| (path, errno))
        };
        let root = open(sysroot.unwrap_or(Path::new("/")))?;
        let debug = debug.iter().map(|path| open(path)).collect::<Result<_, _>>()?;
        Ok(Self { root, is_own: sysroot.is_none(), debug })
    }

    /// Returns whether files are looked up below a directory that stands for the root directory.
    pub fn is_copy(&self) -> bool {
        !self.is_own
    }

    /// Opens the file at an absolute path.
    ///
    /// # Errors
    /// Those of `openat2(2)`; `ENODEV` for what is no regular file, which is not opened, because
    /// that may have an effect.
    pub fn open(&self, path: &[u8]) -> Result<File, Errno> {
        let below = path.strip_prefix(b"/").ok_or(Errno::NOENT)?;
        open_below(&self.root, below, ResolveFlags::IN_ROOT, self.is_own)
    }

    /// Opens the separate debugging information of a build-id.
    pub fn debug_file(&self, build_id: &[u8]) -> Option<File> {
        self.by_build_id(build_id, ".debug")
    }

    /// Opens the object itself by its build-id, where a directory has it.
    pub fn object(&self, build_id: &[u8]) -> Option<File> {
        self.by_build_id(build_id, "")
    }

    fn by_build_id(&self, build_id: &[u8], ending: &str) -> Option<File> {
        let (first, rest) = build_id.split_first()?;
        if rest.is_empty() || rest.len() > MAX_BUILD_ID {
            return None;
        }
        let mut name = format!(".build-id/{first:02x}/");
        for byte in rest {
            let _ = write!(name, "{byte:02x}");
        }
        name.push_str(ending);
        // The user has named these directories, and links in them lead to objects elsewhere.
        let given = || {
            let mut all = self.debug.iter();
            all.find_map(|debug| open_below(debug, name.as_bytes(), ResolveFlags::empty(), true).ok())
        };
        given().or_else(|| self.open(format!("{DEBUG}/{name}").as_bytes()).ok())
    }
}

/// Opens a regular file for reading. Where the kernel has no `openat2` (before Linux 5.6), a path is
/// resolved only if it `may_leave` the directory.
fn open_below(directory: &OwnedFd, path: &[u8], resolve: ResolveFlags, may_leave: bool) -> Result<File, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let file = match fs::openat2(directory, path, flags, Mode::empty(), resolve | ResolveFlags::NO_MAGICLINKS) {
        Err(Errno::NOSYS) if may_leave => fs::openat(directory, path, flags, Mode::empty()),
        result => result,
    }?;
    if FileType::from_raw_mode(fs::fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(Errno::NODEV);
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(fs::open(descriptors::path_of(file.as_raw_fd()), flags, Mode::empty())?.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::fs::symlink;

    #[test]
    fn nothing_outside_the_copy_is_opened() {
        let root = std::env::temp_dir().join(format!("sopin-system-{}", std::process::id()));
        std::fs::create_dir_all(root.join("usr/lib")).unwrap();
        std::fs::write(root.join("usr/lib/libx.so"), "inside").unwrap();
        symlink("/usr/lib", root.join("lib")).unwrap();
        symlink("../../../../../../../../etc/passwd", root.join("usr/lib/out.so")).unwrap();
        symlink("/proc/self/exe", root.join("magic")).unwrap();
        let system = System::new(Some(&root), &[]).unwrap();
        let text = |path: &str| {
            let mut text = String::new();
            system.open(path.as_bytes()).map(|mut file| file.read_to_string(&mut text).map(|_| text).unwrap())
        };
        assert_eq!(text("/lib/libx.so").as_deref(), Ok("inside"), "a link's root is the copy's");
        assert_eq!(text("/lib/out.so"), Err(Errno::NOENT));
        assert_eq!(text("/../../etc/passwd"), Err(Errno::NOENT));
        assert_eq!(text("/usr/lib"), Err(Errno::NODEV));
        assert!(text("/magic").is_err() && text("relative").is_err());
        std::fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn files_are_found_by_build_id() {
        let root = std::env::temp_dir().join(format!("sopin-build-id-{}", std::process::id()));
        let directory = root.join(".build-id/ab");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("cdef.debug"), "").unwrap();
        let system = System::new(None, &[&root]).unwrap();
        assert!(system.debug_file(&[0xab, 0xcd, 0xef]).is_some() && system.object(&[0xab, 0xcd, 0xef]).is_none());
        assert!(system.debug_file(&[0xab]).is_none() && system.debug_file(&[]).is_none());
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(System::new(Some(&root), &[]).err().map(|(_, errno)| errno), Some(Errno::NOENT));
    }
}
