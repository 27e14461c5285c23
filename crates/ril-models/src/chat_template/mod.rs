//! Conversations to prompt text, through the checkpoint's own Jinja template.

mod message;
mod python_json;

use std::collections::BTreeMap;
use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value, context};
use serde_json::Value as Json;

use crate::error::ModelError;
use crate::files::{read_if_present, write_atomic};

pub use message::{Content, Message, Role};

const TEMPLATE_FILE: &str = "chat_template.jinja";
const NAME: &str = "chat_template";

/// A chat template of a Hugging Face folder, rendered as transformers' `apply_chat_template` does:
/// `trim_blocks`, `lstrip_blocks`, Python's string methods, `raise_exception`, and `tojson` as `json.dumps`.
///
/// Images appear as `{"type": "image"}`, text as `{"type": "text", "text": ..}`. A template that only knows plain
/// strings, as those of text models, gets the joined text of a message instead; this is found out once, by rendering
/// a short probe. `add_vision_id`, `tools` and `documents` are never set.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    source: String,
    environment: Environment<'static>,
    /// `bos_token` and its like, by name, for templates that write them.
    special_tokens: BTreeMap<String, String>,
    content_form: ContentForm,
}

/// How a template wants the content of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ContentForm {
    Parts,
    PlainText,
}

impl ChatTemplate {
    /// Compiles a template.
    ///
    /// # Errors
    /// [`ModelError::Template`] with the line that does not parse.
    pub fn new(source: String) -> Result<Self, ModelError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(failed)?;
        environment.set_syntax(syntax);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", python_json::tojson);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        // Jinja reads every kind of line end as \n.
        let normalized = source.replace("\r\n", "\n").replace('\r', "\n");
        environment.add_template_owned(NAME, normalized).map_err(failed)?;
        let mut template =
            Self { source, environment, special_tokens: BTreeMap::new(), content_form: ContentForm::Parts };
        if !template.reads_parts() {
            template.content_form = ContentForm::PlainText;
        }
        Ok(template)
    }

    /// Reads `chat_template.jinja`, else `chat_template.json`, else the `chat_template` of `tokenizer_config.json`
    /// (the one named `default` where there are several). Special tokens come from `tokenizer_config.json`.
    ///
    /// # Errors
    /// [`ModelError::Io`] and [`ModelError::Json`] with the path; [`ModelError::Template`] when no file has a template
    /// or it does not parse.
    pub fn from_folder(folder: &Path) -> Result<Self, ModelError> {
        let tokenizer_path = folder.join("tokenizer_config.json");
        let tokenizer_config = read_json(&tokenizer_path)?;
        let jinja = folder.join(TEMPLATE_FILE);
        let (path, source) = if let Some(bytes) = read_if_present(&jinja)? {
            let source = String::from_utf8(bytes)
                .map_err(|error| ModelError::io(&jinja)(std::io::Error::new(std::io::ErrorKind::InvalidData, error)))?;
            (jinja, source)
        } else {
            let json_path = folder.join("chat_template.json");
            let json = read_json(&json_path)?;
            let files = [(json_path, json.as_ref()), (tokenizer_path, tokenizer_config.as_ref())];
            let found = files.into_iter().find_map(|(path, file)| Some((path, template_in(file?)?)));
            found.ok_or_else(|| {
                let files = format!("{TEMPLATE_FILE}, chat_template.json or a chat_template in tokenizer_config.json");
                ModelError::Template(format!("expected {files}, got none")).in_file(folder)
            })?
        };
        let mut template = Self::new(source).map_err(|error| error.in_file(&path))?;
        template.special_tokens = tokenizer_config.as_ref().map(special_tokens).unwrap_or_default();
        Ok(template)
    }

    /// The prompt of a conversation; `add_generation_prompt` opens the assistant's turn at its end.
    ///
    /// # Errors
    /// [`ModelError::Template`] when the template refuses the conversation, or when there are images and it knows only
    /// text.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, ModelError> {
        let has_images = messages.iter().any(|message| message.images().next().is_some());
        if has_images && self.content_form == ContentForm::PlainText {
            return Err(ModelError::Template("expected text alone, as the template knows no images".into()));
        }
        self.render_as(self.content_form, messages, add_generation_prompt).map_err(failed)
    }

    /// Writes `chat_template.jinja`, unchanged.
    ///
    /// # Errors
    /// [`ModelError::Io`].
    pub fn save(&self, folder: &Path) -> Result<(), ModelError> {
        let (name, content) = self.file();
        write_atomic(&folder.join(name), content)
    }

    /// Name and content of the file that [`Self::save`] writes.
    pub(crate) fn file(&self) -> (&str, &[u8]) {
        (TEMPLATE_FILE, self.source.as_bytes())
    }

    fn render_as(&self, form: ContentForm, messages: &[Message], generate: bool) -> Result<String, Error> {
        let messages: Vec<Value> = messages.iter().map(|message| message_value(form, message)).collect();
        self.environment.get_template(NAME)?.render(context! {
            messages,
            tools => Value::from(()),
            documents => Value::from(()),
            add_generation_prompt => generate,
            ..self.special_tokens.clone()
        })
    }

    /// Whether a list of parts comes out as its text. A template for strings fails on it, or prints the list.
    fn reads_parts(&self) -> bool {
        const PROBE: &str = "ril probe";
        self.render_as(ContentForm::Parts, &[Message::user(PROBE)], false)
            .is_ok_and(|text| text.contains(PROBE) && !text.contains("{'type':"))
    }
}

fn message_value(form: ContentForm, message: &Message) -> Value {
    let content: Value = match form {
        ContentForm::Parts => message.content.iter().map(part_value).collect(),
        ContentForm::PlainText => {
            let texts = message.content.iter().filter_map(|content| match content {
                Content::Text(text) => Some(text.as_str()),
                Content::Image(_) => None,
            });
            Value::from(texts.collect::<String>())
        }
    };
    context! { role => message.role.as_str(), content }
}

fn part_value(content: &Content) -> Value {
    match content {
        Content::Text(text) => context! { type => "text", text },
        Content::Image(_) => context! { type => "image" },
    }
}

/// The `chat_template` of a JSON file: one text, or a list of named ones.
fn template_in(file: &Json) -> Option<String> {
    let template = file.get("chat_template")?;
    let default = || template.as_array()?.iter().find(|entry| entry["name"] == "default")?.get("template")?.as_str();
    template.as_str().or_else(default).map(str::to_owned)
}

/// Every `*_token` of `tokenizer_config.json`, written as a text or as an object with `content`.
fn special_tokens(config: &Json) -> BTreeMap<String, String> {
    let entries = config.as_object().into_iter().flatten().filter(|(name, _)| name.ends_with("_token"));
    entries
        .filter_map(|(name, token)| {
            let text = token.as_str().or_else(|| token.get("content")?.as_str())?;
            Some((name.clone(), text.to_owned()))
        })
        .collect()
}

fn read_json(path: &Path) -> Result<Option<Json>, ModelError> {
    let bytes = read_if_present(path)?;
    bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose().map_err(ModelError::json(path))
}

fn failed(error: Error) -> ModelError {
    ModelError::Template(error.to_string())
}

#[cfg(test)]
mod tests;
