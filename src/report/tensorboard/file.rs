//! Event files: records framed as in TFRecord files.

use super::proto::{Event, What};
use crate::error::{Error, Result};
use prost::Message;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The version of the format that all files of TensorFlow 2 and PyTorch have.
const VERSION: &str = "brain.Event:2";

/// An event file under way. What is written is on the file system at once, whole records at a
/// time, so that TensorBoard can follow.
pub(super) struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// Begins a new file in a folder, after all that are there: TensorBoard reads them in the
    /// order of their names.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn create(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, "create", e))?;
        let seconds = now() as u64;
        for number in 0u32.. {
            let name = format!("events.out.tfevents.{seconds:010}.gpucnn.{number:04}");
            let path = folder.join(name);
            match File::create_new(&path) {
                Ok(file) => {
                    let mut events = Self { path, file };
                    events.write([(0, What::FileVersion(VERSION.into()))])?;
                    return Ok(events);
                }
                // Two runs began in one second.
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(Error::io(&path, "create", e)),
            }
        }
        Err(Error::data(folder, "is full of event files"))
    }

    /// Appends events, each with its step.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write(&mut self, events: impl IntoIterator<Item = (i64, What)>) -> Result<()> {
        let mut bytes = Vec::new();
        for (step, what) in events {
            let event = Event {
                wall_time: now(),
                step,
                what: Some(what),
            };
            bytes.extend(record(&event.encode_to_vec()));
        }
        let written = self.file.write_all(&bytes);
        written.map_err(|e| Error::io(&self.path, "write", e))
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0.0, |d| d.as_secs_f64())
}

/// A record: its length, the length's checksum, the data and the data's checksum.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let checks = [&length, data].map(|bytes| masked(crc32c::crc32c(bytes)).to_le_bytes());
    [&length, &checks[0][..], data, &checks[1]].concat()
}

/// TFRecord's mask: a checksum of data that holds checksums should not look like theirs.
fn masked(checksum: u32) -> u32 {
    checksum.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The events of a file, checked by hand.
    pub(in crate::report::tensorboard) fn read(path: &Path) -> Vec<Event> {
        let bytes = std::fs::read(path).unwrap();
        let mut rest = bytes.as_slice();
        let mut events = Vec::new();
        while !rest.is_empty() {
            let (head, after) = rest.split_at(12);
            let length = u64::from_le_bytes(head[..8].try_into().unwrap()) as usize;
            let (data, after) = after.split_at(length);
            let check = masked(crc32c::crc32c(&head[..8]));
            assert_eq!(head[8..], check.to_le_bytes());
            let (check, after) = after.split_at(4);
            assert_eq!(check, masked(crc32c::crc32c(data)).to_le_bytes());
            events.push(Event::decode(data).unwrap());
            rest = after;
        }
        events
    }

    #[test]
    fn the_first_record_begins_as_in_files_of_tensorflow() {
        // 24 bytes: the time, no step, and the version. So begins every file of TensorFlow 2.
        let event = Event {
            wall_time: 1.5,
            step: 0,
            what: Some(What::FileVersion(VERSION.into())),
        };
        let bytes = record(&event.encode_to_vec());
        assert_eq!(bytes[..12], *b"\x18\0\0\0\0\0\0\0\xa3\x7fK\"");
        assert_eq!(bytes[12], 0x09, "wall_time, a double");
        assert_eq!(bytes[21..36], *b"\x1a\rbrain.Event:2");
        assert_eq!(bytes.len(), 12 + 24 + 4);
    }

    #[test]
    fn files_of_one_second_follow_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let mut files: Vec<_> = (0..3)
            .map(|_| EventFile::create(dir.path()).unwrap().path)
            .collect();
        let made = files.clone();
        files.sort();
        files.dedup();
        assert_eq!(files, made);
    }
}
