//! Choices that are spelt as words on a command line and in a configuration file.

/// An enum whose variants have one word each: `ALL`, `as_str`, `Display`, and a `FromStr` whose error lists what is possible.
///
/// ```
/// spec::words! {
///     /// A size of shirt.
///     Shirt {
///         /// Up to 170 cm.
///         Small = "small",
///         /// Above.
///         Large = "large",
///     }
/// }
/// assert_eq!("large".parse(), Ok(Shirt::Large));
/// assert_eq!("tiny".parse::<Shirt>(), Err("\"tiny\" is not one of small, large".to_owned()));
/// ```
#[macro_export]
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// Every choice.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// The word for it on the command line and in files.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = String;
            /// The word itself; the error lists what is possible.
            fn from_str(word: &str) -> Result<Self, Self::Err> {
                Self::ALL.iter().copied().find(|choice| choice.as_str() == word).ok_or_else(|| {
                    let choices: Vec<_> = Self::ALL.iter().map(|choice| choice.as_str()).collect();
                    format!("{word:?} is not one of {}", choices.join(", "))
                })
            }
        }
    };
}
