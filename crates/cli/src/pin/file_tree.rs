//! A file, or a directory with all files below it, and whether a process maps one of them.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sopin_inspect::maps::Mapping;
use walkdir::WalkDir;

/// Inode number and name of a file.
type NamedInode = (u64, Vec<u8>);

/// The file or directory.
pub struct FileTree {
    /// Without symbolic links, as the kernel shows paths of mappings.
    path: PathBuf,
    /// The files of the tree, read when they are needed first.
    inodes: OnceCell<HashSet<NamedInode>>,
}

impl FileTree {
    /// Makes a tree of a path. Returns an error as well if there is no such file: then processes
    /// may still map files that have been removed.
    pub fn new(path: &Path) -> (Self, Option<io::Error>) {
        let (path, error) = match path.canonicalize() {
            Ok(path) => (path, None),
            Err(error) => (std::path::absolute(path).unwrap_or_else(|_| path.to_owned()), Some(error)),
        };
        (Self { path, inodes: OnceCell::new() }, error)
    }

    /// Returns whether an object may be mapped from a file of the tree. The path of a mapping
    /// means nothing here if its process is in another mount namespace: then the inode number
    /// and the name of the file decide. Devices are not compared, because mappings show other
    /// numbers than `stat(2)` on btrfs and overlays; at worst a process too many is pinned.
    pub fn is_mapped_by(&self, mapping: &Mapping, has_own_paths: bool) -> bool {
        if !mapping.has_file() || mapping.is_shared {
            return false;
        }
        let (path, _) = mapping.names();
        if has_own_paths { self.contains(&mapping.path) || self.contains(path) } else { self.has_inode(mapping) }
    }

    fn contains(&self, path: &[u8]) -> bool {
        Path::new(OsStr::from_bytes(path)).starts_with(&self.path)
    }

    fn has_inode(&self, mapping: &Mapping) -> bool {
        let inodes = self.inodes.get_or_init(|| inodes_below(&self.path));
        let name = Path::new(OsStr::from_bytes(mapping.names().0)).file_name().unwrap_or_default();
        inodes.contains(&(mapping.file.inode, name.as_bytes().to_vec()))
    }
}

/// Returns the regular files at or below a path, on its file system only.
fn inodes_below(path: &Path) -> HashSet<NamedInode> {
    let files = WalkDir::new(path).same_file_system(true).into_iter().flatten();
    files
        .filter(|file| file.file_type().is_file())
        .filter_map(|file| {
            let inode = fs::symlink_metadata(file.path()).ok()?.ino();
            Some((inode, file.file_name().as_bytes().to_vec()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sopin_core::vmas::FileId;

    fn mapping(path: &str, inode: u64) -> Mapping {
        Mapping { path: path.as_bytes().to_vec(), file: FileId { device: (8, 1), inode }, ..Mapping::default() }
    }

    #[test]
    fn a_directory_contains_what_is_below_it_and_no_more() {
        let (tree, error) = FileTree::new(Path::new("/no/such/app"));
        assert!(error.is_some());
        for (path, is_below) in [
            ("/no/such/app/lib/liba.so", true),
            ("/no/such/app/liba.so (deleted)", true),
            ("/no/such/app", true),
            ("/no/such/app (deleted)", true),
            ("/no/such/application/liba.so", false),
            ("/no/such", false),
            ("no/such/app/liba.so", false),
        ] {
            assert_eq!(tree.is_mapped_by(&mapping(path, 4711), true), is_below, "{path}");
        }
        let (root, _) = FileTree::new(Path::new("/"));
        assert!(root.is_mapped_by(&mapping("/usr/lib/liba.so", 4711), true));
        assert!(!root.is_mapped_by(&mapping("[heap]", 0), true));
        assert!(!root.is_mapped_by(&Mapping { is_shared: true, ..mapping("/var/data", 4711) }, true));
    }

    #[test]
    fn symbolic_links_lead_to_the_paths_that_the_kernel_shows() {
        let directory = tempfile::tempdir().unwrap();
        let real = directory.path().canonicalize().unwrap();
        fs::create_dir(real.join("release-7")).unwrap();
        std::os::unix::fs::symlink("release-7", real.join("current")).unwrap();
        let (tree, error) = FileTree::new(&real.join("current"));
        assert!(error.is_none());
        assert_eq!(tree.path, real.join("release-7"));
    }

    /// As in a container that has the directory mounted elsewhere.
    #[test]
    fn in_another_mount_namespace_the_file_counts_and_not_its_path() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("lib")).unwrap();
        let file = directory.path().join("lib/liba.so");
        fs::write(&file, "").unwrap();
        let inode = fs::metadata(&file).unwrap().ino();
        let (tree, _) = FileTree::new(directory.path());
        assert!(tree.is_mapped_by(&mapping("/app/lib/liba.so", inode), false));
        assert!(!tree.is_mapped_by(&mapping("/app/lib/libb.so", inode), false));
        assert!(!tree.is_mapped_by(&mapping("/app/lib/liba.so", inode + 1), false));
        let same_path = tree.path.join("lib/libc.so");
        assert!(!tree.is_mapped_by(&mapping(same_path.to_str().unwrap(), 1), false));
    }
}
