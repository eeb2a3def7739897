//! GGUF files behind a URL: the header alone, by HTTP ranges.

use super::prefix::{FIRST_READ, Prefix};
use super::{OpenError, Opened, Origin, gguf_header};
use formats::gguf::Gguf;
use formats::{describe, shards};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::http::{Response, header};
use ureq::{Agent, Body};

/// No header is longer; the longest known, of a vocabulary of a quarter of a million, has some 30 MB.
const MAX_FETCHED: u64 = 128 << 20;
/// Time until a server answers.
const ANSWER: Duration = Duration::from_secs(20);
/// Time for one range as a whole.
const RANGE: Duration = Duration::from_secs(120);
/// How often a broken transfer is taken up again without a byte gained.
const ATTEMPTS: u32 = 3;
/// Shards that are asked for at most.
const MAX_SHARDS: u32 = 1024;

/// Why a server does not hand out the header of a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// No such file there.
    #[error("the server has no such file (404)")]
    NotFound,
    /// A file that is not for everybody.
    #[error("the server asks for permission ({status})")]
    Forbidden {
        /// The status of HTTP.
        status: u16,
    },
    /// Any other answer that is no part of a file.
    #[error("the server answers with status {status}")]
    Status {
        /// The status of HTTP.
        status: u16,
    },
    /// The whole file where a part was asked for.
    #[error("the server hands out whole files only, no ranges")]
    NoRanges,
    /// A part without a place, or another part than was asked for.
    #[error("the server's answer does not say which part of the file it is: {found}")]
    BadRange {
        /// What it says.
        found: String,
    },
    /// A page where a file should be.
    #[error("a web page, not a file")]
    Page,
    /// A file that is another from one part to the next.
    #[error("the file changed while it was read")]
    Changed,
    /// No answer in time, or a transfer that crawls.
    #[error("no answer in time")]
    Timeout,
    /// A connection that fails, or breaks off again and again.
    #[error("{reason}")]
    Connection {
        /// What the system or TLS says.
        reason: String,
    },
    /// A name of shards that no model has.
    #[error("more files than {limit}: {count}")]
    TooManyShards {
        /// How many its name states.
        count: u32,
        /// The limit.
        limit: u32,
    },
}

impl RemoteError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::NotFound => "check the spelling; shards must lie side by side under their original names",
            Self::Forbidden { .. } => "fetch the file with the site's own tool, then name it",
            Self::NoRanges => "fetch the file, then name it",
            Self::Page => "name the file itself: on the Hugging Face hub its link has /resolve/ where the page's has /blob/",
            Self::Timeout | Self::Connection { .. } | Self::Changed => "check the connection and try again",
            _ => return None,
        })
    }
}

/// True for what begins as URLs do that this module reads.
pub(super) fn is_url(text: &str) -> bool {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    scheme.is_some_and(|scheme| scheme == "http" || scheme == "https")
}

/// Opens the model behind a URL; of a split model any shard, the others are found by their names.
pub(super) fn open(url: &str) -> Result<Opened, OpenError> {
    let agent = agent(ANSWER, RANGE);
    let urls = siblings(url)?;
    let headers = urls.iter().map(|url| fetch(&agent, url)).collect::<Result<Vec<Gguf>, _>>()?;
    let model = describe(&headers).map_err(|source| OpenError::Describe { path: url.into(), source })?;
    Ok(Opened { model, files: urls.into_iter().map(PathBuf::from).collect(), origin: Origin::Remote, beside: Vec::new() })
}

fn agent(answer: Duration, range: Duration) -> Agent {
    let config = Agent::config_builder()
        .user_agent(concat!("loadmaster/", env!("CARGO_PKG_VERSION")))
        // Statuses are told apart here.
        .http_status_as_error(false)
        .max_redirects(10)
        .timeout_connect(Some(answer))
        .timeout_recv_response(Some(answer))
        .timeout_global(Some(range))
        .build();
    config.into()
}

/// The URLs of all shards; the URL itself where it is of none. What follows a question mark stays.
fn siblings(url: &str) -> Result<Vec<String>, OpenError> {
    let (path, query) = url.find(['?', '#']).map_or((url, ""), |at| url.split_at(at));
    let Some((folder, name)) = path.rsplit_once('/') else { return Ok(vec![url.to_owned()]) };
    let Some(shard) = shards::parse(name) else { return Ok(vec![url.to_owned()]) };
    if shard.count > MAX_SHARDS {
        let source = RemoteError::TooManyShards { count: shard.count, limit: MAX_SHARDS };
        return Err(OpenError::Remote { url: url.to_owned(), source });
    }
    Ok(shard.names().map(|name| format!("{folder}/{name}{query}")).collect())
}

/// The header of the file behind a URL.
fn fetch(agent: &Agent, url: &str) -> Result<Gguf, OpenError> {
    let mut file = Remote { agent, url, known: None };
    // The length is only known once a part has come.
    let mut first = Vec::new();
    file.fill(&mut first, FIRST_READ).map_err(|source| file.error(source))?;
    gguf_header(&mut Begun { file, first })
}

