//! The model of a case: a synthetic file's header, read and described as any other.

use spec::Model;
use synthetic::{File, FileType, Options, Vocabulary, gguf, outline, outline_file, preset};

/// The file of `PRESET FILE_TYPE figure=value ...` or `OUTLINE FILE_TYPE n_layer=N`, without a vocabulary: it changes no buffer and takes the engine longest.
pub fn file(name: &str) -> File {
    if let Some(file) = from_outline(name) {
        return file;
    }
    let mut words = name.split_whitespace();
    let mut shape = words.next().and_then(preset).unwrap_or_else(|| panic!("no preset in {name:?}"));
    let file_type: FileType = words.next().unwrap_or_default().parse().unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut options = Options { vocabulary: Vocabulary::None, ..Options::default() };
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or_else(|| panic!("no figure: {word}"));
        if let Ok(ty) = value.parse() {
            options.overrides.push(synthetic::Override { part: key.to_owned(), ty });
        } else {
            shape.set(key, value).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
    gguf(&shape, file_type, &options).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn from_outline(name: &str) -> Option<File> {
    let mut words = name.split_whitespace();
    let mut outline = words.next().and_then(outline)?;
    let file_type: FileType = words.next().unwrap_or_default().parse().unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut options = Options { vocabulary: Vocabulary::None, ..Options::default() };
    for word in words {
        match word.split_once('=') {
            Some(("n_layer", n)) => outline = outline.shortened(n.parse().unwrap_or_else(|_| panic!("{name}: no number: {n}"))),
            Some((part, ty)) => {
                let ty = ty.parse().unwrap_or_else(|_| panic!("{name}: no type: {ty}"));
                options.overrides.push(synthetic::Override { part: part.to_owned(), ty });
            }
            None => panic!("no figure: {word}"),
        }
    }
    Some(outline_file(&outline, file_type, &options).unwrap_or_else(|error| panic!("{name}: {error}")))
}

/// The model of the same name.
pub fn model(name: &str) -> Model {
    let file = file(name);
    let header = formats::gguf::read(&file.header, file.size).unwrap_or_else(|error| panic!("{name}: {error}"));
    formats::describe(&[header]).unwrap_or_else(|error| panic!("{name}: {error}"))
}
