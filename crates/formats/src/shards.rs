//! Names of the files of a split model: `NAME-00002-of-00003.gguf`.

/// The place of one file among the files of a model, as its name states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// The name before the numbers.
    pub stem: String,
    /// This file's number, from 1.
    pub number: u32,
    /// How many files there are.
    pub count: u32,
}

/// Reads the file name (without folders) of a shard; `None` for any other name.
///
/// Pattern: `llama_split_path` of `src/llama.cpp` (llama.cpp v0.6.0-dev), `%s-%05d-of-%05d.gguf`.
///
/// ```
/// let shard = formats::shards::parse("big-00002-of-00003.gguf").unwrap();
/// assert_eq!((shard.number, shard.count), (2, 3));
/// assert_eq!(shard.names().nth(2).unwrap(), "big-00003-of-00003.gguf");
/// assert!(formats::shards::parse("big.gguf").is_none());
/// ```
pub fn parse(file_name: &str) -> Option<Shard> {
    let (rest, count) = file_name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (stem, number) = rest.rsplit_once('-')?;
    let digits =
        |text: &str| -> Option<u32> { (text.len() >= 5 && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())? };
    let (number, count) = (digits(number)?, digits(count)?);
    (1..=count).contains(&number).then(|| Shard { stem: stem.to_owned(), number, count })
}

impl Shard {
    /// Names of all files of the model, in order.
    pub fn names(&self) -> impl Iterator<Item = String> {
        (1..=self.count).map(|number| format!("{}-{number:05}-of-{:05}.gguf", self.stem, self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_names_are_no_shards() {
        for name in [
            "a.gguf",
            "a-1-of-2.gguf",
            "a-00000-of-00002.gguf",
            "a-00003-of-00002.gguf",
            "a-00001-of-00002.bin",
            "00001-of-00002.gguf",
            "a-+0001-of-00002.gguf",
            "a-99999999999-of-99999999999.gguf",
        ] {
            assert_eq!(parse(name), None, "{name}");
        }
        assert_eq!(parse("a-00001-of-00002-00001-of-00001.gguf").unwrap().stem, "a-00001-of-00002");
    }
}
