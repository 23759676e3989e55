//! A proxy before the index that does what networks and busy clusters do.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// What is done with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is passed on.
    None,
    /// It is answered with this status, and not passed on.
    Status(u16),
    /// It is passed on, and its answer is never sent.
    NoAnswer,
    /// The connection is closed before anything is passed on.
    Closed,
}

type Decide = dyn Fn(usize) -> Fault + Send + Sync;

/// The proxy. Its threads end with the test.
pub struct Proxy {
    address: SocketAddr,
    count: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// A proxy before `index`. The requests are numbered from 1.
    pub fn new(index: SocketAddr, decide: impl Fn(usize) -> Fault + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (count, seen) = (Arc::new(AtomicUsize::new(0)), Arc::default());
        let proxy = Self { address, count: Arc::clone(&count), seen: Arc::clone(&seen) };
        let decide: Arc<Decide> = Arc::new(decide);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (count, seen, decide) = (count.clone(), seen.clone(), decide.clone());
                std::thread::spawn(move || {
                    let _ = serve(stream, index, &count, &seen, &*decide);
                });
            }
        });
        proxy
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many requests have come.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// The heads of the first requests: at most 100.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

/// One request on a connection.
fn serve(
    mut client: TcpStream,
    index: SocketAddr,
    count: &AtomicUsize,
    seen: &Mutex<Vec<String>>,
    decide: &Decide,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    let number = count.fetch_add(1, Ordering::SeqCst) + 1;
    let fault = decide(number);
    if let Ok(mut seen) = seen.lock() {
        if seen.len() < 100 {
            seen.push(head.clone());
        }
    }
    match fault {
        Fault::Closed => return Ok(()),
        Fault::Status(status) => {
            let answer =
                format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            return client.write_all(answer.as_bytes());
        }
        Fault::None | Fault::NoAnswer => {}
    }
    let mut server = TcpStream::connect(index)?;
    let head = head.trim_end();
    server.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes())?;
    server.write_all(&body)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    match fault {
        Fault::NoAnswer => Ok(()),
        _ => client.write_all(&answer),
    }
}
