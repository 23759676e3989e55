//! A server without a framework, as a program of Rust or Go is: one file, which listens on PORT.
//! `rustc --edition 2021 -O server.rs` makes it; the program alone is what is deployed.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

fn main() {
    let port = std::env::var("PORT").unwrap_or_else(|_| "8080".into());
    let address = format!("127.0.0.1:{port}");
    let listener = TcpListener::bind(&address).expect("PORT is the number of a free port");
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || answer(stream));
    }
}

/// Answers one request and closes.
fn answer(mut stream: TcpStream) {
    let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
    let path = lines.next().unwrap_or_default();
    let path = path.split(' ').nth(1).unwrap_or("/").to_owned();
    // The head ends with an empty line.
    for line in lines {
        if line.is_empty() {
            break;
        }
    }
    let text = if path.ends_with("/version") { "one\n" } else { "A program\n" };
    let length = text.len();
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}"
    );
}
