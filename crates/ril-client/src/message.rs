use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChatRole {
    /// Instructions.
    System,
    /// The one who asks.
    User,
    /// The model.
    Assistant,
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// Who speaks.
    pub role: ChatRole,
    /// What is said and shown.
    pub content: ChatContent,
}

/// What a turn holds. Text alone is sent as a string, which servers without pictures understand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ChatContent {
    /// Text alone.
    Text(String),
    /// Pictures and text in order.
    Parts(Vec<ChatPart>),
}

/// A piece of a turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ChatPart {
    /// Text.
    Text {
        /// What is said.
        text: String,
    },
    /// A picture.
    ImageUrl {
        /// Where it is.
        image_url: ImageUrl,
    },
}

/// A picture by address; [`ChatPart::image`] puts the picture itself into the address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageUrl {
    /// `data:image/png;base64,...`, or an address that the server may open.
    pub url: String,
}

impl ChatMessage {
    /// A turn of text.
    pub fn text(role: ChatRole, text: impl Into<String>) -> Self {
        Self { role, content: ChatContent::Text(text.into()) }
    }

    /// A user's turn of text.
    pub fn user(text: impl Into<String>) -> Self {
        Self::text(ChatRole::User, text)
    }

    /// A user's turn: the pictures in order, then the text.
    pub fn user_with_images(images: impl IntoIterator<Item = ChatPart>, text: impl Into<String>) -> Self {
        let mut parts: Vec<ChatPart> = images.into_iter().collect();
        if parts.is_empty() {
            return Self::user(text);
        }
        parts.push(ChatPart::Text { text: text.into() });
        Self { role: ChatRole::User, content: ChatContent::Parts(parts) }
    }
}

impl ChatPart {
    /// A picture file's bytes as a data URL; `media_type` is `image/png`, `image/jpeg` ...
    ///
    /// ```
    /// use ril_client::ChatPart;
    ///
    /// let part = ChatPart::image(b"GIF89a", "image/gif");
    /// assert_eq!(serde_json::to_string(&part)?, r#"{"type":"image_url","image_url":{"url":"data:image/gif;base64,R0lGODlh"}}"#);
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn image(file: &[u8], media_type: &str) -> Self {
        let url = format!("data:{media_type};base64,{}", STANDARD.encode(file));
        Self::ImageUrl { image_url: ImageUrl { url } }
    }
}
