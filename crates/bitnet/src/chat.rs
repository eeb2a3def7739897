//! A conversation as the text that a model was trained to continue: its own Jinja template.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, Value, context};
use serde::Serialize;

/// Steps that a template may take: a conversation of thousands of turns takes some hundred thousand.
const FUEL: u64 = 2_000_000;

/// A template that cannot be used, or that refuses a conversation.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// It is no Jinja.
    #[error("the chat template is broken: {0}")]
    Broken(String),
    /// It does not take this conversation.
    #[error("the chat template refuses the conversation: {0}")]
    Refused(String),
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// The text.
    pub content: String,
}

/// A template, with the marks that it may write.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: String,
    eos: String,
}

/// The template's name in its environment.
const NAME: &str = "chat";

impl ChatTemplate {
    /// From its source, with the spellings of the marks at a text's beginning and end; empty where there are none.
    ///
    /// Whitespace is treated as by transformers (`utils/chat_template_utils.py`, `trim_blocks`, `lstrip_blocks`), and Python's methods
    /// of strings and lists exist.
    ///
    /// # Errors
    /// [`ChatError::Broken`].
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self, ChatError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| ChatError::Broken(error.to_string()))?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise);
        environment.add_template_owned(NAME, source.to_owned()).map_err(|error| ChatError::Broken(error.to_string()))?;
        Ok(Self { environment, bos: bos.to_owned(), eos: eos.to_owned() })
    }

    /// The text of a conversation, ending where the assistant speaks.
    ///
    /// # Errors
    /// [`ChatError::Refused`].
    pub fn apply(&self, messages: &[Message]) -> Result<String, ChatError> {
        let refused = |error: minijinja::Error| ChatError::Refused(error.to_string());
        let template = self.environment.get_template(NAME).map_err(refused)?;
        let given = context! { messages => Value::from(Serde(messages)), bos_token => self.bos.as_str(), eos_token => self.eos.as_str(), add_generation_prompt => true };
        template.render(given).map_err(refused)
    }
}

/// How a template says that it does not take a conversation.
fn raise(message: String) -> Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(role: &str, content: &str) -> Message {
        Message { role: role.into(), content: content.into() }
    }

    /// In the form that `gpu/tokenizer.py` of microsoft/BitNet writes.
    const TURNS: &str = "{% for message in messages %}{% if loop.first %}{{ bos_token }}{% endif %}\
        {{ message['role'] | capitalize + ': ' + message['content'].strip() + '<|eot_id|>' }}{% endfor %}\
        {% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}";

    #[test]
    fn a_conversation_ends_where_the_assistant_speaks() {
        let template = ChatTemplate::new(TURNS, "<|begin_of_text|>", "<|end_of_text|>").unwrap();
        let turns = [message("system", "Be brief."), message("user", " Hi. "), message("assistant", "Hello."), message("user", "Bye.")];
        let text =
            "<|begin_of_text|>System: Be brief.<|eot_id|>User: Hi.<|eot_id|>Assistant: Hello.<|eot_id|>User: Bye.<|eot_id|>Assistant: ";
        assert_eq!(template.apply(&turns).unwrap(), text);
    }

    #[test]
    fn lines_of_blocks_alone_leave_nothing() {
        let template =
            ChatTemplate::new("{% for m in messages %}\n  {% if true %}\n{{ m.content }}\n  {% endif %}\n{% endfor %}\n", "", "");
        assert_eq!(template.unwrap().apply(&[message("user", "a"), message("user", "b")]).unwrap(), "a\nb\n");
    }

    #[test]
    fn a_template_can_refuse_and_can_be_broken() {
        let template = ChatTemplate::new("{{ raise_exception('roles must alternate') }}", "", "").unwrap();
        let refused = template.apply(&[]).unwrap_err().to_string();
        assert!(refused.contains("roles must alternate"), "{refused}");
        assert!(matches!(ChatTemplate::new("{% for %}", "", ""), Err(ChatError::Broken(_))));
        let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{{ b }}{% endfor %}{% endfor %}";
        assert!(matches!(ChatTemplate::new(endless, "", "").unwrap().apply(&[]), Err(ChatError::Refused(_))));
    }
}
