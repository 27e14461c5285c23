//! VLMEvalKit's benchmark files: tab-separated, one question a row.
//!
//! Read as `pandas.read_csv(path, sep='\t')` reads them, because VLMEvalKit does: quoting, typed columns ([`Cell`]),
//! missing values. As there, a row without a picture is left out where the file has pictures, a short `image` is the
//! index of the row that holds it, and a cell that is a list holds several pictures.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::cell::{Cell, typed};
use super::error::VlmEvalError;
use super::picture::Picture;
use super::python;
use crate::error::RilError;

/// A longer `image` is a picture, a shorter one the index of another row (`ImageBaseDataset.__init__`).
const LONGEST_REFERENCE: usize = 64;

/// A benchmark file in memory.
#[derive(Debug, Clone)]
pub struct Table {
    path: PathBuf,
    sha256: String,
    /// Cells by column, all of the same length.
    columns: HashMap<String, Vec<Cell>>,
    rows: Vec<RowMeta>,
    left_out: usize,
}

/// What is known of a row beside its cells.
#[derive(Debug, Clone)]
struct RowMeta {
    /// Its place in the columns.
    at: usize,
    line: u64,
    index: String,
    pictures: Vec<Picture>,
}

/// One row.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    table: &'a Table,
    meta: &'a RowMeta,
}

impl Table {
    /// Reads a file.
    ///
    /// # Errors
    /// [`RilError::Io`]; [`VlmEvalError`] with line and column for what cannot be read.
    pub fn read(path: &Path) -> Result<Self, RilError> {
        let bytes = std::fs::read(path).map_err(RilError::io(path))?;
        Ok(Self::from_bytes(path, &bytes)?)
    }

    /// As [`read`](Self::read), from the file's bytes; `path` is for messages and for pictures that are files.
    ///
    /// # Errors
    /// [`VlmEvalError`].
    pub fn from_bytes(path: &Path, bytes: &[u8]) -> Result<Self, VlmEvalError> {
        let raw = RawTable::read(path, bytes)?;
        let mut columns = HashMap::new();
        for (name, cells) in raw.names.into_iter().zip(raw.cells) {
            // Of two columns of one name pandas renames the second.
            columns.entry(name).or_insert_with(|| typed(cells));
        }
        let mut table = Self {
            path: path.to_path_buf(),
            sha256: hex(&Sha256::digest(bytes)),
            columns,
            rows: Vec::new(),
            left_out: 0,
        };
        table.index_rows(&raw.lines)?;
        table.attach_pictures()?;
        Ok(table)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// SHA-256 of the file's bytes, in hexadecimal digits.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Rows in the order of the file, those that were left out for want of a picture not counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether no row is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Rows that were left out because the file has pictures and they have none.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// Whether the file has a column of this name.
    #[must_use]
    pub fn has(&self, column: &str) -> bool {
        self.columns.contains_key(column)
    }

    /// The rows, in the order of the file.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = Row<'_>> {
        self.rows.iter().map(|meta| Row { table: self, meta })
    }

