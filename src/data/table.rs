//! Lists of images: CSV files with a path and a label a row.
//!
//! Columns are known by a header (`path` or `image`, `label` or `class`, optionally `split`),
//! or are path and label where there is none. Paths are relative to the file's folder and
//! stay below it.

use super::listing::{self, Decoder, Entry};
use super::{Dataset, Request, some_of};
use crate::error::{Error, Result};
use std::collections::{BTreeSet, HashMap};
use std::path::{Component, Path, PathBuf};

const PATHS: [&str; 7] = [
    "path",
    "image",
    "file",
    "filename",
    "file_name",
    "image_path",
    "filepath",
];
const LABELS: [&str; 5] = ["label", "class", "category", "target", "class_name"];
const SPLITS: [&str; 3] = ["split", "set", "subset"];
const TEST_NAMES: [&str; 4] = ["test", "val", "valid", "validation"];

/// The tables of a folder: `train.csv` and one to test on, or `labels.csv` alone.
pub(super) fn find(dir: &Path) -> Vec<PathBuf> {
    let file = |name: &str| Some(dir.join(format!("{name}.csv"))).filter(|p| p.is_file());
    match file("train") {
        Some(train) => {
            let test = TEST_NAMES.iter().find_map(|name| file(name));
            std::iter::once(train).chain(test).collect()
        }
        None => file("labels").into_iter().collect(),
    }
}

/// One row.
struct Row {
    path: PathBuf,
    label: String,
    test: bool,
}

/// The set that one table holds, or two: the second is to test on.
pub(super) fn load(tables: &[&Path], request: &Request<'_>) -> Result<Dataset> {
    let table = tables[0];
    let mut rows = read(table)?;
    for path in &tables[1..] {
        let more = read(path)?.into_iter();
        rows.extend(more.map(|row| Row { test: true, ..row }));
    }
    let classes = classes(&rows);
    let numbered = classes.iter().enumerate();
    let labels: HashMap<&str, u32> = numbered.map(|(i, c)| (c.as_str(), i as u32)).collect();
    let mut parts: [Vec<Entry>; 2] = [Vec::new(), Vec::new()];
    for row in rows {
        match labels.get(row.label.as_str()) {
            Some(label) => parts[usize::from(row.test)].push((row.path, *label)),
            None => {
                let problem = format!(
                    "class {:?} is not among the training classes ({})",
                    row.label,
                    some_of(&classes)
                );
                return Err(Error::data(tables[tables.len() - 1], problem));
            }
        }
    }
    let [train, test] = parts.map(|entries| listing::in_turn(entries, classes.len()));
    let Some((first, _)) = train.first() else {
        return Err(Error::data(table, "lists no image to train on"));
    };
    let shape = match request.shape {
        Some(shape) => shape,
        None => listing::shape_of(first)?,
    };
    let decoder = Decoder::new(shape, train.len() + test.len(), request);
    Ok(Dataset {
        name: String::new(),
        shape,
        train: decoder.split(&train)?,
        test: (!test.is_empty())
            .then(|| decoder.split(&test))
            .transpose()?,
        classes,
        notes: decoder.note().into_iter().collect(),
    })
}

/// The labels of the training rows, sorted: as numbers where all are, else as text.
fn classes(rows: &[Row]) -> Vec<String> {
    let labels = rows.iter().filter(|r| !r.test).map(|r| r.label.as_str());
    let labels: BTreeSet<&str> = labels.collect();
    let mut classes: Vec<String> = labels.into_iter().map(str::to_owned).collect();
    if classes.iter().all(|c| c.parse::<i64>().is_ok()) {
        classes.sort_by_key(|c| c.parse::<i64>().unwrap_or_default());
    }
    classes
}

/// Which columns hold what.
struct Columns {
    path: usize,
    label: usize,
    split: Option<usize>,
}

impl Columns {
    /// The columns a header names; `None` if the record is no header.
    fn of_header(record: &csv::StringRecord) -> Option<Self> {
        let names: Vec<String> = record.iter().map(|n| n.trim().to_lowercase()).collect();
        let column = |known: &[&str]| names.iter().position(|n| known.contains(&n.as_str()));
        Some(Self {
            path: column(&PATHS)?,
            label: column(&LABELS)?,
            split: column(&SPLITS),
        })
    }
}

fn read(table: &Path) -> Result<Vec<Row>> {
    let bytes = super::read(table)?;
    // Excel's mark of UTF-8.
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(text);
    let folder = table.parent().unwrap_or(Path::new(""));
    let mut columns = Columns {
        path: 0,
        label: 1,
        split: None,
    };
    let mut rows = Vec::new();
    for (i, record) in reader.records().enumerate() {
        let record = record.map_err(|e| Error::data(table, format!("is no CSV: {e}")))?;
        if i == 0
            && let Some(found) = Columns::of_header(&record)
        {
            columns = found;
            continue;
        }
        let line = record.position().map_or(0, csv::Position::line);
        let fail = |problem: String| Error::data(table, format!("line {line}: {problem}"));
        let field = |at: usize, what: &str| {
            let value = record.get(at).filter(|v| !v.is_empty());
            value.ok_or_else(|| {
                fail(format!(
                    "has no {what}; expected a path and a label in each row, below a header \
                     such as path,label or without one"
                ))
            })
        };
        let path = below(folder, field(columns.path, "path")?).map_err(fail)?;
        let label = field(columns.label, "label")?.to_owned();
        let test = match columns.split {
            None => false,
            Some(at) => match field(at, "split")?.to_lowercase().as_str() {
                "train" | "training" => false,
                name if TEST_NAMES.contains(&name) => true,
                other => {
                    let expected = "expected train, test, val, valid or validation";
                    return Err(fail(format!("split {other:?}; {expected}")));
                }
            },
        };
        rows.push(Row { path, label, test });
    }
    Ok(rows)
}

/// A path of the table in its folder; nothing outside is read. Links in the folder are the
/// user's own and may lead anywhere.
fn below(folder: &Path, path: &str) -> Result<PathBuf, String> {
    let relative = Path::new(path);
    let inside = |c: Component<'_>| matches!(c, Component::Normal(_) | Component::CurDir);
    if !relative.components().all(inside) {
        return Err(format!(
            "{path:?} leads out of the table's folder; expected a path relative to it, without .."
        ));
    }
    Ok(folder.join(relative))
}
