//! Writing files whole: aside, synced, renamed.

use crate::error::{Error, Result};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Writes a file by way of `fill`. Until everything is on the disk the path keeps what it
/// held before; a failure at any point leaves that untouched.
///
/// # Errors
/// [`Error::Io`] that names the file.
pub fn write(path: &Path, fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    let parent = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    let fail = |e| Error::io(path, "write", e);
    let mut aside = tempfile::NamedTempFile::new_in(parent).map_err(fail)?;
    {
        let mut writer = BufWriter::new(aside.as_file_mut());
        fill(&mut writer).map_err(fail)?;
        writer.flush().map_err(fail)?;
    }
    share_like_a_plain_file(aside.as_file()).map_err(fail)?;
    aside.as_file().sync_all().map_err(fail)?;
    aside.persist(path).map_err(|e| fail(e.error))?;
    // The rename is on the disk only once the folder is.
    #[cfg(unix)]
    File::open(parent)
        .and_then(|d| d.sync_all())
        .map_err(fail)?;
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
}
