//! `sopin copy-library`: puts `libsopin.so` into a directory that other programs see, for
//! instance a volume of a container. An image that consists of the command and the library has
//! no `cp`.
//!
//! The command never believes or writes to a file that it finds in the directory. A user who may
//! write there may have put a file, a link or a FIFO of this name, and processes may map an older library. So
//! the copy is a new file under a random name, complete and on the disk before it gets its name
//! by rename(2), which replaces a name and follows no link.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::process::geteuid;
use sopin_core::LIBRARY;

use crate::exit::{Exit, Failure};
use crate::library::Library;

/// Copy libsopin.so into a directory
///
/// This is for containers that share a volume: an init container runs it, and the application's
/// container sets LD_PRELOAD to the copy. The copy is DIRECTORY/libsopin.so, has mode 0755 and
/// appears whole or not at all. It replaces what had that name, also a link; processes that map
/// an older copy keep theirs.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Exit status:
  0    the copy is there
  2    the command line was not understood
  125  the library was not found, or could not be copied

Example:
  sopin copy-library --make-store store /volume
")]
pub struct CopyLibraryArgs {
    /// Also make the directory NAME in DIRECTORY, as a store for programs of this user
    ///
    /// It has mode 0700. Mount it by itself (Kubernetes: subPath): the library uses no store
    /// below a directory in which every user can make one, as a volume often is.
    #[arg(long, value_name = "NAME", value_parser = name)]
    make_store: Option<String>,

    /// Where the copy is put; it must exist
    directory: PathBuf,
}

/// Reads a file name: one that leads to no other directory.
fn name(text: &str) -> Result<String, String> {
    let is_name = !matches!(text, "" | "." | ".." | LIBRARY) && !text.contains('/');
    if is_name { Ok(text.to_owned()) } else { Err("it must be the name of a directory in DIRECTORY".to_owned()) }
}

/// Copies the library, and makes the store if one is asked for.
///
/// # Errors
/// When there is no library, or the directory cannot be written to.
pub fn copy_library(arguments: &CopyLibraryArgs) -> Result<Exit, Failure> {
    let library = Library::find()?;
    // Other bytes in LD_PRELOAD would make the loader print a line for every program.
    library.elf()?;
    let failure = |path: &Path, error: io::Error| Failure::new(Exit::Failed, path.display(), error);
    let bytes = fs::read(library.path()).map_err(|error| failure(library.path(), error))?;
    let copy = arguments.directory.join(LIBRARY);
    publish(&bytes, &arguments.directory, &copy).map_err(|error| failure(&copy, error))?;
    if let Some(name) = &arguments.make_store {
        let store = arguments.directory.join(name);
        make_store(&store).map_err(|error| failure(&store, error))?;
    }
    Ok(Exit::Success)
}

/// Writes a file to the disk, and then gives it its name.
fn publish(bytes: &[u8], directory: &Path, name: &Path) -> io::Result<()> {
    // This error names the directory, and not a random name in it.
    let opened = File::open(directory)?;
    let mut file = tempfile::Builder::new().prefix(".libsopin.so-").tempfile_in(directory)?;
    file.write_all(bytes)?;
    // The mode does not depend on the umask.
    file.as_file().set_permissions(Permissions::from_mode(0o755))?;
    file.as_file().sync_all()?;
    file.persist(name).map_err(|error| error.error)?;
    opened.sync_all()
}

/// Makes a directory for this user alone, or makes an older one that.
fn make_store(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        // A container that is started again finds its own.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let store = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    if store.metadata()?.uid() != geteuid().as_raw() {
        return Err(io::Error::other("it belongs to another user"));
    }
    store.set_permissions(Permissions::from_mode(0o700))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_named_by_one_name() {
        assert_eq!(name("store"), Ok("store".to_owned()));
        for other in ["", ".", "..", "a/b", "/store", "libsopin.so"] {
            assert!(name(other).is_err(), "{other}");
        }
    }
}