    /// A row by its place.
    #[must_use]
    pub fn row(&self, place: usize) -> Option<Row<'_>> {
        self.rows.get(place).map(|meta| Row { table: self, meta })
    }

    /// Keeps the first `count` rows.
    pub fn truncate(&mut self, count: usize) {
        self.rows.truncate(count);
    }

    fn index_rows(&mut self, lines: &[u64]) -> Result<(), VlmEvalError> {
        let missing = || VlmEvalError::MissingColumn {
            path: self.path.clone(),
            column: "index".into(),
            kind: "every benchmark".into(),
        };
        let indices = self.columns.get("index").ok_or_else(missing)?;
        let images = self.columns.get("image");
        let mut seen = HashMap::new();
        for (at, (cell, &line)) in indices.iter().zip(lines).enumerate() {
            if images.is_some_and(|images| images[at] == Cell::Missing) {
                self.left_out += 1;
                continue;
            }
            let index = cell.text().ok_or_else(|| self.cell_error(line, "index", "is empty".into()))?.to_string();
            if let Some(before) = seen.insert(index.clone(), line) {
                return Err(self.cell_error(line, "index", format!("{index} stands in line {before} too")));
            }
            self.rows.push(RowMeta { at, line, index, pictures: Vec::new() });
        }
        Ok(())
    }

    fn attach_pictures(&mut self) -> Result<(), VlmEvalError> {
        let images = match self.columns.get("image") {
            Some(cells) => Some(self.resolved(cells)?),
            None => None,
        };
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let mut all = Vec::with_capacity(self.rows.len());
        for (place, meta) in self.rows.iter().enumerate() {
            let at: Arc<str> = format!("{}, line {}", self.path.display(), meta.line).into();
            let (column, text) = match (&images, self.columns.get("image_path").and_then(|cells| cells[meta.at].text()))
            {
                (Some(images), _) => ("image", images[place].clone()),
                (None, Some(paths)) => ("image_path", paths),
                (None, None) => {
                    all.push(Vec::new());
                    continue;
                }
            };
            let texts = list_or_one(&text).ok_or_else(|| {
                self.cell_error(meta.line, column, "begins and ends as a list, but is no list of strings".into())
            })?;
            let picture = |(number, text): (usize, Arc<str>)| match column {
                "image" => Picture::base64(text, at.clone(), number),
                _ => Picture::file(folder.join(&*text), at.clone(), number),
            };
            all.push(texts.into_iter().enumerate().map(picture).collect());
        }
        for (meta, pictures) in self.rows.iter_mut().zip(all) {
            meta.pictures = pictures;
        }
        Ok(())
    }

    /// The `image` of each row, references to other rows followed.
    fn resolved(&self, cells: &[Cell]) -> Result<Vec<Arc<str>>, VlmEvalError> {
        let mut images: Vec<Arc<str>> =
            self.rows.iter().map(|meta| cells[meta.at].text().unwrap_or_default()).collect();
        let is_reference = |text: &str| text.chars().take(LONGEST_REFERENCE + 1).count() <= LONGEST_REFERENCE;
        let places: HashMap<&str, usize> =
            self.rows.iter().enumerate().map(|(place, meta)| (meta.index.as_str(), place)).collect();
        for (place, meta) in self.rows.iter().enumerate() {
            if !is_reference(&images[place]) {
                continue;
            }
            let wanted = &images[place];
            let found = places.get(&**wanted).map(|&other| images[other].clone());
            images[place] = found.filter(|image| !is_reference(image)).ok_or_else(|| {
                self.cell_error(meta.line, "image", format!("refers to row {wanted:?}, which holds no picture"))
            })?;
        }
        Ok(images)
    }

    fn cell_error(&self, line: u64, column: &str, reason: String) -> VlmEvalError {
        VlmEvalError::Cell { path: self.path.clone(), line, column: column.into(), reason }
    }
}

impl<'a> Row<'a> {
    /// The `index`, as text.
    #[must_use]
    pub fn index(&self) -> &'a str {
        &self.meta.index
    }

    /// Line on which the row begins, counted from 1.
    #[must_use]
    pub fn line(&self) -> u64 {
        self.meta.line
    }

    /// The pictures, in order.
    #[must_use]
    pub fn pictures(&self) -> &'a [Picture] {
        &self.meta.pictures
    }

    /// A cell; [`Cell::Missing`] also when there is no such column.
    #[must_use]
    pub fn cell(&self, column: &str) -> &'a Cell {
        self.table.columns.get(column).map_or(&Cell::Missing, |cells| &cells[self.meta.at])
    }

    /// A cell as Python prints it; `None` when missing.
    #[must_use]
    pub fn text(&self, column: &str) -> Option<Arc<str>> {
        self.cell(column).text()
    }

    /// As [`text`](Self::text), for a cell that the row cannot do without.
    ///
    /// # Errors
    /// [`VlmEvalError::Cell`].
    pub fn need(&self, column: &str) -> Result<Arc<str>, VlmEvalError> {
        self.text(column).ok_or_else(|| self.error(column, "is empty"))
    }

    /// Options by letter, those that are there.
    #[must_use]
    pub fn options(&self) -> Vec<(char, Arc<str>)> {
        ('A'..='Z').filter_map(|letter| Some((letter, self.text(letter.encode_utf8(&mut [0; 4]))?))).collect()
    }

    /// An error about one of the row's cells.
    #[must_use]
    pub fn error(&self, column: &str, reason: &str) -> VlmEvalError {
        self.table.cell_error(self.meta.line, column, reason.into())
    }
}

