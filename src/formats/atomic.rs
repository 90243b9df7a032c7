//! Writing files whole: aside, synced, renamed.

use crate::error::{Error, Result};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// What the names of unfinished files begin with.
const ASIDE: &str = ".gpucnn-";

/// Writes a file by way of `fill`. Until everything is on the disk the path keeps what it
/// held before; a failure at any point leaves that untouched.
///
/// # Errors
/// [`Error::Io`] that names the file.
pub fn write(path: &Path, fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    let parent = parent(path);
    let fail = |e| Error::io(path, "write", e);
    let mut aside = tempfile::Builder::new();
    let mut aside = aside.prefix(ASIDE).tempfile_in(parent).map_err(fail)?;
    {
        let mut writer = BufWriter::new(aside.as_file_mut());
        fill(&mut writer).map_err(fail)?;
        writer.flush().map_err(fail)?;
    }
    share_like_a_plain_file(aside.as_file()).map_err(fail)?;
    aside.as_file().sync_all().map_err(fail)?;
    aside.persist(path).map_err(|e| fail(e.error))?;
    // The rename is on the disk only once the folder is.
    sync_folder(parent).map_err(fail)
}

/// Makes a folder in an existing one, unless it is there.
///
/// # Errors
/// [`Error::Io`] that names it.
pub fn create_folder(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    std::fs::create_dir(path)
        .and_then(|()| sync_folder(parent(path)))
        .map_err(|e| Error::io(path, "create", e))
}

/// Removes what writers that were killed left unfinished in a folder, as far as that is
/// possible.
pub fn sweep(folder: &Path) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries {
        if entry.file_name().to_string_lossy().starts_with(ASIDE)
            && let Err(error) = std::fs::remove_file(entry.path())
        {
            log::warn!("{}: cannot remove: {error}", entry.path().display());
        }
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    }
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> std::io::Result<()> {
    Ok(())
}

/// Temporary files are private; the finished one should have a new file's usual mode.
#[cfg(unix)]
fn share_like_a_plain_file(file: &File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn share_like_a_plain_file(_file: &File) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write(&path, |w| w.write_all(b"old")).unwrap();
        let failed = write(&path, |w| {
            w.write_all(b"half")?;
            Err(std::io::Error::other("disk on fire"))
        });
        assert!(failed.unwrap_err().to_string().contains("disk on fire"));
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
    #[test]
    fn sweeping_takes_the_unfinished_files_alone() {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("file"), |w| w.write_all(b"whole")).unwrap();
        write(&dir.path().join("other"), |w| {
            // As a writer that is killed here leaves it.
            for entry in dir.path().read_dir()?.flatten() {
                if entry.file_name() != "file" {
                    std::fs::copy(entry.path(), entry.path().with_extension("killed"))?;
                }
            }
            w.write_all(b"whole")
        })
        .unwrap();
        assert_eq!(dir.path().read_dir().unwrap().count(), 3);
        sweep(dir.path());
        let names = dir
            .path()
            .read_dir()
            .unwrap()
            .map(|e| e.unwrap().file_name());
        let mut names: Vec<_> = names.collect();
        names.sort();
        assert_eq!(names, ["file", "other"]);
    }
}
