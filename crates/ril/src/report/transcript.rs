//! Sample questions: picture, question, reference, and the answers side by side.

use super::{
    Colors, Mark, Transcript,
    markup::{escape, picture_uri, push},
};

/// The section; nothing without transcripts.
pub(super) fn render(transcripts: &[Transcript], colors: &Colors) -> String {
    let mut out = String::new();
    if transcripts.is_empty() {
        return out;
    }
    out.push_str("<section><h2>Sample transcripts</h2>\n");
    transcripts.iter().for_each(|transcript| one(&mut out, transcript, colors));
    out.push_str("</section>\n");
    out
}

fn one(out: &mut String, transcript: &Transcript, colors: &Colors) {
    out.push_str("<article><div class=\"prompt\">");
    if !transcript.pictures.is_empty() {
        out.push_str("<div class=\"pictures\">");
        for picture in &transcript.pictures {
            push(out, format_args!("<img alt=\"picture of the question\" src=\"{}\">", picture_uri(picture)));
        }
        out.push_str("</div>");
    }
    push(
        out,
        format_args!(
            "<div><h3>Question</h3><p class=\"text\" dir=\"auto\">{}</p><h3>Reference</h3><p class=\"text\" dir=\"auto\">{}</p></div></div>\
             <div class=\"answers\">",
            escape(&transcript.question),
            escape(&transcript.reference)
        ),
    );
    for answer in &transcript.answers {
        let (class, word) = match answer.mark {
            Mark::Right => ("right", "✓ right"),
            Mark::Wrong => ("wrong", "✗ wrong"),
            Mark::Unscored => ("unscored", "not scored"),
        };
        push(
            out,
            format_args!(
                "<div class=\"answer {class}\"><h3><span><i class=\"swatch c{}\"></i>{}</span><span class=\"mark\">{word}</span></h3>\
                 <p class=\"text\" dir=\"auto\">{}</p>",
                colors.number(&answer.arm),
                escape(&answer.arm),
                escape(answer.text.trim())
            ),
        );
        if !answer.note.is_empty() {
            push(out, format_args!("<small>{}</small>", escape(&answer.note)));
        }
        out.push_str("</div>");
    }
    out.push_str("</div></article>\n");
}
