//! A conversation: who said what, and showed which picture.

use std::sync::Arc;

use image::RgbImage;

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Instructions to the assistant.
    System,
    /// The one who asks.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// The word that chat templates expect.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// One piece of a message.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// Words.
    Text(String),
    /// A picture, shared: the samples of one question show the same one.
    Image(Arc<RgbImage>),
}

/// One turn.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said and shown, in order.
    pub content: Vec<Content>,
}

impl Message {
    /// A turn of text alone.
    pub fn new(role: Role, text: impl Into<String>) -> Self {
        Self { role, content: vec![Content::Text(text.into())] }
    }

    /// A system turn.
    pub fn system(text: impl Into<String>) -> Self {
        Self::new(Role::System, text)
    }

    /// A user turn of text alone.
    pub fn user(text: impl Into<String>) -> Self {
        Self::new(Role::User, text)
    }

    /// A user turn: the pictures first, then the text.
    pub fn user_with_images(text: impl Into<String>, images: Vec<Arc<RgbImage>>) -> Self {
        let mut content: Vec<_> = images.into_iter().map(Content::Image).collect();
        content.push(Content::Text(text.into()));
        Self { role: Role::User, content }
    }

    /// An assistant turn.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self::new(Role::Assistant, text)
    }

    /// The pictures of this turn, in order.
    pub fn images(&self) -> impl Iterator<Item = &Arc<RgbImage>> {
        self.content.iter().filter_map(|content| match content {
            Content::Image(image) => Some(image),
            Content::Text(_) => None,
        })
    }
}
