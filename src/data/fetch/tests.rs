//! Fetching data sets from a server on loopback, which has its moods.

use super::sources::{Content, Remote, Source};
use super::{Fetch, download};
use crate::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// What the server does with the first request for the training images; it answers all
/// others well.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Well,
    /// Ends the connection after so many bytes.
    Cut(usize),
    Missing,
    /// Sends other bytes of the same number, always.
    Wrong,
    /// Sends one byte too many, always.
    Longer,
    /// Sends everyone to another path first.
    Redirect,
    /// Knows no ranges: sends the whole file each time, cut the first time.
    NoRanges(usize),
}

struct Server {
    url: String,
    /// Request lines with the ranges asked for.
    log: Arc<Mutex<Vec<String>>>,
}

const IMAGES: &str = "train-images";
const LABELS: &str = "train-labels";
const SIZE: usize = 400_000;

/// What a file of a name holds.
fn content(name: &str) -> Vec<u8> {
    let factor = name.len() + usize::from(name == IMAGES);
    (0..SIZE).map(|i| (i * i / 7 + factor * i) as u8).collect()
}

/// A set of two such files.
fn source() -> Source {
    let dir = tempfile::tempdir().unwrap();
    let remote = |name: &'static str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content(name)).unwrap();
        Remote {
            name,
            size: SIZE as u64,
            sha256: download::sha256(&path).unwrap().leak(),
        }
    };
    Source {
        name: "mnist",
        base: "https://nowhere.invalid/",
        files: vec![remote(IMAGES), remote(LABELS)].leak(),
        content: Content::Plain,
        classes: Some(&["a", "b"]),
    }
}

impl Server {
    fn start(mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/sets", listener.local_addr().unwrap());
        let log = Arc::new(Mutex::new(Vec::new()));
        let seen = log.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that goes away is part of the tests.
                let _ = answer(&stream.unwrap(), mood, &seen);
            }
        });
        Self { url, log }
    }

    fn asked(&self, what: &str) -> usize {
        let log = self.log.lock().unwrap();
        log.iter().filter(|line| line.contains(what)).count()
    }
}

fn answer(stream: &TcpStream, mood: Mood, log: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().unwrap()?;
    let mut range = None;
    let mut same_version = true;
    for line in lines {
        let line = line?.to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(from) = line.strip_prefix("range: bytes=") {
            range = from.trim_end_matches('-').parse::<usize>().ok();
        }
        if let Some(tag) = line.strip_prefix("if-range: ") {
            same_version = tag == "\"v1\"";
        }
    }
    let path = request.split(' ').nth(1).unwrap().to_owned();
    let name = path.rsplit('/').next().unwrap().to_owned();
    let first = {
        let mut log = log.lock().unwrap();
        log.push(format!("{path} from {range:?}"));
        log.iter().filter(|line| line.starts_with(&path)).count() == 1
    };
    let mut stream = stream;
    let head = |status: &str, more: &str, length: usize| {
        format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\nETag: \"v1\"\r\n{more}Content-Length: {length}\r\n\r\n"
        )
    };
    if mood == Mood::Redirect && path.starts_with("/sets/") {
        let location = format!("Location: /moved/{name}\r\n");
        return stream.write_all(head("302 Found", &location, 0).as_bytes());
    }
    if mood == Mood::Missing {
        return stream.write_all(head("404 Not Found", "", 0).as_bytes());
    }
    let mut bytes = content(&name);
    let images = name == IMAGES;
    match mood {
        Mood::Wrong if images => bytes[77] ^= 1,
        Mood::Longer if images => bytes.push(0),
        _ => {}
    }
    let no_ranges = matches!(mood, Mood::NoRanges(_));
    let start = range.filter(|_| same_version && !no_ranges);
    let (status, more) = match start {
        Some(start) => {
            let last = bytes.len() - 1;
            let range = format!("Content-Range: bytes {start}-{last}/{}\r\n", bytes.len());
            ("206 Partial Content", range)
        }
        None => ("200 OK", String::new()),
    };
    let body = &bytes[start.unwrap_or(0)..];
    stream.write_all(head(status, &more, body.len()).as_bytes())?;
    match mood {
        Mood::Cut(count) | Mood::NoRanges(count) if first && images => {
            stream.write_all(&body[..count])
        }
        _ => stream.write_all(body),
    }
}

