use std::sync::Arc;

use image::RgbImage;

use super::*;

fn render(source: &str, messages: &[Message]) -> String {
    ChatTemplate::new(source.to_owned()).unwrap().render(messages, true).unwrap()
}

const PARTS: &str = "{% for m in messages %}{% for c in m.content %}{% if c.type == 'image' %}<img>{% else %}{{ c.text }}{% endif %}{% endfor %}{% endfor %}";
const STRINGS: &str = "{% for m in messages %}{{ m.role + ':' + m.content }}{% endfor %}";

fn picture() -> Arc<RgbImage> {
    Arc::new(RgbImage::new(1, 1))
}

#[test]
fn parts_keep_their_order() {
    let mixed = Message {
        role: Role::User,
        content: vec![Content::Text("a".into()), Content::Image(picture()), Content::Text("b".into())],
    };
    assert_eq!(render(PARTS, &[mixed]), "a<img>b");
    assert_eq!(render(PARTS, &[Message::user_with_images("?", vec![picture(), picture()])]), "<img><img>?");
}

#[test]
fn a_template_for_strings_gets_strings_and_refuses_images() {
    assert_eq!(render(STRINGS, &[Message::system("s"), Message::user("u")]), "system:suser:u");
    assert_eq!(render("{{ messages[0].content }}", &[Message::user("u")]), "u");
    let template = ChatTemplate::new(STRINGS.into()).unwrap();
    let error = template.render(&[Message::user_with_images("?", vec![picture()])], true).unwrap_err();
    assert!(matches!(error, ModelError::Template(_)), "{error}");
}

#[test]
fn text_is_never_read_as_a_template() {
    assert_eq!(render(PARTS, &[Message::user("{{ 1 + 1 }}{% if %}")]), "{{ 1 + 1 }}{% if %}");
}

#[test]
fn block_lines_and_windows_line_ends_vanish_as_in_jinja() {
    let source =
        "{% for m in messages %}\r\n  {% if true %}\r\nx{{ m.content[0].text }}\r\n  {% endif %}\r\n{% endfor %}\r\n";
    assert_eq!(render(source, &[Message::user("y")]), "xy\n");
}

#[test]
fn raise_exception_carries_its_message() {
    let template = ChatTemplate::new("{{ raise_exception('roles must alternate') }}".into()).unwrap();
    let error = template.render(&[Message::user("a")], false).unwrap_err().to_string();
    assert!(error.contains("roles must alternate"), "{error}");
}

#[test]
fn a_template_that_does_not_parse_is_an_error() {
    assert!(matches!(ChatTemplate::new("{% for %}".into()), Err(ModelError::Template(_))));
}

#[test]
fn tojson_is_json_dumps() {
    let cases = [
        ("{'a': [1, 2.0, none], 'b': true}", r#"{"a": [1, 2.0, null], "b": true}"#),
        ("'<é\"\\n>'", r#""<é\"\n>""#),
        ("[1e20, 1.5e-7, 0.0001, 123456.5]", "[1e+20, 1.5e-07, 0.0001, 123456.5]"),
        ("[]", "[]"),
    ];
    for (value, expected) in cases {
        assert_eq!(render(&format!("{{{{ {value}|tojson }}}}"), &[Message::user("a")]), expected);
    }
    let options = "{{ {'b': {}, 'a': ['é😀']}|tojson(indent=1, sort_keys=true, ensure_ascii=true) }}";
    let expected = "{\n \"a\": [\n  \"\\u00e9\\ud83d\\ude00\"\n ],\n \"b\": {}\n}";
    assert_eq!(render(options, &[Message::user("a")]), expected);
    assert_eq!(render("{{ [1, {'a': 2}]|tojson(separators=(',', ':')) }}", &[Message::user("a")]), r#"[1,{"a":2}]"#);
}

#[test]
fn the_folder_is_searched_in_order_and_saved_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let said = || {
        let template = ChatTemplate::from_folder(folder.path())?;
        template.render(&[Message::user("a")], true)
    };
    assert!(matches!(said(), Err(ModelError::Template(_))));
    let named = r#"[{"name": "tool_use", "template": "no"}, {"name": "default", "template": "{{ bos_token }}{{ eos_token }}"}]"#;
    write(
        "tokenizer_config.json",
        &format!(r#"{{"bos_token": "<s>", "eos_token": {{"content": "</s>"}}, "chat_template": {named}}}"#),
    );
    assert_eq!(said().unwrap(), "<s></s>");
    write("chat_template.json", r#"{"chat_template": "json"}"#);
    assert_eq!(said().unwrap(), "json");
    write("chat_template.jinja", "jinja\r\n\r\n");
    assert_eq!(said().unwrap(), "jinja\n");
    let target = tempfile::tempdir().unwrap();
    ChatTemplate::from_folder(folder.path()).unwrap().save(target.path()).unwrap();
    assert_eq!(std::fs::read(target.path().join("chat_template.jinja")).unwrap(), b"jinja\r\n\r\n");
    write("chat_template.json", "{");
    std::fs::remove_file(folder.path().join("chat_template.jinja")).unwrap();
    assert!(matches!(said(), Err(ModelError::Json { .. })));
}
