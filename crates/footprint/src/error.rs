//! Why a configuration has no requirement: it is one that the engine itself refuses.

/// A configuration that the engine refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FootprintError {
    /// A setting that must be above zero.
    #[error("{setting} must be above zero")]
    Zero {
        /// Name of the setting.
        setting: &'static str,
    },
}
