//! A server on this machine that hands out parts of files, well and in every way badly.

use super::*;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use synthetic::{FileType, Fill, Options, Shape};

fn shape() -> Shape {
    Shape { n_layer: 2, ..synthetic::preset("smollm2-135m").unwrap() }
}

/// A request as far as the server looks at it: path, and the part asked for.
struct Asked {
    path: String,
    range: Option<(u64, u64)>,
}

fn asked(stream: &TcpStream) -> Option<Asked> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let mut range = None;
    for line in lines.take_while(|line| !line.is_empty()) {
        if let Some(bytes) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
            range = bytes.split_once('-').and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
        }
    }
    Some(Asked { path, range })
}

/// Serves on a port of its own until the test ends; counts the bytes of bodies.
fn serve(files: Vec<(String, synthetic::File)>) -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let sent = Arc::new(AtomicU64::new(0));
    let (count, home) = (Arc::clone(&sent), base.clone());
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            if let Some(asked) = asked(&stream) {
                // A client that breaks off is not the server's failure.
                let _ = answer(stream, &asked, &files, &home, number, &count);
            }
        }
    });
    (base, sent)
}

fn answer(
    mut stream: TcpStream,
    asked: &Asked,
    files: &[(String, synthetic::File)],
    home: &str,
    number: usize,
    sent: &AtomicU64,
) -> std::io::Result<()> {
    let (mode, name) = asked.path.trim_start_matches('/').split_once('/').unwrap_or(("plain", ""));
    let name = name.split('?').next().unwrap_or_default();
    let head = |stream: &mut TcpStream, status: &str, more: &str| write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\n{more}\r\n");
    let file = files.iter().find(|(known, _)| known == name).map(|(_, file)| file);
    match mode {
        "moved" => return head(&mut stream, "302 Found", &format!("Location: {home}/plain/{name}\r\nContent-Length: 0\r\n")),
        "circle" => return head(&mut stream, "302 Found", &format!("Location: {home}/circle/{name}\r\nContent-Length: 0\r\n")),
        "secret" => return head(&mut stream, "401 Unauthorized", "Content-Length: 0\r\n"),
        "broken" => return head(&mut stream, "500 Oops", "Content-Length: 0\r\n"),
        "empty" => return head(&mut stream, "416 Range Not Satisfiable", "Content-Range: bytes */0\r\nContent-Length: 0\r\n"),
        "page" => return head(&mut stream, "200 OK", "Content-Type: text/html; charset=utf-8\r\nContent-Length: 0\r\n"),
        "lost" => return head(&mut stream, "206 Partial Content", "Content-Length: 0\r\n"),
        "silent" => {
            std::thread::sleep(Duration::from_secs(3));
            return Ok(());
        }
        _ => {}
    }
    let Some(file) = file else { return head(&mut stream, "404 Not Found", "Content-Length: 0\r\n") };
    let (Some((from, to)), false) = (asked.range, mode == "whole") else {
        return head(&mut stream, "200 OK", &format!("Content-Length: {}\r\n", file.size.get()));
    };
    let to = to.min(file.size.get() - 1);
    let mut body = vec![0; (to + 1 - from) as usize];
    file.read_at(Fill::Zero, from, &mut body);
    let tag = if mode == "changing" { number } else { 0 };
    let about = format!("Content-Length: {}\r\nContent-Range: bytes {from}-{to}/{}\r\nETag: \"{tag}\"\r\n", body.len(), file.size.get());
    head(&mut stream, "206 Partial Content", &about)?;
    // Breaks off after a third of what it announced.
    let part = if mode == "flaky" { body.len().div_ceil(3).max(body.len().min(4096)) } else { body.len() };
    sent.fetch_add(part as u64, Ordering::Relaxed);
    stream.write_all(&body[..part])
}

fn model() -> (String, synthetic::File) {
    ("m.gguf".to_owned(), synthetic::gguf(&shape(), FileType::Q8_0, &Options::default()).unwrap())
}

