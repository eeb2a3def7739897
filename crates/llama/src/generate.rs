//! Text from a loaded model, token by token.

use crate::LlamaError;
use crate::engine::millis;
use crate::memory;
use crate::protocol::{ChatMessage, Done, Generate, Prompt, Sampling, Stop};
use crate::session::Session;
use crate::shim;
use llama_cpp_sys_2 as sys;
use spec::Utf8Stream;
use std::ffi::{CStr, CString, c_char};
use std::ptr::NonNull;
use std::time::Instant;

/// Longest spelling of a token that is asked for; longer ones are asked for again with room enough.
const PIECE: usize = 64;

impl Session {
    /// Continues a prompt; `say` gets the text in pieces of whole characters as it comes. A cancelled text is no error: it
    /// ends with [`Stop::Cancelled`], unless the prompt itself was not computed yet.
    ///
    /// # Errors
    /// The prompt is empty or longer than the context, the model has no known chat template, or the engine failed.
    pub fn generate(&mut self, request: &Generate, mut say: impl FnMut(&str)) -> Result<Done, LlamaError> {
        let mut tokens = self.prompt_tokens(&request.prompt)?;
        let prompt_begin = Instant::now();
        let cached_n = if request.cache_prompt { self.keep_prefix(&tokens) } else { 0 };
        if cached_n == 0 {
            self.forget();
        }
        self.prefill(&mut tokens[cached_n..])?;
        self.synchronize();
        let prompt_ms = millis(prompt_begin);

        let begin = Instant::now();
        let sampler = Sampler::new(&request.sampling)?;
        let mut text = Utf8Stream::default();
        let mut predicted_n = 0;
        let stop = loop {
            if predicted_n >= request.n_predict {
                break Stop::Length;
            }
            if self.cancel.is_thrown() {
                break Stop::Cancelled;
            }
            let token = sampler.sample(self);
            if self.ends_text(token) {
                break Stop::EndOfText;
            }
            predicted_n += 1;
            let piece = text.push(&self.piece(token));
            if !piece.is_empty() {
                say(&piece);
            }
            if predicted_n >= request.n_predict {
                break Stop::Length;
            }
            if self.cached.len() >= self.n_ctx() {
                break Stop::ContextFull;
            }
            match self.decode(&mut [token]) {
                Ok(()) => {}
                Err(LlamaError::Cancelled) => break Stop::Cancelled,
                Err(error) => return Err(error),
            }
        };
        let rest = text.finish();
        if !rest.is_empty() {
            say(&rest);
        }
        Ok(Done {
            cached_n: cached_n as u32,
            prompt_n: (tokens.len() - cached_n) as u32,
            prompt_ms,
            predicted_n,
            predicted_ms: millis(begin),
            stop,
            memory: memory::now(),
        })
    }

    /// Whether [`Prompt::Chat`] works with this model.
    pub(crate) fn knows_chat_template(&self) -> bool {
        let probe = ChatMessage { role: "user".into(), content: "x".into() };
        self.model.chat_template().is_some_and(|template| apply_template(template, &[probe]).is_ok())
    }

    fn prompt_tokens(&self, prompt: &Prompt) -> Result<Vec<i32>, LlamaError> {
        let tokens = match prompt {
            Prompt::Text(text) => self.tokenize(text)?,
            Prompt::Chat(messages) => {
                let Some(template) = self.model.chat_template() else {
                    return Err(bad_prompt("the model has no chat template; give a text to continue instead"));
                };
                self.tokenize(&apply_template(template, messages)?)?
            }
        };
        if tokens.is_empty() {
            return Err(bad_prompt("empty"));
        }
        if tokens.len() > self.n_ctx() {
            return Err(bad_prompt(format!("{} tokens, the context holds {}", tokens.len(), self.n_ctx())));
        }
        Ok(tokens)
    }

    /// Tokens of a text. Special tokens are added as the model wants them and understood where the text spells them.
    fn tokenize(&self, text: &str) -> Result<Vec<i32>, LlamaError> {
        let length = i32::try_from(text.len()).map_err(|_| bad_prompt("longer than 2 GiB"))?;
        let mut tokens = vec![0; text.len() + 8];
        for _ in 0..2 {
            let mut thrown = [0 as c_char; 256];
            let capacity = i32::try_from(tokens.len()).unwrap_or(i32::MAX);
            // SAFETY: text and tokens are as long as is said; the vocabulary is valid; what is thrown is terminated.
            let count = unsafe {
                let vocab = self.model.vocab();
                let out = tokens.as_mut_ptr();
                shim::lm_tokenize(vocab, text.as_ptr().cast(), length, out, capacity, thrown.as_mut_ptr(), thrown.len())
            };
            match usize::try_from(count) {
                Ok(count) => {
                    tokens.truncate(count);
                    return Ok(tokens);
                }
                Err(_) if count == i32::MIN => {
                    // SAFETY: the shim terminates what it writes.
                    let why = unsafe { CStr::from_ptr(thrown.as_ptr()) }.to_string_lossy().into_owned();
                    return Err(bad_prompt(format!("cannot be split into tokens: {why}")));
                }
                // Too short: minus the length that is needed.
                Err(_) => tokens.resize(count.unsigned_abs() as usize, 0),
            }
        }
        Err(bad_prompt("cannot be split into tokens"))
    }

