//! Taking a data set's files out of its archive. Only files of known names are taken, under
//! their last name alone: an archive can write nowhere else.

use super::is_archive;
use super::sources::{Content, Source};
use crate::data::emnist;
use crate::error::{Error, Result};
use crate::formats::atomic;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// Whether all that the archive holds is there.
pub(super) fn is_done(source: &Source, dir: &Path) -> bool {
    is_archive(source) && targets(source, dir).iter().all(|(_, path)| path.is_file())
}

/// The files of an archive by their last names, and where they go.
fn targets(source: &Source, dir: &Path) -> Vec<(String, PathBuf)> {
    match source.content {
        Content::Plain => Vec::new(),
        Content::TarGz(names) => {
            let target = |name: &&str| ((*name).to_owned(), dir.join(name));
            names.iter().map(target).collect()
        }
        Content::EmnistZip => {
            let mut targets = Vec::new();
            for part in emnist::PARTS {
                for half in ["train", "test"] {
                    for kind in ["images-idx3", "labels-idx1"] {
                        let name = format!("emnist-{part}-{half}-{kind}-ubyte.gz");
                        let path = dir.join(part).join(&name);
                        targets.push((name, path));
                    }
                }
            }
            targets
        }
    }
}

/// Unpacks a set's archive and removes it.
pub(super) fn run(source: &Source, dir: &Path) -> Result<()> {
    if !is_archive(source) {
        return Ok(());
    }
    let targets = targets(source, dir);
    for file in source.files {
        let archive = dir.join(file.name);
        let opened = File::open(&archive).map_err(|e| Error::io(&archive, "read", e))?;
        let reader = BufReader::new(opened);
        match source.content {
            Content::EmnistZip => zip(reader, &targets),
            _ => tar_gz(reader, &targets),
        }
        .map_err(|problem| match problem {
            Problem::Archive(text) => Error::data(&archive, format!("cannot be unpacked: {text}")),
            Problem::Write(error) => error,
        })?;
        if let Some((name, _)) = targets.iter().find(|(_, path)| !path.is_file()) {
            return Err(Error::data(archive, format!("holds no {name}")));
        }
        std::fs::remove_file(&archive).map_err(|e| Error::io(&archive, "remove", e))?;
    }
    Ok(())
}

/// What went wrong with an archive.
enum Problem {
    Archive(String),
    Write(Error),
}

fn archive(error: impl std::fmt::Display) -> Problem {
    Problem::Archive(error.to_string())
}

fn target<'a>(path: &Path, targets: &'a [(String, PathBuf)]) -> Option<&'a Path> {
    let name = path.file_name()?.to_str()?;
    let found = targets.iter().find(|(known, _)| known == name);
    found.map(|(_, path)| path.as_path())
}

fn save(mut member: impl Read, path: &Path) -> Result<(), Problem> {
    if let Some(folder) = path.parent() {
        atomic::create_folder(folder).map_err(Problem::Write)?;
    }
    let copy = |writer: &mut dyn std::io::Write| std::io::copy(&mut member, writer).map(drop);
    atomic::write(path, copy).map_err(Problem::Write)
}

fn tar_gz(reader: impl Read, targets: &[(String, PathBuf)]) -> Result<(), Problem> {
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(reader));
    for entry in tar.entries().map_err(archive)? {
        let entry = entry.map_err(archive)?;
        let path = entry.path().map_err(archive)?.into_owned();
        if let Some(target) = target(&path, targets)
            && entry.header().entry_type().is_file()
        {
            save(entry, target)?;
        }
    }
    Ok(())
}

fn zip(reader: impl Read + std::io::Seek, targets: &[(String, PathBuf)]) -> Result<(), Problem> {
    let mut zip = zip::ZipArchive::new(reader).map_err(archive)?;
    for index in 0..zip.len() {
        let member = zip.by_index(index).map_err(archive)?;
        let path = PathBuf::from(member.name().map_err(archive)?.into_owned());
        if let Some(target) = target(&path, targets)
            && member.is_file()
        {
            save(member, target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::fetch::sources::SOURCES;
    use std::io::Write;

    #[test]
    fn an_archive_writes_its_known_files_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let source = SOURCES.iter().find(|s| s.name == "cifar10").unwrap();
        let set = dir.path().join("cifar10");
        std::fs::create_dir(&set).unwrap();
        let names = targets(source, &set);
        let mut tar = tar::Builder::new(Vec::new());
        let mut add = |path: &str, data: &[u8]| {
            let mut header = tar::Header::new_gnu();
            // The crate itself would refuse such a path.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_size(data.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            tar.append(&header, data).unwrap();
        };
        add("../outside.bin", b"evil");
        for (name, _) in &names {
            add(&format!("../../elsewhere/{name}"), name.as_bytes());
        }
        let tar = tar.into_inner().unwrap();
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&tar).unwrap();
        let archive = set.join(source.files[0].name);
        std::fs::write(&archive, gz.finish().unwrap()).unwrap();
        assert!(!is_done(source, &set));
        run(source, &set).unwrap();
        assert!(is_done(source, &set) && !archive.exists());
        for (name, path) in names {
            assert_eq!(std::fs::read(path).unwrap(), name.as_bytes());
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(std::fs::read_dir(&set).unwrap().count(), 7);
    }
}
