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
use super::tsv::RawTable;
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

    /// Keeps the rows at these places.
    pub fn retain(&mut self, is_kept: impl Fn(usize) -> bool) {
        let mut places = 0..;
        self.rows.retain(|_| places.next().is_some_and(&is_kept));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Table, VlmEvalError> {
        Table::from_bytes("t.tsv".as_ref(), text.as_bytes())
    }

    fn picture(letter: &str) -> String {
        letter.repeat(80)
    }

    #[test]
    fn a_short_image_is_the_index_of_another_row() {
        let (a, b) = (picture("QUJD"), picture("REVG"));
        let table = read(&format!("index\timage\n1\t{a}\n2\t1\n3\t4\n4\t['{b}', '{a}']\n")).unwrap();
        let bytes = |place: usize| {
            let row = table.row(place).unwrap();
            row.pictures().iter().map(|picture| picture.bytes().unwrap()[0]).collect::<Vec<_>>()
        };
        assert_eq!(
            [bytes(0), bytes(1), bytes(2), bytes(3)],
            [vec![b'A'], vec![b'A'], vec![b'D', b'A'], vec![b'D', b'A']]
        );
    }

    #[test]
    fn rows_without_a_picture_are_left_out_of_a_file_with_pictures() {
        let table = read(&format!("index\timage\n1\t{}\n2\t\n", picture("QUJD"))).unwrap();
        assert_eq!((table.len(), table.left_out()), (1, 1));
        assert_eq!(read("index\tquestion\n1\ta\n2\t\n").unwrap().len(), 2);
    }

    #[test]
    fn pictures_may_be_files_beside_the_table() {
        let table = read("index\timage_path\n1\ta.png\n").unwrap();
        let error = table.row(0).unwrap().pictures()[0].pixels().unwrap_err();
        assert_eq!(error.to_string(), "t.tsv, line 2: picture 1 cannot be read");
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("a.png"));
    }

    #[test]
    fn broken_files_are_refused_with_line_and_column() {
        let cases = [
            (String::new(), "t.tsv, line 1: expected a line of column names and rows, got no row"),
            ("index\tq\n".into(), "t.tsv, line 1: expected a line of column names and rows, got no row"),
            ("q\n1\n".into(), "t.tsv: no column \"index\"; every benchmark needs it"),
            ("index\tq\n1\ta\tb\n".into(), "t.tsv, line 2: expected 2 fields, got 3"),
            (
                "index\tq\n1\ta\n2\t\"b\nc".into(),
                "t.tsv, line 3: a quoted field is not closed before the end of the file",
            ),
            ("index\tq\n1\ta\n1\tb\n".into(), "t.tsv, line 3, column index: 1 stands in line 2 too"),
            ("index\tq\n1\ta\n\tb\n".into(), "t.tsv, line 3, column index: is empty"),
            (
                format!("index\timage\n1\t{}\n2\t9\n", picture("QUJD")),
                "t.tsv, line 3, column image: refers to row \"9\", which holds no picture",
            ),
            (
                format!("index\timage\n1\t[{}]\n", picture("QUJD")),
                "t.tsv, line 2, column image: begins and ends as a list, but is no list of strings",
            ),
        ];
        for (text, message) in cases {
            assert_eq!(read(&text).unwrap_err().to_string(), message);
        }
        let error = Table::from_bytes("t.tsv".as_ref(), b"index\tq\n1\t\xff\n").unwrap_err().to_string();
        assert_eq!(error, "t.tsv, line 2: column q: not UTF-8");
    }
}