fn fetch(server: &Server, dir: &Path) -> crate::Result<PathBuf> {
    let fetch = Fetch {
        name: "mnist",
        datasets: dir,
        url: Some(&server.url),
        progress: &|_, have, total| assert!(have <= total),
    };
    fetch.get(&source())
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir.join("mnist")).unwrap();
    let mut names: Vec<String> = entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Nothing but the whole files is left.
fn check_whole(dir: &Path) {
    assert_eq!(names(dir), ["classes.txt", IMAGES, LABELS]);
    for name in [IMAGES, LABELS] {
        let found = std::fs::read(dir.join("mnist").join(name)).unwrap();
        assert!(found == content(name), "{name}");
    }
}

#[test]
fn the_hash_is_sha_256() {
    // The test vector of FIPS 180.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("abc");
    std::fs::write(&path, "abc").unwrap();
    let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(download::sha256(&path).unwrap(), expected);
}

#[test]
fn a_set_arrives_whole_and_is_not_fetched_twice() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Mood::Well);
    fetch(&server, dir.path()).unwrap();
    check_whole(dir.path());
    fetch(&server, dir.path()).unwrap();
    assert_eq!(server.log.lock().unwrap().len(), 2);
}

#[test]
fn a_cut_download_goes_on_where_it_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Mood::Cut(100_000));
    fetch(&server, dir.path()).unwrap();
    assert_eq!(server.asked(&format!("{IMAGES} from Some(100000)")), 1);
    check_whole(dir.path());
}

#[test]
fn what_an_earlier_run_left_is_taken_up_unless_the_file_has_changed() {
    let whole = content(IMAGES);
    for (tag, left) in [("\"v1\"", &whole[..300_000]), ("\"v0\"", &[7; 300_000][..])] {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(Mood::Well);
        std::fs::create_dir(dir.path().join("mnist")).unwrap();
        let part = dir.path().join("mnist").join(format!("{IMAGES}.part"));
        std::fs::write(&part, left).unwrap();
        std::fs::write(part.with_extension("part.etag"), tag).unwrap();
        fetch(&server, dir.path()).unwrap();
        assert_eq!(server.asked("from Some(300000)"), 1);
        check_whole(dir.path());
    }
}

#[test]
fn a_server_without_ranges_sends_it_all_again() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Mood::NoRanges(50_000));
    fetch(&server, dir.path()).unwrap();
    assert_eq!(server.asked(IMAGES), 2);
    check_whole(dir.path());
}

#[test]
fn a_redirect_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Mood::Redirect);
    fetch(&server, dir.path()).unwrap();
    assert_eq!(server.asked("/moved/"), 2);
    check_whole(dir.path());
}

#[test]
fn wrong_files_are_removed_and_named() {
    for (mood, word) in [
        (Mood::Wrong, "SHA-256"),
        (Mood::Longer, "more than the 400000 bytes"),
        (Mood::Missing, "404"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(mood);
        let error = fetch(&server, dir.path()).unwrap_err().to_string();
        assert!(
            error.contains(word) && error.contains(IMAGES),
            "{word}: {error}"
        );
        assert_eq!(names(dir.path()), Vec::<String>::new(), "{word}");
    }
}

#[test]
fn a_server_that_is_gone_and_a_name_that_is_none_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let gone = Server {
        url: format!("http://{free}"),
        log: Arc::default(),
    };
    let error = fetch(&gone, dir.path()).unwrap_err().to_string();
    assert!(error.contains("run it again"), "{error}");
    let unknown = Fetch {
        name: "imagenet",
        datasets: dir.path(),
        url: None,
        progress: &|_, _, _| {},
    };
    let error = unknown.run().unwrap_err();
    assert!(
        matches!(error, Error::Usage(ref text) if text.contains("cifar100")),
        "{error}"
    );
    // A file of the same name that is something else stays.
    std::fs::write(dir.path().join("mnist").join(IMAGES), "mine").unwrap();
    let error = fetch(&gone, dir.path()).unwrap_err().to_string();
    assert!(error.contains("move it away"), "{error}");
}
