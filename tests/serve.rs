//! `gpucnn serve` over real sockets: answers, limits, and a stop that loses nothing.
#![cfg(all(unix, feature = "serve"))]

mod files;

use files::{Files, gpucnn, json_lines};
use gpucnn::formats::safetensors;
use gpucnn::model::Model;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

/// A run with fresh weights in the folder `run`.
fn run(model: &Model, files: &Files) {
    files.write("run/model.toml", model.to_toml().unwrap());
    let weights = model.initial_weights(1);
    safetensors::save(
        &files.path("run/weights.safetensors"),
        &weights,
        &BTreeMap::new(),
    )
    .unwrap();
}

/// A run of the tiny model.
fn tiny() -> Files {
    let files = Files::new();
    run(&Model::load(&files.model()).unwrap(), &files);
    files
}

/// A server of the run in the folder `run`, on the CPU.
struct Server {
    process: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    address: String,
}

impl Server {
    fn start(files: &Files, args: &[&str]) -> Self {
        let mut process = Command::new(assert_cmd::cargo::cargo_bin!("gpucnn"))
            .args(["serve", "run", "--device", "cpu", "--port", "0", "--json"])
            .args(args)
            .current_dir(files.path(""))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let start: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        let url = start["url"].as_str().unwrap();
        let address = url
            .trim_start_matches("http://")
            .trim_end_matches('/')
            .to_owned();
        Self {
            process,
            lines,
            address,
        }
    }

    fn send(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\
             content-type: {kind}\r\ncontent-length: {length}\r\n\r\n"
        );
        // A server that refuses early may close before it has read everything.
        let _ = stream.write_all(&[head.as_bytes(), body].concat());
        stream
    }

    fn ask(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> Answer {
        answer(self.send(method, path, kind, body))
    }

    fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "text/plain", b"")
    }

    fn predict(&self, kind: &str, body: &[u8]) -> Answer {
        self.ask("POST", "/v1/predict", kind, body)
    }

    fn signal(&self, signal: &str) {
        let id = self.process.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status().unwrap();
        assert!(sent.success());
    }

    /// Ends it; the images that it classified.
    fn stop(self, signal: &str) -> u64 {
        self.signal(signal);
        self.ended()
    }

    /// The images that it classified, once it has ended well.
    fn ended(mut self) -> u64 {
        let end: Value = serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(self.process.wait().unwrap().code(), Some(0));
        end["images"].as_u64().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already, unless the test failed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    /// The error of an answer with this status.
    fn error(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.body);
        self.json()["error"].as_str().unwrap().to_owned()
    }
}

fn answer(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    // A connection that is reset after the answer has still given it.
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_lowercase(),
        body: body.to_owned(),
    }
}

fn form(parts: &[(&str, &[u8])]) -> (String, Vec<u8>) {
    let mut body = Vec::new();
    for (name, bytes) in parts {
        let head = format!(
            "--limit\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n"
        );
        body.extend([head.as_bytes(), bytes, b"\r\n"].concat());
    }
    body.extend(b"--limit--\r\n");
    ("multipart/form-data; boundary=limit".to_owned(), body)
}

#[test]
fn it_answers_as_predict_does_whatever_the_image_comes_as() {
    let files = tiny();
    let names: Vec<String> = (0..5).map(|c| files.png(&format!("{c}.png"), c)).collect();
    let images: Vec<Vec<u8>> = names.iter().map(|n| std::fs::read(n).unwrap()).collect();
    let args: Vec<&str> = names.iter().map(String::as_str).collect();
    let args = [
        &["predict", "run", "--device", "cpu", "--json", "--top", "4"],
        &args[..],
    ]
    .concat();
    let output = gpucnn(&files, &args).output().unwrap();
    let expected: Vec<Value> = json_lines(&output.stdout)
        .into_iter()
        .map(|event| json!({"top": event["top"]}))
        .collect();
    let server = Server::start(&files, &["--max-batch", "3"]);

    let whole = |kind: &str, body: &[u8]| {
        let answer = server.ask("POST", "/v1/predict?top=4", kind, body);
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()["predictions"].as_array().unwrap().clone()
    };
    assert_eq!(whole("image/png", &images[3]), expected[3..4]);
    assert_eq!(whole("", &images[4]), expected[4..]);
    let parts: Vec<(&str, &[u8])> = images.iter().map(|i| ("x.png", i.as_slice())).collect();
    let (kind, body) = form(&parts);
    assert_eq!(whole(&kind, &body), expected);
    let pixels = image::load_from_memory(&images[2]).unwrap().into_luma8();
    let rows: Vec<&[u8]> = pixels.as_raw().chunks(files::SIDE).collect();
    let body = json!({"pixels": [rows]}).to_string();
    assert_eq!(whole("application/json", body.as_bytes()), expected[2..3]);
    assert_eq!(server.stop("-INT"), 8);
}

