//! Tab-separated text as `pandas.read_csv` cuts it into fields.

use std::path::Path;

use super::error::VlmEvalError;

/// Fields as they stand in the file.
pub(super) struct RawTable {
    pub names: Vec<String>,
    /// By column.
    pub cells: Vec<Vec<String>>,
    /// Line on which each row begins.
    pub lines: Vec<u64>,
}

impl RawTable {
    pub fn read(path: &Path, bytes: &[u8]) -> Result<Self, VlmEvalError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_quote_at_the_start_of_a_field_opens_one() {
        for (text, is_open) in [
            ("1\t\"a", true),
            ("1\t\"a\"", false),
            ("1\t\"a\"\"", true),
            ("1\ta\"b", false),
            ("1\t\"a\"b\"c", false),
            ("1\ta\n\"b\nc", true),
            ("\"a\tb\n\"\tc", false),
        ] {
            assert_eq!(ends_inside_quotes(text.as_bytes()), is_open, "{text:?}");
        }
    }
}
