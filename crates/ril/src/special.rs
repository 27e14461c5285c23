//! Special tokens that a text spells out: a tokenizer reads them as tokens, whoever wrote them.

use ril_models::ChatModel;

/// `text` without stop tokens at its end, which files of sampled answers often keep.
///
/// # Errors
/// What is wrong, when the text spells another special token.
pub(crate) fn plain_text<'a, M: ChatModel>(model: &M, text: &'a str) -> Result<&'a str, String> {
    let stops = || model.special_tokens().iter().filter(|(id, _)| model.stop_ids().contains(id));
    let mut plain = text;
    while let Some(shorter) = stops().find_map(|(_, stop)| plain.trim_end().strip_suffix(stop.as_str())) {
        plain = shorter;
    }
    match model.special_tokens().iter().find(|(_, special)| plain.contains(special.as_str())) {
        Some((_, special)) => Err(format!("expected plain text, got the special token {special} in it")),
        None => Ok(plain),
    }
}

/// `text` with a space inside every special token that it spells, so that the tokenizer sees letters.
pub(crate) fn neutralised<M: ChatModel>(model: &M, text: &str) -> String {
    model.special_tokens().iter().fold(text.to_string(), |text, (_, special)| {
        let second = special.char_indices().nth(1).map_or(special.len(), |(at, _)| at);
        let (first, rest) = special.split_at(second);
        if text.contains(special.as_str()) { text.replace(special.as_str(), &format!("{first} {rest}")) } else { text }
    })
}
