//! The HTTP side of a llama-server: health, counters, and texts as they are generated.

use crate::launch::bundled::{Generation, Prompt, Stop};
use crate::launch::{LaunchError, Timing};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

/// How long a short question may take.
const DEADLINE: Duration = Duration::from_secs(2);

/// A client of one server on this machine.
#[derive(Debug)]
pub(super) struct Client {
    url: String,
    agent: ureq::Agent,
}

/// What a stream of generated text brings.
#[derive(Debug)]
pub(super) enum Piece {
    Text(String),
    End {
        stop: Stop,
        timings: Option<(Timing, Timing)>,
    },
    /// The server refuses.
    Refused(String),
    /// The connection or the answer broke.
    Broken(String),
}

impl Client {
    pub(super) fn new(url: String) -> Self {
        Self { url, agent: agent(Some(DEADLINE)) }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// llama-server answers 503 while it loads and 200 when it is ready.
    pub(super) fn is_healthy(&self) -> bool {
        self.agent.get(format!("{}/health", self.url)).call().is_ok_and(|response| response.status() == 200)
    }

    /// The server's own counters of prefill and decode, where it was started with `--metrics`.
    pub(super) fn counters(&self) -> Option<(Timing, Timing)> {
        let mut response = self.agent.get(format!("{}/metrics", self.url)).call().ok()?;
        if !response.status().is_success() {
            return None;
        }
        counters(&response.body_mut().read_to_string().ok()?)
    }

    /// Asks for a text. Its pieces arrive from a thread of their own, which ends with the connection; dropping the
    /// receiver closes that at the next piece, and the server then stops computing.
    pub(super) fn generate(&self, prompt: &Prompt, generation: &Generation) -> Receiver<Piece> {
        let (path, body) = request(prompt, generation);
        let url = format!("{}{path}", self.url);
        let (send, pieces) = mpsc::channel();
        std::thread::spawn(move || {
            let response = match agent(None).post(url).send_json(body) {
                Ok(response) => response,
                Err(error) => return drop(send.send(Piece::Broken(error.to_string()))),
            };
            let status = response.status();
            let mut body = response.into_body();
            if !status.is_success() {
                let text = body.read_to_string().unwrap_or_default();
                return drop(send.send(Piece::Refused(format!("{status}: {}", complaint(&text)))));
            }
            for line in BufReader::new(body.into_reader()).lines() {
                let piece = match line {
                    Ok(line) => piece(&line),
                    Err(error) => Some(Piece::Broken(error.to_string())),
                };
                let Some(piece) = piece else { continue };
                let last = !matches!(piece, Piece::Text(_));
                if send.send(piece).is_err() || last {
                    return;
                }
            }
            let _ = send.send(Piece::Broken("the stream ended before the text did".into()));
        });
        pieces
    }
}

fn agent(deadline: Option<Duration>) -> ureq::Agent {
    ureq::Agent::config_builder().timeout_global(deadline).http_status_as_error(false).proxy(None).build().into()
}

fn request(prompt: &Prompt, generation: &Generation) -> (&'static str, Value) {
    let Generation { n_predict, temperature, top_k, top_p, seed } = generation;
    let mut body = json!({
        "stream": true, "temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed,
        // A conversation goes on where it was; a single prompt is computed whole, so that its time is that of the whole.
        "cache_prompt": matches!(prompt, Prompt::Chat(_)),
    });
    let path = match prompt {
        Prompt::Text(text) => {
            body["prompt"] = json!(text);
            body["n_predict"] = json!(n_predict);
            "/completion"
        }
        Prompt::Chat(turns) => {
            body["messages"] = turns.iter().map(|turn| json!({ "role": turn.role, "content": turn.content })).collect();
            body["max_tokens"] = json!(n_predict);
            // What a model thinks is a part of its text, as it is for the bundled engine.
            body["reasoning_format"] = json!("none");
            "/v1/chat/completions"
        }
    };
    (path, body)
}

/// One line of a stream of server-sent events, in llama-server's own or OpenAI's shape; `None` for lines between events.
fn piece(line: &str) -> Option<Piece> {
    if let Some(error) = line.strip_prefix("error:") {
        return Some(Piece::Refused(complaint(error)));
    }
    let data = line.strip_prefix("data:")?.trim();
    if data == "[DONE]" {
        return None;
    }
    let Ok(event) = serde_json::from_str::<Value>(data) else {
        return Some(Piece::Broken(format!("no JSON: {}", short(data))));
    };
    if event.get("error").is_some() {
        return Some(Piece::Refused(complaint(data)));
    }
    let choice = event.pointer("/choices/0");
    let finished = event.get("stop").and_then(Value::as_bool) == Some(true)
        || choice.and_then(|choice| choice.get("finish_reason")).is_some_and(Value::is_string);
    if finished {
        return Some(Piece::End { stop: stop(&event), timings: timings(&event) });
    }
    // Servers that split off what a model thinks in spite of what was asked for.
    let delta = |key: &str| choice?.get("delta")?.get(key).filter(|text| text.is_string());
    let text = event.get("content").or_else(|| delta("content")).or_else(|| delta("reasoning_content"));
    let text = text.and_then(Value::as_str).unwrap_or_default();
    (!text.is_empty()).then(|| Piece::Text(text.to_owned()))
}

fn stop(event: &Value) -> Stop {
    let reason = event.get("stop_type").or_else(|| event.pointer("/choices/0/finish_reason")).and_then(Value::as_str);
    match reason {
        Some("limit" | "length") => Stop::Length,
        _ => Stop::EndOfText,
    }
}

/// `timings` of an answer: {prompt_n, prompt_ms, predicted_n, predicted_ms}, and in newer servers cache_n: how much of the prompt was in the
/// cache (`tools/server/server-task.cpp:result_timings::to_json`).
fn timings(event: &Value) -> Option<(Timing, Timing)> {
    let timings = event.get("timings")?;
    let number = |name: &str| timings.get(name)?.as_u64();
    let time = |name: &str| Duration::try_from_secs_f64(timings.get(name)?.as_f64()? / 1e3).ok();
    let (read, reading) = (number("prompt_n")?, time("prompt_ms")?);
    let (written, writing) = (number("predicted_n")?, time("predicted_ms")?);
    Some(match number("cache_n") {
        Some(cached) => (Timing::behind(cached, read, reading), Timing::behind(cached.saturating_add(read), written, writing)),
        None => (Timing::somewhere(read, reading), Timing::somewhere(written, writing)),
    })
}

/// Counters of `/metrics`, in Prometheus' text format.
fn counters(text: &str) -> Option<(Timing, Timing)> {
    let value = |name: &str| -> Option<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix("llamacpp:")?.strip_prefix(name)?.strip_prefix(' '))?;
        line.trim().parse().ok()
    };
    let timing = |tokens: &str, seconds: &str| {
        let time = Duration::try_from_secs_f64(value(seconds)?).ok()?;
        Some(Timing::somewhere(value(tokens)? as u64, time))
    };
    Some((timing("prompt_tokens_total", "prompt_seconds_total")?, timing("tokens_predicted_total", "tokens_predicted_seconds_total")?))
}

