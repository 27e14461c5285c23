//! An HTTP server for tests of programs: answers JSON requests by a function of path and body.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;

/// Path and body of each request so far.
pub type Requests = Arc<Mutex<Vec<(String, Value)>>>;

/// Starts a server; its address, and what it is asked.
pub fn serve(answer: impl Fn(&str, &Value) -> Value + Send + Sync + 'static) -> (String, Requests) {
    serve_with_heads(move |_, path, body| answer(path, body))
}

/// The same with the head of each request, a line a field.
pub fn serve_with_heads(answer: impl Fn(&str, &str, &Value) -> Value + Send + Sync + 'static) -> (String, Requests) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let requests = Requests::default();
    let (seen, answer) = (requests.clone(), Arc::new(answer));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (seen, answer) = (seen.clone(), answer.clone());
            std::thread::spawn(move || converse(stream.unwrap(), &seen, answer.as_ref()));
        }
    });
    (address, requests)
}

/// Requests of one connection, until the client closes it.
fn converse(mut stream: TcpStream, seen: &Requests, answer: &(impl Fn(&str, &str, &Value) -> Value + ?Sized)) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let lines = reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty());
        let head: Vec<String> = lines.collect();
        let Some(first) = head.first() else { return };
        let length = head.iter().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
        });
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body).unwrap();
        let path = first.split(' ').nth(1).unwrap().to_owned();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let text = answer(&head.join("\n"), &path, &body).to_string();
        seen.lock().unwrap().push((path, body));
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", text.len());
        if stream.write_all(format!("{head}{text}").as_bytes()).is_err() {
            return;
        }
    }
}
