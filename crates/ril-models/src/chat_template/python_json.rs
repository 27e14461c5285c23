//! Python's `json.dumps`, for the `tojson` of chat templates. Jinja's own filter escapes HTML, which would change the
//! tokens.

use std::fmt::Write;

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};

/// `json.dumps(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`, with those arguments by
/// name, as transformers registers it.
pub(super) fn tojson(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let mut writer = Writer { layout: Layout::new(&options)?, text: String::new(), depth: 0 };
    options.assert_all_used()?;
    writer.write(value)?;
    Ok(Value::from_safe_string(writer.text))
}

struct Layout {
    ensure_ascii: bool,
    sort_keys: bool,
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
}

impl Layout {
    fn new(options: &Kwargs) -> Result<Self, Error> {
        let indent = match options.get::<Option<Value>>("indent")?.filter(|indent| !indent.is_none()) {
            None => None,
            Some(text) if text.as_str().is_some() => text.as_str().map(str::to_owned),
            Some(spaces) => Some(" ".repeat(usize::try_from(spaces)?)),
        };
        let separators = options.get::<Option<Vec<String>>>("separators")?;
        let (item_separator, key_separator) = match separators.as_deref() {
            None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
            None => (", ".to_owned(), ": ".to_owned()),
            Some([item, key]) => (item.clone(), key.clone()),
            Some(_) => return Err(refuse("tojson: expected two separators")),
        };
        Ok(Self {
            ensure_ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
            sort_keys: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
            indent,
            item_separator,
            key_separator,
        })
    }
}

struct Writer {
    layout: Layout,
    text: String,
    depth: usize,
}

impl Writer {
    fn write(&mut self, value: &Value) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => self.text.push_str("null"),
            ValueKind::Bool => self.text.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.text.push_str(&number(value)),
            ValueKind::String => self.write_string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?.collect();
                self.write_all(['[', ']'], items, |writer, item| writer.write(&item))?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.layout.sort_keys {
                    keys.sort();
                }
                self.write_all(['{', '}'], keys, |writer, key| {
                    writer.write_key(&key)?;
                    writer.text.push_str(&writer.layout.key_separator);
                    writer.write(&value.get_item(&key)?)
                })?;
            }
            kind => return Err(refuse(format!("tojson: a value of kind {kind} is not JSON serializable"))),
        }
        Ok(())
    }

    fn write_all(
        &mut self,
        [open, close]: [char; 2],
        items: Vec<Value>,
        write_item: impl Fn(&mut Self, Value) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let is_empty = items.is_empty();
        self.text.push(open);
        self.depth += 1;
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                self.text.push_str(&self.layout.item_separator);
            }
            self.break_line();
            write_item(self, item)?;
        }
        self.depth -= 1;
        if !is_empty {
            self.break_line();
        }
        self.text.push(close);
        Ok(())
    }

    fn break_line(&mut self) {
        if let Some(indent) = &self.layout.indent {
            self.text.push('\n');
            self.text.extend(std::iter::repeat_n(indent.as_str(), self.depth));
        }
    }

    /// Keys are strings; Python writes the other scalars as they would stand as values.
    fn write_key(&mut self, key: &Value) -> Result<(), Error> {
        if let Some(text) = key.as_str() {
            self.write_string(text);
            return Ok(());
        }
        self.text.push('"');
        self.write(key)?;
        self.text.push('"');
        Ok(())
    }

    fn write_string(&mut self, text: &str) {
        let out = &mut self.text;
        out.push('"');
        for character in text.chars() {
            match character {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                other if other < ' ' || (self.layout.ensure_ascii && other > '~') => {
                    for unit in other.encode_utf16(&mut [0; 2]) {
                        // Writing into a String cannot fail.
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
                other => out.push(other),
            }
        }
        out.push('"');
    }
}

/// Integers in full; floats as Python's `repr`: shortest digits, with an exponent outside `1e-4..1e16`.
fn number(value: &Value) -> String {
    let float = f64::try_from(value.clone()).ok().filter(|_| !value.is_integer());
    match float {
        None => value.to_string(),
        Some(float) if float.is_nan() => "NaN".to_owned(),
        Some(float) if float.is_infinite() => if float > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
        Some(float) if float == 0.0 || (1e-4..1e16).contains(&float.abs()) => format!("{float:?}"),
        Some(float) => python_exponent(&format!("{float:e}")),
    }
}

/// `1.5e-7` to `1.5e-07`, `1e16` to `1e+16`.
fn python_exponent(rust: &str) -> String {
    let Some((digits, exponent)) = rust.split_once('e') else { return rust.to_owned() };
    let (sign, size) = exponent.strip_prefix('-').map_or(('+', exponent), |size| ('-', size));
    format!("{digits}e{sign}{size:0>2}")
}

fn refuse(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}
