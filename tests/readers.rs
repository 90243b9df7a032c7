//! Every reader against hostile bytes: the corpus of the fuzzers in `tests/fuzz`, and
//! mutations of it that are the same in every run.
//!
//! `GPUCNN_TEST_MUTATIONS` asks for more a target, `GPUCNN_TEST_SEED` for others,
//! `GPUCNN_TEST_TARGET` for one target.

#[path = "fuzz/targets.rs"]
mod targets;

use gpucnn::ops::Draw;
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use targets::{TARGETS, Target};

/// Counts what the readers take.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn taken(bytes: usize) {
    let now = NOW.fetch_add(bytes, Ordering::Relaxed) + bytes;
    MOST.fetch_max(now, Ordering::Relaxed);
}

// SAFETY: every call is passed on to the system's allocator as it came; counting touches
// nothing but two numbers.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: the caller keeps the promises of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: the caller keeps the promises of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        taken(size);
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the promises of `realloc`.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the promises of `dealloc`.
        unsafe { System.dealloc(block, layout) }
    }
}

/// What a reader may take for so many bytes of input. Compressed files grow a thousandfold at
/// most; the constant part is for decoders' tables and for threads.
fn allowance(input: usize) -> usize {
    (64 << 20) + 4096 * input
}

fn number(variable: &str, default: u64) -> u64 {
    let asked = std::env::var(variable).ok();
    asked.map_or(default, |text| text.parse().unwrap())
}

/// The files of a target's corpus, sorted by name.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    let entries = std::fs::read_dir(folder.join(target)).unwrap();
    let mut paths: Vec<_> = entries.map(|e| e.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|p| std::fs::read(p).unwrap()).collect()
}

/// Numbers that headers get wrong.
const ODD: [u64; 12] = [
    0,
    1,
    2,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 40,
    i64::MAX as u64,
    u64::MAX,
];

/// One change: a bit, a number in binary or in digits, a piece left out, doubled or of
/// another file, an end.
fn mutate(draw: &mut Draw, bytes: &mut Vec<u8>, others: &[Vec<u8>]) {
    if bytes.is_empty() {
        bytes.push(draw.int(0, 255) as u8);
    }
    let at = draw.int(0, bytes.len() - 1);
    let end = (at + draw.int(1, 16)).min(bytes.len());
    match draw.int(0, 8) {
        0 => bytes[at] ^= 1 << draw.int(0, 7),
        1 => bytes[at] = draw.int(0, 255) as u8,
        2 | 3 => {
            let (odd, width) = (draw.pick(&ODD), draw.pick(&[1, 2, 4, 8]));
            let (big, little) = (odd.to_be_bytes(), odd.to_le_bytes());
            let number = if draw.coin() {
                &big[8 - width..]
            } else {
                &little[..width]
            };
            let width = width.min(bytes.len() - at);
            bytes[at..at + width].copy_from_slice(&number[..width]);
        }
        4 => {
            // The digits around the place give way to others.
            let digit = |b: &u8| b.is_ascii_digit();
            let Some(from) = bytes[at..].iter().position(digit).map(|i| at + i) else {
                return;
            };
            let to = bytes[from..].iter().position(|b| !digit(b));
            let to = to.map_or(bytes.len(), |i| from + i);
            let odd = draw.pick(&ODD).to_string();
            bytes.splice(from..to, odd.into_bytes());
        }
        5 => drop(bytes.drain(at..end)),
        6 => {
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
        7 => {
            let other = draw.pick(others);
            let from = draw.int(0, other.len());
            let to = (from + draw.int(0, 64)).min(other.len());
            bytes.splice(at..end, other[from..to].iter().copied());
        }
        _ => bytes.truncate(at),
    }
}

/// Runs a target; tells what made it fail, so that it can be added to the corpus.
fn feed((name, read): Target, bytes: &[u8]) {
    let before = NOW.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let outcome = std::panic::catch_unwind(|| read(bytes));
    let took = MOST.load(Ordering::Relaxed).saturating_sub(before);
    if outcome.is_ok() && took <= allowance(bytes.len()) {
        return;
    }
    let path = std::env::temp_dir().join(format!("gpucnn-fuzz-{name}"));
    std::fs::write(&path, bytes).unwrap();
    panic!(
        "{name}: {} bytes, kept in {}, {}",
        bytes.len(),
        path.display(),
        match outcome {
            Ok(()) => format!("took {took} bytes of memory"),
            Err(_) => "made it panic".into(),
        }
    );
}

#[test]
fn no_bytes_upset_a_reader() {
    let only = std::env::var("GPUCNN_TEST_TARGET").ok();
    let mutations = number("GPUCNN_TEST_MUTATIONS", 500);
    for target in TARGETS {
        let (name, _) = *target;
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let corpus = corpus(name);
        assert!(!corpus.is_empty(), "{name} has no corpus");
        corpus.iter().for_each(|bytes| feed(*target, bytes));
        let mut draw = Draw::new(number("GPUCNN_TEST_SEED", 1));
        for _ in 0..mutations {
            let mut bytes = draw.pick(&corpus);
            for _ in 0..draw.int(1, 5) {
                mutate(&mut draw, &mut bytes, &corpus);
            }
            feed(*target, &bytes);
        }
        eprintln!("{name}: {} files, {mutations} mutations", corpus.len());
    }
}
