//! Downloading data sets from their homes.

mod download;
mod sources;
#[cfg(test)]
mod tests;
mod unpack;

use crate::error::{Error, Result};
use crate::formats::atomic;
use download::Download;
use sources::{Content, SOURCES, Source};
use std::path::{Path, PathBuf};

/// What is to be fetched.
pub struct Fetch<'a> {
    /// One of [`names`].
    pub name: &'a str,
    /// The folder that holds data sets; the set gets a folder of its own in it.
    pub datasets: &'a Path,
    /// Another server that has the files, `http://mirror/mnist/`; the checksums stay.
    pub url: Option<&'a str>,
    /// Called with a file's name, the bytes that are there and the bytes in all.
    pub progress: &'a dyn Fn(&str, u64, u64),
}

/// The data sets that can be fetched.
pub fn names() -> impl Iterator<Item = &'static str> {
    SOURCES.iter().map(|s| s.name)
}

impl Fetch<'_> {
    /// Downloads what is missing, going on where an earlier try stopped, checks it, unpacks
    /// it, and returns the set's folder.
    ///
    /// # Errors
    /// If the name is unknown, the server cannot be reached or sends something else, or the
    /// files cannot be written.
    pub fn run(&self) -> Result<PathBuf> {
        let source = SOURCES
            .iter()
            .find(|s| s.name == self.name)
            .ok_or_else(|| {
                let known: Vec<_> = names().collect();
                Error::Usage(format!(
                    "unknown data set {:?}; expected one of {}",
                    self.name,
                    known.join(", ")
                ))
            })?;
        self.get(source)
    }

    fn get(&self, source: &Source) -> Result<PathBuf> {
        let dir = self.datasets.join(source.name);
        std::fs::create_dir_all(&dir).map_err(|e| Error::io(&dir, "create", e))?;
        if unpack::is_done(source, &dir) {
            return Ok(dir);
        }
        for file in source.files {
            self.file(source, file, &dir)?;
        }
        unpack::run(source, &dir)?;
        if let Some(classes) = source.classes {
            let text = classes.join("\n") + "\n";
            atomic::write(&dir.join("classes.txt"), |w| w.write_all(text.as_bytes()))?;
        }
        Ok(dir)
    }

    fn file(&self, source: &Source, file: &sources::Remote, dir: &Path) -> Result<()> {
        let target = dir.join(file.name);
        if target.is_file() {
            if download::sha256(&target)? == file.sha256 {
                return Ok(());
            }
            let problem = "is there already and is another file than the data set's; move it away";
            return Err(Error::data(target, problem));
        }
        let base = self.url.unwrap_or(source.base);
        let slash = if base.ends_with('/') { "" } else { "/" };
        let url = format!("{base}{slash}{}", file.name);
        let download = Download {
            url: &url,
            target: &target,
            size: file.size,
            sha256: file.sha256,
        };
        let secure = !base.starts_with("http://");
        let progress = |have| (self.progress)(file.name, have, file.size);
        download.run(&download::agent(secure), &progress)
    }
}

/// Whether a set's archive was only a means.
fn is_archive(source: &Source) -> bool {
    !matches!(source.content, Content::Plain)
}