/// The elements of a list, or the one text (`toliststr`); `None` for what looks like a list and is none.
fn list_or_one(text: &Arc<str>) -> Option<Vec<Arc<str>>> {
    if text.len() > 1 && text.starts_with('[') && text.ends_with(']') {
        return Some(python::list(text)?.into_iter().map(Arc::from).collect());
    }
    Some(vec![text.clone()])
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Fields as they stand in the file.
struct RawTable {
    names: Vec<String>,
    /// By column.
    cells: Vec<Vec<String>>,
    /// Line on which each row begins.
    lines: Vec<u64>,
}

impl RawTable {
    fn read(path: &Path, bytes: &[u8]) -> Result<Self, VlmEvalError> {
        let error = |line, reason: String| VlmEvalError::Row { path: path.to_path_buf(), line, reason };
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let mut reader =
            csv::ReaderBuilder::new().delimiter(b'\t').flexible(true).has_headers(false).from_reader(bytes);
        let mut table = Self { names: Vec::new(), cells: Vec::new(), lines: Vec::new() };
        let mut record = csv::ByteRecord::new();
        loop {
            let start = reader.position().clone();
            let more = reader.read_byte_record(&mut record).map_err(|e| error(start.line(), e.to_string()))?;
            if !more {
                break;
            }
            let start = record.position().unwrap_or(&start).clone();
            let is_last = reader.is_done() || reader.position().byte() as usize >= bytes.len();
            if is_last && ends_inside_quotes(bytes.get(start.byte() as usize..).unwrap_or_default()) {
                return Err(error(start.line(), "a quoted field is not closed before the end of the file".into()));
            }
            table.push(&record, start.line()).map_err(|reason| error(start.line(), reason))?;
        }
        if table.lines.is_empty() {
            return Err(error(1, "expected a line of column names and rows, got no row".into()));
        }
        Ok(table)
    }

    /// Takes the names or a row; a row that is short is filled, one of spaces passed over.
    fn push(&mut self, record: &csv::ByteRecord, line: u64) -> Result<(), String> {
        if record.len() == 1 && record[0].iter().all(|b| *b == b' ') {
            return Ok(());
        }
        let text = |(i, field): (usize, &[u8])| {
            let broken = |_| format!("column {}: not UTF-8", self.names.get(i).map_or("?", String::as_str));
            std::str::from_utf8(field).map(str::to_string).map_err(broken)
        };
        let fields: Vec<String> = record.iter().enumerate().map(text).collect::<Result<_, _>>()?;
        if self.names.is_empty() {
            self.cells = vec![Vec::new(); fields.len()];
            self.names = fields;
            return Ok(());
        }
        if fields.len() > self.names.len() {
            return Err(format!("expected {} fields, got {}", self.names.len(), fields.len()));
        }
        let mut fields = fields.into_iter();
        self.cells.iter_mut().for_each(|column| column.push(fields.next().unwrap_or_default()));
        self.lines.push(line);
        Ok(())
    }
}

/// Whether the last field of the bytes that begin a record is a quoted one without its closing quote.
fn ends_inside_quotes(bytes: &[u8]) -> bool {
    let (mut is_quoted, mut at_start) = (false, true);
    let mut bytes = bytes.iter().peekable();
    while let Some(byte) = bytes.next() {
        match (is_quoted, byte) {
            (true, b'"') if bytes.peek() == Some(&&b'"') => _ = bytes.next(),
            (true, b'"') => is_quoted = false,
            (true, _) => {}
            (false, b'"') if at_start => is_quoted = true,
            (false, _) => {}
        }
        at_start = !is_quoted && matches!(byte, b'\t' | b'\n' | b'\r');
    }
    is_quoted
}