/// The message in an error of llama-server, or the start of what it said.
fn complaint(text: &str) -> String {
    let message = serde_json::from_str::<Value>(text).ok().and_then(|value| {
        let error = value.get("error").unwrap_or(&value);
        Some(error.get("message")?.as_str()?.to_owned())
    });
    message.unwrap_or_else(|| short(text.trim()))
}

fn short(text: &str) -> String {
    text.chars().take(200).collect()
}

impl From<Piece> for LaunchError {
    /// For pieces that are no text.
    fn from(piece: Piece) -> Self {
        match piece {
            Piece::Refused(reason) => Self::Refused { reason, memory: false, log: Vec::new() },
            Piece::Broken(what) => Self::Protocol { what },
            other => Self::Protocol { what: format!("{other:?}") },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_shapes_of_a_stream_are_read() {
        let native = [
            r#"data: {"content":" a","stop":false}"#,
            "",
            r#"data: {"content":"","stop":true,"stop_type":"limit","timings":{"cache_n":5,"prompt_n":2,"prompt_ms":4.0,"predicted_n":1,"predicted_ms":10.0}}"#,
        ];
        let openai = [
            r#"data: {"choices":[{"finish_reason":null,"delta":{"role":"assistant","content":null}}]}"#,
            r#"data: {"choices":[{"finish_reason":null,"delta":{"reasoning_content":" a"}}]}"#,
            r#"data: {"choices":[{"finish_reason":null,"delta":{"content":" a"}}]}"#,
            r#"data: {"choices":[{"finish_reason":"length","delta":{}}],"timings":{"prompt_n":2,"prompt_ms":4.0,"predicted_n":1,"predicted_ms":10.0}}"#,
            "data: [DONE]",
        ];
        for (lines, texts) in [(&native[..], 1), (&openai[..], 2)] {
            let pieces: Vec<_> = lines.iter().filter_map(|line| piece(line)).collect();
            assert!(pieces[..texts].iter().all(|piece| matches!(piece, Piece::Text(text) if text == " a")), "{pieces:?}");
            let (reading, writing) = (Duration::from_millis(4), Duration::from_millis(10));
            // Only the first of the two servers says what was cached.
            let expected = match texts {
                1 => (Timing::behind(5, 2, reading), Timing::behind(7, 1, writing)),
                _ => (Timing::somewhere(2, reading), Timing::somewhere(1, writing)),
            };
            assert!(
                matches!(&pieces[texts], Piece::End { stop: Stop::Length, timings: Some(timings) } if *timings == expected),
                "{pieces:?}"
            );
            assert_eq!(pieces.len(), texts + 1);
        }
    }

    #[test]
    fn errors_are_told_in_the_servers_words() {
        let refused = |line: &str| matches!(piece(line), Some(Piece::Refused(why)) if why == "context size exceeded");
        assert!(refused(r#"error: {"code":400,"message":"context size exceeded"}"#));
        assert!(refused(r#"data: {"error":{"code":400,"message":"context size exceeded"}}"#));
        assert!(matches!(piece("data: \u{1}"), Some(Piece::Broken(_))));
        assert_eq!(complaint("<html>"), "<html>");
    }

    #[test]
    fn counters_are_read_by_their_whole_name() {
        let text = "llamacpp:prompt_tokens_total 10\nllamacpp:prompt_tokens_total_more 99\nllamacpp:prompt_seconds_total 0.5\n\
                    llamacpp:tokens_predicted_total 4\nllamacpp:tokens_predicted_seconds_total 1e-1\n";
        let (prefill, decode) = counters(text).unwrap();
        assert_eq!((prefill.tokens, decode.tokens, decode.time), (10, 4, Duration::from_millis(100)));
        assert_eq!(counters("llamacpp:prompt_tokens_total 10"), None);
    }
}