#[test]
fn it_tells_of_itself() {
    let files = tiny();
    let server = Server::start(&files, &[]);
    assert_eq!(server.get("/healthz").body, "ok\n");
    let model = server.get("/v1/model").json();
    assert_eq!(model["name"], "tiny");
    assert_eq!(model["input"], json!([1, 8, 8]));
    assert_eq!(model["classes"].as_array().unwrap().len(), 10);
    let page = server.get("/");
    assert!(page.head.contains("text/html") && page.body.contains("v1/predict"));
    let image = std::fs::read(files.png("7.png", 7)).unwrap();
    server.predict("image/png", &image);
    server.predict("image/png", b"no image");
    let metrics = server.get("/metrics");
    assert!(
        metrics.head.contains("openmetrics-text"),
        "{}",
        metrics.head
    );
    for line in [
        "gpucnn_http_requests_total{path=\"/v1/predict\",status=\"200\"} 1",
        "gpucnn_http_requests_total{path=\"/v1/predict\",status=\"400\"} 1",
        "gpucnn_images_total 1",
        "gpucnn_batch_images_count 1",
        "gpucnn_predict_seconds_count 1",
        "gpucnn_queue_images 0",
    ] {
        assert!(
            metrics.body.lines().any(|l| l == line),
            "{line}: {}",
            metrics.body
        );
    }
    server.stop("-TERM");
}

#[test]
fn what_is_wrong_with_a_request_is_said() {
    let files = tiny();
    let server = Server::start(&files, &["--max-body", "1", "--queue", "4"]);
    let error = server.predict("image/png", b"GIF89a").error(400);
    assert!(error.contains("PNG or JPEG"), "{error}");
    let error = server.predict("image/png", b"").error(400);
    assert!(error.contains("is empty"), "{error}");
    let error = server.predict("text/csv", b"1,2").error(415);
    assert!(error.contains("found text/csv"), "{error}");
    let error = server
        .predict("application/json", b"{\"pixels\": [1]}")
        .error(400);
    assert!(error.contains("1 x 8 x 8 = 64"), "{error}");
    let error = server
        .predict("multipart/form-data; boundary=x", b"--x--\r\n")
        .error(400);
    assert!(error.contains("expected one or more files"), "{error}");
    let error = server.predict("image/png", &vec![0; 2 << 20]).error(413);
    assert!(error.contains("1048576 bytes"), "{error}");
    let image = std::fs::read(files.png("7.png", 7)).unwrap();
    let (kind, body) = form(&[("x", &image as &[u8]); 5]);
    let error = server.predict(&kind, &body).error(413);
    assert!(error.contains("at most 4 images"), "{error}");
    let error = server
        .ask("POST", "/v1/predict?top=x", "image/png", &image)
        .error(400);
    assert!(error.contains("top"), "{error}");
    let error = server.get("/v1/predict").error(405);
    assert!(error.contains("takes POST"), "{error}");
    let error = server.get("/v2/predict").error(404);
    assert!(error.contains("there is no /v2/predict"), "{error}");
    assert_eq!(server.stop("-TERM"), 0);
}

#[test]
fn a_full_queue_is_429() {
    let files = Files::new();
    // An image takes the reference a while.
    run(&Model::load("mnist-cnn").unwrap(), &files);
    let options = ["--max-batch", "1", "--queue", "1", "--max-wait", "0"];
    let server = Server::start(&files, &options);
    let pixels = json!({"pixels": vec![0; 28 * 28]}).to_string();
    let ask = |_| server.send("POST", "/v1/predict", "application/json", pixels.as_bytes());
    // One is on the device, one waits, the others are too many.
    let streams: Vec<TcpStream> = (0..12).map(ask).collect();
    let (taken, refused): (Vec<_>, Vec<_>) = streams
        .into_iter()
        .map(answer)
        .partition(|a| a.status == 200);
    assert!(!taken.is_empty() && !refused.is_empty(), "{}", taken.len());
    for answer in refused {
        assert!(
            answer.error(429).contains("1 images wait"),
            "{}",
            answer.body
        );
        assert!(answer.head.contains("retry-after: 1"), "{}", answer.head);
    }
    assert_eq!(server.stop("-TERM"), taken.len() as u64);
}

#[test]
fn a_stop_finishes_what_was_begun_and_takes_no_more() {
    let files = tiny();
    let server = Server::start(&files, &[]);
    let image = std::fs::read(files.png("7.png", 7)).unwrap();
    let mut begun = TcpStream::connect(&server.address).unwrap();
    let head = format!(
        "POST /v1/predict HTTP/1.1\r\nhost: test\r\ncontent-type: image/png\r\n\
         expect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        image.len()
    );
    begun.write_all(head.as_bytes()).unwrap();
    // The server says so when it begins to read the body.
    let mut go_on = [0; 25];
    begun.read_exact(&mut go_on).unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    server.signal("-TERM");
    while TcpStream::connect(&server.address).is_ok() {
        std::thread::sleep(Duration::from_millis(5));
    }
    begun.write_all(&image).unwrap();
    assert_eq!(answer(begun).status, 200);
    assert_eq!(server.ended(), 1);
}