/// What the first answer says of a file, which later ones must repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    size: u64,
    /// The version of the file as the server names it.
    tag: Option<String>,
}

/// A file behind a URL.
struct Remote<'a> {
    agent: &'a Agent,
    url: &'a str,
    known: Option<Known>,
}

impl Remote<'_> {
    fn error(&self, source: RemoteError) -> OpenError {
        OpenError::Remote { url: self.url.to_owned(), source }
    }

    /// Reads on until `prefix` has `to` bytes or the file ends, over broken connections.
    fn fill(&mut self, prefix: &mut Vec<u8>, to: u64) -> Result<(), RemoteError> {
        let mut failures = 0;
        loop {
            let before = prefix.len() as u64;
            let to = self.known.as_ref().map_or(to, |known| to.min(known.size));
            if before >= to {
                return Ok(());
            }
            match self.part(prefix, to) {
                Ok(()) | Err(RemoteError::Connection { .. }) if prefix.len() as u64 > before => failures = 0,
                Ok(()) => failures += 1,
                Err(RemoteError::Connection { reason }) if failures + 1 >= ATTEMPTS => return Err(RemoteError::Connection { reason }),
                Err(RemoteError::Connection { .. }) => failures += 1,
                Err(other) => return Err(other),
            }
            if failures >= ATTEMPTS {
                return Err(RemoteError::Connection { reason: "the server breaks off again and again".to_owned() });
            }
        }
    }

    /// Asks for the bytes from the end of `prefix` to `to`, and takes what comes.
    fn part(&mut self, prefix: &mut Vec<u8>, to: u64) -> Result<(), RemoteError> {
        let from = prefix.len() as u64;
        let range = format!("bytes={from}-{}", to - 1);
        // Compressed bytes would be no part of the file.
        let request = self.agent.get(self.url).header("Range", range).header("Accept-Encoding", "identity");
        let mut response = request.call().map_err(failure)?;
        let known = Known { size: check(&response, from)?, tag: text(&response, header::ETAG) };
        match &self.known {
            Some(before) if before.size != known.size || (before.tag.is_some() && before.tag != known.tag) => {
                return Err(RemoteError::Changed);
            }
            _ => self.known = Some(known.clone()),
        }
        if known.size == 0 {
            return Ok(());
        }
        // A server that sends more than asked for is not believed.
        let read = response.body_mut().as_reader().take(to - from).read_to_end(prefix);
        read.map(|_| ()).map_err(|error| match error.kind() {
            std::io::ErrorKind::TimedOut => RemoteError::Timeout,
            _ => match error.downcast::<ureq::Error>() {
                Ok(error) => failure(error),
                Err(error) => RemoteError::Connection { reason: error.to_string() },
            },
        })
    }
}

fn text(response: &Response<Body>, name: header::HeaderName) -> Option<String> {
    Some(response.headers().get(name)?.to_str().ok()?.to_owned())
}

fn failure(error: ureq::Error) -> RemoteError {
    match error {
        ureq::Error::Timeout(_) => RemoteError::Timeout,
        other => RemoteError::Connection { reason: other.to_string() },
    }
}

/// The length of the file, out of an answer that is the part from `from` on.
fn check(response: &Response<Body>, from: u64) -> Result<u64, RemoteError> {
    let page = text(response, header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with("text/html"));
    let place = text(response, header::CONTENT_RANGE);
    match response.status().as_u16() {
        206 => {}
        200 if page => return Err(RemoteError::Page),
        200 => return Err(RemoteError::NoRanges),
        404 | 410 => return Err(RemoteError::NotFound),
        status @ (401 | 403) => return Err(RemoteError::Forbidden { status }),
        // An empty file has no first byte.
        416 if place.as_deref() == Some("bytes */0") => return Ok(0),
        status => return Err(RemoteError::Status { status }),
    }
    let place = place.unwrap_or_default();
    let stated = place.strip_prefix("bytes ").and_then(|rest| rest.split_once('/')).and_then(|(range, size)| {
        let start: u64 = range.split_once('-')?.0.parse().ok()?;
        Some((start, size.parse::<u64>().ok()?))
    });
    match stated {
        Some((start, size)) if start == from && size > from => Ok(size),
        _ => Err(RemoteError::BadRange { found: if place.is_empty() { "nothing".to_owned() } else { place } }),
    }
}

/// A remote file whose first part has come.
struct Begun<'a> {
    file: Remote<'a>,
    first: Vec<u8>,
}

impl Prefix for Begun<'_> {
    fn name(&self) -> PathBuf {
        Path::new(self.file.url).to_owned()
    }
    fn size(&self) -> u64 {
        self.file.known.as_ref().map_or(0, |known| known.size)
    }
    fn limit(&self) -> u64 {
        MAX_FETCHED
    }
    fn extend(&mut self, prefix: &mut Vec<u8>, to: u64) -> Result<(), OpenError> {
        if prefix.is_empty() {
            prefix.append(&mut self.first);
        }
        let filled = self.file.fill(prefix, to);
        filled.map_err(|source| self.file.error(source))
    }
}

#[cfg(test)]
mod tests;