    /// How many tokens of the prompt the KV cache holds from its beginning; the rest of the cache is dropped. At least one
    /// token is left to compute, because the cache holds no logits.
    fn keep_prefix(&mut self, tokens: &[i32]) -> usize {
        let same = self.cached.iter().zip(tokens).take_while(|(a, b)| a == b).count().min(tokens.len().saturating_sub(1));
        if same > 0 && self.keep(same) { same } else { 0 }
    }

    fn ends_text(&self, token: i32) -> bool {
        // SAFETY: the vocabulary is valid; tokens come from its own sampler.
        unsafe { sys::llama_vocab_is_eog(self.model.vocab(), token) }
    }

    /// The bytes that a token stands for; none for control tokens.
    fn piece(&self, token: i32) -> Vec<u8> {
        let mut bytes = vec![0_u8; PIECE];
        for _ in 0..2 {
            let capacity = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
            // SAFETY: the buffer is as long as is said.
            let count = unsafe { sys::llama_token_to_piece(self.model.vocab(), token, bytes.as_mut_ptr().cast(), capacity, 0, false) };
            match usize::try_from(count) {
                Ok(count) => {
                    bytes.truncate(count);
                    return bytes;
                }
                Err(_) => bytes.resize(count.unsigned_abs() as usize, 0),
            }
        }
        Vec::new()
    }
}

fn bad_prompt(reason: impl Into<String>) -> LlamaError {
    LlamaError::Prompt { reason: reason.into() }
}

/// A conversation as the template writes it, ending where the assistant speaks. llama.cpp recognises the template by what
/// it contains and writes it itself (`src/llama-chat.cpp`); it does not run Jinja.
fn apply_template(template: &CStr, messages: &[ChatMessage]) -> Result<String, LlamaError> {
    let zero = |_| bad_prompt("a message contains a zero byte");
    let texts = messages
        .iter()
        .map(|message| Ok((CString::new(message.role.as_str()).map_err(zero)?, CString::new(message.content.as_str()).map_err(zero)?)))
        .collect::<Result<Vec<_>, LlamaError>>()?;
    let raw: Vec<_> =
        texts.iter().map(|(role, content)| sys::llama_chat_message { role: role.as_ptr(), content: content.as_ptr() }).collect();
    let mut out = vec![0_u8; 1024 + 2 * messages.iter().map(|message| message.content.len()).sum::<usize>()];
    for _ in 0..2 {
        let capacity = i32::try_from(out.len()).map_err(|_| bad_prompt("longer than 2 GiB"))?;
        // SAFETY: template and messages are terminated and live until the call returns; the buffer is as long as is said.
        let length =
            unsafe { sys::llama_chat_apply_template(template.as_ptr(), raw.as_ptr(), raw.len(), true, out.as_mut_ptr().cast(), capacity) };
        match usize::try_from(length) {
            Ok(length) if length <= out.len() => {
                out.truncate(length);
                return String::from_utf8(out).map_err(|_| bad_prompt("the chat template made no valid text"));
            }
            Ok(length) => out.resize(length, 0),
            Err(_) => return Err(bad_prompt("the engine does not know the model's chat template; give a text to continue instead")),
        }
    }
    Err(bad_prompt("the chat template gives a longer text each time"))
}

/// A chain of samplers.
struct Sampler(NonNull<sys::llama_sampler>);

impl Sampler {
    fn new(sampling: &Sampling) -> Result<Self, LlamaError> {
        // SAFETY: the chain owns what is added to it; every sampler is made here and added once.
        unsafe {
            let chain = sys::llama_sampler_chain_init(sys::llama_sampler_chain_default_params());
            let Some(sampler) = NonNull::new(chain).map(Self) else {
                return Err(LlamaError::Memory { log: "no sampler".into() });
            };
            if sampling.temperature > 0.0 {
                sys::llama_sampler_chain_add(chain, sys::llama_sampler_init_top_k(i32::try_from(sampling.top_k).unwrap_or(i32::MAX)));
                sys::llama_sampler_chain_add(chain, sys::llama_sampler_init_top_p(sampling.top_p, 1));
                sys::llama_sampler_chain_add(chain, sys::llama_sampler_init_temp(sampling.temperature));
                sys::llama_sampler_chain_add(chain, sys::llama_sampler_init_dist(sampling.seed));
            } else {
                sys::llama_sampler_chain_add(chain, sys::llama_sampler_init_greedy());
            }
            Ok(sampler)
        }
    }

    /// A token by the logits of the last one computed.
    fn sample(&self, session: &Session) -> i32 {
        // SAFETY: the context has computed at least one token with logits, and nothing since.
        unsafe { sys::llama_sampler_sample(self.0.as_ptr(), session.context.as_ptr(), -1) }
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        // SAFETY: valid, freed once, with all that it owns.
        unsafe { sys::llama_sampler_free(self.0.as_ptr()) };
    }
}
