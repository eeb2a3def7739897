//! The seam at which something else than the CPU computes layers.

/// Why layers could not be computed.
pub type StackError = Box<dyn std::error::Error + Send + Sync>;

/// The last layers of a model, with their own keys and values, on a device. The CPU computes those before them, embeddings and logits.
pub trait Stack: std::fmt::Debug + Send {
    /// How many layers it has.
    fn n_layer(&self) -> usize;

    /// Adds what these layers add to the residual streams `x` of tokens one after the other, the first of them at position `start`. Keys and
    /// values from `start` on are replaced; those before it are the ones of earlier calls.
    ///
    /// # Errors
    /// The device's own. The tokens are not computed then, and the stack may be of no more use.
    fn add(&mut self, start: usize, x: &mut [f32]) -> Result<(), StackError>;
}
