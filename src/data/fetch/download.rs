//! One file over HTTP: resumed where it stopped, checked, and then renamed.

use crate::error::{Error, Result};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A file to get.
pub(super) struct Download<'a> {
    pub url: &'a str,
    pub target: &'a Path,
    pub size: u64,
    pub sha256: &'a str,
}

/// Tries in a row that bring nothing new.
const TRIES: u32 = 3;

/// What one request came to.
enum Outcome {
    Whole,
    /// The connection ended early; the reason.
    Cut(String),
}

/// An agent; `secure` refuses to leave HTTPS.
pub(super) fn agent(secure: bool) -> ureq::Agent {
    ureq::Agent::config_builder()
        .https_only(secure)
        .http_status_as_error(false)
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .user_agent(concat!("gpucnn/", env!("CARGO_PKG_VERSION")))
        .max_redirects(5)
        .build()
        .into()
}

impl Download<'_> {
    /// Where the bytes lie until all are there.
    fn part(&self) -> PathBuf {
        self.beside(".part")
    }

    /// Where the server's name for this version of the file lies meanwhile.
    fn tag(&self) -> PathBuf {
        self.beside(".part.etag")
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.target.as_os_str().to_owned();
        name.push(suffix);
        name.into()
    }

    /// Gets the file, calling `progress` with the bytes that are there.
    pub(super) fn run(&self, agent: &ureq::Agent, progress: &dyn Fn(u64)) -> Result<()> {
        let mut before = None;
        let mut tries = 0;
        loop {
            let outcome = self.request(agent, progress)?;
            let Outcome::Cut(reason) = outcome else {
                break;
            };
            let have = self.have();
            tries = if before == Some(have) { tries + 1 } else { 1 };
            before = Some(have);
            if tries >= TRIES {
                return Err(self.fail(format!(
                    "{reason}, after {have} of {} bytes; run it again to go on from there",
                    self.size
                )));
            }
            std::thread::sleep(Duration::from_millis(200 << tries));
        }
        self.check()
    }

    fn fail(&self, problem: impl std::fmt::Display) -> Error {
        Error::Runtime(format!("{}: {problem}", self.url))
    }

    /// Bytes that are there.
    fn have(&self) -> u64 {
        std::fs::metadata(self.part()).map_or(0, |m| m.len())
    }

    fn request(&self, agent: &ureq::Agent, progress: &dyn Fn(u64)) -> Result<Outcome> {
        let have = self.have();
        if have == self.size {
            return Ok(Outcome::Whole);
        }
        let mut request = agent.get(self.url);
        if have > self.size {
            self.forget()?;
        } else if have > 0 {
            request = request.header("Range", format!("bytes={have}-"));
            // Only if it is still the same file; else the server sends all of it.
            if let Ok(tag) = std::fs::read_to_string(self.tag()) {
                request = request.header("If-Range", tag);
            }
        }
        let mut response = match request.call() {
            Ok(response) => response,
            Err(error @ (ureq::Error::BadUri(_) | ureq::Error::RequireHttpsOnly(_))) => {
                return Err(self.fail(error));
            }
            Err(error) => return Ok(Outcome::Cut(error.to_string())),
        };
        let header = |name: &str| {
            let value = response.headers().get(name).and_then(|v| v.to_str().ok());
            value.map(str::to_owned)
        };
        let start = match response.status().as_u16() {
            200 => 0,
            206 if header("content-range")
                .is_some_and(|r| r.starts_with(&format!("bytes {have}-"))) =>
            {
                have
            }
            // A range that the file does not have: what is there is of another file.
            206 | 416 => {
                self.forget()?;
                return Ok(Outcome::Cut("the server has no such range".into()));
            }
            status @ (500..=599 | 429) => {
                return Ok(Outcome::Cut(format!("the server answers {status}")));
            }
            status => return Err(self.fail(format!("the server answers {status}"))),
        };
        if let Some(tag) = header("etag").filter(|tag| !tag.starts_with("W/")) {
            std::fs::write(self.tag(), tag).map_err(|e| Error::io(self.tag(), "write", e))?;
        }
        self.receive(response.body_mut().as_reader(), start, progress)
    }

    /// Appends what comes to the bytes before `start`.
    fn receive(&self, mut body: impl Read, start: u64, progress: &dyn Fn(u64)) -> Result<Outcome> {
        let part = self.part();
        let fail = |e| Error::io(&part, "write", e);
        let open = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&part);
        let mut file = open.map_err(fail)?;
        file.set_len(start).map_err(fail)?;
        file.seek(SeekFrom::Start(start)).map_err(fail)?;
        let mut have = start;
        let mut buffer = vec![0; 1 << 16];
        loop {
            progress(have);
            let count = match body.read(&mut buffer) {
                Ok(0) if have == self.size => break,
                Ok(0) => return Ok(Outcome::Cut("the connection ended".into())),
                Ok(count) => count,
                Err(error) => return Ok(Outcome::Cut(error.to_string())),
            };
            have += count as u64;
            if have > self.size {
                drop(file);
                self.forget()?;
                let problem = format!("sends more than the {} bytes of this file", self.size);
                return Err(self.fail(problem));
            }
            file.write_all(&buffer[..count]).map_err(fail)?;
        }
        file.sync_all().map_err(fail)?;
        Ok(Outcome::Whole)
    }

    /// Checks the whole file and gives it its name.
    fn check(&self) -> Result<()> {
        let part = self.part();
        let found = sha256(&part)?;
        if found != self.sha256 {
            self.forget()?;
            return Err(self.fail(format!(
                "has SHA-256 {found}, expected {}; it was removed",
                self.sha256
            )));
        }
        std::fs::rename(&part, self.target).map_err(|e| Error::io(self.target, "write", e))?;
        let _ = std::fs::remove_file(self.tag());
        Ok(())
    }

    /// Removes what is there.
    fn forget(&self) -> Result<()> {
        let _ = std::fs::remove_file(self.tag());
        match std::fs::remove_file(self.part()) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(self.part(), "remove", e))
            }
            _ => Ok(()),
        }
    }
}

/// The SHA-256 of a file, in hexadecimal.
pub(super) fn sha256(path: &Path) -> Result<String> {
    let fail = |e| Error::io(path, "read", e);
    let mut file = File::open(path).map_err(fail)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).map_err(fail)? {
            0 => break,
            count => hash.update(&buffer[..count]),
        }
    }
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}