#[test]
fn a_header_comes_in_parts_and_nothing_else_is_fetched() {
    let whole = model();
    let expected = formats::gguf::read(&whole.1.header, whole.1.size).unwrap();
    let header = whole.1.header.len() as u64;
    assert!(header > FIRST_READ, "the header of the test should need two parts");
    let (size, (base, sent)) = (whole.1.size, serve(vec![whole]));
    for mode in ["plain", "moved", "flaky"] {
        let before = sent.load(Ordering::Relaxed);
        let opened = open(&format!("{base}/{mode}/m.gguf?download=true")).unwrap();
        assert_eq!(opened.origin, Origin::Remote);
        assert_eq!(opened.model, describe(std::slice::from_ref(&expected)).unwrap());
        let fetched = sent.load(Ordering::Relaxed) - before;
        assert!(fetched < size.get() / 2 && fetched <= 5 * header, "{mode}: {fetched} of {size}");
    }
    let error = opened_by_engine(&base);
    assert!(error.hint().unwrap().starts_with("fetch it first"));
}

fn opened_by_engine(base: &str) -> OpenError {
    let opened = open(&format!("{base}/plain/m.gguf")).unwrap();
    opened.origin.check_runnable(&opened.first()).unwrap_err()
}

#[test]
fn any_shard_leads_to_all() {
    let files = synthetic::shards(&shape(), FileType::Q8_0, &Options::default(), 3).unwrap();
    let name = |number: usize| format!("m-{number:05}-of-00003.gguf");
    let named = files.into_iter().enumerate().map(|(index, file)| (name(index + 1), file)).collect();
    let (base, _) = serve(named);
    let opened = open(&format!("{base}/plain/{}?a=b", name(2))).unwrap();
    assert_eq!((opened.files.len(), opened.model.files.len()), (3, 3));
    assert_eq!(opened.first(), PathBuf::from(format!("{base}/plain/{}?a=b", name(1))));
    assert_eq!(
        opened.model.tensor_bytes(),
        describe(&[{
            let (_, whole) = model();
            formats::gguf::read(&whole.header, whole.size).unwrap()
        }])
        .unwrap()
        .tensor_bytes()
    );
}

#[test]
fn what_goes_wrong_is_named() {
    let (base, _) = serve(vec![model()]);
    let told = |path: &str| {
        let agent = agent(Duration::from_millis(500), Duration::from_secs(5));
        let error = fetch(&agent, &format!("{base}/{path}")).unwrap_err();
        error.to_string().replace(&base, "HOST")
    };
    insta::assert_snapshot!(told("plain/none.gguf"), @"HOST/plain/none.gguf: the server has no such file (404)");
    insta::assert_snapshot!(told("whole/m.gguf"), @"HOST/whole/m.gguf: the server hands out whole files only, no ranges");
    insta::assert_snapshot!(told("secret/m.gguf"), @"HOST/secret/m.gguf: the server asks for permission (401)");
    insta::assert_snapshot!(told("broken/m.gguf"), @"HOST/broken/m.gguf: the server answers with status 500");
    insta::assert_snapshot!(told("page/m.gguf"), @"HOST/page/m.gguf: a web page, not a file");
    insta::assert_snapshot!(told("lost/m.gguf"), @"HOST/lost/m.gguf: the server's answer does not say which part of the file it is: nothing");
    insta::assert_snapshot!(told("empty/m.gguf"), @"HOST/empty/m.gguf: byte 0: the file is empty");
    insta::assert_snapshot!(told("changing/m.gguf"), @"HOST/changing/m.gguf: the file changed while it was read");
    let circle = told("circle/m.gguf");
    assert!(circle.contains("redirect"), "{circle}");
    insta::assert_snapshot!(told("silent/m.gguf"), @"HOST/silent/m.gguf: no answer in time");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = open(&format!("http://{closed}/m.gguf")).unwrap_err();
    assert!(matches!(&error, OpenError::Remote { source: RemoteError::Connection { .. }, .. }), "{error}");
    let error = open("https://localhost/m-00001-of-99999.gguf").unwrap_err();
    insta::assert_snapshot!(error, @"https://localhost/m-00001-of-99999.gguf: more files than 1024: 99999");
}
