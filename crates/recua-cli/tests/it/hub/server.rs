//! A server on this machine that answers as the Hugging Face Hub does, or not quite.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use ring::digest::{SHA256, digest};

/// No test waits longer than this for a socket.
const SOCKET_TIMEOUT: Duration = Duration::from_secs(10);

/// What came from the client. Header names are in lower case.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
}

/// What goes back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// After how many bytes of the body the connection is closed.
    pub(crate) cut_at: Option<usize>,
    /// After how many bytes of the body nothing comes for this long.
    pub(crate) stall: Option<(usize, Duration)>,
    /// Whether `Content-Length` is left out.
    pub(crate) is_endless: bool,
}

impl Answer {
    pub(crate) fn new(status: u16) -> Answer {
        Answer { status, ..Answer::default() }
    }

    pub(crate) fn header(mut self, name: &str, value: impl ToString) -> Answer {
        self.headers.push((name.into(), value.to_string()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Answer {
        self.body = body.into();
        self
    }

    fn write(&self, stream: &mut TcpStream, is_head: bool) -> std::io::Result<()> {
        let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", self.status);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        let has_length = self.headers.iter().any(|(name, _)| name == "Content-Length");
        if !has_length && !self.is_endless {
            head += &format!("Content-Length: {}\r\n", self.body.len());
        }
        stream.write_all(format!("{head}\r\n").as_bytes())?;
        if is_head {
            return Ok(());
        }
        let body = &self.body[..self.cut_at.unwrap_or(self.body.len()).min(self.body.len())];
        let (first, rest) = body.split_at(self.stall.map_or(0, |(at, _)| at.min(body.len())));
        stream.write_all(first)?;
        if let Some((_, time)) = self.stall {
            stream.flush()?;
            std::thread::sleep(time);
        }
        stream.write_all(rest)
    }
}

type Handler = dyn Fn(&Request) -> Answer + Send + Sync;

/// A server, which ends with the test.
pub(crate) struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    is_done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn new(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let is_done = Arc::new(AtomicBool::new(false));
        let (log, done) = (requests.clone(), is_done.clone());
        let handler: Arc<Handler> = Arc::new(handler);
        let thread = std::thread::spawn(move || {
            let mut connections = Vec::new();
            for stream in listener.incoming() {
                if done.load(Ordering::SeqCst) {
                    break;
                }
                let (log, handler) = (log.clone(), handler.clone());
                let Ok(stream) = stream else { continue };
                // A client that goes away ends only its own connection.
                connections.push(std::thread::spawn(move || drop(serve(stream, &log, &*handler))));
            }
            connections.into_iter().for_each(|thread| drop(thread.join()));
        });
        Server { address, requests, is_done, thread: Some(thread) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// The requests of this method, as paths.
    pub(crate) fn paths(&self, method: &str) -> Vec<String> {
        self.requests().into_iter().filter(|r| r.method == method).map(|r| r.path).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_done.store(true, Ordering::SeqCst);
        // Wakes the thread up.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(mut stream: TcpStream, log: &Mutex<Vec<Request>>, handler: &Handler) -> std::io::Result<()> {
    stream.set_read_timeout(Some(SOCKET_TIMEOUT))?;
    stream.set_write_timeout(Some(SOCKET_TIMEOUT))?;
    let mut reader = BufReader::new(stream.try_clone()?.take(1 << 16));
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(()) };
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let request = Request { method, path, headers };
    log.lock().unwrap().push(request.clone());
    handler(&request).write(&mut stream, request.method == "HEAD")
}

/// The checksum of these bytes.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The part of `bytes` that a request asks for.
pub(crate) fn part(request: &Request, bytes: &[u8]) -> Answer {
    let from = request.headers.get("range").map(|range| {
        range.strip_prefix("bytes=").and_then(|r| r.strip_suffix('-')).unwrap().parse::<usize>().unwrap()
    });
    match from {
        Some(from) if from >= bytes.len() => Answer::new(416),
        Some(from) => Answer::new(206)
            .header("Content-Range", format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len()))
            .body(&bytes[from..]),
        None => Answer::new(200).body(bytes),
    }
}

/// The commit of everything in [`Hub`].
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A Hub with the repository org/repo and, on a second server, the bytes of its files.
pub(crate) struct Hub {
    pub(crate) hub: Server,
    pub(crate) cdn: Server,
}

/// What a test changes of the answers of a Hub or its second server: `None` leaves the right one.
pub(crate) type Change = Box<dyn Fn(&Request) -> Option<Answer> + Send + Sync>;

impl Hub {
    pub(crate) fn new(files: &[(&str, &[u8])]) -> Hub {
        Hub::with(files, Box::new(|_| None), Box::new(|_| None))
    }

    pub(crate) fn with(files: &[(&str, &[u8])], hub: Change, cdn: Change) -> Hub {
        let files: BTreeMap<String, Vec<u8>> = files.iter().map(|(n, b)| ((*n).into(), b.to_vec())).collect();
        let bytes = files.clone();
        let cdn = Server::new(move |request| {
            cdn(request).unwrap_or_else(|| match bytes.get(request.path.trim_start_matches("/bytes/")) {
                Some(bytes) => part(request, bytes),
                None => Answer::new(404),
            })
        });
        let cdn_url = cdn.url();
        let hub = Server::new(move |request| {
            hub(request).unwrap_or_else(|| {
                if request.path.starts_with("/api/models/org/repo/revision/") {
                    return Answer::new(200).body(listing(files.keys().map(String::as_str)));
                }
                let file = request.path.strip_prefix(&format!("/org/repo/resolve/{COMMIT}/"));
                match file.and_then(|file| Some((file, files.get(file)?))) {
                    Some((file, bytes)) => Answer::new(302)
                        .header("X-Repo-Commit", COMMIT)
                        .header("X-Linked-Etag", format!("\"{}\"", sha256(bytes)))
                        .header("X-Linked-Size", bytes.len())
                        .header("Location", format!("{cdn_url}/bytes/{file}")),
                    None => Answer::new(404).header("X-Error-Code", "EntryNotFound"),
                }
            })
        });
        Hub { hub, cdn }
    }
}

/// What the Hub says about a revision with these files.
pub(crate) fn listing<'a>(files: impl IntoIterator<Item = &'a str>) -> String {
    let siblings: Vec<_> =
        files.into_iter().map(|f| serde_json::json!({ "rfilename": f, "size": 1 })).collect();
    serde_json::json!({ "id": "org/repo", "sha": COMMIT, "gated": false, "siblings": siblings }).to_string()
}
